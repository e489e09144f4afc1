"""What the tests of webhooks and of the merchants' API stand on: rows as the other stages leave them, and a real receiver."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import insert, select, text, update

from infra.local.ports import new_port
from schemas.events import Event, new_event
from schemas.ids import DeviceId, EndpointId, JourneyId, MerchantId, OfferId, OrderId, PaymentId, ProposalId
from schemas.money import Money
from schemas.payments import CartLine, PaymentChanged, PaymentState
from schemas.tables import deliveries, delivery_attempts, messages, metadata, offers, payments, proposals
from streams.core.database import Database
from streams.core.handling import Transactional
from streams.core.sealing import Sealer
from streams.gateway import provisioning
from streams.webhooks.agent import fan_out

CHECKOUT = Path(__file__).resolve().parents[3]
SECRET_KEY = "c2VhbHMgbm90aGluZyBidXQgdGhlc2UgdGVzdHMnIHM="
TOTAL = Money.of(1299, "EUR")


@dataclass(frozen=True)
class Order:
    payment_id: PaymentId
    order_id: OrderId
    journey_id: JourneyId
    device_id: DeviceId
    merchant_id: MerchantId


@dataclass
class World:
    database: Database
    sealer: Sealer = field(default_factory=lambda: Sealer(SECRET_KEY))

    async def merchant(self, name: str = "Buchladen am Markt") -> tuple[MerchantId, str]:
        async with self.database.transaction() as connection:
            return await provisioning.add_merchant(connection, name)

    async def device(self) -> DeviceId:
        async with self.database.transaction() as connection:
            maker, _ = await provisioning.add_maker(connection, "A maker")
            return await provisioning.add_device(
                connection, self.sealer, public_key=os.urandom(32), maker=maker, locale="de-DE", currency="EUR"
            )

    async def endpoint(
        self, merchant_id: MerchantId, url: str, event_types: Sequence[str] | None = None
    ) -> tuple[EndpointId, str]:
        async with self.database.transaction() as connection:
            return await provisioning.add_endpoint(connection, self.sealer, merchant_id, url, event_types)

    async def order(self, merchant_id: MerchantId) -> Order:
        """An approved payment, with the rows it stands on."""
        order = Order(PaymentId.new(), OrderId.new(), JourneyId.new(), await self.device(), merchant_id)
        later = datetime.now(UTC) + timedelta(minutes=5)
        offer_id, proposal_id = OfferId.new(), ProposalId.new()
        common: dict[str, Any] = {
            "journey_id": order.journey_id,
            "device_id": order.device_id,
            "merchant_id": merchant_id,
        }
        total = {"total_minor": TOTAL.minor, "total_currency": TOTAL.currency}
        async with self.database.transaction() as connection:
            await connection.execute(
                insert(offers).values(
                    id=offer_id,
                    **common,
                    merchant_name="Buchladen am Markt",
                    gtin="04006381333931",
                    title="Stift",
                    price_minor=TOTAL.minor,
                    price_currency=TOTAL.currency,
                    observed_at=datetime.now(UTC),
                    expires_at=later,
                    evidence={},
                )
            )
            await connection.execute(
                insert(proposals).values(
                    id=proposal_id,
                    **common,
                    offer_id=offer_id,
                    **total,
                    terms={"cart": [line.model_dump(mode="json") for line in cart()]},
                    digest="0" * 64,
                    nonce=str(proposal_id),
                    expires_at=later,
                )
            )
            await connection.execute(
                insert(payments).values(
                    id=order.payment_id,
                    proposal_id=proposal_id,
                    order_id=order.order_id,
                    **common,
                    **total,
                    state="approved",
                    provider="stripe",
                    locale="de-DE",
                    submit_by=datetime.now(UTC),
                )
            )
        return order

    async def move(self, order: Order, *states: PaymentState) -> None:
        """The payment goes through these states."""
        for state in states:
            async with self.database.transaction() as connection:
                await connection.execute(
                    update(payments).where(payments.c.id == order.payment_id).values(state=state, **moved(state))
                )

    async def happened(self, order: Order, state: PaymentState, previous: PaymentState = PaymentState.SUBMITTING) -> Event:
        """The event is handled by the stage, as if it had come from Kafka. Returns it, for repetitions."""
        event = payment_event(order, state, previous)
        await self.handle(event)
        return event

    async def handle(self, event: Event) -> str:
        return await Transactional("webhooks", self.database, fan_out)(event)

    async def captured(self, order: Order) -> Event:
        await self.move(order, PaymentState.SUBMITTING, PaymentState.CAPTURED)
        return await self.happened(order, PaymentState.CAPTURED)

    async def messages(self, order: Order) -> list[Any]:
        return await self.rows(select(messages).where(messages.c.order_id == order.order_id).order_by(messages.c.sequence))

    async def deliveries(self, order: Order) -> list[Any]:
        query = select(deliveries, messages.c.sequence).where(
            messages.c.order_id == order.order_id, deliveries.c.message_id == messages.c.id
        )
        return await self.rows(query.order_by(messages.c.sequence, deliveries.c.endpoint_id))

    async def attempts(self, order: Order) -> list[Any]:
        query = select(delivery_attempts, messages.c.sequence).where(
            messages.c.order_id == order.order_id,
            deliveries.c.message_id == messages.c.id,
            delivery_attempts.c.delivery_id == deliveries.c.id,
        )
        return await self.rows(query.order_by(messages.c.sequence, delivery_attempts.c.number))

    async def rows(self, query: Any) -> list[Any]:
        async with self.database.transaction() as connection:
            return list(await connection.execute(query))

    async def clear(self) -> None:
        names = ", ".join(table.name for table in metadata.sorted_tables if table.name != "payment_moves")
        async with self.database.transaction() as connection:
            await connection.execute(text(f"TRUNCATE {names}"))


def cart() -> tuple[CartLine, ...]:
    return (CartLine(title="Stift", gtin="04006381333931", quantity=1, unit_price=TOTAL, total=TOTAL),)


def moved(state: PaymentState) -> dict[str, int]:
    """The money that moves with a payment's state: all of it is taken, and a cent or all of it given back."""
    values = {}
    if state in {PaymentState.CAPTURED, PaymentState.PARTIALLY_REFUNDED, PaymentState.REFUNDED}:
        values["captured_minor"] = TOTAL.minor
    if state in {PaymentState.PARTIALLY_REFUNDED, PaymentState.REFUNDED}:
        values["refunded_minor"] = TOTAL.minor if state is PaymentState.REFUNDED else 1
    return values


def payment_event(order: Order, state: PaymentState, previous: PaymentState = PaymentState.SUBMITTING) -> Event:
    change = PaymentChanged(
        payment_id=order.payment_id,
        order_id=order.order_id,
        journey_id=order.journey_id,
        merchant_id=order.merchant_id,
        state=state,
        previous_state=previous,
        total=TOTAL,
        cart=cart(),
        provider="stripe",
        provider_reference=None,
        occurred_at=datetime.now(UTC),
        captured=Money.of(moved(state).get("captured_minor", 0), TOTAL.currency),
        refunded=Money.of(moved(state).get("refunded_minor", 0), TOTAL.currency),
    )
    return new_event(f"payment.{state.value}", change, source="/test", journeyid=order.journey_id, deviceid=order.device_id)


async def eventually(condition: Any, *, within_s: float = 30.0) -> Any:
    """The first true result of an async condition; an AssertionError after a while."""
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        if result := await condition():
            return result
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


class Receiver:
    """The sandbox's merchant, as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._secrets = folder / "secrets"
        self._record = folder / "received.jsonl"
        self._port = new_port()
        self.url = f"http://127.0.0.1:{self._port}/webhooks"
        self._base = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "infra.sandbox.merchant",
                f"--port={self._port}",
                f"--secret-file={self._secrets}",
                f"--record={self._record}",
            ],
            cwd=CHECKOUT,
            stdout=subprocess.DEVNULL,
        )
        await eventually(self._answers)

    async def _answers(self) -> bool:
        with suppress(httpx.TransportError):
            await self.received()
            return True
        return False

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(10)

    def trust(self, *secrets: str) -> None:
        self._secrets.write_text("\n".join(secrets))

    async def received(self) -> list[dict[str, Any]]:
        async with httpx.AsyncClient() as client:
            return list((await client.get(f"{self._base}/received")).json())

    async def have_faults(self, **faults: Any) -> None:
        async with httpx.AsyncClient() as client:
            (await client.post(f"{self._base}/faults", json=faults)).raise_for_status()
