"""Paying by looking, on real rows: what two frames must agree on, whom the registry names, and what may be proposed."""

import asyncio
import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors import registry
from connectors.rates.ecb import EcbRates
from connectors.registry import Surroundings
from schemas.commerce import PayeesFound
from schemas.errors import Rejected
from schemas.events import Event, new_event
from schemas.ids import DeviceId, EventId, JourneyId, PayeeCodeId, PayeeId, PaymentId, ProposalId
from schemas.money import Money
from schemas.payments import PaymentRequested, PaymentState, WearState
from schemas.recognition import Intent, PayeeCode, PayeesSeen, Unclear, UnclearReason
from schemas.tables import payee_codes, payments, proposals
from streams.core.database import Database
from streams.core.handling import transaction
from streams.core.housekeeping import tidy
from streams.gateway import payees as registered
from streams.intents.payees import PayeeProposal, propose_payee
from streams.intents.service import Device
from streams.offers.agent import Offers
from streams.offers.payees import GOOD_FOR
from streams.sightings.payee_codes import read
from tests.support.payee_codes import emvco, frame, merchants_account, tlv
from tests.support.rows import PairedGlasses, Rows, Shop

ALIPAY = "https://qr.alipay.com/fkx01234abcdefghijk5678"


@pytest.fixture
def stage(database: Database) -> Offers:
    return Offers(database, {}, registry.translator("glossary", Surroundings(engine=database.engine)), EcbRates())


@pytest.fixture
async def glasses(rows: Rows) -> PairedGlasses:
    return await rows.glasses(locale="en-GB")


def sighting(glasses: PairedGlasses, codes: Sequence[str], name: str, *, ago: float = 0.0) -> Event:
    """One frame, `ago` seconds old, in which these codes were read; frames of the same name are the same picture."""
    digest = sha256(name.encode()).hexdigest()
    data = PayeesSeen(
        sighting_id=EventId.new(), frame_digest=digest, intent=Intent.PAY, payees=tuple(read(code) for code in codes)
    )
    context = {"journeyid": JourneyId.new(), "deviceid": glasses.device_id, "locale": "en-GB"}
    taken = datetime.now(UTC) - timedelta(seconds=ago)
    return new_event("payees.seen", data, source="/sightings", capturedat=taken, **context)


async def look(stage: Offers, event: Event) -> PayeesFound | UnclearReason:
    """What the glasses hear."""
    [(key, answer)] = await stage.handle(event)
    assert key == event.deviceid and answer.journeyid == event.journeyid
    if answer.type == "payees.found":
        return answer.decode(PayeesFound)
    unclear = answer.decode(Unclear)
    assert answer.type == "look.again" and unclear.hint
    return unclear.reason


async def payee(rows: Rows, code: str, *, name: str = "Books", shop: Shop | None = None, currency: str = "CNY") -> PayeeId:
    shop = shop or await rows.merchant()
    async with rows.database.transaction() as connection:
        return await registered.add(connection, shop.merchant_id, name=name, currency=currency, code=code)


async def found(stage: Offers, glasses: PairedGlasses, *codes: str) -> PayeesFound:
    """After two frames that agree."""
    assert await look(stage, sighting(glasses, codes, "one")) is UnclearReason.PAYEE_SEEN_ONCE
    answer = await look(stage, sighting(glasses, codes, "two"))
    assert isinstance(answer, PayeesFound)
    return answer


def static() -> str:
    return emvco({"26": merchants_account()})


def bill(amount: str = "12.50", number: str | None = "B-1", account: str | None = None) -> str:
    return emvco({"01": "12", "26": account or merchants_account(), "54": amount, "62": tlv("01", number) if number else None})


# Seeing.


async def test_two_frames_that_agree_name_the_registered_payee(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    code, shop = static(), await rows.merchant()
    await payee(rows, code, name="Books at the Market", shop=shop)
    answer = await found(stage, glasses, code)
    [one] = answer.payees
    assert (one.name, one.merchant_id, one.amount, one.currency) == ("Books at the Market", shop.merchant_id, None, "CNY")
    assert answer.text == "Books at the Market. How much, in CNY?"
    assert timedelta(seconds=115) < one.expires_at - datetime.now(UTC) <= GOOD_FOR


async def test_the_registrys_name_is_said_and_never_the_codes(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    account = merchants_account()
    await payee(rows, emvco({"26": account}), name="Books")
    answer = await found(stage, glasses, emvco({"26": account, "59": "YOUR BANK", "54": "12.50"}))
    assert answer.payees[0].name == "Books" and "YOUR BANK" not in answer.model_dump_json()
    assert answer.text == "Books asks for CN¥12.50."


async def test_nobody_is_named_whom_nobody_registered(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    code = static()
    assert await look(stage, sighting(glasses, [code], "one")) is UnclearReason.PAYEE_SEEN_ONCE
    assert await look(stage, sighting(glasses, [code], "two")) is UnclearReason.PAYEE_UNKNOWN
    assert await rows.count("payee_codes", device_id=glasses.device_id, payee_id=None) == 1


async def test_the_same_picture_twice_is_one_frame(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    code = static()
    await payee(rows, code)
    for _ in range(3):
        assert await look(stage, sighting(glasses, [code], "one")) is UnclearReason.PAYEE_SEEN_ONCE


async def test_a_repeated_event_changes_nothing(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    code = static()
    await payee(rows, code)
    first, second = sighting(glasses, [code], "one"), sighting(glasses, [code], "two")
    await stage.handle(first)
    [(_, answered)] = await stage.handle(second)
    before = await kept(rows.database, glasses)
    [(_, again)] = await stage.handle(second)
    assert (again.id, again.data) == (answered.id, answered.data)
    assert [row.frames for row in await kept(rows.database, glasses)] == [row.frames for row in before]


async def test_frames_that_are_far_apart_do_not_count_together(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    code = static()
    await payee(rows, code)
    assert await look(stage, sighting(glasses, [code], "one", ago=16)) is UnclearReason.PAYEE_SEEN_ONCE
    assert await look(stage, sighting(glasses, [code], "two")) is UnclearReason.PAYEE_SEEN_ONCE
    assert isinstance(await look(stage, sighting(glasses, [code], "three")), PayeesFound)


async def test_two_payees_in_view_are_both_named_and_the_wearer_chooses(
    rows: Rows, stage: Offers, glasses: PairedGlasses
) -> None:
    one, other = static(), static()
    await payee(rows, one, name="Books")
    await payee(rows, other, name="Flowers")
    answer = await found(stage, glasses, one, other)
    assert [item.name for item in answer.payees] == ["Books", "Flowers"]
    assert answer.text == "Several payees are in view. Whom: Books or Flowers?"


async def test_who_is_not_registered_is_left_out_beside_who_is(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    known = static()
    await payee(rows, known)
    assert [item.name for item in (await found(stage, glasses, known, static())).payees] == ["Books"]


async def test_a_code_that_comes_and_goes_confirms_nothing(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    real, overlay = static(), static()
    for code in (real, overlay):
        await payee(rows, code)
    for name, view in (("1", [real]), ("2", [real, overlay]), ("3", [real]), ("4", [overlay]), ("5", [real, overlay])):
        assert await look(stage, sighting(glasses, view, name)) is UnclearReason.PAYEE_SEEN_ONCE
    assert all(len(row.frames) == 1 for row in await kept(rows.database, glasses)), "no code keeps a frame that was contradicted"
    assert isinstance(await look(stage, sighting(glasses, [real, overlay], "6")), PayeesFound)


async def test_another_amount_is_another_code(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    account = merchants_account()
    await payee(rows, emvco({"26": account}))
    cheap, dear = bill("1.00", account=account), bill("100.00", account=account)
    assert await look(stage, sighting(glasses, [cheap], "one")) is UnclearReason.PAYEE_SEEN_ONCE
    assert await look(stage, sighting(glasses, [dear], "two")) is UnclearReason.PAYEE_SEEN_ONCE


async def test_frames_of_other_glasses_do_not_count(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    code = static()
    await payee(rows, code)
    await look(stage, sighting(await rows.glasses(), [code], "one"))
    assert await look(stage, sighting(glasses, [code], "two")) is UnclearReason.PAYEE_SEEN_ONCE


async def test_glasses_that_are_not_paired_leave_nothing(stage: Offers) -> None:
    stranger = PairedGlasses(DeviceId.new(), None)  # type: ignore[arg-type]
    with pytest.raises(Rejected, match="not paired"):
        await stage.handle(sighting(stranger, [static()], "one"))


async def test_a_code_is_kept_without_its_text(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    await look(stage, sighting(glasses, [ALIPAY], "one"))
    [row] = await kept(rows.database, glasses)
    assert "fkx01234" not in repr(row._mapping) and row.code["key"] == read(ALIPAY).key


async def kept(database: Database, glasses: PairedGlasses) -> Sequence[Any]:
    async with database.transaction() as connection:
        query = select(payee_codes).where(payee_codes.c.device_id == glasses.device_id).order_by(payee_codes.c.id)
        return (await connection.execute(query)).all()


# Proposing.


def device(glasses: PairedGlasses) -> Device:
    return Device(
        id=glasses.device_id,
        public_key=bytes(32),
        locale="en-GB",
        wear_state=WearState.WORN,
        revoked=False,
        payer_provider="alipay",
    )


async def propose(
    database: Database,
    glasses: PairedGlasses,
    code_id: PayeeCodeId,
    amount: Money | None = None,
    *,
    quantity: int = 1,
    later: timedelta = timedelta(),
) -> PayeeProposal:
    request = PaymentRequested(payee_code_id=code_id, amount=amount, quantity=quantity)
    async with database.transaction() as connection:
        return await propose_payee(connection, request, device(glasses), datetime.now(UTC) + later)


async def refused(work: Any) -> str:
    with pytest.raises(Rejected) as refusal:
        await work
    return refusal.value.problem.code


async def test_an_amount_of_the_wearers_own(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    code, shop = static(), await rows.merchant()
    payee_id = await payee(rows, code, shop=shop)
    event = sighting(glasses, [code], "two")
    await look(stage, sighting(glasses, [code], "one"))
    answer = await look(stage, event)
    assert isinstance(answer, PayeesFound)
    proposal = await propose(rows.database, glasses, answer.payees[0].payee_code_id, Money.of(1250, "CNY"))
    assert (proposal.merchant_id, proposal.payee_name, proposal.total) == (shop.merchant_id, "Books", Money.of(1250, "CNY"))
    assert proposal.journey_id == event.journeyid, "the journey of the frame that was answered"
    assert set(proposal.text_values) == {"total", "payee"} and "12.50" in proposal.text_values["total"]
    assert proposal.evidence["payee_id"] == payee_id and len(proposal.evidence["frames"]) == 2


async def test_the_codes_own_amount(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    account = merchants_account()
    await payee(rows, emvco({"26": account}))
    code_id = (await found(stage, glasses, emvco({"26": account, "54": "12.50"}))).payees[0].payee_code_id
    assert (await propose(rows.database, glasses, code_id)).total == Money.of(1250, "CNY")
    for amount in (Money.of(1, "CNY"), Money.of(1250, "CNY")):
        assert await refused(propose(rows.database, glasses, code_id, amount)) == "amount-not-free"


async def test_what_is_missing_or_does_not_fit(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    code = static()
    await payee(rows, code)
    code_id = (await found(stage, glasses, code)).payees[0].payee_code_id
    yuan = Money.of(1, "CNY")
    assert await refused(propose(rows.database, glasses, code_id)) == "amount-missing"
    assert await refused(propose(rows.database, glasses, code_id, Money.of(1, "EUR"))) == "amount-missing"
    assert await refused(propose(rows.database, glasses, code_id, yuan, quantity=2)) == "amount-not-free"
    assert await refused(propose(rows.database, glasses, PayeeCodeId.new(), yuan)) == "payee-code-unknown"
    assert await refused(propose(rows.database, await rows.glasses(), code_id, yuan)) == "payee-code-unknown"
    assert await refused(propose(rows.database, glasses, code_id, yuan, later=GOOD_FOR)) == "payee-code-expired"


async def test_a_code_seen_once_cannot_be_paid(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    code = static()
    await payee(rows, code)
    await look(stage, sighting(glasses, [code], "one"))
    [row] = await kept(rows.database, glasses)
    assert await refused(propose(rows.database, glasses, PayeeCodeId(row.id), Money.of(1, "CNY"))) == "payee-code-unknown"


async def test_a_contradicted_code_cannot_be_paid_any_more(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    real, overlay = static(), static()
    for code in (real, overlay):
        await payee(rows, code)
    code_id = (await found(stage, glasses, real)).payees[0].payee_code_id
    await look(stage, sighting(glasses, [real, overlay], "three"))
    assert await refused(propose(rows.database, glasses, code_id, Money.of(1, "CNY"))) == "payee-code-unknown"


async def test_a_payee_that_was_removed_or_changed_hands_cannot_be_paid(
    rows: Rows, stage: Offers, glasses: PairedGlasses
) -> None:
    code = static()
    payee_id = await payee(rows, code)
    code_id = (await found(stage, glasses, code)).payees[0].payee_code_id
    async with rows.database.transaction() as connection:
        await registered.remove(connection, payee_id)
    assert await refused(propose(rows.database, glasses, code_id, Money.of(1, "CNY"))) == "payee-code-unknown"
    await payee(rows, code, name="Somebody else")
    assert await refused(propose(rows.database, glasses, code_id, Money.of(1, "CNY"))) == "payee-code-unknown"
    assert isinstance(await look(stage, sighting(glasses, [code], "three")), PayeesFound)
    assert (await propose(rows.database, glasses, code_id, Money.of(1, "CNY"))).payee_name == "Somebody else"


# A bill is paid once.


async def store(
    database: Database, glasses: PairedGlasses, proposal: PayeeProposal, state: str, *, expires_in_s: float = 60
) -> ProposalId:
    async with database.transaction() as connection:
        return await insert(connection, glasses, proposal, state, expires_in_s=expires_in_s)


async def insert(
    connection: AsyncConnection, glasses: PairedGlasses, proposal: PayeeProposal, state: str, *, expires_in_s: float = 60
) -> ProposalId:
    proposal_id = ProposalId.new()
    values = {
        "id": proposal_id,
        "journey_id": proposal.journey_id,
        "device_id": glasses.device_id,
        "payee_code_id": proposal.payee_code_id,
        "merchant_id": proposal.merchant_id,
        "total_minor": proposal.total.minor,
        "total_currency": proposal.total.currency,
        "terms": {},
        "digest": "0" * 64,
        "nonce": str(proposal_id),
        "state": state,
        "expires_at": datetime.now(UTC) + timedelta(seconds=expires_in_s),
    }
    await connection.execute(proposals.insert().values(values))
    return proposal_id


async def pay(database: Database, glasses: PairedGlasses, proposal: PayeeProposal, state: PaymentState) -> PaymentId:
    proposal_id, payment_id = await store(database, glasses, proposal, "approved"), PaymentId.new()
    values = {
        "id": payment_id,
        "proposal_id": proposal_id,
        "order_id": f"ord_of_{payment_id}",
        "journey_id": proposal.journey_id,
        "device_id": glasses.device_id,
        "merchant_id": proposal.merchant_id,
        "total_minor": proposal.total.minor,
        "total_currency": proposal.total.currency,
        "state": "approved",
        "provider": "alipay",
        "locale": "en-GB",
        "submit_by": datetime.now(UTC),
    }
    async with database.transaction() as connection:
        await connection.execute(payments.insert().values(values))
        path = {PaymentState.DECLINED: ("submitting", "declined"), PaymentState.UNKNOWN: ("submitting", "unknown")}
        for step in path.get(state, ()):
            await connection.execute(update(payments).where(payments.c.id == payment_id).values(state=step))
    return payment_id


async def test_a_bill_that_is_being_paid_is_proposed_to_nobody(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    account, friend = merchants_account(), await rows.glasses()
    await payee(rows, emvco({"26": account}))
    code = bill(account=account)
    mine = (await found(stage, glasses, code)).payees[0].payee_code_id
    theirs = (await found(stage, friend, code)).payees[0].payee_code_id
    proposal = await propose(rows.database, glasses, mine)
    payment = await pay(rows.database, glasses, proposal, PaymentState.UNKNOWN)
    assert await refused(propose(rows.database, glasses, mine)) == "payment-state"
    assert await refused(propose(rows.database, friend, theirs)) == "payment-state"
    async with rows.database.transaction() as connection:
        await connection.execute(update(payments).where(payments.c.id == payment).values(state="declined"))
    assert (await propose(rows.database, friend, theirs)).total == Money.of(1250, "CNY"), "nothing was paid: it is open again"


async def test_a_bill_open_on_other_glasses_waits(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    account, friend = merchants_account(), await rows.glasses()
    await payee(rows, emvco({"26": account}))
    code = bill(account=account)
    mine = (await found(stage, glasses, code)).payees[0].payee_code_id
    theirs = (await found(stage, friend, code)).payees[0].payee_code_id
    open_proposal = await store(rows.database, glasses, await propose(rows.database, glasses, mine), "open")
    assert (await propose(rows.database, glasses, mine)).payee_name == "Books", "the new proposal takes the old one's place"
    assert await refused(propose(rows.database, friend, theirs)) == "payment-state"
    async with rows.database.transaction() as connection:
        past = datetime.now(UTC) - timedelta(seconds=1)
        await connection.execute(update(proposals).where(proposals.c.id == open_proposal).values(expires_at=past))
    assert (await propose(rows.database, friend, theirs)).payee_name == "Books", "nobody can approve the other one any more"


async def test_of_glasses_that_ask_for_one_bill_at_once_one_gets_it(rows: Rows, stage: Offers) -> None:
    account = merchants_account()
    await payee(rows, emvco({"26": account}))
    code, wearers = bill(account=account), [await rows.glasses() for _ in range(4)]
    code_ids = [(await found(stage, wearer, code)).payees[0].payee_code_id for wearer in wearers]

    async def ask(wearer: PairedGlasses, code_id: PayeeCodeId) -> str:
        async with rows.database.transaction() as connection:
            request = PaymentRequested(payee_code_id=code_id)
            proposal = await propose_payee(connection, request, device(wearer), datetime.now(UTC))
            await asyncio.sleep(0.05)  # the others have asked by now
            return await insert(connection, wearer, proposal, "open")

    results = await asyncio.gather(*map(ask, wearers, code_ids), return_exceptions=True)
    refusals = [result for result in results if isinstance(result, Rejected)]
    assert len(refusals) == len(wearers) - 1, results
    assert {refusal.problem.code for refusal in refusals} == {"payment-state"}


async def test_another_bill_and_a_static_code_are_not_held_up(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    account = merchants_account()
    await payee(rows, emvco({"26": account}))
    paid = (await found(stage, glasses, bill(number="B-1", account=account))).payees[0].payee_code_id
    await pay(rows.database, glasses, await propose(rows.database, glasses, paid), PaymentState.APPROVED)
    friend = await rows.glasses()
    other = (await found(stage, friend, bill(number="B-2", account=account))).payees[0].payee_code_id
    assert await propose(rows.database, friend, other)
    someone = await rows.glasses()
    plain = (await found(stage, someone, emvco({"26": account, "54": "12.50"}))).payees[0].payee_code_id
    for _ in range(2):
        await pay(rows.database, someone, await propose(rows.database, someone, plain), PaymentState.APPROVED)
    assert await rows.count("payments", device_id=someone.device_id) == 2


async def test_a_bill_without_a_number_is_only_known_where_it_was_seen(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    account, friend = merchants_account(), await rows.glasses()
    await payee(rows, emvco({"26": account}))
    code = bill(number=None, account=account)
    mine = (await found(stage, glasses, code)).payees[0].payee_code_id
    theirs = (await found(stage, friend, code)).payees[0].payee_code_id
    await pay(rows.database, glasses, await propose(rows.database, glasses, mine), PaymentState.APPROVED)
    assert await refused(propose(rows.database, glasses, mine)) == "payment-state"
    await pay(rows.database, friend, await propose(rows.database, friend, theirs), PaymentState.APPROVED)


async def test_the_database_itself_lets_no_bill_be_approved_twice(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    account, friend = merchants_account(), await rows.glasses()
    await payee(rows, emvco({"26": account}))
    code = bill(account=account)
    mine = await propose(rows.database, glasses, (await found(stage, glasses, code)).payees[0].payee_code_id)
    theirs = await propose(rows.database, friend, (await found(stage, friend, code)).payees[0].payee_code_id)
    second = await store(rows.database, friend, theirs, "open")
    payment = await pay(rows.database, glasses, mine, PaymentState.APPROVED)
    with pytest.raises(IntegrityError, match="a bill is paid once"):
        await store(rows.database, friend, theirs, "approved")
    approve = update(proposals).where(proposals.c.id == second).values(state="approved")
    with pytest.raises(IntegrityError, match="a bill is paid once"):
        async with rows.database.transaction() as connection:
            await connection.execute(approve)
    async with rows.database.transaction() as connection:
        await connection.execute(update(payments).where(payments.c.id == payment).values(state="cancelled"))
        await connection.execute(approve)


# The registry.


@pytest.mark.parametrize(
    ("code", "name", "currency", "field"),
    [
        ("https://example.com", "Books", "CNY", "/code"),
        ("281234567890123456", "Books", "CNY", "/code"),
        ("weixin://wxpay/bizpayurl?pr=p4lpSuKzz", "Books", "CNY", "/code"),
        (emvco({"55": "01"}), "Books", "CNY", "/code"),
        (emvco({"26": merchants_account()}), "Books", "EUR", "/currency"),
        (emvco({"26": merchants_account()}), "Books", "XYZ", "/currency"),
        (emvco({"26": merchants_account()}), "  ", "CNY", "/name"),
        (emvco({"26": merchants_account()}), "Books\u202eskooB", "CNY", "/name"),
        (emvco({"26": merchants_account()}), "B" * 101, "CNY", "/name"),
    ],
)
async def test_what_cannot_be_registered(rows: Rows, code: str, name: str, currency: str, field: str) -> None:
    shop = await rows.merchant()
    with pytest.raises(Rejected) as refusal:
        await payee(rows, code, name=name, currency=currency, shop=shop)
    assert refusal.value.problem.errors[0].pointer == field
    assert code not in str(refusal.value.problem)
    assert await rows.count("payees", merchant_id=shop.merchant_id) == 0


async def test_a_code_has_one_payee_at_a_time(rows: Rows) -> None:
    code, shop = static(), await rows.merchant()
    first = await payee(rows, code, shop=shop)
    with pytest.raises(Rejected, match="registered already"):
        await payee(rows, code)
    async with rows.database.transaction() as connection:
        await registered.remove(connection, first)
    with pytest.raises(Rejected, match="no payee"):
        async with rows.database.transaction() as connection:
            await registered.remove(connection, first)
    second = await payee(rows, code, shop=shop, name="Books, anew")
    async with rows.database.transaction() as connection:
        [listed] = await registered.listed(connection, shop.merchant_id)
    assert (listed.id, listed.name, listed.scheme) == (second, "Books, anew", "emvco")


async def test_removing_a_payee_cancels_what_was_proposed(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    code = static()
    payee_id = await payee(rows, code)
    code_id = (await found(stage, glasses, code)).payees[0].payee_code_id
    proposal_id = await store_properly(rows.database, glasses, code_id)
    async with rows.database.transaction() as connection:
        await registered.remove(connection, payee_id)
    async with transaction(rows.database) as unit:
        assert await registered.cancel_open(unit, payee_id) == 1
    assert await rows.count("proposals", id=proposal_id, state="cancelled", state_reason="payee_removed") == 1


async def store_properly(database: Database, glasses: PairedGlasses, code_id: PayeeCodeId) -> ProposalId:
    """With terms, as the wearer is shown them."""
    proposal = await propose(database, glasses, code_id, Money.of(100, "CNY"))
    proposal_id = await store(database, glasses, proposal, "open")
    terms = {
        "proposal_id": proposal_id,
        "device_id": glasses.device_id,
        "merchant_id": proposal.merchant_id,
        "payee": proposal.payee_name,
        "total": proposal.total.model_dump(),
        "cart": [],
        "text": "Pay?",
        "presence": ["press"],
        "nonce": "n" * 32,
        "expires_at": (datetime.now(UTC) + timedelta(seconds=60)).isoformat(),
    }
    async with database.transaction() as connection:
        await connection.execute(update(proposals).where(proposals.c.id == proposal_id).values(terms=terms))
    return proposal_id


def test_a_picture_of_one_code_is_read() -> None:
    code = static()
    assert registered.text_of_picture(frame(code)) == code
    blank = io.BytesIO()
    Image.new("L", (200, 200), 255).save(blank, "PNG")
    for picture in (blank.getvalue(), frame(code, static()), b"no picture"):
        with pytest.raises(Rejected) as refusal:
            registered.text_of_picture(picture)
        assert refusal.value.problem.errors[0].pointer == "/picture"


async def test_what_was_looked_at_and_not_paid_is_forgotten(rows: Rows, stage: Offers, glasses: PairedGlasses) -> None:
    looked_at, paid = static(), static()
    for code in (looked_at, paid):
        await payee(rows, code)
    await found(stage, glasses, looked_at)
    kept_id = (await found(stage, glasses, paid)).payees[0].payee_code_id
    await store(rows.database, glasses, await propose(rows.database, glasses, kept_id, Money.of(1, "CNY")), "declined")
    async with rows.database.transaction() as connection:
        statement = text("UPDATE payee_codes SET expires_at = now() - interval '2 days' WHERE device_id = :device")
        await connection.execute(statement, {"device": glasses.device_id})
    await tidy(rows.database, timedelta(days=7))
    assert [row.id for row in await kept(rows.database, glasses)] == [kept_id]


def test_what_a_code_says_round_trips_through_its_row() -> None:
    for code in (read(ALIPAY), read(static()), read(bill())):
        assert PayeeCode.model_validate(code.model_dump(mode="json"), strict=False) == code
