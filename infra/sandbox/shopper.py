"""Glasses that pay, one purchase after the other, and do not give up: a new frame where no answer came, and the same event once
more where no acceptance came, as devices in the field do it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from time import perf_counter

from websockets.exceptions import ConnectionClosed

from infra.sandbox.books import Approval
from infra.sandbox.glasses import Glasses, LinkLost, Message
from infra.sandbox.world import Device
from schemas.errors import AugenblickError
from schemas.ids import EventId
from schemas.payments import SETTLED_STATES

_ANSWERED_WITHIN_S = 5.0
_ACCEPTED_WITHIN_S = 3.0
_PROPOSED_WITHIN_S = 30.0
_TOLD_WITHIN_S = 75.0
_PURCHASE_S = 180.0
_BLINK_S = 0.2
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
    glances: int = 0
    repeated_events: int = 0
    reconnections: int = 0
    glance_to_paid_s: list[float] = field(default_factory=list)


class Shopper:
    """`approvals` and `tally` are shared by all shoppers; `bought` is awaited after each purchase."""

    def __init__(
        self,
        gateway: str,
        device: Device,
        frames: Sequence[bytes],
        random: Random,
        approvals: list[Approval],
        tally: Tally,
        bought: Callable[[], Awaitable[None]],
    ) -> None:
        self._gateway = gateway
        self._device = device
        self._frames = frames
        self._random = random
        self._approvals = approvals
        self._tally = tally
        self._bought = bought

    async def shop(self, turns: Iterator[int]) -> None:
        """As long as there are turns. Raises PurchaseFailed."""
        turn = next(turns, None)
        while turn is not None:
            try:
                async with Glasses.connected(self._gateway, self._device.id, self._device.key) as glasses:
                    await self._insist(glasses, "wear.changed", {"state": "worn"})
                    while turn is not None:
                        await self._purchase(glasses)
                        turn = next(turns, None)
            except (LinkLost, ConnectionClosed):
                self._tally.reconnections += 1

    async def _purchase(self, glasses: Glasses) -> None:
        try:
            async with asyncio.timeout(_PURCHASE_S):
                while not await self._buy(glasses):
                    pass
        except TimeoutError:
            raise PurchaseFailed(f"{self._device.id} could not buy anything for {_PURCHASE_S:g} s") from None
        self._tally.purchases += 1
        await self._bought()

    async def _buy(self, glasses: Glasses) -> bool:
        """One try, from the glance on; False where it came to nothing and the wearer has to look again."""
        started = perf_counter()
        proposed = await self._propose(glasses, await self._look(glasses))
        if proposed is None:
            return False
        approval = await self._approve(glasses, proposed)
        if approval.refused:
            return False
        self._tally.glance_to_paid_s.append(perf_counter() - started)
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
            total=(terms["total"]["minor"], terms["total"]["currency"]),
        )
        # On record before it is sent: from then on it may become a payment, whatever is heard of it.
        self._approvals.append(approval)
        content = {"proposal_id": approval.proposal_id, "approval": glasses.key.approve(proposed["data"])}
        await self._insist(glasses, "payment.approved", content, proposed["journeyid"], approval.event_id)
        approval.accepted = True
        with suppress(TimeoutError):
            told = await glasses.expect(lambda message: _ends(message, approval), _TOLD_WITHIN_S)
            approval.refused = told["type"] == "intent.refused"
            approval.told = told["data"]["code"] if approval.refused else told["data"]["state"]
            if approval.refused:
                self._check(told["data"]["code"])
        return approval

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


def _ends(message: Message, approval: Approval) -> bool:
    if message["type"] == "intent.refused":
        return bool(message.get("subject") == approval.event_id)
    if message["type"] != "payment.updated":
        return False
    data = message["data"]
    return bool(data["proposal_id"] == approval.proposal_id and data["state"] in SETTLED_STATES)
