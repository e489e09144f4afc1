"""Glasses that pay, one purchase after the other, and do not give up: a new frame where no answer came, and the same event once
more where no acceptance came, as devices in the field do it. Who is told that it is not known yet whether a payment went through
shops on, and listens for what becomes of it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from time import perf_counter

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from infra.sandbox.books import Approval
from infra.sandbox.glasses import Glasses, LinkLost, Message
from infra.sandbox.world import Device
from schemas.errors import AugenblickError
from schemas.ids import EventId
from schemas.payments import SETTLED_STATES, PaymentState

_ANSWERED_WITHIN_S = 5.0
_ACCEPTED_WITHIN_S = 3.0
_PROPOSED_WITHIN_S = 30.0
_TOLD_WITHIN_S = 75.0
_UNKNOWN_FOR_S = 8.0
_PURCHASE_S = 240.0
_BLINK_S = 0.2
_FOR_EVER_S = 3600.0
_DEAF = 0.05
"""How often an acceptance is not heard, and the event therefore sent again."""

_FOR_THE_MOMENT = {"unavailable", "overloaded"}
# Refusals of what has become too old meanwhile: another look begins the purchase anew.
_LOOK_AGAIN = {"offer-expired", "proposal-closed", "proposal-expired", "approval-expired", "intent-stale"}


class PurchaseFailed(AugenblickError):
    """The platform did not let a wearer buy what every wearer may buy."""


@dataclass
class Tally:
    """What the shoppers did, all together."""

    purchases: int = 0
    unknown_at_first: int = 0
    glances: int = 0
    repeated_events: int = 0
    reconnections: int = 0
    glance_to_paid_s: list[float] = field(default_factory=list)


class Shopper:
    """`approvals` and `tally` are shared by all shoppers; `bought` is awaited after each purchase, with its approval. `over` is
    when no more news can come."""

    def __init__(
        self,
        gateway: str,
        device: Device,
        frames: Sequence[bytes],
        random: Random,
        approvals: list[Approval],
        tally: Tally,
        bought: Callable[[Approval], Awaitable[None]],
        over: asyncio.Event,
    ) -> None:
        self._gateway = gateway
        self._device = device
        self._frames = frames
        self._random = random
        self._approvals = approvals
        self._tally = tally
        self._bought = bought
        self._over = over
        self._untold: list[Approval] = []

    async def shop(self, turns: Iterator[int]) -> None:
        """As long as there are turns, and then until `over`. Raises PurchaseFailed."""
        turn = next(turns, None)
        connected_at = perf_counter()
        while turn is not None or self._untold:
            try:
                async with Glasses.connected(self._gateway, self._device.id, self._device.key) as glasses:
                    connected_at = perf_counter()
                    await self._insist(glasses, "wear.changed", {"state": "worn"})
                    while turn is not None:
                        await self._purchase(glasses)
                        turn = next(turns, None)
                    await self._hear_the_rest(glasses)
            except (LinkLost, ConnectionClosed):
                self._tally.reconnections += 1
                for approval in self._untold:
                    approval.missed = True
                self._untold.clear()
            except (OSError, InvalidHandshake):
                if perf_counter() - connected_at > _PURCHASE_S:
                    raise PurchaseFailed(f"{self._device.id} could not connect for {_PURCHASE_S:g} s") from None
                await asyncio.sleep(_BLINK_S)

    async def _hear_the_rest(self, glasses: Glasses) -> None:
        """What became of the payments of which it was not known."""
        if self._untold:
            waiting = asyncio.create_task(
                glasses.expect(lambda message: False, timeout_s=_FOR_EVER_S, after=len(glasses.received))
            )
            over = asyncio.create_task(self._over.wait())
            try:
                await asyncio.wait([waiting, over], return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    await waiting  # the link is lost
            finally:
                waiting.cancel()
                over.cancel()
        for approval in list(self._untold):
            await self._hear(glasses, approval, _ANSWERED_WITHIN_S, although_unknown=True)
            self._untold.remove(approval)

    async def _purchase(self, glasses: Glasses) -> None:
        try:
            async with asyncio.timeout(_PURCHASE_S):
                while not await self._buy(glasses):
                    pass
        except TimeoutError:
            raise PurchaseFailed(f"{self._device.id} could not buy anything for {_PURCHASE_S:g} s") from None
        self._tally.purchases += 1

    async def _buy(self, glasses: Glasses) -> bool:
        """One try, from the glance on; False where it came to nothing and the wearer has to look again."""
        started = perf_counter()
        proposed = await self._propose(glasses, await self._look(glasses))
        if proposed is None:
            return False
        approval = await self._approve(glasses, proposed)
        if approval.refused:
            return False
        if approval.told is not None:
            self._tally.glance_to_paid_s.append(perf_counter() - started)
        await self._bought(approval)
        return True

    async def _look(self, glasses: Glasses) -> Message:
        """Offers, after as many glances as it takes."""
        while True:
            self._tally.glances += 1
            with suppress(TimeoutError):
                answer = await glasses.look(self._random.choice(self._frames), "pay", timeout_s=_ANSWERED_WITHIN_S)
                if answer["type"] == "offers.found" and answer["data"]["offers"]:
                    return answer
            await asyncio.sleep(_BLINK_S)

    async def _propose(self, glasses: Glasses, answer: Message) -> Message | None:
        offer = answer["data"]["offers"][0]
        request = {"offer_id": offer["offer_id"], "quantity": self._random.randint(1, 3)}
        sent = await self._insist(glasses, "payment.requested", request, answer["journeyid"])

        def answers(message: Message) -> bool:
            return message["type"] in {"payment.proposed", "intent.refused"} and message.get("subject") == sent

        with suppress(TimeoutError):
            proposed = await glasses.expect(answers, _PROPOSED_WITHIN_S)
            if proposed["type"] == "payment.proposed":
                return proposed
            self._check(proposed["data"]["code"])
        return None

    async def _approve(self, glasses: Glasses, proposed: Message) -> Approval:
        terms = proposed["data"]["terms"]
        approval = Approval(
            event_id=str(EventId.new()),
            proposal_id=terms["proposal_id"],
            merchant_id=terms["merchant_id"],
            has_money=self._device.has_money,
            total=(terms["total"]["minor"], terms["total"]["currency"]),
        )
        # On record before it is sent: from then on it may become a payment, whatever is heard of it.
        self._approvals.append(approval)
        self._untold.append(approval)
        content = {"proposal_id": approval.proposal_id, "approval": glasses.key.approve(proposed["data"])}
        await self._insist(glasses, "payment.approved", content, proposed["journeyid"], approval.event_id)
        approval.accepted = True
        if await self._hear(glasses, approval, _TOLD_WITHIN_S) and approval.told is None:
            self._tally.unknown_at_first += 1
            await self._hear(glasses, approval, _UNKNOWN_FOR_S, although_unknown=True)
        if approval.told is not None:
            self._untold.remove(approval)
        return approval

    async def _hear(self, glasses: Glasses, approval: Approval, within_s: float, *, although_unknown: bool = False) -> bool:
        """Whether anything was heard of it: its end, or that it is not known (`although_unknown`: that is no news)."""
        try:
            told = await glasses.expect(lambda message: _is_about(message, approval, although_unknown), within_s)
        except TimeoutError:
            return False
        if told["type"] == "intent.refused":
            approval.refused, approval.told = True, told["data"]["code"]
            self._check(told["data"]["code"])
        elif told["data"]["state"] in SETTLED_STATES:
            approval.told = told["data"]["state"]
            approval.payment_id = told["data"]["payment_id"]
        return True

    async def _insist(
        self, glasses: Glasses, type: str, data: Message, journey: str | None = None, event_id: str | None = None
    ) -> str:
        """Send an event until the gateway says that it has it; returns its id, the same each time."""
        event_id = event_id or str(EventId.new())
        happened = datetime.now(UTC).isoformat()
        while True:
            before = len(glasses.received)
            await glasses.send(type, data, journey, id=event_id, time=happened)
            with suppress(TimeoutError):
                said = await glasses.expect(lambda message: _acknowledges(message, event_id), _ACCEPTED_WITHIN_S, after=before)
                if said["type"] == "gateway.accepted":
                    if self._random.random() >= _DEAF:
                        return event_id
                elif said["problem"]["code"] not in _FOR_THE_MOMENT:
                    raise PurchaseFailed(f"the gateway refuses a {type}: {said['problem']}")
            self._tally.repeated_events += 1

    def _check(self, code: str) -> None:
        """Raises PurchaseFailed for a refusal that no other look would change."""
        if code not in _LOOK_AGAIN:
            raise PurchaseFailed(f"{self._device.id} was refused: {code}")


def _acknowledges(message: Message, event_id: str) -> bool:
    return message["type"] in {"gateway.accepted", "gateway.problem"} and message.get("id") == event_id


def _is_about(message: Message, approval: Approval, although_unknown: bool) -> bool:
    if message["type"] == "intent.refused":
        return bool(message.get("subject") == approval.event_id)
    if message["type"] != "payment.updated":
        return False
    data = message["data"]
    states = SETTLED_STATES if although_unknown else {*SETTLED_STATES, PaymentState.UNKNOWN}
    return bool(data["proposal_id"] == approval.proposal_id and data["state"] in states)
