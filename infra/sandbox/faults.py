"""Faults on demand, for gateways of the sandbox: what a provider does on its bad days, chosen at random but repeatably.

What can be done to any HTTP answer is done here, as ASGI middleware: losing it, delaying it, cutting the line, answering 5xx.
What only the gateway itself can do wrong (another amount, a code nobody documented, "too often" in its own words, notifications)
it finds in the scope's state: `fault_of(scope)`.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from time import monotonic
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATH = "/_sandbox/faults"


class Fault(StrEnum):
    ANSWER_LOST = "answer_lost"  # after the money moved
    CUT = "cut"  # before anything happened
    LATE_EFFECT = "late_effect"  # cut, and it happens seconds later, when the caller has long asked and heard of nothing
    SLOW = "slow"
    SERVER_ERROR = "server_error"  # after the money moved, or before: both happen
    WRONG_AMOUNT = "wrong_amount"  # in the answer only; the books are right
    UNKNOWN_CODE = "unknown_code"
    RATE_LIMIT = "rate_limit"
    REPEATED_NOTIFICATION = "repeated_notification"
    DISORDERED_NOTIFICATION = "disordered_notification"


@dataclass
class Faults:
    """`rate` of the requests to one of `kinds`, else none. `delay_s` is how long the gateway takes for every answer, `slow_s` how
    long for a slow one, `late_s` after how long (from, to) a late effect happens: also one that is waited for already, when it is
    set anew. `hang` keeps all answers back until it is taken away. `done` counts what was done, `to_come` the late effects that
    have not happened yet."""

    rate: float = 0.0
    kinds: tuple[Fault, ...] = tuple(Fault)
    seed: int = 0
    delay_s: float = 0.0
    slow_s: float = 3.0
    late_s: tuple[float, float] = (2.0, 4.0)
    hang: bool = False
    done: dict[str, int] = field(default_factory=dict)
    to_come: int = 0

    def __post_init__(self) -> None:
        self._random = Random(self.seed)  # noqa: S311 -- to be repeatable, not unguessable

    def choose(self) -> Fault | None:
        if self.rate <= 0 or self._random.random() >= self.rate:
            return None
        fault = self._random.choice(self.kinds)
        self.done[fault] = self.done.get(fault, 0) + 1
        return fault

    def toss(self) -> bool:
        return self._random.random() < 0.5

    async def wait_until_late(self) -> None:
        share, begun = self._random.random(), monotonic()
        while monotonic() - begun < self.late_s[0] + (self.late_s[1] - self.late_s[0]) * share:
            await asyncio.sleep(0.05)


class FaultyGateway:
    """Around an ASGI application. Its own control page, `PATH`, and everything below `/_sandbox/` are never faulty."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self.faults = faults
        self._late: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/_sandbox/"):
            await self._app(scope, receive, send)
            return
        fault = self.faults.choose()
        scope.setdefault("state", {})["fault"] = fault
        if fault is Fault.CUT:
            await _cut(send)
            return
        if fault is Fault.LATE_EFFECT:
            # First, because the server ends whoever cuts the line.
            task = asyncio.create_task(self._later(scope, await _body(receive)))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
            await _cut(send)
            return
        if fault is Fault.SERVER_ERROR and self.faults.toss():
            await Response("oops", 502)(scope, receive, send)
            return
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        await self._app(scope, receive, keep)
        await asyncio.sleep(self.faults.delay_s + (self.faults.slow_s if fault is Fault.SLOW else 0))
        while self.faults.hang:
            await asyncio.sleep(0.05)
        if fault is Fault.ANSWER_LOST:
            await _cut(send)
        elif fault is Fault.SERVER_ERROR:
            await Response("oops", 502)(scope, receive, send)
        else:
            for message in answer:
                await send(message)

    async def _later(self, scope: Scope, body: bytes) -> None:
        """The request, as if it had been held up on its way; nobody is there any more to hear the answer."""
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            return messages.pop() if messages else {"type": "http.disconnect"}

        async def forget(_: Message) -> None:
            return None

        self.faults.to_come += 1
        try:
            await self.faults.wait_until_late()
            await self._app(scope, receive, forget)
        finally:
            self.faults.to_come -= 1


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def _cut(send: Send) -> None:
    """Less than was announced: the server closes the line in the middle of the answer."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
    await send({"type": "http.response.body", "body": b"{"})


def fault_of(scope: Scope) -> Fault | None:
    fault: Fault | None = scope.get("state", {}).get("fault")
    return fault


def control(gateway: "Faults") -> Route:
    """GET shows the faults, what they did and what is to come; POST {rate, kinds, seed, delay_s, slow_s, late_s, hang} sets those
    given."""

    async def talk(request: Request) -> Response:
        if request.method == "POST":
            set_faults(gateway, await request.json())
        return JSONResponse({name: getattr(gateway, name) for name in (*_SETTABLE, "done", "to_come")})

    return Route(PATH, talk, methods=["GET", "POST"])


_SETTABLE: Collection[str] = ("rate", "kinds", "seed", "delay_s", "slow_s", "late_s", "hang")


def set_faults(faults: Faults, wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        if name not in _SETTABLE:
            raise ValueError(f"{name!r} is none of {', '.join(_SETTABLE)}")
        setattr(faults, name, tuple(Fault(kind) for kind in value) if name == "kinds" else value)
    if "seed" in wanted:
        faults.__post_init__()
