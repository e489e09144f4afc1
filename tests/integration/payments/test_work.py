"""Attempts on a real database, with a provider that does what the worst ones do. The provider's own book counts the charges."""

import asyncio
import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError

from schemas.errors import Misconfigured
from schemas.events import new_event
from schemas.ids import JourneyId, MerchantId, PaymentId
from schemas.money import Money
from schemas.payments import Cancel, Cancelled, Command, NotSubmitted, Outcome, Payer, PaymentDue, Succeeded, Unknown
from schemas.tables import attempts, devices, receipt_entries
from streams.core.handling import DUPLICATE, HANDLED, transaction
from streams.core.sealing import Sealer
from streams.payments import commands, service, store
from streams.payments.denied import DeniedParties
from streams.payments.work import LeaseLost, PaymentWork
from tests.support.payments import CAPABILITIES, Case, Connected, Provider, mismatch


async def test_a_payment_is_taken_once_and_told_once(case: Case) -> None:
    assert await case.handle() == HANDLED
    assert await case.handle() == DUPLICATE
    assert (await case.state(), case.provider.charged) == ("captured", 1)
    assert await case.published() == ["payment.captured"]


async def test_an_answer_that_never_came_is_unknown_until_the_janitor_knows(case: Case) -> None:
    case.provider.lose_answers = 1
    await case.handle()
    assert await case.state() == "unknown"
    await case.time_passes()
    assert await case.clean() >= 1
    assert (await case.state(), case.provider.charged) == ("captured", 1)
    assert await case.published() == ["payment.unknown", "payment.captured"]


async def test_a_worker_that_dies_after_the_charge_is_succeeded_without_a_second_one(case: Case) -> None:
    class Dies(PaymentWork):
        async def settle(self, *_: Any, **__: Any) -> None:
            raise asyncio.CancelledError

    await case.handle(work=Dies(case.database, Connected(case.provider), case.sealer, worker=case.worker))
    assert (await case.state(), case.provider.charged) == ("submitting", 1)
    assert await case.handle() == DUPLICATE
    await case.clean()
    assert await case.state() == "submitting", "as far as anybody knows, the worker is still at it"
    async with transaction(case.database) as unit:
        assert await store.take_back(unit.connection, case.worker) >= 1, "its successor knows better"
    await case.clean()
    assert (await case.state(), case.provider.charged) == ("captured", 1)


async def test_a_worker_that_dies_between_opening_and_submitting_is_taken_over(case: Case) -> None:
    class Dies(Provider):
        async def submit(self, command: Command, key: str) -> Outcome:
            raise asyncio.CancelledError

    await case.handle(work=case.work(Dies(opened=case.provider.opened)))
    await case.time_passes()
    await case.clean()
    assert (await case.state(), case.provider.charged, len(case.provider.opened)) == ("captured", 1, 1)


async def test_what_another_worker_has_in_hand_is_left_to_it(case: Case) -> None:
    class Dies(Provider):
        async def submit(self, command: Command, key: str) -> Outcome:
            raise asyncio.CancelledError

    await case.handle(work=case.work(Dies()))
    assert await case.handle(case.another_due()) == HANDLED
    async with transaction(case.database) as unit:
        assert await store.take_back(unit.connection, "test-1") == 0
    await case.clean()
    assert (await case.state(), case.provider.charged, case.provider.asked) == ("submitting", 0, 0)


async def test_what_the_provider_may_have_forgotten_is_never_submitted_again(case: Case) -> None:
    """Within the time it surely remembers a key, a lost submit is repeated; after that it is only asked for."""

    class Dies(Provider):
        async def submit(self, command: Command, key: str) -> Outcome:
            raise asyncio.CancelledError

    case.provider.capabilities = replace(CAPABILITIES, key_memory=timedelta(minutes=1))
    await case.handle(work=case.work(Dies(capabilities=case.provider.capabilities)))
    await case.change("begun_at = now() - interval '2 minutes'", "attempts")
    await case.time_passes()
    await case.clean()
    assert (await case.state(), case.provider.charged, case.provider.submitted) == ("failed", 0, [])
    assert (await case.row())["state_reason"] == "never_submitted"


async def test_a_provider_that_takes_our_reference_is_opened_without_a_call(case: Case) -> None:
    case.provider.capabilities = replace(CAPABILITIES, reference_is_key=True)
    await case.handle()
    async with case.database.transaction() as connection:
        attempt = (await connection.execute(select(attempts).where(attempts.c.payment_id == case.payment_id))).one()
    assert attempt.reference == attempt.id == (await case.row())["provider_reference"]
    assert (await case.state(), case.provider.charged) == ("captured", 1)


class LosesRequests(Provider):
    """What is submitted is lost on the way as often as told; the answer never comes, either."""

    lost: int = 1

    async def submit(self, command: Command, key: str) -> Outcome:
        if self.lost:
            self.lost -= 1
            self.submitted.append(f"lost {command.kind}")
            return Unknown(reference=command.reference, reason="no answer")
        return await super().submit(command, key)


async def test_a_refusal_counts_only_when_no_earlier_request_can_be_on_its_way(case: Case) -> None:
    case.provider = LosesRequests()
    await case.handle()
    case.provider.decline = True
    await case.time_passes()
    await case.clean()
    assert await case.state() == "unknown", "the first request may have been taken, and be why the second is refused"
    for column in ("begun_at", "submitted_at"):
        await case.change(f"{column} = now() - interval '3 minutes'", "attempts")
    await case.time_passes()
    await case.clean()
    assert await case.state() == "declined"


async def test_what_was_refused_is_not_sent_again_before_a_refusal_counts(case: Case) -> None:
    """However often the janitor looks: each time it were sent would put that moment off."""
    case.provider = LosesRequests()
    await case.handle()
    case.provider.decline = True
    for _ in range(4):
        await case.time_passes()
        await case.clean()
    assert case.provider.submitted == ["lost authorise", "authorise"]
    async with case.database.transaction() as connection:
        attempt = (await connection.execute(select(attempts).where(attempts.c.payment_id == case.payment_id))).one()
    # It is looked at as soon as one counts, not when the schedule says.
    assert attempt.next_ask_at == attempt.submitted_at + service.ARRIVES_WITHIN
    await case.change("submitted_at = now() - interval '3 minutes'", "attempts")
    # A question without an answer does not make it forgotten.
    case.provider.says = Unknown(reference=attempt.reference, reason="no answer")
    for _ in range(2):
        await case.time_passes()
        await case.clean()
    assert await case.state() == "declined"
    assert case.provider.submitted == ["lost authorise", "authorise", "authorise"]


async def test_what_was_sent_again_a_moment_ago_is_not_given_up(case: Case) -> None:
    """The provider does not know it yet; what was sent last may still arrive."""

    class Deaf(LosesRequests):
        async def submit(self, command: Command, key: str) -> Outcome:
            if isinstance(command, Cancel):
                return NotSubmitted(reference=command.reference)
            return await super().submit(command, key)

    deaf = case.provider = Deaf()
    deaf.lost = 2
    await case.handle()
    await case.change("begun_at = now() - interval '10 minutes'", "attempts")
    await case.time_passes()
    await case.clean()
    assert deaf.submitted == ["lost authorise", "lost authorise"]
    await case.change("submit_by = now() - interval '1 second'")
    await case.time_passes()
    await case.clean()
    assert await case.state() == "unknown"
    await case.change("submitted_at = now() - interval '3 minutes'", "attempts")
    await case.time_passes()
    await case.clean()
    assert (await case.state(), deaf.charged) == ("cancelled", 0)


async def test_a_worker_whose_lease_has_ended_submits_nothing(case: Case) -> None:
    """It stood still between its transaction and its call, and another has ended the attempt meanwhile."""
    work = case.work()
    async with transaction(case.database) as unit:
        plan = await work.open(case.payment_id, unit)
    assert plan is not None
    await case.change("leased_by = 'somebody-else'", "attempts")
    with pytest.raises(LeaseLost):
        await work.call(plan)
    late = replace(plan, leased_until=datetime.now(UTC) + timedelta(seconds=5), command=referring(plan.command))
    with pytest.raises(LeaseLost):
        await work.call(late)
    assert case.provider.charged == 0


def referring(command: Command) -> Command:
    return command.model_copy(update={"reference": "ref_known"})


async def test_a_success_that_comes_after_the_attempt_had_ended_freezes_the_payment(case: Case) -> None:
    work = case.work()
    async with transaction(case.database) as unit:
        plan = await work.open(case.payment_id, unit)
    assert plan is not None
    async with transaction(case.database) as unit:
        await work.settle(plan, Cancelled(reference=None, reason="too_late"), unit)
    assert await case.state() == "cancelled"
    async with transaction(case.database) as unit:
        await work.settle(plan, Succeeded(reference="r", total=Money.of(1895, "SEK"), captured=True), unit)
    row = await case.row()
    assert (row["state"], row["captured_minor"]) == ("cancelled", 0)
    assert "succeeded after it had ended as cancelled" in str(row["frozen_reason"])


async def test_a_call_that_takes_too_long_is_unknown(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Provider):
        async def submit(self, command: Command, key: str) -> Outcome:
            await super().submit(command, key)
            await asyncio.sleep(30)
            raise AssertionError("unreachable")

    monkeypatch.setattr(service, "CALL_S", 1.0)
    case.provider = Slow()
    await case.handle()
    assert await case.state() == "unknown"
    await case.time_passes()
    await case.clean()
    assert (await case.state(), case.provider.charged) == ("captured", 1)


async def test_a_database_that_is_away_for_a_moment_costs_no_answer(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    work, away = case.work(), [2]
    settled = work.settle

    async def settle(*arguments: Any) -> None:
        if away[0]:
            away[0] -= 1
            raise ConnectionError("the server closed the connection")
        await settled(*arguments)

    monkeypatch.setattr(work, "settle", settle)
    await case.handle(work=work)
    assert (await case.state(), case.provider.charged, case.provider.asked, away) == ("captured", 1, 0, [0])


async def test_a_reservation_that_ended_by_itself_expires(reserved: Case) -> None:
    await reserved.clean()
    assert reserved.provider.asked == 0, "a day has not passed"
    await reserved.time_passes()
    await reserved.clean()
    assert (await reserved.state(), reserved.provider.asked) == ("authorised", 1)
    reserved.provider.cancelled = list(reserved.provider.reserved)
    await reserved.time_passes()
    await reserved.clean()
    row = await reserved.row()
    assert (row["state"], row["state_reason"]) == ("expired", "reservation_ended")
    assert (await reserved.published())[-1] == "payment.expired"
    await reserved.time_passes()
    assert await reserved.clean() == 0, "nothing is left to be watched"


async def test_what_nobody_asks_about_any_more_can_be_asked_again(case: Case) -> None:
    case.provider.lose_answers = 1
    await case.handle()
    await case.change("next_ask_at = NULL", "attempts")
    await case.clean()
    assert case.provider.asked == 0
    async with case.database.transaction() as connection:
        assert not await store.ask_at_once(connection, case.payment_id, MerchantId.new()), "another merchant's"
        assert await store.ask_at_once(connection, case.payment_id, None)
    await case.clean()
    assert await case.state() == "captured"


# What does not fit.


async def test_an_answer_that_does_not_fit_freezes_the_payment(case: Case) -> None:
    case.provider.says = mismatch()
    await case.handle()
    row = await case.row()
    assert (row["state"], row["frozen_reason"], row["captured_minor"]) == ("unknown", "amount is 1 instead of 1895", 0)
    assert await case.published() == ["payment.unknown"]
    await case.time_passes()
    await case.clean()
    assert case.provider.asked == 0, "nobody but a person asks"
    async with transaction(case.database) as unit:
        assert await case.work().open(case.payment_id, unit) is None


async def test_the_database_lets_no_money_move_on_a_frozen_payment(case: Case) -> None:
    case.provider.says = mismatch()
    await case.handle()
    with pytest.raises(DBAPIError):
        await case.change("state = 'captured', captured_minor = total_minor")
    await case.change("state = 'captured', captured_minor = total_minor, frozen_at = NULL")


async def test_a_person_lets_it_go_on_once_the_answer_fits(case: Case) -> None:
    case.provider.says = mismatch()
    await case.handle()
    for says, state in ((mismatch("still wrong"), "unknown"), (None, "captured")):
        case.provider.says = says
        work = case.work()
        async with transaction(case.database) as unit:
            plan = await work.open(case.payment_id, unit, only_ask=True, by_operator=True)
        assert plan is not None
        outcome = await work.call(plan)
        async with transaction(case.database) as unit:
            await work.settle(plan, outcome, unit)
        assert await case.state() == state
    row = await case.row()
    assert (row["frozen_at"], row["captured_minor"], case.provider.charged) == (None, 1895, 1)
    async with case.database.transaction() as connection:
        query = select(receipt_entries.c.kind).where(receipt_entries.c.journey_id == row["journey_id"])
        assert "frozen" in (await connection.execute(query)).scalars().all()


# With what nobody can pay any more.


@pytest.mark.parametrize("payer", [None, "another provider's"])
async def test_a_means_of_payment_taken_away_meanwhile_pays_nothing(case: Case, payer: str | None) -> None:
    device = str((await case.row())["device_id"])
    other = Payer(provider="another", customer="c", payment_method="m").model_dump_json().encode()
    sealed = case.sealer.seal(other, f"payer:{device}") if payer else None
    async with case.database.transaction() as connection:
        await connection.execute(update(devices).where(devices.c.id == device).values(payer_sealed=sealed))
    await case.handle()
    row = await case.row()
    assert (row["state"], row["state_reason"], case.provider.opened) == ("cancelled", "payer_missing", [])


async def test_what_was_paid_is_found_though_the_means_of_payment_is_gone(case: Case) -> None:
    case.provider.lose_answers = 1
    await case.handle()
    async with case.database.transaction() as connection:
        device = (await case.row())["device_id"]
        await connection.execute(update(devices).where(devices.c.id == device).values(payer_sealed=None))
    await case.time_passes()
    await case.clean()
    assert (await case.state(), case.provider.charged) == ("captured", 1)


# Whom nobody may pay.


async def test_a_party_denied_meanwhile_is_given_nothing_of_what_was_reserved(reserved: Case, tmp_path: Path) -> None:
    file = tmp_path / "denied.txt"
    file.write_text("Kvarteret\n")
    async with transaction(reserved.database) as unit:
        await commands.request(unit, Connected(reserved.provider), reserved.payment_id, "capture", None, requested_by="merchant")
    reserved.denied = DeniedParties(file)
    await reserved.handle(reserved.another_due())
    assert (await reserved.state(), reserved.provider.submitted) == ("authorised", ["authorise"])
    assert (await reserved.published())[-1] == "payment.command_failed"


@pytest.mark.parametrize("line", ["KVARTERET  # see the list of 2026-11", "kvärteret", "Kvar-teret"])
async def test_a_denied_party_is_never_paid(case: Case, tmp_path: Path, line: str) -> None:
    file = tmp_path / "denied.txt"
    file.write_text(f"# whom nobody may pay\n\n{line}\n")
    case.denied = DeniedParties(file)
    await case.handle()
    row = await case.row()
    assert (row["state"], row["state_reason"], case.provider.opened) == ("cancelled", "denied_party", [])


async def test_a_party_denied_meanwhile_is_not_paid_when_the_payment_is_resumed(case: Case, tmp_path: Path) -> None:
    class Dies(Provider):
        async def submit(self, command: Command, key: str) -> Outcome:
            raise asyncio.CancelledError

    file = tmp_path / "denied.txt"
    file.write_text("somebody else\n")
    case.denied = DeniedParties(file)
    await case.handle(work=case.work(Dies(opened=case.provider.opened)))
    file.write_text(f"{(await case.row())['merchant_id']}\n")
    await case.time_passes()
    await case.clean()
    assert (await case.state(), case.provider.charged, len(case.provider.cancelled)) == ("cancelled", 0, 1)


async def test_a_list_that_cannot_be_read_denies_everybody(case: Case, tmp_path: Path) -> None:
    case.denied = DeniedParties(tmp_path / "missing.txt")
    with pytest.raises(Misconfigured):
        case.denied.includes("anybody")
    await case.handle()
    assert (await case.state(), case.provider.opened) == ("submitting", [])
    (tmp_path / "missing.txt").write_text("nobody in particular\n")
    await case.time_passes()
    await case.clean()
    assert (await case.state(), case.provider.charged) == ("captured", 1)


async def test_a_provider_that_cannot_be_reached_is_tried_again_later(case: Case) -> None:
    case.provider.refuse_connections = 2
    await case.handle()
    assert (await case.state(), case.provider.charged) == ("submitting", 0)
    for _ in range(2):
        await case.time_passes()
        await case.clean()
    assert (await case.state(), case.provider.charged) == ("captured", 1)


async def test_a_decline_ends_it(case: Case) -> None:
    case.provider.decline = True
    await case.handle()
    await case.time_passes()
    await case.clean()
    assert (await case.state(), case.provider.charged) == ("declined", 0)
    assert await case.published() == ["payment.declined"]


async def test_worker_and_janitors_at_once_charge_once(case: Case) -> None:
    case.provider.lose_answers = 1
    await case.handle()
    await case.time_passes()
    await asyncio.gather(*(case.clean() for _ in range(4)))
    assert (await case.state(), case.provider.charged) == ("captured", 1)
    assert await case.published() == ["payment.unknown", "payment.captured"]


async def test_the_database_refuses_what_the_table_of_moves_does_not_allow(case: Case) -> None:
    await case.handle()
    for altered in (
        "state = 'approved'",
        "state = 'declined'",
        "total_minor = total_minor + 1",
        "captured_minor = 0",
        "account_id = NULL",
    ):
        with pytest.raises(DBAPIError):
            async with case.database.transaction() as connection:
                await connection.execute(text(f"UPDATE payments SET {altered} WHERE id = :id"), {"id": case.payment_id})
    assert await case.state() == "captured"


async def test_two_attempts_of_one_payment_never_run_at_once(case: Case) -> None:
    case.provider.lose_answers = 1
    await case.handle()
    with pytest.raises(DBAPIError):
        async with case.database.transaction() as connection:
            await connection.execute(
                text("INSERT INTO attempts (id, payment_id, kind, request_digest) VALUES ('att_x', :id, 'authorise', '')"),
                {"id": case.payment_id},
            )


async def test_the_event_of_a_payment_that_is_not_there_does_nothing(case: Case) -> None:
    stray = new_event("payment.due", PaymentDue(payment_id=PaymentId.new()), source="/test", journeyid=JourneyId.new())
    assert await case.handle(stray) == HANDLED
    async with transaction(case.database) as unit:
        assert await case.work().open(PaymentId.new(), unit) is None
    assert case.provider.charged == 0


async def test_a_payment_that_cannot_be_looked_after_is_put_off_and_not_given_up(case: Case) -> None:
    case.provider.lose_answers = 1
    await case.handle()
    await case.time_passes()
    other_key = Sealer(base64.b64encode(bytes(32)).decode())
    assert await case.clean(case.work(sealer=other_key)) >= 1
    async with case.database.transaction() as connection:
        query = select(attempts.c.next_ask_at).where(attempts.c.payment_id == case.payment_id)
        assert (await connection.execute(query)).scalar_one() > datetime.now(UTC)
    await case.time_passes()
    await case.clean()
    assert await case.state() == "captured"


async def test_an_approved_payment_whose_command_was_lost_is_found(case: Case) -> None:
    await case.clean()
    assert await case.state() == "approved", "its worker may still come"
    await case.change("updated_at = now() - interval '1 minute'")
    await case.clean()
    assert (await case.state(), case.provider.charged) == ("captured", 1)


async def test_a_yes_that_has_become_too_old_moves_no_money(case: Case) -> None:
    await case.change("submit_by = now() - interval '1 second'")
    await case.handle()
    assert (await case.state(), case.provider.charged, case.provider.opened) == ("cancelled", 0, [])
    assert await case.published() == ["payment.cancelled"]


async def test_what_was_opened_and_not_submitted_in_time_is_cancelled_at_the_provider(case: Case) -> None:
    class Dies(Provider):
        async def submit(self, command: Command, key: str) -> Outcome:
            raise asyncio.CancelledError

    await case.handle(work=case.work(Dies()))
    await case.change("submit_by = now() - interval '1 second'")
    await case.time_passes()
    await case.clean()
    assert (await case.state(), case.provider.charged, len(case.provider.cancelled)) == ("cancelled", 0, 1)


async def test_what_was_paid_in_time_is_paid_however_late_it_is_known(case: Case) -> None:
    case.provider.lose_answers = 1
    await case.handle()
    await case.change("submit_by = now() - interval '1 second'")
    await case.time_passes()
    await case.clean()
    assert (await case.state(), case.provider.charged) == ("captured", 1)


async def test_who_does_not_confirm_in_time_lets_it_expire(case: Case) -> None:
    case.provider.wants_confirmation = True
    await case.handle()
    assert await case.state() == "action_required"
    async with case.database.transaction() as connection:
        query = select(attempts.c.next_ask_at).where(attempts.c.payment_id == case.payment_id)
        assert (await connection.execute(query)).scalar_one() < datetime.now(UTC) + timedelta(seconds=10), "asked again soon"
    await case.change("begun_at = now() - interval '1 hour'", "attempts")
    await case.time_passes()
    await case.clean()
    assert (await case.state(), case.provider.charged, len(case.provider.cancelled)) == ("expired", 0, 1)
    assert await case.published() == ["payment.action_required", "payment.expired"]
