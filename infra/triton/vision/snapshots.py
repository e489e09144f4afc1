"""A catalogue's snapshot as the matcher sees it: a directory that the platform wrote once and nobody changes.

    <directory>/<name>/manifest.json   {"format": 1, "matcher": …, "embedder": … | null, "sha256": of features.bin,
                                        "products": [{"product_id", "picture", "offset", "length"}, …]}
    <directory>/<name>/features.bin    what `Features.to_bytes` made, one after the other

`features.bin` is mapped, not read. What a snapshot holds is checked once, when it is opened.
"""

import hashlib
import json
import mmap
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Generic, TypeVar

from .features import Features

FORMAT = 1
NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
RETRY_AFTER_S = 30.0
"""What could not be made beside whoever serves is tried again so long after."""
T = TypeVar("T")


class SnapshotRefused(ValueError):
    """This snapshot cannot be used. The message names it and says why; it holds no path."""


@dataclass(frozen=True)
class Entry:
    """One picture of one product. Several entries may have one `product_id`. `picture` is the picture's SHA-256."""

    product_id: str
    picture: str
    offset: int
    length: int


@dataclass(frozen=True, eq=False)
class Snapshot:
    """`embedder` is None where the features carry no embedding."""

    name: str
    matcher: str
    embedder: str | None
    entries: tuple[Entry, ...]
    sha256: str
    directory: Path
    blobs: memoryview

    def __len__(self) -> int:
        return len(self.entries)

    def features(self, index: int) -> Features:
        """Of the entry at `index`; looks into the mapped file. Raises SnapshotRefused where the bytes are no features."""
        entry = self.entries[index]
        try:
            return Features.from_bytes(self.blobs[entry.offset : entry.offset + entry.length])
        except ValueError as error:
            raise SnapshotRefused(f"snapshot {self.name}, entry {index}: {error}") from None


def open_snapshot(
    directory: Path, name: str, *, matcher: str, embedder: str | None = None, any_embedder_up_to: int = 0
) -> Snapshot:
    """Opens and checks it. Raises SnapshotRefused where it is missing or damaged, or was made by another matcher or embedder. Of
    `any_embedder_up_to` entries none is chosen by its embedding, whoever made it."""
    if not NAME.fullmatch(name):
        raise SnapshotRefused("a snapshot's name has 1 to 100 letters, digits, - and _")
    place = directory / name
    try:
        manifest = json.loads((place / "manifest.json").read_bytes())
        blobs = _mapped(place / "features.bin")
    except OSError:
        raise SnapshotRefused(f"snapshot {name} is not there") from None
    except ValueError:
        raise SnapshotRefused(f"snapshot {name}: its manifest is no JSON") from None
    try:
        if manifest["format"] != FORMAT:
            raise SnapshotRefused(f"snapshot {name} has format {manifest['format']!r}, not {FORMAT}")
        if manifest["matcher"] != matcher:
            raise SnapshotRefused(f"snapshot {name} was made by matcher {manifest['matcher']!r}, this is {matcher!r}")
        if manifest["embedder"] != embedder and len(manifest["products"]) > any_embedder_up_to:
            raise SnapshotRefused(f"snapshot {name} was made with embedder {manifest['embedder']!r}, this is {embedder!r}")
        entries = tuple(_entry(product) for product in manifest["products"])
        sha256 = str(manifest["sha256"])
    except (KeyError, TypeError):
        raise SnapshotRefused(f"snapshot {name}: its manifest is not of the form that format {FORMAT} has") from None
    if hashlib.sha256(blobs).hexdigest() != sha256:
        raise SnapshotRefused(f"snapshot {name}: its features are damaged (another SHA-256)")
    if any(entry.offset < 0 or entry.length <= 0 or entry.offset + entry.length > len(blobs) for entry in entries):
        raise SnapshotRefused(f"snapshot {name}: its manifest points outside its features")
    return Snapshot(name, matcher, manifest["embedder"], entries, sha256, place, blobs)


def features_bytes(directory: Path, name: str) -> int:
    """How much there is to read before it is open; 0 where it is not there."""
    try:
        return (directory / name / "features.bin").stat().st_size if NAME.fullmatch(name) else 0
    except OSError:
        return 0


def _entry(product: dict[str, Any]) -> Entry:
    entry = Entry(product["product_id"], product["picture"], product["offset"], product["length"])
    if [type(value) for value in (entry.product_id, entry.picture, entry.offset, entry.length)] != [str, str, int, int]:
        raise TypeError
    return entry


def _mapped(path: Path) -> memoryview:
    """The file's bytes. They stay readable after the file has been removed, for as long as anybody holds them."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return memoryview(b"")  # an empty file cannot be mapped
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


class LatestUsed(Generic[T]):
    """Keeps the `keep` values used last, by name; makes one where it is not kept. Safe to use from several threads: one of them
    makes the value while the others who want it wait. What `make` raises is raised, and nothing is kept of it."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._values: OrderedDict[str, T] = OrderedDict()
        self._making: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def kept(self, name: str) -> T | None:
        """Counts as use."""
        with self._lock:
            if name in self._values:
                self._values.move_to_end(name)
            return self._values.get(name)

    def get(self, name: str, make: Callable[[], T]) -> T:
        with self._lock:
            if name in self._values:
                self._values.move_to_end(name)
                return self._values[name]
            making = self._making.setdefault(name, threading.Lock())
        with making:
            with self._lock:
                if name in self._values:
                    return self._values[name]
            try:
                value = make()
            finally:
                with self._lock:
                    self._making.pop(name, None)
            with self._lock:
                self._values[name] = value
                while len(self._values) > self._keep:
                    self._values.popitem(last=False)
            return value


class _Work(Generic[T]):
    """`failure` is what it was that failed, once somebody was told."""

    def __init__(self, maker: ThreadPoolExecutor, make: Callable[[], T]) -> None:
        self._make = make
        self.failed_at: float | None = None
        self.failure: str | None = None
        self.future = maker.submit(self._made)

    def _made(self) -> T:
        try:
            return self._make()
        except BaseException:
            self.failed_at = monotonic()
            raise


class Beside(Generic[T]):
    """Makes values beside whoever serves, one at a time, and keeps the `keep` used last, by name. Safe to use from several
    threads."""

    def __init__(self, keep: int, thread_name: str) -> None:
        self._keep = keep
        self._works: OrderedDict[str, _Work[T]] = OrderedDict()
        self._lock = threading.Lock()
        self._maker = ThreadPoolExecutor(1, thread_name_prefix=thread_name)

    def get(self, name: str, make: Callable[[], T], wait_s: float | None = 0.0) -> T | None:
        """None while it is being made after `wait_s` (None: however long it takes). What `make` raised is raised here, once;
        for `RETRY_AFTER_S` then SnapshotRefused with its type's name. Whoever waits however long it takes has it tried again."""
        work = self._work(name, make, again=wait_s is None)
        if not wait([work.future], timeout=wait_s).done:
            return None
        if work.failure is not None:
            # Not the error itself: with each time it is raised it would hold more of the frames that asked.
            raise SnapshotRefused(work.failure)
        error = work.future.exception()
        if error is not None:
            work.failure = str(error) if isinstance(error, SnapshotRefused) else f"{name} cannot be used: {type(error).__name__}"
        return work.future.result()

    def _work(self, name: str, make: Callable[[], T], *, again: bool) -> _Work[T]:
        with self._lock:
            work = self._works.get(name)
            failed_at = work.failed_at if work else None
            if work is None or (failed_at is not None and (again or monotonic() > failed_at + RETRY_AFTER_S)):
                work = self._works[name] = _Work(self._maker, make)
            self._works.move_to_end(name)
            while len(self._works) > self._keep:
                self._works.popitem(last=False)[1].future.cancel()
            return work

    def close(self) -> None:
        self._maker.shutdown(wait=False, cancel_futures=True)
