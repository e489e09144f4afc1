"""A lock between processes that the operating system gives back when its holder dies, however it dies."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Locked(RuntimeError):
    """Somebody else holds the lock."""


@contextmanager
def file_lock(path: Path, wait_seconds: float) -> Iterator[None]:
    """Holds the lock on `path` for the block. Waits for it up to `wait_seconds`, then raises `Locked`. Blocks the thread."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_seconds
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Locked(f"{path} is held by another process") from None
                time.sleep(0.1)
        # Closing the file gives the lock back. The file stays: removing it would let two holders lock two different files.
        yield
