"""Rows as the flow leaves them, for what the console shows."""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.ids import (
    AttemptId,
    DeadLetterId,
    DeliveryId,
    DeviceId,
    EndpointId,
    EventId,
    JourneyId,
    MakerId,
    MerchantId,
    MessageId,
    OfferId,
    OrderId,
    PaymentId,
    ProposalId,
)
from schemas.tables import (
    attempts,
    dead_letters,
    deliveries,
    delivery_attempts,
    devices,
    endpoints,
    journey_hops,
    makers,
    merchants,
    messages,
    offers,
    payments,
    proposals,
)
from streams.core import receipts

HOSTILE = '<img src=x onerror="document.title=1"><script>alert(1)</script>'
SECRET = "sk-never-to-be-shown"
GTIN = "04006381333931"


def journey_id_at(at: datetime, number: int) -> JourneyId:
    return JourneyId.from_uuid(UUID(int=(int(at.timestamp() * 1000) << 80) | (7 << 76) | (2 << 62) | number))


@dataclass
class World:
    """One maker, one device, one merchant, and the journeys that tests add."""

    connection: AsyncConnection
    maker: MakerId = field(default_factory=MakerId.new)
    device: DeviceId = field(default_factory=DeviceId.new)
    merchant: MerchantId = field(default_factory=MerchantId.new)
    endpoint: EndpointId = field(default_factory=EndpointId.new)
    made: int = 0

    async def begin(self) -> None:
        await self.connection.execute(insert(makers).values(id=self.maker, name="Klarblick"))
        await self.connection.execute(
            insert(devices).values(id=self.device, maker_id=self.maker, public_key=bytes(32), locale="de-DE", currency="EUR")
        )
        await self.connection.execute(insert(merchants).values(id=self.merchant, name="Buchhandlung am Markt"))
        await self.connection.execute(
            insert(endpoints).values(
                id=self.endpoint,
                merchant_id=self.merchant,
                url=f"https://user:{SECRET}@shop.example/hooks?key={SECRET}",
                secret_sealed=SECRET.encode(),
            )
        )

    def journey(self, at: datetime) -> JourneyId:
        self.made += 1
        return journey_id_at(at, self.made)

    async def hop(
        self,
        journey: JourneyId,
        name: str,
        role: str,
        at: datetime,
        ms: float,
        *,
        parent: str | None = None,
        failed: bool = False,
        **attributes: Any,
    ) -> str:
        span_id = hashlib.sha256(f"{journey}{name}{at}{ms}".encode()).hexdigest()[:16]
        await self.connection.execute(
            insert(journey_hops).values(
                span_id=span_id,
                journey_id=journey,
                parent_span_id=parent,
                name=name,
                role=role,
                started_at=at,
                duration_us=int(ms * 1000),
                failed=failed,
                attributes={key.replace("__", "."): value for key, value in attributes.items()},
            )
        )
        return span_id

    async def glance(self, journey: JourneyId, at: datetime, answer: str = "offers.found") -> None:
        """The hops from a glance to its answer; 48 ms in all."""

        def later(ms: float) -> datetime:
            return at + timedelta(milliseconds=ms)

        root = await self.hop(journey, "glance", "gateway", later(2), 5.2, cloudevents__event_type="sighting.captured")
        sent = await self.hop(journey, "send glasses.sightings", "gateway", later(3), 3.9, parent=root)
        seen = await self.hop(journey, "process glasses.sightings", "sightings", later(8.4), 21.5, parent=sent)
        await self.hop(
            journey, "infer codes", "sightings", later(9), 15.8, parent=seen, rpc__system="grpc", url__full=f"grpc://{SECRET}"
        )
        result = "sighting.unclear" if answer == "look.again" else "sighting.recognised"
        said = await self.hop(
            journey, "send recognition.results", "sightings", later(25.6), 3.4, parent=seen, cloudevents__event_type=result
        )
        found = await self.hop(journey, "process recognition.results", "offers", later(31), 12.1, parent=said)
        await self.hop(journey, "find catalogue", "offers", later(31.7), 3.1, parent=found, augenblick__shop="catalogue")
        await self.hop(journey, "transaction postgresql", "offers", later(35.1), 3.6, parent=found)
        told = await self.hop(journey, "send glasses.answers", "offers", later(39.2), 3.2, parent=found)
        await self.hop(journey, "push glasses.answers", "gateway", later(45), 3.0, parent=told, cloudevents__event_type=answer)

    async def offer(self, journey: JourneyId, at: datetime, title: str = "Bleistift HB, 12 Stück", gtin: str = GTIN) -> OfferId:
        id = OfferId.new()
        await self.connection.execute(
            insert(offers).values(
                id=id,
                journey_id=journey,
                device_id=self.device,
                merchant_id=self.merchant,
                merchant_name="Buchhandlung am Markt",
                gtin=gtin,
                title=title,
                price_minor=650,
                price_currency="EUR",
                observed_at=at,
                expires_at=at + timedelta(minutes=5),
                evidence={"captured_at": at.isoformat(), "frame_digest": "0" * 64},
                created_at=at + timedelta(milliseconds=36),
            )
        )
        return id

    async def proposal(
        self, journey: JourneyId, offer: OfferId, at: datetime, state: str, reason: str | None = None
    ) -> ProposalId:
        id = ProposalId.new()
        await self.connection.execute(
            insert(proposals).values(
                id=id,
                journey_id=journey,
                device_id=self.device,
                offer_id=offer,
                merchant_id=self.merchant,
                total_minor=650,
                total_currency="EUR",
                terms={"nonce": SECRET},
                digest="0" * 64,
                nonce=f"{SECRET}-{id}",
                state=state,
                state_reason=reason,
                expires_at=at + timedelta(minutes=1),
                created_at=at,
            )
        )
        return id

    async def payment(
        self,
        journey: JourneyId,
        proposal: ProposalId,
        at: datetime,
        state: str,
        reason: str | None = None,
        code: str | None = None,
    ) -> tuple[PaymentId, OrderId]:
        """Approved at `at`, and in `state` 300 ms later."""
        id, order = PaymentId.new(), OrderId.new()
        ended = at + timedelta(milliseconds=300)
        await self.connection.execute(
            insert(payments).values(
                id=id,
                proposal_id=proposal,
                order_id=order,
                journey_id=journey,
                device_id=self.device,
                merchant_id=self.merchant,
                total_minor=650,
                total_currency="EUR",
                state="approved",
                provider="stripe",
                provider_reference=f"pi_{id[4:20]}",
                locale="de-DE",
                submit_by=datetime.now(UTC),
                created_at=at,
                updated_at=at,
            )
        )
        for step in ("submitting", state):
            values = {"state": step, "state_reason": reason, "updated_at": ended}
            if step == "captured":
                values["captured_minor"] = 650
            await self.connection.execute(update(payments).where(payments.c.id == id).values(values))
        await self.connection.execute(
            insert(attempts).values(
                id=AttemptId.new(),
                payment_id=id,
                kind="authorise",
                request_digest="0" * 64,
                outcome="succeeded" if state == "captured" else state,
                detail={"code": code} if code else None,
                created_at=at + timedelta(milliseconds=40),
                ended_at=ended,
            )
        )
        return id, order

    async def delivery(self, journey: JourneyId, order: OrderId, at: datetime, type: str, statuses: list[int | None]) -> None:
        message, delivery = MessageId.new(), DeliveryId.new()
        await self.connection.execute(
            insert(messages).values(
                id=message,
                merchant_id=self.merchant,
                order_id=order,
                sequence=1,
                type=type,
                journey_id=journey,
                event_id=EventId.new(),
                body=SECRET.encode(),
                created_at=at,
            )
        )
        await self.connection.execute(
            insert(deliveries).values(
                id=delivery,
                message_id=message,
                endpoint_id=self.endpoint,
                state="delivered" if statuses[-1] == 200 else "pending",
                attempts=len(statuses),
                created_at=at,
            )
        )
        for number, status in enumerate(statuses, start=1):
            await self.connection.execute(
                insert(delivery_attempts).values(
                    delivery_id=delivery,
                    number=number,
                    started_at=at + timedelta(seconds=5 * (number - 1), milliseconds=20),
                    duration_us=14_200,
                    status=status,
                    error=None if status else "ReadTimeout",
                    response=SECRET,
                )
            )

    async def paid(self, at: datetime, title: str = "Bleistift HB, 12 Stück") -> JourneyId:
        """A journey that went all the way: answered in 48 ms, paid 4.5 s after the glance."""
        journey = self.journey(at)
        await self.glance(journey, at)
        offer = await self.offer(journey, at, title)
        asked, yes = at + timedelta(seconds=1.8), at + timedelta(seconds=4.2)
        proposal = await self.proposal(journey, offer, asked, "approved")
        _, order = await self.payment(journey, proposal, yes, "captured")

        def later(ms: float) -> datetime:
            return yes + timedelta(milliseconds=ms)

        spans: dict[str, str] = {}
        for name, role, start, ms, below in (
            ("receive payment.approved", "gateway", -20, 4.4, None),
            ("process glasses.intents", "intents", -12, 14.2, "receive payment.approved"),
            ("transaction postgresql", "intents", -11, 12.9, "process glasses.intents"),
            ("send payments.commands", "relay", 6, 3.5, "process glasses.intents"),
            ("process payments.commands", "payments", 14, 287, "send payments.commands"),
            ("transaction postgresql", "payments", 15, 5.1, "process payments.commands"),
            ("POST", "payments", 24, 121, "process payments.commands"),
            ("POST", "payments", 151, 139, "process payments.commands"),
            ("transaction postgresql", "payments", 292, 7.8, "process payments.commands"),
            ("send payments.events", "relay", 304, 3.1, "process payments.commands"),
            ("process payments.events", "webhooks", 311, 8.3, "send payments.events"),
            ("push glasses.answers", "gateway", 316, 1.2, "process payments.commands"),
            ("deliver payment.captured", "dispatcher", 325, 16.9, "process payments.events"),
            ("POST", "dispatcher", 327, 14.2, "deliver payment.captured"),
        ):
            parent = spans.get(below or "")
            spans[name] = await self.hop(journey, name, role, later(start), ms, parent=parent, http__response__status_code=200)
        await self.delivery(journey, order, later(320), "payment.captured", [None, 200])
        for kind in ("sighting", "recognition", "approval", "payment", "closed"):
            await receipts.append(self.connection, journey, kind, {"at": at.isoformat()})
        return journey

    async def dead_letter(self, journey: JourneyId, at: datetime) -> DeadLetterId:
        id = DeadLetterId.new()
        await self.connection.execute(
            insert(dead_letters).values(
                id=id,
                consumer="intents",
                topic="glasses.intents",
                partition=2,
                offset=self.made,
                event_id=EventId.new(),
                event_type="payment.requested",
                journey_id=journey,
                reason="event-invalid",
                detail="the data of this payment.requested does not fit its schema: /data/quantity: Input should be at most 99",
                headers={"ce_secret": SECRET},
                key=SECRET.encode(),
                value=SECRET.encode(),
                value_digest="0" * 64,
                attempts=1,
                created_at=at,
            )
        )
        return id


@dataclass(frozen=True)
class Seeded:
    world: World
    paid: JourneyId
    hostile: JourneyId
    unclear: JourneyId
    cancelled: JourneyId
    declined: JourneyId
    dead: JourneyId
    count: int


async def seed(connection: AsyncConnection) -> Seeded:
    """Some of each kind, and enough older ones for a second page."""
    world = World(connection)
    await world.begin()
    now = datetime.now(UTC) - timedelta(seconds=90)
    titles = (
        "Bleistift HB, 12 Stück",
        "Grüner Tee, lose, 100 g",
        "Notizbuch A5, kariert",
        "乌龙茶 250克",
        "USB-C-Ladekabel, 2 m",
    )
    for number in range(60):
        at = now - timedelta(minutes=2 * number + 5)
        if number % 9 == 4:
            journey = world.journey(at)
            await world.glance(journey, at, "look.again")
        elif number % 5 == 2:
            await world.paid(at, titles[number % len(titles)])
        else:
            journey = world.journey(at)
            await world.glance(journey, at)
            await world.offer(journey, at, titles[number % len(titles)], gtin="04006381333900")
    at = now - timedelta(seconds=60)
    cancelled = world.journey(at)
    await world.glance(cancelled, at)
    offer = await world.offer(cancelled, at, "Grüner Tee, lose, 100 g")
    await world.proposal(cancelled, offer, at + timedelta(seconds=2), "cancelled", "doffed")

    at = now - timedelta(seconds=45)
    declined = world.journey(at)
    await world.glance(declined, at)
    offer = await world.offer(declined, at, "Notizbuch A5, kariert")
    proposal = await world.proposal(declined, offer, at + timedelta(seconds=2), "approved")
    payment, _ = await world.payment(
        declined, proposal, at + timedelta(seconds=4), "declined", "insufficient_funds", "insufficient_funds"
    )
    frozen = {"frozen_at": now, "frozen_reason": "the provider says 6.50 EUR was paid, after it had ended as declined"}
    await connection.execute(update(payments).where(payments.c.id == payment).values(frozen))

    at = now - timedelta(seconds=30)
    unclear = world.journey(at)
    await world.glance(unclear, at, "look.again")

    at = now - timedelta(seconds=20)
    hostile = world.journey(at)
    await world.glance(hostile, at)
    await world.offer(hostile, at, HOSTILE)

    at = now - timedelta(seconds=10)
    dead = world.journey(at)
    await world.glance(dead, at)
    await world.offer(dead, at, "Grüner Tee, lose, 100 g")
    await world.hop(
        dead, "process glasses.intents", "intents", at + timedelta(seconds=3), 9.1, failed=True, error__type="dead-lettered"
    )
    await world.dead_letter(dead, at + timedelta(seconds=3))

    paid = await world.paid(now)
    return Seeded(world, paid, hostile, unclear, cancelled, declined, dead, count=66)
