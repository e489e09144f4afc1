"""What goes wrong in a drill, while wearers pay: roles are killed, Kafka and PostgreSQL are killed and made to stand still, the
payment provider hangs, is cut off, is slow, and is started again. When each of it happens follows the purchases, by chance."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from time import perf_counter
from typing import Any

import psutil

from infra.sandbox import proxy
from infra.sandbox.faults import Fault
from schemas.errors import AugenblickError
from streams.core.supervisor import ProcessFailed, Supervisor

KILLABLE = ("sightings", "offers", "intents", "payments", "janitor", "webhooks", "dispatcher", "relay")

_BACK_WITHIN_S = 60.0
_STANDS_STILL_S = (1.0, 3.0)
_HANGS_S = (1.0, 3.0)
_SLOW_S = 3.0
_SLOWER_BY_S = 0.7


@dataclass(frozen=True)
class Disturbance:
    """`what` happened to whom; `back_s`: how long it took until it worked again."""

    whom: str
    what: str
    back_s: float


class Gone(AugenblickError):
    """What was killed does not come back."""


class Purchases:
    """How many there were; others wait for them."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self.count = 0

    async def one_more(self) -> None:
        async with self._changed:
            self.count += 1
            self._changed.notify_all()

    async def reach(self, count: float) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.count >= count)


@dataclass(frozen=True)
class Line:
    """To the provider: `process` and `address` are of whatever stands at our end of it, the provider's gateway or a proxy.
    `usual` are the faults that are always on, `done` those that were done before it was started again."""

    process: str
    address: str
    usual: dict[str, Any]
    kinds: Sequence[Fault]
    done: Counter[str] = field(default_factory=Counter)

    async def faults_done(self) -> dict[str, int]:
        return dict(self.done + Counter((await proxy.read_faults(self.address))["done"]))

    async def set_faults(self, **wanted: Any) -> None:
        await proxy.set_faults(self.address, **wanted)

    async def as_usual(self) -> None:
        await self.set_faults(**self.usual, kinds=list(self.kinds), delay_s=0.0, hang=False)


class Disturber:
    """Disturbs at random moments until all was done and everybody is back; nobody again before that. `tell` hears of it."""

    def __init__(self, supervisor: Supervisor, purchases: Purchases, random: Random, tell: Callable[[str], None]) -> None:
        self._supervisor = supervisor
        self._purchases = purchases
        self._random = random
        self._tell = tell
        self._locks: dict[str, asyncio.Lock] = {}
        self._away: set[str] = set()
        self._somebody_back = asyncio.Condition()
        self.done: list[Disturbance] = []

    def count(self, what: str, *whom: str) -> int:
        return sum(each.what == what and (not whom or each.whom in whom) for each in self.done)

    async def run(self, payments: int, *, kills: int, servers: dict[str, int], line: Line, troubles: int) -> None:
        """`kills` of roles; `servers` says how often each of them is killed, and made to stand still; `troubles` is how often
        each thing happens on the line to the provider. Raises Gone."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._spread(payments, kills, self._kill_some_role))
            for server, restarts in servers.items():
                tasks.create_task(self._spread(payments, restarts, self._of(self._kill, server)))
                tasks.create_task(self._spread(payments, restarts, self._of(self._freeze, server)))
            for trouble in (self._hang, self._cut, self._slow):
                tasks.create_task(self._spread(payments, troubles, self._of(trouble, line)))
            if troubles:
                tasks.create_task(self._spread(payments, 1, self._of(self._restart, line)))

    @staticmethod
    def _of(do: Callable[[Any], Awaitable[None]], whom: Any) -> Callable[[], Awaitable[None]]:
        return lambda: do(whom)

    async def _spread(self, payments: int, times: int, do: Callable[[], Awaitable[None]]) -> None:
        """At random moments of the purchases, some of them at once."""
        moments = sorted(self._random.uniform(0, payments * 0.95) for _ in range(times))
        async with asyncio.TaskGroup() as tasks:
            for moment in moments:
                await self._purchases.reach(moment)
                # Not always right after a purchase.
                await asyncio.sleep(self._random.uniform(0, 0.3))
                tasks.create_task(_awaited(do))

    # Roles.

    async def _kill_some_role(self) -> None:
        async with self._somebody_back:
            await self._somebody_back.wait_for(lambda: len(self._away) < len(KILLABLE))
            role = self._random.choice([role for role in KILLABLE if role not in self._away])
            self._away.add(role)
        try:
            await self._kill(role)
        finally:
            async with self._somebody_back:
                self._away.discard(role)
                self._somebody_back.notify_all()

    async def _kill(self, name: str) -> None:
        async with self._disturbing(name, "killed"):
            await self._ready(name)  # it may be on its way back from a crash of its own
            with suppress(ProcessFailed):
                await self._supervisor.kill_process(name)
            await self._ready(name)

    async def _ready(self, name: str) -> None:
        started = perf_counter()
        while perf_counter() - started < _BACK_WITHIN_S:
            try:
                await self._supervisor.wait_until_ready(name, _BACK_WITHIN_S)
            except TimeoutError:
                break
            except ProcessFailed:
                # It died too often while what it needs was away, and is left alone: what an operator would do then.
                with suppress(ProcessFailed):
                    await self._supervisor.start_process(name)
            else:
                return
        log = self._supervisor.status(name).log_file
        raise Gone(f"{name} was killed and is not back after {_BACK_WITHIN_S:g} s. Its log: {log}")

    # Servers.

    async def _freeze(self, name: str) -> None:
        """It keeps its connections, and answers nobody."""
        async with self._disturbing(name, "stood still"):
            await self._ready(name)
            stopped: list[psutil.Process] = []
            try:
                for process in self._family(name):
                    with suppress(psutil.NoSuchProcess):
                        process.send_signal(signal.SIGSTOP)
                        stopped.append(process)
                await asyncio.sleep(self._random.uniform(*_STANDS_STILL_S))
            finally:
                for process in reversed(stopped):
                    with suppress(psutil.NoSuchProcess):
                        process.send_signal(signal.SIGCONT)
            await self._ready(name)

    def _family(self, name: str) -> list[psutil.Process]:
        pid = self._supervisor.status(name).pid
        if pid is None:
            return []
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]

    # The provider.

    async def _hang(self, line: Line) -> None:
        async with self._disturbing(line.process, "hung"):
            await line.set_faults(hang=True)
            await asyncio.sleep(self._random.uniform(*_HANGS_S))
            await line.as_usual()

    async def _cut(self, line: Line) -> None:
        async with self._disturbing(line.process, "was cut off"):
            await line.set_faults(rate=1.0, kinds=[Fault.CUT])
            await asyncio.sleep(self._random.uniform(*_HANGS_S))
            await line.as_usual()

    async def _slow(self, line: Line) -> None:
        async with self._disturbing(line.process, "was slow"):
            await line.set_faults(delay_s=_SLOWER_BY_S)
            await asyncio.sleep(_SLOW_S)
            await line.as_usual()

    async def _restart(self, line: Line) -> None:
        async with self._disturbing(line.process, "was started again"):
            line.done.update(await line.faults_done())
            await self._supervisor.stop_process(line.process)
            await self._supervisor.start_process(line.process)
            await line.as_usual()

    @asynccontextmanager
    async def _disturbing(self, whom: str, what: str) -> AsyncIterator[None]:
        async with self._locks.setdefault(whom, asyncio.Lock()):
            started = perf_counter()
            yield
            self.done.append(Disturbance(whom, what, perf_counter() - started))
        self._tell(f"{whom} {what}{' and is back' if what == 'killed' else ''} after {self.done[-1].back_s:.1f} s")


async def _awaited(do: Callable[[], Awaitable[None]]) -> None:
    await do()
