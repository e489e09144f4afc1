"""Deliveries reach a real receiver, which verifies them with the official library; and whatever goes wrong on the way, none is
lost and the merchant can tell."""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from sqlalchemy import select, update

from infra.local.ports import new_port
from schemas.payments import PaymentState
from schemas.tables import deliveries, endpoints, messages, outbox
from streams.core import receipts
from streams.core.handling import transaction
from streams.core.sealing import Sealer
from streams.core.telemetry import tracing
from streams.webhooks import signing, store
from streams.webhooks.dispatcher import record
from streams.webhooks.service import Answer, Delivered, Retry
from tests.integration.webhooks.conftest import Dispatching
from tests.integration.webhooks.world import CHECKOUT, SECRET_KEY, Order, Receiver, World, eventually

ANOTHER_KEY = "YW5vdGhlciBrZXkgdGhhbiB0aGUgb25lIG9mIHRlc3Q="


async def an_order(world: World, receiver: Receiver) -> Order:
    """Of a merchant whose only endpoint is the receiver."""
    merchant_id, _ = await world.merchant()
    _, secret = await world.endpoint(merchant_id, receiver.url)
    receiver.trust(secret)
    return await world.order(merchant_id)


async def states(world: World, order: Order) -> list[str]:
    return [delivery.state for delivery in await world.deliveries(order)]


async def until_states(world: World, order: Order, *expected: str) -> None:
    async def reached() -> bool:
        return await states(world, order) == list(expected)

    await eventually(reached)


async def until_attempts(world: World, order: Order, count: int) -> None:
    async def reached() -> bool:
        return len(await world.attempts(order)) >= count

    await eventually(reached)


async def test_a_message_arrives_verified_and_the_receipt_closes(
    world: World, receiver: Receiver, dispatching: Dispatching
) -> None:
    order = await an_order(world, receiver)
    await world.captured(order)
    async with dispatching():
        await until_states(world, order, "delivered")
    [message] = await world.messages(order)
    [received] = await receiver.received()
    assert not received["refused"]
    assert (received["id"], received["type"], received["order"]) == (message.id, "payment.captured", order.order_id)
    assert (received["sequence"], received["repeated"]) == (1, False)
    [attempt] = await world.attempts(order)
    assert (attempt.number, attempt.status, attempt.error) == (1, 200, None)
    assert attempt.response == '{"received":true}'
    assert attempt.duration_us > 0
    async with world.database.transaction() as connection:
        entries = await receipts.read(connection, order.journey_id)
        assert await receipts.verify(connection, order.journey_id) == []
    assert [entry.kind for entry in entries] == ["webhook_acknowledged", "closed"]
    assert entries[0].content["message_id"] == message.id
    assert (entries[0].content["status"], entries[0].content["sequence"]) == (200, 1)
    assert [row.headers["ce_type"] for row in await world.rows(select(outbox))] == ["receipt.closed"]


async def test_the_receipt_closes_once_when_the_last_acknowledgements_come_together(
    world: World, receiver: Receiver, dispatching: Dispatching
) -> None:
    merchant_id, _ = await world.merchant()
    secrets = [(await world.endpoint(merchant_id, receiver.url))[1] for _ in range(4)]
    receiver.trust(*secrets)
    order = await world.order(merchant_id)
    await world.captured(order)
    async with dispatching(), dispatching():
        await until_states(world, order, *["delivered"] * 4)
    async with world.database.transaction() as connection:
        kinds = [entry.kind for entry in await receipts.read(connection, order.journey_id)]
    assert sorted(kinds) == ["closed", *["webhook_acknowledged"] * 4]
    assert kinds[-1] == "closed"
    assert len(await receiver.received()) == 4


async def test_a_failure_is_tried_again_on_the_schedule(world: World, receiver: Receiver, dispatching: Dispatching) -> None:
    order = await an_order(world, receiver)
    await receiver.have_faults(fail_next=2, status=500)
    await world.captured(order)
    async with dispatching(waits=(0.05, 0.05)):
        await until_states(world, order, "delivered")
    assert [attempt.status for attempt in await world.attempts(order)] == [500, 500, 200]
    received = await receiver.received()
    assert len({line["id"] for line in received}) == 1
    assert [line["repeated"] for line in received] == [False, True, True]


async def test_after_the_last_attempt_it_has_failed_and_can_be_sent_again(
    world: World, receiver: Receiver, dispatching: Dispatching
) -> None:
    order = await an_order(world, receiver)
    await receiver.have_faults(fail_next=2, status=503)
    await world.captured(order)
    async with dispatching(waits=(0.05,)) as dispatcher:
        await until_states(world, order, "failed")
        assert len(await world.attempts(order)) == 2
        [message] = await world.messages(order)
        async with world.database.transaction() as connection:
            addressees = await store.addressees(connection, order.merchant_id, message.type)
            await store.add_deliveries(connection, message.id, addressees)
        dispatcher.wake()
        await until_states(world, order, "delivered")


async def test_410_disables_the_endpoint_and_holds_what_is_open(
    world: World, receiver: Receiver, dispatching: Dispatching
) -> None:
    order = await an_order(world, receiver)
    await receiver.have_faults(fail_next=1, status=410)
    await world.captured(order)
    async with dispatching():
        await until_states(world, order, "held")
        [endpoint] = await world.rows(select(endpoints))
        assert endpoint.disabled_at is not None
        assert endpoint.disabled_reason == "gone"
        await world.happened(order, PaymentState.REFUNDED, PaymentState.CAPTURED)
        assert await states(world, order) == ["held", "held"]
        async with world.database.transaction() as connection:
            await store.enable_endpoint(connection, order.merchant_id, endpoint.id)
        await until_states(world, order, "delivered", "delivered")
    # The first message has had its try before the second, which therefore waits for it no longer: the two may arrive either way.
    first, *rest = [line["sequence"] for line in await receiver.received()]
    assert first == 1
    assert sorted(rest) == [1, 2]


@pytest.mark.parametrize(
    ("status", "retry_after", "least", "most"),
    [
        (503, "120", 115, 121),
        (500, "1", 3, 7),
        (429, None, 55, 61),
        (429, "300", 295, 301),
        (503, "999999999", 86_000, 86_401),
        (503, "soon", 3, 7),
    ],
)
async def test_the_wait_heeds_what_the_endpoint_asks_for(
    world: World, receiver: Receiver, dispatching: Dispatching, status: int, retry_after: str | None, least: int, most: int
) -> None:
    order = await an_order(world, receiver)
    await receiver.have_faults(fail_next=1, status=status, retry_after=retry_after)
    await world.captured(order)
    async with dispatching():
        await until_attempts(world, order, 1)
    [delivery], [attempt] = await world.deliveries(order), await world.attempts(order)
    # The wait began after the attempt did, and before now: neither says more of a slow machine than of the wait.
    assert (delivery.next_attempt_at - attempt.started_at).total_seconds() >= least
    assert (delivery.next_attempt_at - datetime.now(UTC)).total_seconds() <= most


async def test_an_endpoint_that_does_not_answer_is_left_alone_for_a_minute(
    world: World, receiver: Receiver, dispatching: Dispatching
) -> None:
    order = await an_order(world, receiver)
    await receiver.have_faults(fail_next=1, status=200, delay_s=3.0)
    await world.captured(order)
    async with dispatching(timeout_s=1.0):  # and its lease ends as long after
        await until_attempts(world, order, 1)
    [attempt] = await world.attempts(order)
    assert (attempt.status, attempt.error) == (None, "No answer within 1 s.")
    [delivery] = await world.deliveries(order)
    assert delivery.next_attempt_at - datetime.now(UTC) > timedelta(seconds=55)


async def test_every_attempt_is_a_span_below_the_message(
    world: World, receiver: Receiver, dispatching: Dispatching, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider(id_generator=tracing.JourneyIdGenerator())
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(tracing, "tracer", lambda: provider.get_tracer("test"))
    order = await an_order(world, receiver)
    await receiver.have_faults(fail_next=1, status=500)
    await world.move(order, PaymentState.SUBMITTING, PaymentState.CAPTURED)
    with tracing.span("process payments.events", journey=order.journey_id):
        await world.happened(order, PaymentState.CAPTURED)
    async with dispatching(waits=(0.05,)):
        await until_states(world, order, "delivered")
    [message] = await world.messages(order)
    attempts = [span for span in spans.get_finished_spans() if span.name == "deliver webhook"]
    assert [attempt.attributes["http.response.status_code"] for attempt in attempts if attempt.attributes] == [500, 200]
    for attempt in attempts:
        assert attempt.kind is SpanKind.CLIENT
        assert f"{attempt.context.trace_id:032x}" == order.journey_id.uuid.hex
        assert attempt.parent is not None
        assert f"{attempt.parent.span_id:016x}" == message.trace.split("-")[2]
        assert attempt.attributes is not None
        assert attempt.attributes["augenblick.journey.id"] == order.journey_id
        assert not any("whsec" in str(value) or "webhooks" in str(value) for value in attempt.attributes.values())
    [closing] = await world.rows(select(outbox))
    assert closing.headers["ce_traceparent"].split("-")[1] == order.journey_id.uuid.hex


async def test_nobody_there_is_an_attempt_too(world: World, dispatching: Dispatching) -> None:
    merchant_id, _ = await world.merchant()
    await world.endpoint(merchant_id, f"http://127.0.0.1:{new_port()}/webhooks")
    order = await world.order(merchant_id)
    await world.captured(order)
    async with dispatching(waits=()):
        await until_states(world, order, "failed")
    [attempt] = await world.attempts(order)
    assert attempt.status is None
    assert "No connection" in attempt.error


async def test_a_redirection_is_not_followed(world: World, receiver: Receiver, dispatching: Dispatching) -> None:
    order = await an_order(world, receiver)
    await receiver.have_faults(fail_next=1, status=307)
    await world.captured(order)
    async with dispatching(waits=()):
        await until_states(world, order, "failed")
    assert [attempt.status for attempt in await world.attempts(order)] == [307]


async def test_a_tampered_body_or_a_wrong_secret_is_refused_by_the_receiver(world: World, receiver: Receiver) -> None:
    order = await an_order(world, receiver)
    await world.captured(order)
    [message] = await world.messages(order)
    [endpoint] = await world.rows(select(endpoints))
    secret = world.sealer.open(endpoint.secret_sealed, f"endpoint:{endpoint.id}").decode()
    now = datetime.now(UTC)
    good = signing.signed_headers(secret, message.id, now, message.body)
    tampered = bytes(message.body).replace(b"1299", b"1298")
    forged = signing.signed_headers(signing.new_secret(), message.id, now, message.body)
    stale = signing.signed_headers(secret, message.id, now - timedelta(minutes=6), message.body)
    async with httpx.AsyncClient() as client:
        for headers, body in ((good, tampered), (forged, message.body), (stale, message.body)):
            assert (await client.post(receiver.url, content=body, headers=headers)).status_code == 401
        assert (await client.post(receiver.url, content=message.body, headers=good)).status_code == 200
    assert [line["refused"] for line in await receiver.received()] == [True, True, True, False]


async def test_an_orders_messages_arrive_in_order(world: World, receiver: Receiver, dispatching: Dispatching) -> None:
    order = await an_order(world, receiver)
    for _ in range(12):
        await world.happened(order, PaymentState.UNKNOWN)
    async with dispatching(), dispatching():
        await until_states(world, order, *["delivered"] * 12)
    assert [line["sequence"] for line in await receiver.received()] == list(range(1, 13))


async def test_a_message_the_merchant_cannot_digest_does_not_hold_back_the_next(
    world: World, receiver: Receiver, dispatching: Dispatching
) -> None:
    order = await an_order(world, receiver)
    await receiver.have_faults(fail_next=1, status=500)
    await world.happened(order, PaymentState.UNKNOWN)
    await world.happened(order, PaymentState.CAPTURED)
    async with dispatching(waits=(60.0,)):
        await until_states(world, order, "pending", "delivered")
    assert [line["sequence"] for line in await receiver.received()] == [1, 2]


async def test_a_slow_endpoint_takes_only_its_own_share(world: World, receiver: Receiver, dispatching: Dispatching) -> None:
    slow_merchant, _ = await world.merchant("Slow")
    await world.endpoint(slow_merchant, "http://127.0.0.1:9/")  # never asked: all of its room is taken below
    order = await an_order(world, receiver)
    async with dispatching() as dispatcher:
        [slow] = await world.rows(select(endpoints.c.id).where(endpoints.c.merchant_id == slow_merchant))
        dispatcher._under_way[slow.id] = 4
        for _ in range(8):
            await world.captured(await world.order(slow_merchant))
        await world.captured(order)
        await until_states(world, order, "delivered")
    untouched = await world.rows(select(deliveries.c.attempts).where(deliveries.c.endpoint_id == slow.id))
    assert [row.attempts for row in untouched] == [0] * 8


async def test_a_secret_sealed_with_another_key_uses_up_no_attempt(
    world: World, receiver: Receiver, dispatching: Dispatching
) -> None:
    order = await an_order(world, receiver)
    other = await an_order(world, receiver)
    [endpoint] = await world.rows(select(endpoints).where(endpoints.c.merchant_id == order.merchant_id))
    broken = Sealer(ANOTHER_KEY).seal(b"whsec_", f"endpoint:{endpoint.id}")
    async with world.database.transaction() as connection:
        await connection.execute(update(endpoints).where(endpoints.c.id == endpoint.id).values(secret_sealed=broken))
    await world.captured(order)
    await world.captured(other)
    async with dispatching():
        await until_states(world, other, "delivered")
    [delivery] = await world.deliveries(order)
    assert (delivery.state, delivery.attempts) == ("pending", 0)


async def test_a_late_answer_after_the_lease_counts_only_if_it_acknowledges(world: World, receiver: Receiver) -> None:
    order = await an_order(world, receiver)
    await world.captured(order)
    lease = timedelta(milliseconds=50)
    async with world.database.transaction() as connection:
        due = [delivery_id for delivery_id, _ in await store.due(connection, [], 10)]
        [slow] = await store.claim(connection, due, lease)
    async with world.database.transaction() as connection:
        assert await store.claim(connection, due, lease) == []
    await asyncio.sleep(0.1)
    async with world.database.transaction() as connection:
        [successor] = await store.claim(connection, due, timedelta(minutes=1))
    async with transaction(world.database) as unit:
        late = await record(unit, slow, Answer(status=500), datetime.now(UTC), 1, (5.0,))
    assert isinstance(late, Retry)
    [delivery] = await world.deliveries(order)
    assert (delivery.state, delivery.next_attempt_at) == ("pending", successor.leased_until)
    async with transaction(world.database) as unit:
        late = await record(unit, slow, Answer(status=204), datetime.now(UTC), 1, (5.0,))
    assert isinstance(late, Delivered)
    assert await states(world, order) == ["delivered"]
    async with transaction(world.database) as unit:
        await record(unit, successor, Answer(status=200), datetime.now(UTC), 1, (5.0,))
    async with world.database.transaction() as connection:
        kinds = [entry.kind for entry in await receipts.read(connection, order.journey_id)]
    assert kinds == ["webhook_acknowledged", "closed"]


ROLE = """
import asyncio
from streams.core.bootstrap import composed
from streams.core.settings import load
from streams.webhooks.dispatcher import run

async def main():
    async with composed(load()) as parts:
        await run(parts)

asyncio.run(main())
"""


def dispatcher_process(database_url: str, ready_file: Path) -> "subprocess.Popen[bytes]":
    ready_file.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "DATABASE_URL": database_url,
        "AUGENBLICK_SECRET_KEY": SECRET_KEY,
        "AUGENBLICK_ALLOW_PRIVATE_ENDPOINTS": "true",
        "AUGENBLICK_WEBHOOK_TIMEOUT_S": "3",
        "AUGENBLICK_WEBHOOK_SCHEDULE_S": "0.1,0.1",
        "AUGENBLICK_READY_FILE": str(ready_file),
    }
    return subprocess.Popen([sys.executable, "-c", ROLE], cwd=CHECKOUT, env=environment)


@pytest.mark.chaos
async def test_killed_between_sending_and_marking_its_successor_sends_the_same_again(
    world: World, receiver: Receiver, own_database_url: str, tmp_path: Path
) -> None:
    order = await an_order(world, receiver)
    ready_file = tmp_path / "ready"

    async def ready() -> bool:
        return ready_file.exists()

    async def arrived() -> bool:
        return bool(await receiver.received())

    first = dispatcher_process(own_database_url, ready_file)
    try:
        await eventually(ready)
        # The merchant has it at once, and answers seconds later: time to die in.
        await receiver.have_faults(fail_next=1, status=200, delay_s=2.5)
        await world.captured(order)
        await eventually(arrived)
    finally:
        first.kill()
        first.wait(10)
    assert await world.attempts(order) == []
    assert await states(world, order) == ["pending"]
    second = dispatcher_process(own_database_url, ready_file)
    try:
        await until_states(world, order, "delivered")
    finally:
        second.kill()
        second.wait(10)
    [message] = await world.rows(select(messages))
    received = await receiver.received()
    assert [(line["id"], line["repeated"]) for line in received] == [(message.id, False), (message.id, True)]
