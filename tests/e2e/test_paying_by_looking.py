"""Paying by looking at a payee's code: two frames, the registered name, the wearer's signed yes, and the money."""

from typing import Any

import pytest

from infra.sandbox import sessions
from infra.sandbox.glasses import Glasses, Message
from infra.sandbox.pictures import draw
from schemas.ids import JourneyId, MerchantId, PayeeId
from schemas.recognition import UnclearReason
from streams.core import receipts
from streams.gateway import payees
from tests.support.payee_codes import emvco, frame, merchants_account, tlv
from tests.support.waiting import eventually
from tests.support.world import RunningPlatform

SOMEBODYS_PAYMENT_CODE = "281234567890123456"


async def register(platform: RunningPlatform, code: str, name: str, merchant_id: MerchantId | None = None) -> PayeeId:
    async with platform.database.transaction() as connection:
        return await payees.add(connection, merchant_id or platform.shop.merchant_id, name=name, currency="EUR", code=code)


def code(changes: dict[str, str] | None = None) -> str:
    return emvco({"26": merchants_account(), "53": "978", "58": "DE", **(changes or {})})


async def look_twice(glasses: Glasses, *frames: bytes) -> Message:
    """What the second of two frames is answered with."""
    first, second = frames
    once = await glasses.look(first, "pay")
    assert (once["type"], once["data"]["reason"]) == ("look.again", UnclearReason.PAYEE_SEEN_ONCE), once
    assert once["data"]["hint"]
    return await glasses.look(second, "pay")


async def test_a_payee_is_looked_at_twice_and_paid(platform: RunningPlatform) -> None:
    await register(platform, draw.PAYEE, "Buchhandlung am Markt")
    async with platform.worn(await platform.payer()) as glasses:
        answer = await look_twice(glasses, sessions.picture("payee-1"), sessions.picture("payee-2"))
        [payee] = answer["data"]["payees"]
        assert (answer["type"], payee["name"], "amount" in payee) == ("payees.found", "Buchhandlung am Markt", False)
        proposed = await glasses.request_payee(answer, amount={"minor": 1250, "currency": "EUR"})
        terms = proposed["data"]["terms"]
        assert (terms["payee"], terms["cart"], terms["total"]["minor"]) == ("Buchhandlung am Markt", [], 1250)
        assert "12,50" in terms["text"] and "Buchhandlung am Markt" in terms["text"]
        await glasses.send_approval(proposed)
        paid = await glasses.payment(answer["journeyid"], "captured")
        closed = await glasses.expect(lambda message: message["type"] == "receipt.closed", timeout_s=20)
    assert paid["data"]["total"] == {"minor": 1250, "currency": "EUR"}
    journey = JourneyId(answer["journeyid"])
    async with platform.database.transaction() as connection:
        entries = await receipts.read(connection, journey)
        assert await receipts.verify(connection, journey) == []
    assert closed["data"]["digest"] == entries[-1].digest
    assert len(entries[0].content["frames"]) == 2, "the receipt begins with the digests of both frames"

    async def told() -> list[dict[str, Any]]:
        received = await platform.receiver.received()
        return [line for line in received if line.get("payment") == paid["data"]["payment_id"]]

    [webhook, *_] = await eventually(told, within_s=20, what="the merchant's webhook")
    assert webhook["refused"] is False


async def test_a_bill_is_paid_once_whoever_looks_at_it(platform: RunningPlatform) -> None:
    account = merchants_account()
    await register(platform, code({"26": account}), "Café")
    bill = code({"01": "12", "26": account, "54": "4.20", "62": tlv("01", "B-2026")})
    frames = frame(bill), frame(bill, shift=9)
    async with platform.worn(await platform.payer()) as glasses, platform.worn(await platform.payer()) as friend:
        answer = await look_twice(glasses, *frames)
        assert answer["data"]["payees"][0]["amount"] == {"minor": 420, "currency": "EUR"}
        refused = await glasses.request_payee(answer, amount={"minor": 100, "currency": "EUR"})
        assert refused["data"]["code"] == "amount-not-free"
        await glasses.send_approval(await glasses.request_payee(answer))
        await glasses.payment(answer["journeyid"], "captured")
        theirs = await look_twice(friend, *frames)
        assert (await friend.request_payee(theirs))["data"]["code"] == "payment-state"
        assert (await glasses.request_payee(answer))["data"]["code"] == "payment-state"


async def test_two_payees_in_view_are_the_wearers_to_choose(platform: RunningPlatform) -> None:
    books, flowers = code(), code()
    await register(platform, books, "Books")
    await register(platform, flowers, "Flowers")
    async with platform.worn(await platform.payer()) as glasses:
        answer = await look_twice(glasses, frame(books, flowers), frame(books, flowers, shift=7))
        names = [payee["name"] for payee in answer["data"]["payees"]]
        assert sorted(names) == ["Books", "Flowers"]
        proposed = await glasses.request_payee(answer, amount={"minor": 100, "currency": "EUR"}, payee=names.index("Flowers"))
        assert proposed["data"]["terms"]["payee"] == "Flowers"


async def test_a_sticker_over_the_code_is_not_paid(platform: RunningPlatform) -> None:
    """Another code under the same printed name, which nobody has registered; and both by turns."""
    account = merchants_account()
    real, sticker = code({"26": account}), code({"59": "BOOKS AT THE MARKET"})
    await register(platform, real, "Books at the Market")
    async with platform.worn(await platform.payer()) as glasses:
        answer = await look_twice(glasses, frame(sticker), frame(sticker, shift=7))
        assert (answer["type"], answer["data"]["reason"]) == ("look.again", UnclearReason.PAYEE_UNKNOWN)
        for view in (frame(real, shift=3), frame(real, sticker), frame(real, shift=5)):
            answer = await glasses.look(view, "pay")
            assert answer["data"]["reason"] == UnclearReason.PAYEE_SEEN_ONCE


async def test_doffing_cancels_what_was_proposed_to_a_payee(platform: RunningPlatform) -> None:
    shown = code()
    await register(platform, shown, "Books")
    async with platform.worn(await platform.payer()) as glasses:
        answer = await look_twice(glasses, frame(shown), frame(shown, shift=7))
        proposed = await glasses.request_payee(answer, amount={"minor": 100, "currency": "EUR"})
        await glasses.wear("doffed")
        closed = await glasses.expect(lambda message: message["type"] == "proposal.closed")
        assert closed["data"]["proposal_id"] == proposed["data"]["terms"]["proposal_id"]


@pytest.mark.parametrize("intent", ["pay", "price"])
async def test_somebodys_payment_code_is_kept_nowhere(platform: RunningPlatform, intent: str) -> None:
    async with platform.worn(await platform.rows.glasses()) as glasses:
        answer = await glasses.look(frame(SOMEBODYS_PAYMENT_CODE), intent)
        assert answer["data"]["reason"] == UnclearReason.PAYERS_CODE
        assert SOMEBODYS_PAYMENT_CODE not in str(glasses.received)
    assert await platform.rows.count("payee_codes", device_id=glasses.device_id) == 0
