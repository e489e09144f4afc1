"""Wearers whose intents are handled as the worker handles them, on the real database, without a broker: what is published is read
from the outbox."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel
from sqlalchemy import insert, select, update

from infra.sandbox.glasses import DeviceKey
from schemas.digests import canonical_json, sha256_hex
from schemas.errors import Problem
from schemas.events import Event, from_kafka, new_event
from schemas.ids import DeviceId, JourneyId, OfferId, PayeeCodeId, PayeeId
from schemas.money import Money
from schemas.payments import (
    Payer,
    PaymentApproved,
    PaymentPolicy,
    PaymentRequested,
    ProposalClosed,
    Proposed,
    WearChanged,
    WearState,
)
from schemas.recognition import PayeeCode, PayeeScheme
from schemas.tables import offers, outbox, payee_codes, payees, payments, proposals
from streams.core.handling import Transactional, transaction
from streams.gateway import provisioning
from streams.intents.agent import Intents
from tests.support.frames import gtin13
from tests.support.rows import Rows, Shop

PAYER = Payer(provider="stripe", customer="cus_1", payment_method="pm_1")


@dataclass
class Wearer:
    """`said` are the answers so far, in order."""

    rows: Rows
    id: DeviceId
    key: DeviceKey
    intents: Transactional
    said: list[Event] = field(default_factory=list)

    async def send(
        self, type: str, data: BaseModel, *, ago_s: float = 0, journey: JourneyId | None = None, source: str | None = None
    ) -> Event:
        """Handles an event of these glasses that happened `ago_s` seconds ago; returns it."""
        event = new_event(
            type, data, source=source or f"/devices/{self.id}", journeyid=journey or JourneyId.new(), deviceid=self.id
        ).model_copy(update={"time": datetime.now(UTC) - timedelta(seconds=ago_s)})
        await self.intents(event)
        return event

    async def answers(self) -> list[Event]:
        """What the device was told so far, in order."""
        query = select(outbox.c.headers, outbox.c.value).where(outbox.c.key == self.id.encode()).order_by(outbox.c.id)
        async with self.rows.database.transaction() as connection:
            found = (await connection.execute(query)).all()
        return [from_kafka([(name, text.encode()) for name, text in row.headers.items()], row.value) for row in found]

    async def ask(self, type: str, data: BaseModel, **how: Any) -> Event:
        """The same; returns the answer to it, which there must be."""
        event = await self.send(type, data, **how)
        return next(answer for answer in await self.answers() if answer.subject == event.id)

    async def wear(self, state: WearState = WearState.WORN, **how: Any) -> None:
        await self.send("wear.changed", WearChanged(state=state), **how)

    async def wants(self, wish: OfferId | PayeeCodeId, *, amount: Money | None = None, **how: Any) -> Event:
        """`payment.proposed` or `intent.refused`."""
        if isinstance(wish, OfferId):
            return await self.ask("payment.requested", PaymentRequested(offer_id=wish), **how)
        return await self.ask("payment.requested", PaymentRequested(payee_code_id=wish, amount=amount), **how)

    async def proposed(self, wish: OfferId | PayeeCodeId, **how: Any) -> Proposed:
        answer = await self.wants(wish, **how)
        assert answer.type == "payment.proposed", answer.data
        return answer.decode(Proposed)

    async def refused(self, wish: OfferId | PayeeCodeId, **how: Any) -> str:
        return code_of(await self.wants(wish, **how))

    async def approves(
        self, proposed: Proposed, presence: str = "press", *, key: DeviceKey | None = None, ago_s: float = 0, **changes: Any
    ) -> str | None:
        """The code of the refusal, or None where it counted."""
        terms = proposed.terms.model_dump(mode="json", exclude_none=True)
        assert sha256_hex(canonical_json(terms)) == proposed.digest
        jws = (key or self.key).approve({"terms": terms}, presence, **changes)
        event = await self.send(
            "payment.approved", PaymentApproved(proposal_id=proposed.terms.proposal_id, approval=jws), ago_s=ago_s
        )
        return next((code_of(answer) for answer in await self.answers() if answer.subject == event.id), None)

    async def closed(self) -> list[tuple[str, str]]:
        """Which proposals ended without a payment: state and reason, in order."""
        ends = [answer.decode(ProposalClosed) for answer in await self.answers() if answer.type == "proposal.closed"]
        return [(end.state, end.reason) for end in ends]

    async def payments(self) -> Sequence[Any]:
        async with self.rows.database.transaction() as connection:
            return (await connection.execute(select(payments).where(payments.c.device_id == self.id))).all()

    async def proposal(self, proposed: Proposed) -> Any:
        async with self.rows.database.transaction() as connection:
            return (await connection.execute(select(proposals).where(proposals.c.id == proposed.terms.proposal_id))).one()

    # What is in front of the glasses.

    async def offer(self, shop: Shop, total: Money | None = None) -> OfferId:
        price, offer_id, now = total or Money.of(1000, "EUR"), OfferId.new(), datetime.now(UTC)
        row = {
            "id": offer_id,
            "journey_id": JourneyId.new(),
            "device_id": self.id,
            "merchant_id": shop.merchant_id,
            "merchant_name": "Kvarteret",
            "gtin": "0" + gtin13(0),
            "title": "Organic milk",
            "price_minor": price.minor,
            "price_currency": price.currency,
            "observed_at": now,
            "expires_at": now + timedelta(minutes=5),
            "evidence": {"frame_digest": "0" * 64},
        }
        async with self.rows.database.transaction() as connection:
            await connection.execute(insert(offers).values(row))
        return offer_id

    async def payee_code(self, shop: Shop, amount: Money | None = None) -> PayeeCodeId:
        """A registered payee's code, seen in two frames."""
        code = PayeeCode(scheme=PayeeScheme.EMVCO, key=sha256_hex(PayeeId.new().encode()), name="Not Kvarteret", amount=amount)
        payee_id, code_id, now = PayeeId.new(), PayeeCodeId.new(), datetime.now(UTC)
        payee = {
            "id": payee_id,
            "merchant_id": shop.merchant_id,
            "scheme": code.scheme,
            "key": code.key,
            "name": "Kvarteret's till",
            "currency": "EUR",
        }
        stored = code.model_dump(mode="json")
        row = {
            "id": code_id,
            "device_id": self.id,
            "journey_id": JourneyId.new(),
            "code_digest": sha256_hex(canonical_json(stored)),
            "code": stored,
            "frames": ["1" * 64, "2" * 64],
            "payee_id": payee_id,
            "last_seen_at": now,
            "expires_at": now + timedelta(minutes=2),
        }
        async with self.rows.database.transaction() as connection:
            await connection.execute(insert(payees).values(payee))
            await connection.execute(insert(payee_codes).values(row))
        return code_id


def code_of(answer: Event) -> str:
    assert answer.type == "intent.refused", answer.data
    return answer.decode(Problem).code


async def wearer(rows: Rows, payer: Payer | None = PAYER) -> Wearer:
    """With the glasses on. Each has a worker of its own."""
    paired = await rows.glasses(payer=payer)
    one = Wearer(rows, paired.device_id, paired.key, Transactional("intents", rows.database, Intents().handle))
    await one.wear()
    return one


async def set_policy(rows: Rows, subject: Any, **policy: Any) -> None:
    async with rows.database.transaction() as connection:
        await provisioning.set_policy(connection, subject, PaymentPolicy.model_validate(policy, strict=False))


async def revoke(rows: Rows, device_id: DeviceId) -> None:
    async with transaction(rows.database) as unit:
        await provisioning.revoke_device(unit, await provisioning.lock_device(unit.connection, device_id))


async def change_key(rows: Rows, device_id: DeviceId, key: DeviceKey) -> None:
    async with transaction(rows.database) as unit:
        device = await provisioning.lock_device(unit.connection, device_id)
        await provisioning.change_key(unit, device, key.public, datetime.now(UTC))


async def age(rows: Rows, proposed: Proposed, seconds: float) -> None:
    """As if it had been proposed that much earlier."""
    back = timedelta(seconds=seconds)
    async with rows.database.transaction() as connection:
        await connection.execute(
            update(proposals).where(proposals.c.id == proposed.terms.proposal_id).values(created_at=proposals.c.created_at - back)
        )
