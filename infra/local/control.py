"""Starts and ends the daemon. Every process is named by its id and its start time, so that no stranger is ever ended."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

import psutil

from infra.local.component import tail_of
from infra.local.layout import INFRA, Layout
from infra.local.state import StackState, is_alive, read_state, remove_state

# The first start downloads some 200 MB.
UP_TIMEOUT_SECONDS = 900.0
DOWN_TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.1


class UpFailed(RuntimeError):
    """The stack did not come up. The message holds what is known and the remedy."""


def start_daemon(root: Path, components: Collection[str], with_platform: bool) -> int:
    """Starts the daemon in a session of its own, so that it outlives the terminal. Returns its process id."""
    layout = Layout(root)
    with (layout.log_file("stack")).open("ab") as log:
        arguments = [str(layout.root.resolve()), ",".join(components), "platform" if with_platform else "no-platform"]
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.local.daemon", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=INFRA.parent,
            start_new_session=True,
        )
    # The daemon is meant to outlive this process; nobody here waits for it.
    process.returncode = 0
    return process.pid


def wait_until_up(root: Path, pid: int, on_progress: Callable[[StackState], None]) -> StackState:
    """Waits until the daemon `pid` says that all is ready. Raises `UpFailed`."""
    layout = Layout(root)
    daemon = psutil.Process(pid) if psutil.pid_exists(pid) else None
    deadline = time.monotonic() + UP_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        state = read_state(layout.run)
        if state is not None and state.pid == pid:
            on_progress(state)
            if state.phase == "ready":
                return state
            if state.phase == "failed":
                raise UpFailed(state.message)
        if daemon is None or not is_alive(pid, daemon.create_time()):
            # Of two `up` at the same time one finds the directory taken; it waits for the other's daemon then.
            if state is not None and state.pid != pid and state.daemon_is_alive:
                return wait_until_up(root, state.pid, on_progress)
            raise UpFailed(
                f"The supervising process ended. The end of {layout.log_file('stack')}:\n{tail_of(layout.log_file('stack'))}"
            )
        time.sleep(POLL_SECONDS)
    raise UpFailed(f"Not everything was ready after {UP_TIMEOUT_SECONDS:g} s. See {layout.logs}; end it with `augenblick down`")


def wait_until_down(root: Path) -> None:
    """Waits for a stack that is being stopped by somebody else."""
    deadline = time.monotonic() + DOWN_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        state = read_state(Layout(root).run)
        if state is None or state.phase != "stopping" or not state.daemon_is_alive:
            return
        time.sleep(POLL_SECONDS)


def end_process(pid: int) -> None:
    """Ends a process this one has started, and waits for it."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        process.terminate()
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(DOWN_TIMEOUT_SECONDS)


def shut_down(root: Path) -> list[str]:
    """Ends the daemon and whatever it left. Returns in words what was done; nothing when nothing ran."""
    layout = Layout(root)
    state = read_state(layout.run)
    if state is None:
        remove_state(layout.run)
        return []
    done = []
    if state.daemon_is_alive:
        done.append(_end_daemon(state))
    # Its children die with it; this is for what was started on systems that cannot promise so.
    for record in (read_state(layout.run) or state).processes:
        if is_alive(record.pid, record.created_at):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(record.pid)
                process.kill()
                process.wait(5)
            done.append(f"killed {record.name} (pid {record.pid}), which was left over")
    remove_state(layout.run)
    return done or ["removed the state file of a stack that is not running any more"]


def _end_daemon(state: StackState) -> str:
    daemon = psutil.Process(state.pid)
    daemon.terminate()
    deadline = time.monotonic() + DOWN_TIMEOUT_SECONDS
    while state.daemon_is_alive and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    if not state.daemon_is_alive:
        return f"stopped everything (pid {state.pid})"
    daemon.kill()
    with contextlib.suppress(psutil.TimeoutExpired):
        daemon.wait(5)
    return f"killed the supervising process (pid {state.pid}), which did not end within {DOWN_TIMEOUT_SECONDS:g} s"


def memory_bytes(pid: int | None) -> int | None:
    """Resident memory of a process and all it started, or None when it is gone."""
    if pid is None or pid == os.getpid():
        return None
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return sum(member.memory_info().rss for member in [process, *process.children(recursive=True)])
    return None
