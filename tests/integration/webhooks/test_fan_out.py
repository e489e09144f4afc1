"""An event becomes a numbered message and its deliveries: once, without gaps, and for those who want it."""

import asyncio
import json

import pytest
from sqlalchemy import select

from schemas.errors import Rejected
from schemas.events import Event
from schemas.payments import PaymentState
from schemas.tables import outbox
from schemas.webhooks import WebhookMessage
from streams.core import receipts
from streams.webhooks import service, store
from tests.integration.webhooks.world import World, payment_event

URL = "https://shop.example/webhooks"


async def test_numbers_are_gapless_when_many_transactions_run_at_once(world: World) -> None:
    merchant_id, _ = await world.merchant()
    order = await world.order(merchant_id)
    events = [payment_event(order, PaymentState.UNKNOWN) for _ in range(25)]
    assert set(await asyncio.gather(*(world.handle(event) for event in events))) == {"handled"}
    assert [message.sequence for message in await world.messages(order)] == list(range(1, 26))


async def test_every_order_is_numbered_by_itself(world: World) -> None:
    merchant_id, _ = await world.merchant()
    first, second = await world.order(merchant_id), await world.order(merchant_id)
    for order in (first, second, first):
        await world.happened(order, PaymentState.UNKNOWN)
    assert [message.sequence for message in await world.messages(first)] == [1, 2]
    assert [message.sequence for message in await world.messages(second)] == [1]


async def test_a_repeated_event_makes_nothing_new(world: World) -> None:
    merchant_id, _ = await world.merchant()
    await world.endpoint(merchant_id, URL)
    order = await world.order(merchant_id)
    event = await world.happened(order, PaymentState.CAPTURED)
    assert await world.handle(event) == "duplicate"
    assert len(await world.messages(order)) == len(await world.deliveries(order)) == 1


async def test_the_body_is_the_message_and_its_id_follows_from_the_event(world: World) -> None:
    merchant_id, _ = await world.merchant()
    order = await world.order(merchant_id)
    event = await world.happened(order, PaymentState.CAPTURED)
    [row] = await world.messages(order)
    message = WebhookMessage.model_validate_json(row.body)
    assert message.id == row.id == service.message_id(event.id)
    assert (message.type, message.sequence, message.order_id) == ("payment.captured", 1, order.order_id)
    assert message.data.total.minor == 1299
    assert json.loads(row.body)["data"]["provider_reference"] is None


async def test_a_rolled_back_transaction_leaves_no_gap(world: World) -> None:
    merchant_id, _ = await world.merchant()
    order = await world.order(merchant_id)
    with pytest.raises(ZeroDivisionError):
        async with world.database.transaction() as connection:
            assert await store.next_sequence(connection, order.order_id) == 1
            raise ZeroDivisionError
    await world.happened(order, PaymentState.UNKNOWN)
    assert [message.sequence for message in await world.messages(order)] == [1]


async def test_each_endpoint_hears_what_it_wants(world: World) -> None:
    merchant_id, _ = await world.merchant()
    other_merchant, _ = await world.merchant("Another")
    everything, _ = await world.endpoint(merchant_id, URL)
    captures, _ = await world.endpoint(merchant_id, URL, ["payment.captured"])
    await world.endpoint(merchant_id, URL, ["payment.refunded"])
    await world.endpoint(other_merchant, URL)
    order = await world.order(merchant_id)
    await world.happened(order, PaymentState.CAPTURED)
    assert {delivery.endpoint_id for delivery in await world.deliveries(order)} == {everything, captures}


async def test_for_a_disabled_endpoint_deliveries_are_held_and_released(world: World) -> None:
    merchant_id, _ = await world.merchant()
    endpoint_id, _ = await world.endpoint(merchant_id, URL)
    async with world.database.transaction() as connection:
        await store.disable_endpoint(connection, endpoint_id, "gone")
    order = await world.order(merchant_id)
    await world.happened(order, PaymentState.CAPTURED)
    [held] = await world.deliveries(order)
    assert (held.state, held.next_attempt_at) == ("held", None)
    async with world.database.transaction() as connection:
        assert await store.enable_endpoint(connection, merchant_id, endpoint_id)
    [released] = await world.deliveries(order)
    assert released.state == "pending"
    assert released.next_attempt_at is not None


async def test_an_endpoint_enabled_during_a_fan_out_misses_nothing(world: World) -> None:
    merchant_id, _ = await world.merchant()
    endpoint_id, _ = await world.endpoint(merchant_id, URL)
    async with world.database.transaction() as connection:
        await store.disable_endpoint(connection, endpoint_id, "gone")
    order = await world.order(merchant_id)

    async def enable() -> None:
        async with world.database.transaction() as connection:
            await store.enable_endpoint(connection, merchant_id, endpoint_id)

    fan_outs = [world.handle(payment_event(order, PaymentState.UNKNOWN)) for _ in range(10)]
    await asyncio.gather(*fan_outs[:5], enable(), *fan_outs[5:])
    assert {delivery.state for delivery in await world.deliveries(order)} == {"pending"}


async def test_data_that_does_not_fit_is_rejected(world: World) -> None:
    merchant_id, _ = await world.merchant()
    order = await world.order(merchant_id)
    event = payment_event(order, PaymentState.CAPTURED).model_copy(update={"data": b"{}"})
    with pytest.raises(Rejected, match="does not fit its schema"):
        await world.handle(event)


async def test_where_nobody_listens_the_receipt_closes_at_once(world: World) -> None:
    merchant_id, _ = await world.merchant()
    order = await world.order(merchant_id)
    await world.captured(order)
    async with world.database.transaction() as connection:
        entries = await receipts.read(connection, order.journey_id)
        assert await receipts.verify(connection, order.journey_id) == []
    assert [entry.kind for entry in entries] == ["closed"]
    assert entries[0].content == {"payment_id": order.payment_id, "state": "captured"}
    [published] = await world.rows(select(outbox))
    assert published.topic == "glasses.answers"
    assert published.key == order.device_id.encode()
    assert published.headers["ce_type"] == "receipt.closed"
    assert json.loads(published.value) == {"payment_id": order.payment_id, "entries": 1, "digest": entries[0].digest}


async def test_the_receipt_stays_open_while_the_payment_does(world: World) -> None:
    merchant_id, _ = await world.merchant()
    order = await world.order(merchant_id)
    await world.move(order, PaymentState.SUBMITTING, PaymentState.AUTHORISED)
    await world.happened(order, PaymentState.AUTHORISED)
    # Captured meanwhile, but merchants have not been told of it yet.
    await world.move(order, PaymentState.CAPTURED)
    repeated: Event = payment_event(order, PaymentState.AUTHORISED)
    await world.handle(repeated)
    async with world.database.transaction() as connection:
        assert await receipts.read(connection, order.journey_id) == []
