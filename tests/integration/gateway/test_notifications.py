"""What providers say: verified, kept once, looked at once. The signatures are Stripe's own library's."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import stripe
from fastapi import FastAPI
from sqlalchemy import select

from schemas.events import Event, from_kafka, new_event
from schemas.ids import AccountId, EventId, JourneyId, MerchantId
from schemas.money import Money
from schemas.payments import Payer, PaymentDue
from schemas.tables import attempts, outbox, provider_notifications
from streams.core.database import Database
from streams.core.sealing import Sealer
from streams.gateway import notifications, problems
from streams.gateway.notifications import Notifications
from streams.payments.accounts import Accounts
from streams.payments.accounts import add as add_account
from tests.support.payments import Case, Provider
from tests.support.rows import STRIPE, Rows


@dataclass
class Notified:
    """A payment with an attempt under way at Stripe, and the door Stripe knocks at."""

    case: Case
    account: AccountId
    reference: str
    http: httpx.AsyncClient

    async def post(
        self,
        event_id: str = "evt_1",
        *,
        amount: int = 1895,
        reference: str | None = None,
        secret: str = STRIPE["webhook_secret"],
        age: timedelta = timedelta(0),
        altered: bool = False,
        refund: int | None = None,
        dispute: bool = False,
        path: str | None = None,
    ) -> httpx.Response:
        moment = int((datetime.now(UTC) - age).timestamp())
        intent = {
            "id": reference or self.reference,
            "object": "payment_intent",
            "amount": amount,
            "amount_received": amount,
            "currency": "sek",
            "status": "succeeded",
            "livemode": False,
        }
        event = {
            "id": event_id,
            "object": "event",
            "type": "payment_intent.succeeded",
            "created": moment,
            "livemode": False,
            "data": {"object": intent},
        }
        if refund is not None:
            event["type"] = "refund.created"
            about = {"id": "re_1", "object": "refund", "payment_intent": self.reference, "amount": refund, "currency": "sek"}
            event["data"] = {"object": {**about, "status": "succeeded", "metadata": {}}}
        if dispute:
            event["type"] = "charge.dispute.created"
            about = {"id": "dp_1", "object": "dispute", "payment_intent": self.reference, "amount": amount, "currency": "sek"}
            event["data"] = {"object": {**about, "status": "needs_response"}}
        body = json.dumps(event)
        headers = {"Stripe-Signature": stripe.WebhookSignature.generate_signature_header(body, secret, moment)}
        if altered:
            body = body.replace(f": {amount}", ": 1")
        address = path or f"/v1/notifications/stripe/{self.account}"
        return await self.http.post(address, content=body, headers=headers)

    async def kept(self) -> list[tuple[str, str, int]]:
        async with self.case.database.transaction() as connection:
            columns = provider_notifications.c
            query = select(columns.event_id, columns.state, columns.repeated).where(columns.account_id == self.account)
            rows = await connection.execute(query.order_by(columns.event_id))
            return [(row.event_id, row.state, row.repeated) for row in rows]

    async def told(self) -> list[Event]:
        """What the payments stage is told, in order."""
        async with self.case.database.transaction() as connection:
            query = select(outbox).where(
                outbox.c.key == self.case.payment_id.encode(), outbox.c.headers["ce_type"].astext == "provider.notified"
            )
            rows = await connection.execute(query.order_by(outbox.c.id))
            return [from_kafka([(name, value.encode()) for name, value in row.headers.items()], row.value) for row in rows]


@pytest.fixture
async def notified(database: Database, sealer: Sealer, rows: Rows) -> AsyncIterator[Notified]:
    glasses = await rows.glasses(payer=Payer(provider="stripe", customer="cus_x", payment_method="pm_x"))
    payment = await rows.approved_payment(Money.of(1895, "SEK"), glasses=glasses)
    due = new_event("payment.due", PaymentDue(payment_id=payment.id), source="/test", journeyid=JourneyId.new())
    reference = f"pi_{payment.id.removeprefix('pay_')}"  # as Stripe would name it
    case = Case(database, sealer, Provider(name="stripe", lose_answers=1, next_reference=reference), payment.id, due)
    await case.handle()
    assert await case.state() == "unknown"
    app = FastAPI()
    problems.install(app)
    accounts = Accounts(sealer)
    app.include_router(Notifications(database, accounts).router())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as http:
        yield Notified(case, payment.account_id, reference, http)
    await accounts.close()


async def test_a_notification_has_the_provider_asked_and_the_payment_settled(notified: Notified) -> None:
    answer = await notified.post()
    assert answer.status_code == 200
    (event,) = await notified.told()
    assert await notified.case.handle(event) == "handled"
    assert (await notified.case.state(), notified.case.provider.asked) == ("captured", 1)
    assert await notified.kept() == [("evt_1", "processed", 0)]
    assert notified.case.provider.submitted == ["authorise"], "a notification never makes money move"


async def test_a_repeated_notification_is_acknowledged_and_nothing_else(notified: Notified) -> None:
    answers = [await notified.post() for _ in range(3)]
    assert {answer.status_code for answer in answers} == {200}
    assert await notified.kept() == [("evt_1", "new", 2)]
    assert len(await notified.told()) == 1


async def test_of_repetitions_at_once_one_counts(notified: Notified) -> None:
    answers = await asyncio.gather(*(notified.post() for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert await notified.kept() == [("evt_1", "new", 7)]
    assert len(await notified.told()) == 1


async def test_the_same_event_handled_twice_is_looked_at_once(notified: Notified) -> None:
    await notified.post()
    (event,) = await notified.told()
    again = event.model_copy(update={"id": str(EventId.new())})
    await notified.case.handle(event)
    await notified.case.handle(again)
    assert notified.case.provider.asked == 1


async def test_disorder_does_not_matter(notified: Notified) -> None:
    for number in (3, 1, 2):
        await notified.post(f"evt_{number}")
    first, *later = await notified.told()
    for event in (*later, first):
        await notified.case.handle(event)
    assert await notified.case.state() == "captured"
    assert await notified.case.published() == ["payment.unknown", "payment.captured"]


async def test_one_that_comes_before_our_answer_disturbs_nobody(notified: Notified) -> None:
    """The worker's call is still under way, and the provider does not show the money yet."""
    await notified.case.change("next_ask_at = now() + interval '30 seconds', leased_by = 'test-0'", "attempts")
    notified.case.provider.charges = {}
    await notified.post()
    (event,) = await notified.told()
    await notified.case.handle(event)
    assert (await notified.case.state(), notified.case.provider.submitted) == ("unknown", ["authorise"])
    async with notified.case.database.transaction() as connection:
        query = select(attempts.c.leased_by).where(attempts.c.payment_id == notified.case.payment_id)
        assert (await connection.execute(query)).scalar_one() == "test-0"


async def test_one_that_says_nothing_new_is_kept_and_nobody_is_told(notified: Notified) -> None:
    await notified.case.time_passes()
    await notified.case.clean()
    assert await notified.case.state() == "captured"
    asked = notified.case.provider.asked
    assert (await notified.post()).status_code == 200
    assert (await notified.kept(), await notified.told()) == ([("evt_1", "processed", 0)], [])
    await notified.post("evt_2", amount=1)
    assert await notified.kept() == [("evt_1", "processed", 0), ("evt_2", "new", 0)]
    (event,) = await notified.told()
    await notified.case.handle(event)
    row = await notified.case.row()
    assert (row["state"], row["frozen_at"] is not None, notified.case.provider.asked) == ("captured", True, asked)


async def test_while_a_worker_waits_for_the_answer_the_notification_waits_too(
    notified: Notified, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_WAITS_S", (*[0.05] * 400, 0.1))  # longer than the worker takes on a slow machine
    await notified.case.change("leased_by = 'test-0'", "attempts")
    posting = asyncio.create_task(notified.post())
    await asyncio.sleep(0.02)
    assert await notified.kept() == []
    await notified.case.time_passes()
    await notified.case.clean()
    assert (await posting).status_code == 200
    assert (await notified.kept(), await notified.told()) == ([("evt_1", "processed", 0)], [])


async def test_new_credentials_count_at_once(notified: Notified, sealer: Sealer) -> None:
    assert (await notified.post()).status_code == 200
    fresh = {**STRIPE, "webhook_secret": "whsec_" + "n" * 32}
    async with notified.case.database.transaction() as connection:
        merchant = (await notified.case.row())["merchant_id"]
        await add_account(connection, sealer, MerchantId(str(merchant)), "stripe", fresh)
    assert (await notified.post("evt_2", secret=fresh["webhook_secret"])).status_code == 200
    assert (await notified.post("evt_3")).status_code == 401, "the old secret is no longer believed"


async def test_one_about_another_amount_freezes_the_payment(notified: Notified) -> None:
    await notified.post(amount=1)
    (event,) = await notified.told()
    await notified.case.handle(event)
    row = await notified.case.row()
    assert (row["state"], row["frozen_at"] is not None, notified.case.provider.asked) == ("unknown", True, 0)
    assert "0.01 SEK instead of 18.95 SEK" in str(row["frozen_reason"])


async def test_one_for_a_payment_that_had_ended_without_money_has_the_provider_asked(notified: Notified) -> None:
    notified.case.provider.charges = {}
    notified.case.provider.cancelled = [notified.reference]
    await notified.case.time_passes()
    await notified.case.clean()
    assert await notified.case.state() == "cancelled"
    before = notified.case.provider.asked
    await notified.post()
    (event,) = await notified.told()
    await notified.case.handle(event)
    row = await notified.case.row()
    assert (row["state"], row["captured_minor"]) == ("cancelled", 0)
    assert (row["frozen_at"], notified.case.provider.asked) == (None, before + 1), "the provider was asked, and says no"


async def test_one_for_a_payment_that_had_ended_and_was_paid_after_all_freezes_it(notified: Notified) -> None:
    charges, notified.case.provider.charges = notified.case.provider.charges, {}
    notified.case.provider.cancelled = [notified.reference]
    await notified.case.time_passes()
    await notified.case.clean()
    notified.case.provider.cancelled, notified.case.provider.charges = [], charges
    await notified.post()
    (event,) = await notified.told()
    await notified.case.handle(event)
    row = await notified.case.row()
    assert (row["state"], row["captured_minor"]) == ("cancelled", 0)
    assert "it had ended as cancelled" in str(row["frozen_reason"])


async def test_a_refund_nobody_asked_for_freezes_the_payment(notified: Notified) -> None:
    await notified.case.time_passes()
    await notified.case.clean()
    assert await notified.case.state() == "captured"
    await notified.post("evt_r", refund=500)
    (event,) = await notified.told()
    await notified.case.handle(event)
    row = await notified.case.row()
    assert (row["state"], row["refunded_minor"]) == ("captured", 0)
    assert "refund of 5.00 SEK that nobody asked for" in str(row["frozen_reason"])


async def test_a_dispute_freezes_the_payment(notified: Notified) -> None:
    await notified.case.time_passes()
    await notified.case.clean()
    await notified.post("evt_d", dispute=True)
    (event,) = await notified.told()
    await notified.case.handle(event)
    assert "charge.dispute.created" in str((await notified.case.row())["frozen_reason"])


async def test_one_for_a_payment_that_is_not_ours_is_kept_and_acknowledged(notified: Notified) -> None:
    assert (await notified.post(reference="pi_of_somebody_else")).status_code == 200
    assert await notified.kept() == [("evt_1", "unmatched", 0)]
    assert await notified.told() == []


async def test_one_of_another_account_finds_no_payment_of_ours(notified: Notified, rows: Rows) -> None:
    """Whoever has an account may sign for that account only."""
    other = await rows.account_of(await rows.merchant())
    answer = await notified.post(path=f"/v1/notifications/stripe/{other}")
    assert answer.status_code == 200
    assert await notified.told() == []


@pytest.mark.parametrize(
    "fault", [{"secret": "whsec_of_somebody_quite_else"}, {"altered": True}, {"age": timedelta(hours=1)}, {"secret": ""}]
)
async def test_what_cannot_be_verified_is_refused_and_not_kept(notified: Notified, fault: dict[str, object]) -> None:
    answer = await notified.post(**fault)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["code"]) == (401, "credentials-invalid")
    assert answer.headers["content-type"] == "application/problem+json"
    assert await notified.kept() == []
    assert await notified.told() == []


@pytest.mark.parametrize(
    "path", ["/v1/notifications/alipay/{account}", "/v1/notifications/stripe/acc_x", "/v1/notifications/stripe/{new}"]
)
async def test_where_no_account_is_nobody_is_at_home(notified: Notified, path: str) -> None:
    answer = await notified.post(path=path.format(account=notified.account, new=AccountId.new()))
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
