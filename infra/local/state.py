"""What the supervising daemon says about itself: one JSON file, read by `up`, `down`, `status` and `doctor`.

It holds the database's password, so only its owner may read it.
"""

import contextlib
import os
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel, ValidationError

FILE_NAME = "stack.json"
Phase = Literal["starting", "ready", "failed", "stopping"]


class ProcessRecord(BaseModel):
    """`created_at` is in seconds since 1970 as the system counts them; with `pid` it names the process for good."""

    name: str
    state: str
    pid: int | None
    created_at: float | None
    restarts: int
    since: str
    log_file: str
    problem: str | None


class AddressRecord(BaseModel):
    component: str
    what: str
    address: str


class StackState(BaseModel):
    pid: int
    created_at: float
    phase: Phase
    message: str = ""
    notes: list[str] = []
    environment: dict[str, str] = {}
    addresses: list[AddressRecord] = []
    processes: list[ProcessRecord] = []

    @property
    def daemon_is_alive(self) -> bool:
        return is_alive(self.pid, self.created_at)


def is_alive(pid: int | None, created_at: float | None) -> bool:
    """Whether the process with this id is still the one that was meant, and not a later one with the same id."""
    if pid is None or created_at is None:
        return False
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created_at) < 0.05 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def write_state(run_directory: Path, state: StackState) -> None:
    unfinished = run_directory / f".{FILE_NAME}.{os.getpid()}"
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(state.model_dump_json(indent=2) + "\n")
    unfinished.replace(run_directory / FILE_NAME)


def read_state(run_directory: Path) -> StackState | None:
    """None when no daemon has written anything, or when it cannot be understood."""
    try:
        return StackState.model_validate_json((run_directory / FILE_NAME).read_bytes())
    except (OSError, ValidationError):
        return None


def remove_state(run_directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        (run_directory / FILE_NAME).unlink()


def running_environment(root: Path) -> dict[str, str] | None:
    """The environment of the stack that `augenblick up` runs in `root`, or None when it runs none that is ready."""
    state = read_state(root / "run")
    if state is None or state.phase != "ready" or not state.daemon_is_alive:
        return None
    return state.environment
