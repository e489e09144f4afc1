"""Starts child processes, keeps them running, and ends them: nothing is lost sight of, nothing is left behind.

Used for the platform's own roles (one process per role) and for the parts of the embedded stack. What it promises:

- a process counts as started when its ready check passes; otherwise `ProcessFailed` says which one, why, and what its log says;
- a process that dies is started again after a pause; one that dies too often is reported as failed and left alone;
- a process never outlives the supervisor, even when the supervisor is killed with SIGKILL (Linux; see `process_launcher`).

Everything here belongs to one event loop and is not thread-safe.
"""

import asyncio
import collections
import contextlib
import datetime
import enum
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

import psutil

logger = logging.getLogger(__name__)

LAUNCHER = Path(__file__).with_name("process_launcher.py")
READY_POLL_SECONDS = 0.05
READY_ATTEMPT_SECONDS = 5.0
LOG_TAIL_LINES = 25
LOG_TAIL_BYTES = 64 * 1024
LOG_ROTATE_BYTES = 16 * 1024 * 1024

ReadyCheck = Callable[[], Awaitable[bool | None]]
"""Says whether the process can do its work: raises or returns False while it cannot. Called again and again until then. What it
raises is shown if it never can."""


class ProcessState(enum.StrEnum):
    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True)
class RestartPolicy:
    """When a process that died is started again. The n-th restart within the window waits the n-th pause; the last repeats."""

    pauses_seconds: tuple[float, ...] = (0.1, 0.5, 1.0, 2.0, 5.0)
    maximum_restarts: int = 6
    window_seconds: float = 60.0

    def pause_before_restart(self, recent_deaths: int) -> float | None:
        """The pause in seconds before the next start, or None when `recent_deaths` within the window are too many."""
        if self.maximum_restarts == 0 or recent_deaths > self.maximum_restarts:
            return None
        if not self.pauses_seconds:
            return 0.0
        return self.pauses_seconds[min(max(recent_deaths, 1), len(self.pauses_seconds)) - 1]


NEVER_RESTART = RestartPolicy(maximum_restarts=0)


@dataclass(frozen=True)
class ProcessSpec:
    """One process to run.

    `environment` is added to the supervisor's own. `ready` is None for a process that is ready as soon as it runs. A process that
    `runs_to_completion` (a migration, say) is ready when it has ended with exit status 0, and must do so within
    `ready_timeout_seconds`. `before_start` is called before every start, restarts included, to clear away what an earlier run
    left; it must be quick. `death_signal` is what Linux sends the process if the supervisor itself dies. `run_as_user` is a
    system user's name and needs root. `remedy` tells a user what to do when the process does not start.
    """

    name: str
    argv: Sequence[str]
    log_file: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    working_directory: Path | None = None
    ready: ReadyCheck | None = None
    ready_timeout_seconds: float = 30.0
    before_start: Callable[[], None] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_seconds: float = 10.0
    death_signal: signal.Signals = signal.SIGKILL
    restart: RestartPolicy = RestartPolicy()
    run_as_user: str | None = None
    runs_to_completion: bool = False
    depends_on: Sequence[str] = ()
    remedy: str = ""


@dataclass(frozen=True)
class ProcessStatus:
    """What is known of one process now. `created_at` (seconds since 1970, as the system counts them) together with `pid` names
    the process for good: a process id alone is used again. `problem` is the last thing that went wrong."""

    name: str
    state: ProcessState
    pid: int | None
    created_at: float | None
    restarts: int
    since: datetime.datetime
    log_file: Path
    problem: str | None


class EventKind(enum.StrEnum):
    READY = "ready"
    DIED = "died"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class ProcessEvent:
    name: str
    kind: EventKind
    detail: str


class ProcessFailed(RuntimeError):
    """A process did not start, or died too often. The message is written for the person at the terminal."""

    def __init__(self, name: str, problem: str, log_file: Path, log_tail: str, remedy: str = "") -> None:
        self.name = name
        self.problem = problem
        self.log_file = log_file
        self.log_tail = log_tail
        self.remedy = remedy
        quoted = "\n".join(f"  | {line}" for line in log_tail.splitlines()) or "  | (nothing was written)"
        advice = remedy or f"Read {log_file}, remove the cause, and start again."
        super().__init__(f"{name} {problem}.\nThe end of its log, {log_file}:\n{quoted}\nWhat to do: {advice}")


def launch_arguments(argv: Sequence[str], *, death_signal: signal.Signals = signal.SIGKILL, user: str | None = None) -> list[str]:
    """The command line that runs `argv` as a child which ends with this process, as `user` if one is named."""
    launcher = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), str(int(death_signal)), user or "-", "--"]
    return [*launcher, *argv]


def log_event(event: ProcessEvent) -> None:
    """The default listener: what went wrong is logged as an error, the rest as information."""
    wrong = event.kind in (EventKind.DIED, EventKind.FAILED)
    logger.log(logging.ERROR if wrong else logging.INFO, "%s %s: %s", event.name, event.kind.value, event.detail)


class Supervisor:
    """Runs any number of processes. Use it as a context manager, so that leaving the block stops them all."""

    def __init__(self, on_event: Callable[[ProcessEvent], None] = log_event) -> None:
        self._on_event = on_event
        self._processes: dict[str, _SupervisedProcess] = {}
        self._failures: asyncio.Queue[ProcessFailed] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def start(self, specs: Iterable[ProcessSpec]) -> None:
        """Starts processes, each as soon as those it depends on are ready, and returns when all are ready.

        If one does not become ready, all that this call started are stopped again and `ProcessFailed` is raised. May be called
        several times, also at the same time; a dependency may have been started by an earlier call.
        """
        specs = list(specs)
        self._check(specs)
        added = {spec.name: _SupervisedProcess(spec, self._on_event, self._failures) for spec in specs}
        self._processes.update(added)
        starts = [asyncio.create_task(self._start_after_dependencies(process)) for process in added.values()]
        try:
            await _all_or_first_error(starts)
        except BaseException:
            await self._stop(list(added.values()))
            raise

    async def stop(self) -> None:
        """Stops every process, those that depend on others first. Never raises for a process that will not end: it is killed."""
        await self._stop(list(self._processes.values()))

    async def stop_process(self, name: str) -> None:
        """Stops one process and leaves it stopped."""
        await self._find(name).stop()

    async def start_process(self, name: str) -> None:
        """Starts a process that was stopped or has failed; returns when it is ready, raises `ProcessFailed` if it will not be."""
        await self._find(name).start()

    async def kill_process(self, name: str, with_signal: signal.Signals = signal.SIGKILL) -> int:
        """Sends a signal to a running process and returns its process id. With SIGKILL it returns when the process is gone.

        The supervisor will start it again. Such a death is not held against the process: it does not count towards "too often".
        """
        return await self._find(name).kill(with_signal)

    def set_large_logs_aside(self, limit_bytes: int = LOG_ROTATE_BYTES) -> None:
        """Copies logs that have grown large to NAME.1 and empties them, while their processes go on writing. Call it now and
        then; what is written between the two steps is lost."""
        for process in self._processes.values():
            path = process.spec.log_file
            if path.exists() and path.stat().st_size > limit_bytes:
                shutil.copyfile(path, path.with_name(path.name + ".1"))
                os.truncate(path, 0)

    async def wait_until_ready(self, name: str, timeout_seconds: float = 30.0) -> None:
        """Waits until a process is ready, for instance after `kill_process`. Raises `ProcessFailed` or TimeoutError."""
        async with asyncio.timeout(timeout_seconds):
            await self._find(name).wait_until_ready()

    async def wait_for_failure(self) -> ProcessFailed:
        """Waits until a process has died too often, and returns (not raises) what is known. Each failure is returned once."""
        return await self._failures.get()

    def processes(self) -> list[ProcessStatus]:
        """All processes, in the order in which they were added."""
        return [process.status() for process in self._processes.values()]

    def status(self, name: str) -> ProcessStatus:
        return self._find(name).status()

    def _find(self, name: str) -> "_SupervisedProcess":
        try:
            return self._processes[name]
        except KeyError:
            known = ", ".join(self._processes) or "none"
            raise KeyError(f"no process is called {name!r}; known: {known}") from None

    def _check(self, specs: list[ProcessSpec]) -> None:
        remaining = {spec.name: set(spec.depends_on) for spec in specs}
        if len(remaining) != len(specs):
            raise ValueError("two processes have the same name")
        for spec in specs:
            existing = self._processes.get(spec.name)
            if existing is not None and existing.running:
                raise ValueError(f"{spec.name} is running already")
            for dependency in spec.depends_on:
                if dependency not in remaining and dependency not in self._processes:
                    raise ValueError(f"{spec.name} depends on {dependency}, which is not known")
        while remaining:
            free = [name for name, dependencies in remaining.items() if not dependencies & remaining.keys()]
            if not free:
                raise ValueError(f"these processes wait for each other: {', '.join(sorted(remaining))}")
            for name in free:
                del remaining[name]

    async def _start_after_dependencies(self, process: "_SupervisedProcess") -> None:
        for dependency in process.spec.depends_on:
            await self._find(dependency).wait_until_ready()
        await process.start()

    async def _stop(self, processes: list["_SupervisedProcess"]) -> None:
        by_name = {process.spec.name: process for process in processes}
        dependants: dict[str, list[str]] = {name: [] for name in by_name}
        for name, process in by_name.items():
            for dependency in process.spec.depends_on:
                dependants.get(dependency, []).append(name)
        stopped = {name: asyncio.Event() for name in by_name}

        async def stop_after_dependants(name: str) -> None:
            try:
                for dependant in dependants[name]:
                    await stopped[dependant].wait()
                await by_name[name].stop()
            finally:
                stopped[name].set()

        # A second Ctrl-C must not cut this short: what has been started would otherwise be ended without its goodbye.
        await asyncio.shield(asyncio.gather(*(stop_after_dependants(name) for name in reversed(by_name))))


class _SupervisedProcess:
    """One process over all its starts. A single task (`_keep`) starts it, watches it and ends it."""

    def __init__(
        self, spec: ProcessSpec, on_event: Callable[[ProcessEvent], None], failures: asyncio.Queue[ProcessFailed]
    ) -> None:
        self.spec = spec
        self._on_event = on_event
        self._failures = failures
        self._state = ProcessState.WAITING
        self._since = _now()
        self._state_changed = asyncio.Event()
        self._stop_wanted = asyncio.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._created_at: float | None = None
        self._gone = asyncio.Event()
        self._restarts = 0
        self._deaths: collections.deque[float] = collections.deque()
        self._death_was_asked_for = False
        self._log_offset = 0
        self._failure: ProcessFailed | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        return self._keeper is not None and not self._keeper.done()

    def status(self) -> ProcessStatus:
        return ProcessStatus(
            name=self.spec.name,
            state=self._state,
            pid=self._process.pid if self._process else None,
            created_at=self._created_at,
            restarts=self._restarts,
            since=self._since,
            log_file=self.spec.log_file,
            problem=self._failure.problem if self._failure else None,
        )

    async def start(self) -> None:
        if not self.running:
            self._stop_wanted.clear()
            self._deaths.clear()
            self._failure = None
            self._enter(ProcessState.STARTING)
            self._keeper = asyncio.create_task(self._keep(), name=f"supervise {self.spec.name}")
        await self.wait_until_ready()

    async def wait_until_ready(self) -> None:
        while self._state not in (ProcessState.READY, ProcessState.COMPLETED):
            if self._state is ProcessState.FAILED and self._failure:
                raise self._failure
            if self._state is ProcessState.STOPPED:
                raise ProcessFailed(self.spec.name, "is stopped", self.spec.log_file, self._log_tail(), "Start it again.")
            await self._state_changed.wait()

    async def stop(self) -> None:
        if self._keeper is not None:
            self._stop_wanted.set()
            await asyncio.wait([self._keeper])
        if self._state not in (ProcessState.FAILED, ProcessState.COMPLETED):
            self._enter(ProcessState.STOPPED)

    async def kill(self, with_signal: signal.Signals) -> int:
        process, gone = self._process, self._gone
        if process is None:
            raise ProcessFailed(self.spec.name, f"is {self._state.value}, so there is nothing to kill", self.spec.log_file, "")
        # Only the keeper reaps the process, in this same loop, so its id cannot have passed to another process yet.
        os.kill(process.pid, with_signal)
        if with_signal is signal.SIGKILL:
            self._death_was_asked_for = True
            await gone.wait()
        return process.pid

    async def _keep(self) -> None:
        try:
            has_been_ready = False
            while True:
                problem = await self._run_once()
                has_been_ready = has_been_ready or self._state is ProcessState.READY
                if self._stop_wanted.is_set():
                    self._enter(ProcessState.STOPPED)
                    self._tell(EventKind.STOPPED, "stopped as asked")
                    return
                if problem is None:
                    self._enter(ProcessState.COMPLETED)
                    return
                pause = self._pause_after_death() if has_been_ready else None
                if pause is None:
                    self._fail(problem if not has_been_ready else self._too_often(problem), report=has_been_ready)
                    return
                self._restarts += 1
                self._enter(ProcessState.RESTARTING)
                self._tell(EventKind.DIED, f"{problem}; starting it again in {pause:g} s. Its log: {self.spec.log_file}")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop_wanted.wait(), pause)
                if self._stop_wanted.is_set():
                    self._enter(ProcessState.STOPPED)
                    return
        except OSError as error:
            self._fail(f"could not be started: {error}", report=True)

    async def _run_once(self) -> str | None:
        """Runs the process until it ends. Returns what went wrong, or None when it ended as it should."""
        process = self._spawn()
        exit_seen = asyncio.create_task(_wait_for_exit(process))
        stop_wanted = asyncio.create_task(self._stop_wanted.wait())
        ready = asyncio.create_task(self._until_ready())
        problem: str | None = None
        try:
            await asyncio.wait([exit_seen, stop_wanted, ready], return_when=asyncio.FIRST_COMPLETED)
            if ready.done() and not exit_seen.done() and not stop_wanted.done():
                problem = ready.result()
                if problem is None:
                    self._enter(ProcessState.READY)
                    self._tell(EventKind.READY, f"pid {process.pid}")
                    await asyncio.wait([exit_seen, stop_wanted], return_when=asyncio.FIRST_COMPLETED)
            if not exit_seen.done():
                await self._end(process, exit_seen)
        finally:
            for task in (ready, stop_wanted, exit_seen):
                task.cancel()
            await asyncio.gather(ready, stop_wanted, exit_seen, return_exceptions=True)
            # The process is dead or about to be, but not reaped: its group cannot have been given to anyone else yet.
            _kill_group(process.pid)
            status = process.wait()
            self._process = None
            self._created_at = None
            self._gone.set()
        if problem is None and not (self.spec.runs_to_completion and status == 0):
            problem = _describe_exit(status)
        return problem

    def _spawn(self) -> subprocess.Popen[bytes]:
        spec = self.spec
        self._gone = asyncio.Event()
        self._death_was_asked_for = False
        if self._state is not ProcessState.STARTING:
            self._enter(ProcessState.STARTING)
        if spec.before_start is not None:
            spec.before_start()
        with _open_log(spec.log_file) as log:
            log.write(f"--- {_now():%Y-%m-%dT%H:%M:%SZ} starting {spec.name}\n".encode())
            self._log_offset = log.tell()
            process = subprocess.Popen(
                launch_arguments(spec.argv, death_signal=spec.death_signal, user=spec.run_as_user),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=spec.working_directory,
                env={**os.environ, **spec.environment},
                start_new_session=True,
            )
        self._process = process
        self._created_at = psutil.Process(process.pid).create_time()
        return process

    async def _until_ready(self) -> str | None:
        """Returns None when the process is ready, or in words why it is not within its time."""
        if self.spec.runs_to_completion:
            await asyncio.sleep(self.spec.ready_timeout_seconds)
            return f"had not finished after {self.spec.ready_timeout_seconds:g} s"
        if self.spec.ready is None:
            return None
        last_error = "no answer"
        deadline = time.monotonic() + self.spec.ready_timeout_seconds
        while time.monotonic() < deadline:
            try:
                async with asyncio.timeout(READY_ATTEMPT_SECONDS):
                    answer = await self.spec.ready()
                if answer is not False:
                    return None
            except TimeoutError:
                last_error = f"no answer within {READY_ATTEMPT_SECONDS:g} s"
            except Exception as error:
                last_error = str(error) or type(error).__name__
            await asyncio.sleep(READY_POLL_SECONDS)
        return f"was not ready within {self.spec.ready_timeout_seconds:g} s ({last_error})"

    async def _end(self, process: subprocess.Popen[bytes], exit_seen: asyncio.Task[None]) -> None:
        was_ready = self._state is ProcessState.READY
        if self._stop_wanted.is_set():
            self._enter(ProcessState.STOPPING)
        os.kill(process.pid, self.spec.stop_signal)
        # A process that never got ready has nothing to finish; do not let it hold up the error message.
        patience = self.spec.stop_timeout_seconds if was_ready else min(2.0, self.spec.stop_timeout_seconds)
        await asyncio.wait([exit_seen], timeout=patience)
        if not exit_seen.done():
            logger.warning("%s did not end within %g s of %s and is killed", self.spec.name, patience, self.spec.stop_signal.name)
            _kill_group(process.pid)
            await asyncio.wait([exit_seen])

    def _pause_after_death(self) -> float | None:
        now = time.monotonic()
        if not self._death_was_asked_for:
            self._deaths.append(now)
        while self._deaths and now - self._deaths[0] > self.spec.restart.window_seconds:
            self._deaths.popleft()
        return self.spec.restart.pause_before_restart(len(self._deaths))

    def _too_often(self, problem: str) -> str:
        times = len(self._deaths)
        if times <= 1:
            return f"{problem} and is not restarted"
        return f"{problem}, the {times}. time within {self.spec.restart.window_seconds:g} s, and is not restarted any more"

    def _fail(self, problem: str, *, report: bool) -> None:
        """`report` is False for a first start: then the caller of `start` gets the error."""
        failure = ProcessFailed(self.spec.name, problem, self.spec.log_file, self._log_tail(), self.spec.remedy)
        self._failure = failure
        self._enter(ProcessState.FAILED)
        if report:
            self._failures.put_nowait(failure)
            self._tell(EventKind.FAILED, str(failure))

    def _log_tail(self) -> str:
        try:
            with self.spec.log_file.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_offset, end - LOG_TAIL_BYTES))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def _enter(self, state: ProcessState) -> None:
        self._state = state
        self._since = _now()
        self._state_changed.set()
        self._state_changed = asyncio.Event()

    def _tell(self, kind: EventKind, detail: str) -> None:
        self._on_event(ProcessEvent(self.spec.name, kind, detail))


async def _all_or_first_error(tasks: list[asyncio.Task[None]]) -> None:
    try:
        for finished in asyncio.as_completed(tasks):
            await finished
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _wait_for_exit(process: subprocess.Popen[bytes]) -> None:
    """Returns when the process has ended. On Linux it is left unreaped, so that its id and group stay its own for the moment."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        while process.poll() is None:
            await asyncio.sleep(READY_POLL_SECONDS)
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _kill_group(leader_pid: int) -> None:
    """Kills what a process has started itself, Triton's Python workers for instance."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader_pid, signal.SIGKILL)


def _describe_exit(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def _open_log(path: Path) -> BinaryIO:
    """Opens a log for appending, unbuffered. One that has grown large is set aside once, as NAME.1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_ROTATE_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    return cast(BinaryIO, path.open("ab", buffering=0))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
