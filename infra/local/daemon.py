"""Runs the stack and the platform until it is told to end, and keeps the state file true. Started by `augenblick up`.

python -m infra.local.daemon ROOT COMPONENT[,COMPONENT…] platform|no-platform
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Collection
from pathlib import Path

import psutil

from infra.local.layout import Layout
from infra.local.stack import LocalStack, StackRunning
from infra.local.state import AddressRecord, Phase, ProcessRecord, StackState, write_state
from streams.core.supervisor import ProcessEvent, log_event

STATE_INTERVAL_SECONDS = 0.5

logger = logging.getLogger("infra.local.daemon")


class Daemon:
    """`on_ready` is called once with the state when everything runs."""

    def __init__(
        self, root: Path, components: Collection[str], with_platform: bool, on_ready: Callable[[StackState], None] | None = None
    ) -> None:
        self._layout = Layout(root)
        self._stack = LocalStack(root, components=components, on_event=self._on_event)
        self._with_platform = with_platform
        self._on_ready = on_ready
        self._phase: Phase = "starting"
        self._message = ""

    async def run(self) -> int:
        """Returns the exit status: 0 after being told to end, 1 when something did not start."""
        work = asyncio.ensure_future(self._work())
        loop = asyncio.get_running_loop()
        for ending in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(ending, self._end, work)
        try:
            await work
        except asyncio.CancelledError:
            return 0
        except StackRunning as error:
            # The state file is the other daemon's.
            logger.critical("%s", error)
            return 1
        except Exception as error:
            self._phase, self._message = "failed", str(error) or type(error).__name__
            logger.critical("%s", self._message, exc_info=not str(error))
            self._write_state()
            return 1
        return 0

    async def _work(self) -> None:
        async with contextlib.AsyncExitStack() as held:
            writing = asyncio.create_task(self._keep_state_true())
            held.callback(writing.cancel)
            await held.enter_async_context(self._stack)
            if self._with_platform:
                await self._stack.start_platform()
            self._phase = "ready"
            self._write_state()
            if self._on_ready:
                self._on_ready(self._state())
            await writing

    async def _keep_state_true(self) -> None:
        while True:
            self._write_state()
            self._stack.supervisor.set_large_logs_aside()
            await asyncio.sleep(STATE_INTERVAL_SECONDS)

    def _end(self, work: "asyncio.Future[None]") -> None:
        # Once only: a second signal must not cut the orderly stop short.
        if self._phase != "stopping":
            self._phase = "stopping"
            self._write_state()
            work.cancel()

    def _on_event(self, event: ProcessEvent) -> None:
        log_event(event)
        self._write_state()

    def _write_state(self) -> None:
        if self._stack.directory_was_ours:
            write_state(self._layout.run, self._state())

    def _state(self) -> StackState:
        ready = self._phase == "ready"
        return StackState(
            pid=os.getpid(),
            created_at=psutil.Process().create_time(),
            phase=self._phase,
            message=self._message,
            notes=self._stack.notes,
            environment=self._stack.environment if ready else {},
            addresses=[AddressRecord(**vars(address)) for address in self._stack.addresses] if ready else [],
            processes=[
                ProcessRecord(
                    name=status.name,
                    state=status.state.value,
                    pid=status.pid,
                    created_at=status.created_at,
                    restarts=status.restarts,
                    since=status.since.isoformat(timespec="seconds"),
                    log_file=str(status.log_file),
                    problem=status.problem,
                )
                for status in self._stack.supervisor.processes()
            ],
        )


def main() -> None:
    root, components, platform = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    sys.exit(asyncio.run(Daemon(Path(root), components.split(","), platform == "platform").run()))


if __name__ == "__main__":
    main()
