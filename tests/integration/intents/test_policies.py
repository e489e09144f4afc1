"""Who pays whom with what, how much, and how: on the real database, with other payments made in between."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError

from schemas.errors import Rejected
from schemas.ids import DeviceId, MerchantId
from schemas.money import Money
from schemas.payments import PaymentPolicy, PresenceMethod, WearState
from schemas.tables import devices, payments, provider_accounts, receipt_entries
from streams.core import receipts
from streams.core.database import is_unavailable
from streams.gateway import provisioning
from streams.intents import store
from tests.integration.intents.world import PAYER, Wearer, age, set_policy, wearer
from tests.support.rows import Rows, Shop

EUR = "EUR"


@pytest.fixture
async def shop(rows: Rows) -> Shop:
    return await rows.merchant()


async def pays(one: Wearer, shop: Shop, total: Money | None = None) -> str | None:
    return await one.approves(await one.proposed(await one.offer(shop, total)))


async def change_account(rows: Rows, shop: Shop, **values: Any) -> None:
    async with rows.database.transaction() as connection:
        where = provider_accounts.c.merchant_id == shop.merchant_id
        await connection.execute(update(provider_accounts).where(where).values(values))


# What takes the money.


async def test_the_wearers_provider_chooses_the_merchants_account(rows: Rows, shop: Shop) -> None:
    await rows.account(shop, "alipay")
    one = await wearer(rows)
    proposed = await one.proposed(await one.offer(shop))
    stored = await one.proposal(proposed)
    assert (stored.account_id, stored.capture) == (await rows.account_of(shop, "stripe"), True)
    assert await one.approves(proposed) is None
    [payment] = await one.payments()
    assert (payment.provider, payment.account_id, payment.capture) == ("stripe", stored.account_id, True)
    async with rows.database.transaction() as connection:
        whole = select(receipt_entries).where(receipt_entries.c.journey_id == stored.journey_id)
        query = whole.order_by(receipt_entries.c.position)
        entries = {row.kind: row.content for row in await connection.execute(query)}
        assert await receipts.verify(connection, stored.journey_id) == []
    assert list(entries) == ["recognised", "proposed", "approved"]
    assert (entries["proposed"]["account_id"], entries["proposed"]["capture"]) == (stored.account_id, True)


async def test_a_merchant_that_does_not_take_the_wearers_means_of_payment(rows: Rows, shop: Shop) -> None:
    one = await wearer(rows, payer=PAYER.model_copy(update={"provider": "wechat_pay"}))
    assert await one.refused(await one.offer(shop)) == "merchant-not-payable"
    await rows.account(shop, "wechat_pay")
    assert await one.proposed(await one.offer(shop))


async def test_a_currency_the_account_does_not_take(rows: Rows, shop: Shop) -> None:
    await change_account(rows, shop, currencies=["CNY"])
    one = await wearer(rows)
    assert await one.refused(await one.offer(shop)) == "merchant-not-payable"
    assert await one.proposed(await one.offer(shop, Money.of(100, "CNY")))


async def test_an_account_that_was_removed_or_replaced_before_the_yes(rows: Rows, shop: Shop) -> None:
    one = await wearer(rows)
    proposed = await one.proposed(await one.offer(shop))
    async with rows.database.transaction() as connection:
        where = provider_accounts.c.merchant_id == shop.merchant_id
        await connection.execute(update(provider_accounts).where(where).values(removed_at=text("now()")))
    assert await one.approves(proposed) == "merchant-not-payable"
    await rows.account(shop, "stripe")
    assert await one.approves(proposed) == "merchant-not-payable"
    assert await one.payments() == []
    assert await pays(one, shop) is None


async def test_glasses_without_a_means_of_payment(rows: Rows, shop: Shop) -> None:
    one = await wearer(rows, payer=None)
    assert await one.refused(await one.offer(shop)) == "payer-missing"
    async with rows.database.transaction() as connection:
        await provisioning.set_payer(connection, rows.sealer, one.id, PAYER)
    assert await pays(one, shop) is None
    async with rows.database.transaction() as connection:
        row = (await connection.execute(select(devices).where(devices.c.id == one.id))).one()
    assert row.payer_provider == "stripe"
    assert rows.sealer.open(row.payer_sealed, f"payer:{one.id}") == PAYER.model_dump_json().encode()


async def test_a_merchant_that_only_reserves_at_first(rows: Rows, shop: Shop) -> None:
    """What was proposed stays so, whatever the merchant decides before the yes."""
    await set_policy(rows, shop.merchant_id, capture=False)
    one = await wearer(rows)
    proposed = await one.proposed(await one.offer(shop))
    await set_policy(rows, shop.merchant_id, capture=True)
    assert await one.approves(proposed) is None
    assert [payment.capture for payment in await one.payments()] == [False]


# Limits.


@pytest.mark.parametrize("whose", ["merchant", "device"])
async def test_a_limit_per_payment(rows: Rows, shop: Shop, whose: str) -> None:
    one = await wearer(rows)
    subject = shop.merchant_id if whose == "merchant" else one.id
    await set_policy(rows, subject, limits=[{"currency": EUR, "per_payment": 1000}])
    assert await one.refused(await one.offer(shop, Money.of(1001, EUR))) == "limit-exceeded"
    proposed = await one.proposed(await one.offer(shop, Money.of(1000, EUR)))
    await set_policy(rows, subject, limits=[{"currency": EUR, "per_payment": 999}])
    assert await one.approves(proposed) == "limit-exceeded"
    assert await one.payments() == []


@pytest.mark.parametrize("whose", ["merchant", "device"])
async def test_a_limit_per_day_counts_what_may_have_cost_something(rows: Rows, shop: Shop, whose: str) -> None:
    one = await wearer(rows)
    await set_policy(rows, shop.merchant_id if whose == "merchant" else one.id, limits=[{"currency": EUR, "per_day": 3000}])
    waiting = await one.proposed(await one.offer(shop))
    other = one if whose == "device" else await wearer(rows)
    for state in ("approved", "unknown", "captured", "declined", "expired"):
        assert await pays(other, shop, Money.of(600, EUR)) is None
        async with rows.database.transaction() as connection:
            payment = max(await other.payments(), key=lambda payment: payment.created_at)
            for step in {"approved": [], "expired": ["cancelled"]}.get(state, ["submitting", state]):
                moved = {"state": step, **({"captured_minor": 600} if step == "captured" else {})}
                await connection.execute(update(payments).where(payments.c.id == payment.id).values(moved))
    if whose == "device":  # it has one open proposal at a time
        waiting = await one.proposed(await one.offer(shop))
    assert await pays(other, shop, Money.of(200, EUR)) is None, "1800 of 3000 were spent: declined and cancelled cost nothing"
    assert await other.refused(await other.offer(shop, Money.of(1001, EUR))) == "limit-exceeded"
    assert await pays(other, shop, Money.of(10_000, "SEK")) is None, "another currency"
    if whose == "merchant":
        assert await pays(other, shop, Money.of(1, EUR)) is None
        assert await one.approves(waiting) == "limit-exceeded", "1999 were left when it was proposed, now it is 999"
        assert await one.payments() == []
    async with rows.database.transaction() as connection:
        where = payments.c.device_id == other.id
        yesterday = payments.c.created_at - timedelta(hours=24)
        await connection.execute(update(payments).where(where).values(created_at=yesterday))
    assert await pays(other, shop, Money.of(3000, EUR)) is None


async def test_two_at_once_do_not_pass_together(rows: Rows, shop: Shop) -> None:
    """Each has room for its payment; there is no room for both. Each is handled by a worker of its own."""
    wearers = [await wearer(rows) for _ in range(6)]
    await set_policy(rows, shop.merchant_id, limits=[{"currency": EUR, "per_day": 2500}])
    proposals = [await one.proposed(await one.offer(shop)) for one in wearers]
    ends = await asyncio.gather(*(one.approves(proposed) for one, proposed in zip(wearers, proposals, strict=True)))
    assert sorted(map(str, ends)) == ["None"] * 2 + ["limit-exceeded"] * 4
    assert sum([len(await one.payments()) for one in wearers]) == 2


async def test_groups_that_wait_for_each_others_merchants_are_done_again(rows: Rows) -> None:
    """What the consume loop sees then is a database that is in the way, not an event that is wrong."""
    one, other = (await rows.merchant()).merchant_id, (await rows.merchant()).merchant_id
    both = asyncio.Barrier(2)

    async def lock(*order: MerchantId) -> None:
        async with rows.database.transaction() as connection:
            await store.lock_merchant(connection, order[0])
            await both.wait()
            await store.lock_merchant(connection, order[1])

    ends = await asyncio.gather(lock(one, other), lock(other, one), return_exceptions=True)
    [error] = [end for end in ends if end is not None]
    assert isinstance(error, DBAPIError) and is_unavailable(error)


async def test_currencies_that_nobody_has_limited(rows: Rows, shop: Shop) -> None:
    one = await wearer(rows)
    await set_policy(rows, one.id, limits=[{"currency": "SEK"}], other_currencies=False)
    assert await one.refused(await one.offer(shop)) == "limit-exceeded"
    assert await pays(one, shop, Money.of(10**9, "SEK")) is None


# The way of saying yes.


async def test_only_what_merchant_and_device_accept_above_an_amount(rows: Rows, shop: Shop) -> None:
    one = await wearer(rows)
    await set_policy(rows, shop.merchant_id, limits=[{"currency": EUR, "presence_above": 500, "presence": ["press", "voice"]}])
    await set_policy(rows, one.id, limits=[{"currency": EUR, "presence_above": 900, "presence": ["voice", "nod"]}])
    assert (await one.proposed(await one.offer(shop, Money.of(500, EUR)))).terms.presence == tuple(PresenceMethod)
    assert (await one.proposed(await one.offer(shop, Money.of(501, EUR)))).terms.presence == ("press", "voice")
    proposed = await one.proposed(await one.offer(shop, Money.of(901, EUR)))
    assert proposed.terms.presence == ("voice",)
    assert await one.approves(proposed, "press") == "approval-invalid"
    assert await one.approves(proposed, "voice") is None
    await set_policy(rows, one.id, limits=[{"currency": EUR, "presence_above": 0, "presence": ["nod"]}])
    assert await one.refused(await one.offer(shop)) == "limit-exceeded"


async def test_a_way_that_was_accepted_when_it_was_proposed(rows: Rows, shop: Shop) -> None:
    one = await wearer(rows)
    proposed = await one.proposed(await one.offer(shop))
    await set_policy(rows, one.id, limits=[{"currency": EUR, "presence_above": 0, "presence": ["voice"]}])
    assert await one.approves(proposed, "nod") == "approval-invalid"
    assert await one.approves(proposed, "voice") is None


# Old intents.


async def test_an_old_wish_must_be_said_again(rows: Rows, shop: Shop) -> None:
    one = await wearer(rows)
    offer = await one.offer(shop)
    assert await one.refused(offer, ago_s=31) == "intent-stale"
    assert await rows.count("proposals", device_id=one.id) == 0
    assert await one.proposed(offer, ago_s=28)
    await set_policy(rows, shop.merchant_id, confirm_after_s=5)
    assert await one.refused(offer, ago_s=6) == "intent-stale"
    await set_policy(rows, shop.merchant_id, confirm_after_s=300)
    assert await one.proposed(offer, ago_s=290)
    assert await one.refused(offer, ago_s=-6) == "event-in-future"
    assert await one.proposed(offer, ago_s=-4)


async def test_an_old_yes_must_be_said_again(rows: Rows, shop: Shop) -> None:
    """By the event's time, and by the approval's own, which is signed. The proposal stays open for a fresh one."""
    one = await wearer(rows)
    proposed = await one.proposed(await one.offer(shop))
    await age(rows, proposed, 40)
    assert await one.approves(proposed, ago_s=31) == "intent-stale"
    signed_at = int((await one.proposal(proposed)).created_at.timestamp()) + 5
    assert await one.approves(proposed, iat=signed_at, exp=signed_at + 60) == "intent-stale"
    assert await one.payments() == []
    assert await one.approves(proposed) is None
    assert len(await one.payments()) == 1


# Payees' codes are proposed the same way.


async def test_a_payees_code_is_proposed_and_paid(rows: Rows, shop: Shop) -> None:
    one = await wearer(rows)
    code = await one.payee_code(shop)
    assert await one.refused(code) == "amount-missing"
    proposed = await one.proposed(code, amount=Money.of(780, EUR))
    terms = proposed.terms
    assert (terms.payee, terms.merchant_id, terms.total, terms.cart) == (
        "Kvarteret's till",
        shop.merchant_id,
        Money.of(780, EUR),
        (),
    )
    assert "Kvarteret's till" in terms.text and "7,80" in terms.text
    stored = await one.proposal(proposed)
    assert (stored.payee_code_id, stored.offer_id, stored.account_id) == (code, None, await rows.account_of(shop))
    assert await one.approves(proposed) is None
    [payment] = await one.payments()
    assert (payment.total_minor, payment.total_currency, payment.merchant_id) == (780, EUR, shop.merchant_id)


async def test_a_payees_code_is_under_the_same_rules(rows: Rows, shop: Shop) -> None:
    one = await wearer(rows)
    await set_policy(rows, shop.merchant_id, limits=[{"currency": EUR, "per_payment": 500, "presence_above": 100}])
    code = await one.payee_code(shop)
    assert await one.refused(code, amount=Money.of(501, EUR)) == "limit-exceeded"
    assert await one.refused(code, amount=Money.of(1, EUR), ago_s=31) == "intent-stale"
    proposed = await one.proposed(code, amount=Money.of(101, EUR))
    assert proposed.terms.presence == ("press",)
    assert await one.approves(proposed, "nod") == "approval-invalid"


@pytest.mark.parametrize("state", [WearState.DOFFED, WearState.FOLDED, WearState.LINK_LOST])
async def test_taking_the_glasses_off_cancels_what_is_open(rows: Rows, shop: Shop, state: WearState) -> None:
    one = await wearer(rows)
    proposed = await one.proposed(await one.payee_code(shop, Money.of(780, EUR)))
    await one.wear(state)
    assert await one.closed() == [("cancelled", state)]
    await one.wear()
    assert await one.approves(proposed) == "proposal-closed"
    offer, code = await one.offer(shop), await one.payee_code(shop, Money.of(780, EUR))
    await one.proposed(offer)
    await one.proposed(code)
    assert (await one.closed())[1:] == [("cancelled", "superseded")]


async def test_a_yes_that_was_accepted_stays_when_the_glasses_come_off(rows: Rows, shop: Shop) -> None:
    one = await wearer(rows)
    assert await pays(one, shop) is None
    await one.wear(WearState.DOFFED)
    assert [payment.state for payment in await one.payments()] == ["approved"]
    assert await one.closed() == []


# Rules are given, shown and taken away.


async def test_a_policy_is_kept_as_it_was_given(rows: Rows, shop: Shop) -> None:
    given = PaymentPolicy.model_validate(
        {"limits": [{"currency": EUR, "per_day": 5, "presence": ["nod", "voice"]}], "confirm_after_s": 9}, strict=False
    )
    async with rows.database.transaction() as connection:
        assert await provisioning.find_policy(connection, shop.merchant_id) is None
        assert not await provisioning.remove_policy(connection, shop.merchant_id)
        await provisioning.set_policy(connection, shop.merchant_id, PaymentPolicy())
        await provisioning.set_policy(connection, shop.merchant_id, given)
        assert await provisioning.find_policy(connection, shop.merchant_id) == given
        assert await provisioning.remove_policy(connection, shop.merchant_id)
        assert await provisioning.find_policy(connection, shop.merchant_id) is None


async def test_policies_that_cannot_be(rows: Rows) -> None:
    paired = await rows.glasses()
    async with rows.database.transaction() as connection:
        for nobody in (MerchantId.new(), DeviceId.new()):
            with pytest.raises(Rejected, match="there is no"):
                await provisioning.set_policy(connection, nobody, PaymentPolicy())
        with pytest.raises(Rejected, match="for merchants"):
            await provisioning.set_policy(connection, paired.device_id, PaymentPolicy(capture=False))
