"""What operators do about money on the command line, on a real database and with a provider that answers as the test wants."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text

from schemas.ids import AttemptId, MerchantId, PaymentId
from schemas.money import Money
from schemas.payments import Declined, Mismatched, NotSubmitted, Outcome, Pending, ProviderEvent, Unknown
from schemas.tables import attempts, outbox, provider_accounts
from streams.core import receipts
from streams.core.handling import transaction
from streams.payments import commands, evidence, store
from tests.integration.payments.invented_provider import BOOKS, Books
from tests.integration.payments.operated import PROVIDER, Operated, Paid
from tests.support.rows import Rows

SECRET = "a-very-secret-key-of-a-merchant"


async def merchant(operated: Operated) -> MerchantId:
    return (await Rows(operated.database, operated.sealer).merchant()).merchant_id


async def told(operated: Operated, paid: Paid, topic: str = "payments.events") -> list[str]:
    """What was published about it: for merchants, unless another topic is named."""
    async with operated.database.transaction() as connection:
        about = (outbox.c.topic == topic, outbox.c.headers["ce_subject"].astext == paid.payment_id)
        query = select(outbox.c.headers["ce_type"].astext).where(*about).order_by(outbox.c.id)
        return list((await connection.execute(query)).scalars())


async def told_to_wearer(operated: Operated, paid: Paid) -> int:
    return (await told(operated, paid, "glasses.answers")).count("payment.updated")


async def entry(operated: Operated, paid: Paid, kind: str) -> dict[str, Any]:
    async with operated.database.transaction() as connection:
        entries = await receipts.read(connection, paid.journey_id)
    return next(each.content for each in reversed(entries) if each.kind == kind)


async def holds(operated: Operated, paid: Paid) -> bool:
    return [examined.problems async for examined in evidence.examine(operated.database, [paid.journey_id])] == [()]


# connectors


async def test_an_account_is_added_tried_listed_and_removed(operated: Operated, tmp_path: Path) -> None:
    merchant_id = await merchant(operated)
    secret, certificate = tmp_path / "key.txt", tmp_path / "certificate.pem"
    secret.write_text(SECRET + "\n")
    certificate.write_text("-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n")
    added = await operated.run(
        *("connectors", "add", PROVIDER, "--merchant", merchant_id, "--set", f"api_key=@{secret}"),
        *("--set", "account=inv_added", "--set", f"certificate=@{certificate}"),
        AUGENBLICK_PUBLIC_URL="https://pay.example/",
    )
    assert added.exit_code == 0, added.output
    account_id = next(word for word in added.output.split() if word.startswith("acc_"))
    assert f"https://pay.example/v1/notifications/{PROVIDER}/{account_id}" in added.output
    assert "inv_added" in added.output and SECRET not in added.output

    async with operated.database.transaction() as connection:
        row = (await connection.execute(select(provider_accounts).where(provider_accounts.c.id == account_id))).one()
    assert (row.merchant_id, row.external_id) == (merchant_id, "inv_added")
    assert SECRET.encode() not in row.credentials_sealed
    sealed = json.loads(operated.sealer.open(row.credentials_sealed, f"account:{account_id}"))
    assert sealed == {"api_key": SECRET, "account": "inv_added", "certificate": certificate.read_text().strip()}

    tried = await operated.run("connectors", "test", account_id)
    assert (tried.exit_code, "works" in tried.output) == (0, True), tried.output
    BOOKS["inv_added"].refuses = True
    tried = await operated.run("connectors", "test", "--merchant", merchant_id)
    assert (tried.exit_code, "does not accept `api_key`" in tried.output) == (1, True), tried.output

    listed = await operated.run("connectors", "list", "--merchant", merchant_id, "--provider", PROVIDER, "--json")
    [shown] = json.loads(listed.stdout)["accounts"]
    assert (shown["id"], shown["external_id"], shown["currencies"], shown["removed_at"]) == (account_id, "inv_added", None, None)
    assert SECRET not in listed.output and "sealed" not in listed.output
    assert account_id in (await operated.run("connectors", "list")).output

    removed = await operated.run("connectors", "remove", account_id)
    assert (removed.exit_code, "still open" in removed.output) == (0, False)
    assert (await operated.run("connectors", "remove", account_id)).exit_code == 1
    assert (await operated.run("connectors", "test", "--merchant", merchant_id, "--provider")).exit_code == 2


async def test_credentials_come_from_a_file_or_standard_input(operated: Operated, tmp_path: Path) -> None:
    merchant_id = await merchant(operated)
    add = ("connectors", "add", PROVIDER, "--merchant", merchant_id)
    document = json.dumps({"api_key": SECRET, "account": "inv_from_file"})
    file = tmp_path / "credentials.json"
    file.write_text(document)
    first = await operated.run(*add, "--file", str(file))
    assert (first.exit_code, "AUGENBLICK_PUBLIC_URL is not set" in first.output) == (0, True), first.output
    again = await operated.run(*add, "--file", "-", input=document)
    assert (again.exit_code, "its credentials are replaced" in again.output) == (0, True), again.output
    other = await operated.run(*add, "--file", "-", "--set", "account=inv_other", input=document)
    assert (other.exit_code, "remove it first" in other.output) == (1, True), other.output
    assert SECRET not in first.output + again.output + other.output


@pytest.mark.parametrize(
    ("arguments", "input", "reason"),
    [
        (("--set", f"api_key={SECRET}"), None, "api_key is a secret"),
        (("--set", SECRET), None, "--set takes FIELD=VALUE"),
        (("--set", f"{SECRET}=x"), None, "The fields of invented are api_key, account, certificate"),
        (("--set", "api_key=@/nowhere/at/all"), None, "the file cannot be read"),
        (("--file", "/nowhere/at/all"), None, "cannot be read"),
        (("--file", "-"), SECRET, "is not JSON"),
        (("--file", "-"), f'["{SECRET}"]', "is not a JSON object"),
        (("--file", "-"), f'{{"api_key": ["{SECRET}"], "account": "a"}}', "api_key must be text"),
        (("--file", "-"), f'{{"api_key": "{SECRET}"}}', "account: Field required"),
        (("--file", "-"), f'{{"api_key": "{SECRET[:4]}", "account": "a"}}', "api_key: Value should have at least 8 items"),
        (("--file", "-"), f'{{"api_key": "{SECRET}", "account": "a", "more": "{SECRET}"}}', "more: Extra inputs"),
    ],
)
async def test_credentials_that_cannot_be_are_refused_without_being_shown(
    operated: Operated, arguments: tuple[str, ...], input: str | None, reason: str
) -> None:
    merchant_id = await merchant(operated)
    refused = await operated.run("connectors", "add", PROVIDER, "--merchant", merchant_id, *arguments, input=input)
    assert (refused.exit_code, reason in refused.output) == (1, True), refused.output
    assert SECRET[:4] not in refused.output
    assert await Rows(operated.database, operated.sealer).count("provider_accounts", merchant_id=merchant_id) == 1  # Stripe's


async def test_accounts_of_nobody_are_refused(operated: Operated) -> None:
    document = json.dumps({"api_key": SECRET, "account": "a"})
    for arguments, reason in (
        ((PROVIDER, "--merchant", MerchantId.new()), "there is no merchant"),
        (("paypal", "--merchant", MerchantId.new()), "There is no payment provider named 'paypal'"),
    ):
        refused = await operated.run("connectors", "add", *arguments, "--file", "-", input=document)
        assert (refused.exit_code, reason in refused.output) == (1, True), refused.output


async def test_whoever_removes_an_account_is_told_what_is_still_open(operated: Operated) -> None:
    paid = await operated.paid(capture=False)
    removed = await operated.run("connectors", "remove", paid.account_id)
    assert "1 of its payments is still open" in removed.output


# payments unknown, show


async def unknown(operated: Operated, answer: Outcome | None = None) -> Paid:
    """The money moved, or not, and the answer never came."""
    paid = await operated.approved()
    lost = answer or Unknown(reference=paid.reference, reason="no answer within 20 s")
    BOOKS.setdefault(paid.account, Books()).submit = lambda _: lost.model_copy(update={"reference": paid.reference})
    await operated.carry_out(paid)
    return paid


async def frozen(operated: Operated) -> Paid:
    """With its command running."""
    paid = await unknown(operated, Mismatched(reference=None, reason="the answer says 9.00 SEK instead of 18.95 SEK"))
    row = await operated.row(paid)
    assert (row.state, row.frozen_at is not None) == ("unknown", True)
    return paid


async def contradicted(operated: Operated) -> Paid:
    """It was declined, and then the provider said that it was paid: frozen, with nothing running."""
    paid = await unknown(operated, Declined(reference=None, code="no_funds", message="no"))
    async with transaction(operated.database) as unit:
        assert await operated.work.freeze_if_contradicted(paid.payment_id, lambda *_: "it was paid after it had ended", unit)
    return paid


async def test_what_is_unknown_is_shown(operated: Operated) -> None:
    lost, odd, over = await unknown(operated), await frozen(operated), await contradicted(operated)
    fine = await operated.paid()
    event = ProviderEvent(
        provider=PROVIDER,
        event_id="evt_of_nobody",
        kind="payment",
        reference="inv_of_nobody",
        amount=Money.of(650, "SEK"),
        occurred_at=(await operated.row(lost)).created_at,
    )
    async with operated.database.transaction() as connection:
        await store.add_notification(connection, lost.account_id, event, None)
    shown = await operated.run("payments", "unknown", "--older-than", "0", "--json")
    document = json.loads(shown.stdout)
    by_id = {each["payment_id"]: each for each in document["payments"]}
    assert {lost.payment_id, odd.payment_id, over.payment_id} <= set(by_id)
    assert fine.payment_id not in by_id
    about = by_id[lost.payment_id]
    assert (about["state"], about["attempt"], about["outcome"], about["reason"]) == (
        "unknown",
        "authorise",
        "unknown",
        "no answer within 20 s",
    )
    assert (about["reference"], about["asked"], about["total"]) == (lost.reference, 1, {"minor": 1895, "currency": "SEK"})
    assert about["next_ask_at"] is not None and about["since"] is not None
    assert (by_id[odd.payment_id]["next_ask_at"], by_id[over.payment_id]["attempt"]) == (None, None)
    [unmatched] = [each for each in document["unmatched_notifications"] if each["account_id"] == lost.account_id]
    assert (unmatched["event_id"], unmatched["reference"]) == ("evt_of_nobody", "inv_of_nobody")

    table = await operated.run("payments", "unknown", "--older-than", "0", "--check")
    assert table.exit_code == 1
    for expected in (lost.payment_id, odd.payment_id, "no answer within 20 s", "9.00 SEK instead", "never", "evt_of_nobody"):
        assert expected in table.output
    assert (await operated.run("payments", "unknown")).exit_code == 0


async def test_young_commands_are_not_shown(operated: Operated) -> None:
    lost = await unknown(operated)
    shown = json.loads((await operated.run("payments", "unknown", "--json")).stdout)
    assert lost.payment_id not in [each["payment_id"] for each in shown["payments"]]


async def test_a_payment_nobody_could_begin_is_shown(operated: Operated) -> None:
    """The janitor puts it off again and again, and it has no command yet."""
    stuck = await operated.approved()
    shown = json.loads((await operated.run("payments", "unknown", "--older-than", "0", "--json")).stdout)
    assert stuck.payment_id in [each["payment_id"] for each in shown["payments"]]


async def test_all_of_a_payment_is_shown(operated: Operated) -> None:
    paid = await operated.paid()
    await operated.command(paid, "refund", 500)
    shown = json.loads((await operated.run("payments", "show", paid.payment_id, "--json")).stdout)
    assert (shown["payment"]["state"], shown["payment"]["refunded_minor"]) == ("partially_refunded", 500)
    assert [attempt["kind"] for attempt in shown["attempts"]] == ["authorise", "refund"]
    assert [each["kind"] for each in shown["receipt"]][-2:] == ["command", "provider_answered"]
    table = await operated.run("payments", "show", paid.payment_id)
    assert "5.00 SEK" in table.output and paid.reference in table.output
    assert (await operated.run("payments", "show", PaymentId.new())).exit_code == 1
    assert (await operated.run("payments", "show", "pay_1")).exit_code == 2


# payments resolve


async def test_the_provider_is_asked_and_what_it_says_is_settled(operated: Operated) -> None:
    lost = await unknown(operated)
    result = await operated.run("payments", "resolve", lost.payment_id)
    assert (result.exit_code, "the provider says succeeded; it is captured" in result.output) == (0, True), result.output
    row = await operated.row(lost)
    assert (row.state, row.captured_minor) == ("captured", 1895)
    assert (await told(operated, lost))[-1:] == ["payment.captured"]
    assert len(lost.books.submitted) == 1
    assert await holds(operated, lost)
    again = await operated.run("payments", "resolve", lost.payment_id)
    assert (again.exit_code, "nothing was asked: it is captured" in again.output) == (0, True), again.output


@pytest.mark.parametrize("answer", [Pending, NotSubmitted, Unknown, Mismatched])
async def test_what_is_not_final_leaves_it_as_it_is(operated: Operated, answer: type) -> None:
    reason = {"reason": "it says 9.00"} if answer in (Unknown, Mismatched) else {}
    for paid in (await unknown(operated), await frozen(operated)):
        reference = paid.reference
        paid.books.fetch = lambda _, reference=reference: answer(reference=reference, **reason)  # type: ignore[misc]
        before = await operated.row(paid)
        result = await operated.run("payments", "resolve", paid.payment_id)
        assert result.exit_code == 0, result.output
        row = await operated.row(paid)
        assert row.state == "unknown"
        assert (row.frozen_at is not None) == (before.frozen_at is not None or answer is Mismatched)
        assert len(paid.books.submitted) == 1


async def test_an_answer_that_fits_thaws_it(operated: Operated) -> None:
    paid = await frozen(operated)
    result = await operated.run("payments", "resolve", paid.payment_id)
    assert "it is captured" in result.output and "frozen" not in result.output
    row = await operated.row(paid)
    assert (row.state, row.frozen_at, row.frozen_reason) == ("captured", None, None)
    assert await holds(operated, paid)


async def test_nothing_is_ever_submitted_by_asking(operated: Operated) -> None:
    """Begun, and the provider has never been told of it: there is no reference to ask about."""
    paid = await operated.approved()
    async with transaction(operated.database) as unit:
        assert await operated.work.open(paid.payment_id, unit) is not None
    result = await operated.run("payments", "resolve", paid.payment_id)
    assert (result.exit_code, "has not come as far as the provider" in result.output) == (0, True), result.output
    assert BOOKS[paid.account].submitted == []
    not_begun = await operated.approved()
    assert "it has not begun" in (await operated.run("payments", "resolve", not_begun.payment_id)).output


SAYS = ("--note", "seen in the dashboard", "--by", "operator 7", "--yes")


@pytest.mark.parametrize(
    ("end", "state", "outcome", "event"),
    [
        ("succeeded", "captured", "succeeded", "payment.captured"),
        ("declined", "declined", "declined", "payment.declined"),
        ("failed", "failed", "rejected", "payment.failed"),
        ("cancelled", "cancelled", "cancelled", "payment.cancelled"),
    ],
)
async def test_a_person_may_say_how_it_ended(operated: Operated, end: str, state: str, outcome: str, event: str) -> None:
    for paid in (await unknown(operated), await frozen(operated)):
        before = await told_to_wearer(operated, paid)
        result = await operated.run("payments", "resolve", paid.payment_id, "--as", end, *SAYS)
        assert (result.exit_code, f"is {state} now" in result.output) == (0, True), result.output
        row = await operated.row(paid)
        assert (row.state, row.frozen_at, row.captured_minor) == (state, None, 1895 if state == "captured" else 0)
        said = await entry(operated, paid, "resolved_by_operator")
        async with operated.database.transaction() as connection:
            attempt = (await connection.execute(select(attempts).where(attempts.c.payment_id == paid.payment_id))).one()
        assert said == {
            "payment_id": paid.payment_id,
            "as": end,
            "note": "seen in the dashboard",
            "by": "operator 7",
            "attempt_id": attempt.id,
        }
        assert (attempt.outcome, attempt.ended_at is not None, attempt.next_ask_at) == (outcome, True, None)
        assert (await told(operated, paid))[-1:] == [event]
        assert await told_to_wearer(operated, paid) == before + 1
        assert await holds(operated, paid)
        assert (await operated.run("payments", "resolve", paid.payment_id, "--as", end, *SAYS)).exit_code == 1


@pytest.mark.parametrize(
    ("kind", "end", "state", "captured", "refunded", "event"),
    [
        ("capture", "succeeded", "captured", 1000, 0, "payment.captured"),
        ("capture", "failed", "authorised", 0, 0, "payment.command_failed"),
        ("capture", "cancelled", "cancelled", 0, 0, "payment.cancelled"),
        ("cancel", "succeeded", "cancelled", 0, 0, "payment.cancelled"),
        ("cancel", "cancelled", "cancelled", 0, 0, "payment.cancelled"),
        ("cancel", "declined", "authorised", 0, 0, "payment.command_failed"),
        ("refund", "succeeded", "partially_refunded", 1895, 1000, "payment.partially_refunded"),
        ("refund", "failed", "captured", 1895, 0, "payment.command_failed"),
    ],
)
async def test_so_may_one_of_a_later_command(
    operated: Operated, kind: Any, end: str, state: str, captured: int, refunded: int, event: str
) -> None:
    paid = await operated.paid(capture=kind == "refund")
    paid.books.submit = lambda command: Unknown(reference=command.reference, reason="no answer")
    await operated.command(paid, kind, None if kind == "cancel" else 1000)
    result = await operated.run("payments", "resolve", paid.payment_id, "--as", end, *SAYS)
    assert result.exit_code == 0, result.output
    row = await operated.row(paid)
    assert (row.state, row.captured_minor, row.refunded_minor) == (state, captured, refunded)
    assert (await told(operated, paid))[-1:] == [event]
    assert await holds(operated, paid)


async def test_a_person_is_asked_whether_they_are_sure(operated: Operated) -> None:
    paid = await frozen(operated)
    resolve = ("payments", "resolve", paid.payment_id, "--as", "failed", *SAYS[:-1])
    asked = await operated.run(*resolve, input="n\n")
    assert (asked.exit_code, "9.00 SEK instead of 18.95" in asked.output) == (1, True), asked.output
    assert (await operated.row(paid)).state == "unknown"
    assert (await operated.run(*resolve, input="y\n")).exit_code == 0
    assert (await operated.row(paid)).state == "failed"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--as", "succeeded"),
        ("--as", "succeeded", "--note", "x"),
        ("--as", "refunded", "--note", "x", "--by", "y"),
        ("--note", "x", "--by", "y"),
    ],
)
async def test_nothing_is_said_by_halves(operated: Operated, arguments: tuple[str, ...]) -> None:
    paid = await unknown(operated)
    assert (await operated.run("payments", "resolve", paid.payment_id, *arguments)).exit_code == 2
    assert (await operated.row(paid)).state == "unknown"


@pytest.mark.parametrize("note", ["x" * 501, "  \n ", "a\x1b[2Jb"])
async def test_a_note_is_plain_text(operated: Operated, note: str) -> None:
    paid = await unknown(operated)
    refused = await operated.run("payments", "resolve", paid.payment_id, "--as", "failed", "--note", note, "--by", "y", "--yes")
    assert refused.exit_code == 1
    assert (await operated.row(paid)).state == "unknown"
    assert "resolved_by_operator" not in await operated.kinds(paid)


async def test_what_cannot_be_is_refused_with_a_sentence(operated: Operated) -> None:
    over, begun, waiting = await operated.paid(), await operated.approved(), await operated.paid()
    async with transaction(operated.database) as unit:
        await operated.work.open(begun.payment_id, unit)  # a worker is at it
    async with operated.database.transaction() as connection:
        await connection.execute(
            insert(attempts).values(id=AttemptId.new(), payment_id=waiting.payment_id, kind="refund", request_digest="0")
        )
    for paid, end, reason in (
        (over, "failed", "no command is running"),
        (over, "acknowledged", "it is not frozen"),
        (begun, "failed", "a worker is at its authorise right now"),
        (waiting, "succeeded", "has never begun, so it cannot have succeeded"),
    ):
        refused = await operated.run("payments", "resolve", paid.payment_id, "--as", end, *SAYS)
        assert (refused.exit_code, reason in refused.output) == (1, True), refused.output
        assert "resolved_by_operator" not in await operated.kinds(paid)
    odd = await frozen(operated)
    refused = await operated.run("payments", "resolve", odd.payment_id, "--as", "acknowledged", *SAYS)
    assert (refused.exit_code, "its authorise has not ended" in refused.output) == (1, True), refused.output
    nobody = await operated.run("payments", "resolve", PaymentId.new(), "--as", "failed", *SAYS)
    assert (nobody.exit_code, "there is no payment" in nobody.output) == (1, True), nobody.output


async def test_a_move_that_is_not_allowed_is_refused(operated: Operated) -> None:
    """A refund that runs on a payment that is cancelled: it cannot be, and must not become so."""
    paid = await operated.paid(capture=False)
    await operated.command(paid, "cancel")
    async with operated.database.transaction() as connection:
        values = {"id": AttemptId.new(), "payment_id": paid.payment_id, "kind": "refund", "amount_minor": 100}
        await connection.execute(insert(attempts).values(**values, request_digest="0", begun_at=func.now()))
    refused = await operated.run("payments", "resolve", paid.payment_id, "--as", "succeeded", *SAYS)
    assert (refused.exit_code, "cancelled cannot become partially_refunded" in refused.output) == (1, True), refused.output
    # More than there is: the database has the last word.
    paid = await operated.paid()
    async with operated.database.transaction() as connection:
        values = {"id": AttemptId.new(), "payment_id": paid.payment_id, "kind": "refund", "amount_minor": 9999}
        await connection.execute(insert(attempts).values(**values, request_digest="0", begun_at=func.now()))
    refused = await operated.run("payments", "resolve", paid.payment_id, "--as", "succeeded", *SAYS)
    assert (refused.exit_code, "the database does not allow that" in refused.output) == (1, True), refused.output
    assert (await operated.row(paid)).refunded_minor == 0
    assert "resolved_by_operator" not in await operated.kinds(paid)


async def test_a_contradiction_is_acknowledged(operated: Operated) -> None:
    paid = await contradicted(operated)
    asked = await operated.run("payments", "resolve", paid.payment_id)
    assert "then acknowledge it" in asked.output
    result = await operated.run("payments", "resolve", paid.payment_id, "--as", "acknowledged", *SAYS)
    assert result.exit_code == 0, result.output
    row = await operated.row(paid)
    assert (row.state, row.frozen_at) == ("declined", None)
    assert (await entry(operated, paid, "resolved_by_operator"))["as"] == "acknowledged"


async def test_a_payment_whose_payer_is_gone_can_still_be_resolved(operated: Operated) -> None:
    """Pairing the glasses anew takes the means of payment away; then not even asking is possible."""
    paid = await unknown(operated)
    await operated.tamper("UPDATE devices SET payer_sealed = NULL WHERE id = :id", id=(await operated.row(paid)).device_id)
    result = await operated.run("payments", "resolve", paid.payment_id, "--as", "succeeded", *SAYS)
    assert (result.exit_code, (await operated.row(paid)).state) == (0, "captured"), result.output


# payments capture, cancel, refund


async def test_operators_command_as_merchants_do(operated: Operated) -> None:
    reserved, paid = await operated.paid(capture=False), await operated.paid()
    for payment, arguments, (kind, minor) in (
        (reserved, ("capture", reserved.payment_id, "--amount", "10.5"), ("capture", 1050)),
        (paid, ("refund", paid.payment_id, "--amount", "3.50"), ("refund", 350)),
        (paid, ("refund", paid.payment_id), ("refund", 1545)),
    ):
        result = await operated.run("payments", *arguments)
        assert result.exit_code == 0, result.output
        attempt_id = next(word for word in result.output.split() if word.startswith("att_"))
        async with operated.database.transaction() as connection:
            row = (await connection.execute(select(attempts).where(attempts.c.id == attempt_id))).one()
        assert (row.kind, row.amount_minor, row.requested_by) == (kind, minor, "operator")
        assert (await told(operated, payment, "payments.commands"))[-1:] == ["payment.due"]
        await operated.carry_out(payment)
    assert (await operated.row(reserved)).captured_minor == 1050
    assert ((await operated.row(paid)).state, (await operated.row(paid)).refunded_minor) == ("refunded", 1895)
    early = await operated.approved()
    result = await operated.run("payments", "cancel", early.payment_id)
    assert (result.exit_code, "it had not begun" in result.output) == (0, True)
    assert (await operated.row(early)).state == "cancelled"
    assert await holds(operated, early) and await holds(operated, paid) and await holds(operated, reserved)


async def test_commands_that_cannot_be_are_refused(operated: Operated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_TOUCH_S", 0.2)  # no janitor runs, and none is waited for
    paid, lost = await operated.paid(), await unknown(operated)
    for arguments, code, reason in (
        (("capture", paid.payment_id), 1, "has nothing to capture"),
        (("refund", paid.payment_id, "--amount", "18.96"), 1, "is all there is to refund"),
        (("refund", paid.payment_id, "--amount", "1.005"), 2, "more decimal digits"),
        (("refund", paid.payment_id, "--amount", "0"), 2, "above zero"),
        (("refund", paid.payment_id, "--amount", "NaN"), 2, "is not an amount"),
        (("refund", lost.payment_id), 1, "has not ended yet"),
        (("refund", PaymentId.new(), "--amount", "1"), 1, "There is no payment"),
    ):
        refused = await operated.run("payments", *arguments)
        assert (refused.exit_code, reason in refused.output) == (code, True), refused.output
    # Whoever wants something of a payment that is not known has the provider asked first.
    async with operated.database.transaction() as connection:
        query = select(attempts.c.next_ask_at <= text("now()")).where(attempts.c.payment_id == lost.payment_id)
        assert (await connection.execute(query)).scalar_one()
