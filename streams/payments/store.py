"""The payments' SQL. Whoever changes a payment holds its row's lock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    Row,
    Text,
    and_,
    any_,
    bindparam,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.digests import canonical_json, sha256_hex
from schemas.ids import AccountId, AttemptId, JourneyId, MerchantId, OrderId, PaymentId, ProposalId
from schemas.money import Money
from schemas.payments import CartLine, Outcome, PaymentState, ProposalTerms, ProviderEvent
from schemas.tables import attempts, devices, payments, proposals, provider_accounts, provider_notifications
from streams.core.outbox import Transaction
from streams.core.statements import Statement, together
from streams.payments import accounts
from streams.payments.accounts import Account


@dataclass(frozen=True)
class StoredPayment:
    """`account` is None only for payments older than accounts are."""

    id: PaymentId
    proposal_id: ProposalId
    order_id: OrderId
    journey_id: JourneyId
    device_id: str
    merchant_id: MerchantId
    total: Money
    captured: Money
    refunded: Money
    state: PaymentState
    capture: bool
    frozen: bool
    provider: str
    provider_reference: str | None
    account: Account | None
    locale: str
    submit_by: datetime
    payee: str
    cart: tuple[CartLine, ...]
    payer_sealed: bytes | None


@dataclass(frozen=True)
class StoredAttempt:
    """`begun_at` is None while it waits for a worker, `next_ask_at` while nobody is to ask about it. `refused`: as in Unknown."""

    id: AttemptId
    kind: str
    amount: Money | None
    reference: str | None
    outcome: str | None
    asked: int
    next_ask_at: datetime | None
    begun_at: datetime | None
    created_at: datetime
    trace: str | None
    submitted_at: datetime | None = None
    refused: str | None = None


def _payment(row: Any) -> StoredPayment:
    terms = ProposalTerms.model_validate(row.terms, strict=False)
    currency = row.total_currency
    return StoredPayment(
        id=PaymentId(row.id),
        proposal_id=ProposalId(row.proposal_id),
        order_id=OrderId(row.order_id),
        journey_id=JourneyId(row.journey_id),
        device_id=row.device_id,
        merchant_id=MerchantId(row.merchant_id),
        total=Money.of(row.total_minor, currency),
        captured=Money.of(row.captured_minor, currency),
        refunded=Money.of(row.refunded_minor, currency),
        state=PaymentState(row.state),
        capture=row.capture,
        frozen=row.frozen_at is not None,
        provider=row.provider,
        provider_reference=row.provider_reference,
        account=accounts.of_row(row, "account_") if row.account_id else None,
        locale=row.locale,
        submit_by=row.submit_by,
        payee=terms.payee,
        cart=terms.cart,
        payer_sealed=row.payer_sealed,
    )


_LOCK_PAYMENTS = Statement(
    select(*(column for column in payments.c if column.name != "account_id"))
    .add_columns(proposals.c.terms, devices.c.payer_sealed, *accounts.columns("account_"))
    .join(proposals, proposals.c.id == payments.c.proposal_id)
    .join(devices, devices.c.id == payments.c.device_id)
    .outerjoin(provider_accounts, provider_accounts.c.id == payments.c.account_id)
    .where(payments.c.id == any_(bindparam("payment_ids", type_=ARRAY(Text))))
    .order_by(payments.c.id)
    .with_for_update(of=payments, key_share=True)  # rows may still refer to it
)
_SET_STATE = Statement(
    update(payments)
    .where(payments.c.id == bindparam("payment"))
    .values(
        state=bindparam("to"),
        state_reason=bindparam("reason"),
        updated_at=bindparam("now"),
        provider_reference=func.coalesce(bindparam("reference", type_=Text), payments.c.provider_reference),
        captured_minor=func.coalesce(bindparam("captured", type_=BigInteger), payments.c.captured_minor),
        refunded_minor=func.coalesce(bindparam("refunded", type_=BigInteger), payments.c.refunded_minor),
    )
)


async def lock_payments(connection: AsyncConnection, payment_ids: Sequence[PaymentId]) -> Sequence[StoredPayment]:
    """In the order of their ids, so that nobody waits in a circle."""
    rows = await _LOCK_PAYMENTS.all(connection, payment_ids=[str(payment_id) for payment_id in payment_ids])
    return [_payment(row) for row in rows]


async def lock_payment(connection: AsyncConnection, payment_id: PaymentId) -> StoredPayment | None:
    found = await lock_payments(connection, [payment_id])
    return found[0] if found else None


async def prepare(unit: Transaction, payment_ids: Sequence[PaymentId]) -> None:
    """Lock the payments, and read them with their running attempts, for `current`."""
    ids = [str(payment_id) for payment_id in payment_ids]
    locked, attempted = await together(
        unit.connection, _LOCK_PAYMENTS.with_values(payment_ids=ids), _RUNNING_ATTEMPTS.with_values(payment_ids=ids)
    )
    running = {row.payment_id: _attempt(row) for row in attempted}
    unit.prepared.update({payment.id: (payment, running.get(payment.id)) for payment in map(_payment, locked)})


async def current(unit: Transaction, payment_id: PaymentId) -> tuple[StoredPayment | None, StoredAttempt | None]:
    """The payment, locked, and its running attempt."""
    if payment_id not in unit.prepared:
        await prepare(unit, [payment_id])
    return unit.prepared.pop(payment_id, (None, None))  # type: ignore[no-any-return]


async def set_state(
    connection: AsyncConnection,
    payment_id: PaymentId,
    state: PaymentState,
    *,
    reason: str | None,
    reference: str | None,
    now: datetime,
    captured: Money | None = None,
    refunded: Money | None = None,
) -> None:
    """The database refuses a move that is not allowed. `captured` and `refunded` are all that was taken and given back so far,
    where that changes."""
    _SET_STATE.later(
        connection,
        payment=payment_id,
        to=state,
        reason=reason,
        reference=reference,
        now=now,
        captured=captured.minor if captured else None,
        refunded=refunded.minor if refunded else None,
    )


async def freeze(connection: AsyncConnection, payment_id: PaymentId, reason: str) -> None:
    """The first reason stays."""
    statement = update(payments).where(payments.c.id == payment_id, payments.c.frozen_at.is_(None))
    await connection.execute(statement.values(frozen_at=func.now(), frozen_reason=reason[:500]))


async def thaw(connection: AsyncConnection, payment_id: PaymentId) -> None:
    await connection.execute(update(payments).where(payments.c.id == payment_id).values(frozen_at=None, frozen_reason=None))


# Attempts.


_RUNNING_ATTEMPTS = Statement(
    select(attempts, payments.c.total_currency)
    .join(payments, payments.c.id == attempts.c.payment_id)
    .where(
        attempts.c.payment_id == any_(bindparam("payment_ids", type_=ARRAY(Text))),
        attempts.c.ended_at.is_(None),
    )
)
_ADD_ATTEMPT = Statement(
    insert(attempts),
    columns=(
        "id",
        "payment_id",
        "kind",
        "amount_minor",
        "requested_by",
        "request_digest",
        "reference",
        "next_ask_at",
        "trace",
        "created_at",
        "leased_by",
        "begun_at",
    ),
)
_LEASE_ATTEMPT = Statement(
    update(attempts)
    .where(attempts.c.id == bindparam("attempt"))
    .values(
        next_ask_at=bindparam("until"),
        leased_by=bindparam("worker"),
        begun_at=bindparam("begun"),
        reference=bindparam("known_as"),
    )
)
_RECORD_OUTCOME = Statement(
    update(attempts)
    .where(attempts.c.id == bindparam("attempt"))
    .values(
        outcome=bindparam("said"),
        detail=bindparam("details"),
        asked=attempts.c.asked + 1,
        next_ask_at=bindparam("ask_at"),
        leased_by=None,
        reference=func.coalesce(bindparam("known_as", type_=Text), attempts.c.reference),
        ended_at=func.coalesce(bindparam("ended", type_=DateTime(timezone=True)), attempts.c.ended_at),
    )
)


def _attempt(row: Row[Any]) -> StoredAttempt:
    return StoredAttempt(
        id=AttemptId(row.id),
        kind=row.kind,
        amount=Money.of(row.amount_minor, row.total_currency) if row.amount_minor is not None else None,
        reference=row.reference,
        outcome=row.outcome,
        asked=row.asked,
        next_ask_at=row.next_ask_at,
        begun_at=row.begun_at,
        created_at=row.created_at,
        trace=row.trace,
        submitted_at=row.submitted_at,
        refused=(row.detail or {}).get("refused"),
    )


async def add_attempt(
    connection: AsyncConnection,
    payment: StoredPayment,
    kind: str,
    *,
    amount: Money | None = None,
    reference: str | None,
    requested_by: str,
    now: datetime,
    take_up_by: datetime,
    trace: str | None,
    worker: str | None = None,
    reference_is_key: bool = False,
) -> StoredAttempt:
    """A command that waits for a worker, or is `worker`'s at once; from `take_up_by` on the janitor looks after it. The database
    refuses a second one while one is running (uq_attempts_running)."""
    attempt_id = AttemptId.new()
    if reference_is_key:
        reference = str(attempt_id)
    request = {
        "payment_id": payment.id,
        "kind": kind,
        "minor": amount.minor if amount else None,
        "total": payment.total.model_dump(),
        "order_id": payment.order_id,
    }
    _ADD_ATTEMPT.later(
        connection,
        id=attempt_id,
        payment_id=payment.id,
        kind=kind,
        amount_minor=amount.minor if amount else None,
        requested_by=requested_by,
        request_digest=sha256_hex(canonical_json(request)),
        reference=reference,
        next_ask_at=take_up_by,
        trace=trace,
        created_at=now,
        leased_by=worker,
        begun_at=now if worker else None,
    )
    return StoredAttempt(attempt_id, kind, amount, reference, None, 0, take_up_by, None, now, trace)


async def running_attempt(connection: AsyncConnection, payment_id: PaymentId) -> StoredAttempt | None:
    rows = await _running(connection, [payment_id])
    return _attempt(rows[0]) if rows else None


async def _running(connection: AsyncConnection, payment_ids: Sequence[PaymentId]) -> Sequence[Any]:
    return await _RUNNING_ATTEMPTS.all(connection, payment_ids=[str(payment_id) for payment_id in payment_ids])


async def lease_attempt(
    connection: AsyncConnection, attempt: StoredAttempt, worker: str, now: datetime, until: datetime, reference: str | None
) -> None:
    """It is `worker`'s until then. The first lease is its beginning."""
    _LEASE_ATTEMPT.later(
        connection,
        attempt=attempt.id,
        until=until,
        worker=worker,
        begun=attempt.begun_at or now,
        known_as=attempt.reference or reference,
    )


async def take_back(connection: AsyncConnection, worker: str) -> int:
    """What a worker of this name left behind when it died is due at once; returns how many. To be called before it works."""
    mine = and_(attempts.c.leased_by == worker, attempts.c.ended_at.is_(None), attempts.c.next_ask_at > func.now())
    taken = await connection.execute(
        update(attempts).where(mine).values(next_ask_at=func.now(), leased_by=None).returning(attempts.c.id)
    )
    return len(taken.all())


def _mine(attempt_id: AttemptId, worker: str) -> ColumnElement[bool]:
    """Whether the attempt is running, and in this worker's hands: its lease has not ended, and nobody else has taken it up."""
    return and_(
        attempts.c.id == attempt_id,
        attempts.c.ended_at.is_(None),
        attempts.c.leased_by == worker,
        attempts.c.next_ask_at > func.now(),
    )


async def remember_reference(connection: AsyncConnection, attempt_id: AttemptId, reference: str, worker: str) -> str | None:
    """The reference the attempt has from now on: this one, or the one that somebody else was quicker to put on record. None where
    it is not this worker's any more: then nothing may be submitted."""
    statement = (
        update(attempts)
        .where(_mine(attempt_id, worker))
        .values(reference=func.coalesce(attempts.c.reference, reference))
        .returning(attempts.c.reference)
    )
    found: str | None = (await connection.execute(statement)).scalar_one_or_none()
    return found


async def mark_submission(connection: AsyncConnection, attempt_id: AttemptId, worker: str) -> bool:
    """Put on record that it is submitted again, now. False where it is not this worker's any more: then it may not be."""
    statement = update(attempts).where(_mine(attempt_id, worker)).values(submitted_at=func.now()).returning(attempts.c.id)
    return (await connection.execute(statement)).scalar_one_or_none() is not None


async def find_attempt(connection: AsyncConnection, attempt_id: AttemptId) -> StoredAttempt | None:
    query = (
        select(attempts, payments.c.total_currency)
        .join(payments, payments.c.id == attempts.c.payment_id)
        .where(attempts.c.id == attempt_id)
    )
    row = (await connection.execute(query)).one_or_none()
    return _attempt(row) if row else None


async def taking_attempt(connection: AsyncConnection, payment_id: PaymentId) -> StoredAttempt | None:
    """The attempt that was to take, or reserve, the money."""
    query = (
        select(attempts, payments.c.total_currency)
        .join(payments, payments.c.id == attempts.c.payment_id)
        .where(attempts.c.payment_id == payment_id, attempts.c.kind == "authorise", attempts.c.reference.is_not(None))
        .order_by(attempts.c.created_at.desc())
        .limit(1)
    )
    row = (await connection.execute(query)).one_or_none()
    return _attempt(row) if row else None


async def watch_again(connection: AsyncConnection, payment_id: PaymentId, at: datetime | None) -> None:
    """When the janitor looks again whether a reservation still stands; None: not any more."""
    taking = and_(attempts.c.payment_id == payment_id, attempts.c.kind == "authorise", attempts.c.ended_at.is_not(None))
    await connection.execute(update(attempts).where(taking).values(next_ask_at=at))


async def record_outcome(
    connection: AsyncConnection, attempt_id: AttemptId, outcome: Outcome, *, final: bool, ask_at: datetime | None, now: datetime
) -> None:
    """The lease ends with it. With `ask_at` None nobody asks any more."""
    _RECORD_OUTCOME.later(
        connection,
        attempt=attempt_id,
        said=outcome.kind,
        details=outcome.model_dump(mode="json", exclude={"url"}),
        ask_at=None if final else ask_at,
        known_as=outcome.reference,
        ended=now if final else None,
    )


@dataclass(frozen=True)
class Due:
    """A payment with an attempt that nobody has settled in time. `trace`: where its work belongs."""

    payment_id: PaymentId
    journey_id: JourneyId
    trace: str | None


async def due_payments(connection: AsyncConnection, now: datetime, limit: int, *, busy: Sequence[str] = ()) -> Sequence[Due]:
    """Those whose time has come, but for the providers that are `busy`: what waits for one that hangs keeps no other waiting."""
    query = (
        select(attempts.c.payment_id, attempts.c.trace, payments.c.journey_id)
        .join(payments, payments.c.id == attempts.c.payment_id)
        .where(attempts.c.next_ask_at <= now, payments.c.frozen_at.is_(None), payments.c.provider.not_in(busy))
        .order_by(attempts.c.next_ask_at)
        .limit(limit)
    )
    return [Due(PaymentId(row.payment_id), JourneyId(row.journey_id), row.trace) for row in await connection.execute(query)]


async def stranded_payments(connection: AsyncConnection, since: datetime, limit: int) -> Sequence[Due]:
    """Approved payments that no worker has begun in time, whatever became of their command."""
    query = (
        select(payments.c.id, payments.c.journey_id)
        .where(payments.c.state == PaymentState.APPROVED, payments.c.updated_at <= since, payments.c.frozen_at.is_(None))
        .order_by(payments.c.updated_at)
        .limit(limit)
    )
    return [Due(PaymentId(row.id), JourneyId(row.journey_id), None) for row in await connection.execute(query)]


async def put_off(connection: AsyncConnection, payment_id: PaymentId, until: datetime, worker: str) -> None:
    """Nobody looks after it again before then; what another worker has in hand is left to it."""
    whose = (attempts.c.leased_by.is_(None), attempts.c.leased_by == worker, attempts.c.next_ask_at <= func.now())
    await connection.execute(
        update(attempts)
        .where(attempts.c.payment_id == payment_id, attempts.c.next_ask_at.is_not(None), or_(*whose))
        .values(next_ask_at=until, leased_by=None)
    )
    touched = update(payments).where(payments.c.id == payment_id, payments.c.state == PaymentState.APPROVED)
    await connection.execute(touched.values(updated_at=func.now()))


async def ask_at_once(connection: AsyncConnection, payment_id: PaymentId, merchant_id: MerchantId | None) -> bool:
    """The janitor asks about what is not known of this payment in its next round, also where it had given up asking. False where
    all is known, or it is being asked, or the payment is another merchant's."""
    theirs = select(payments.c.id).where(payments.c.id == payment_id, payments.c.frozen_at.is_(None))
    if merchant_id is not None:
        theirs = theirs.where(payments.c.merchant_id == merchant_id)
    waiting = and_(
        attempts.c.payment_id.in_(theirs),
        attempts.c.ended_at.is_(None),
        attempts.c.begun_at.is_not(None),
        attempts.c.leased_by.is_(None),
    )
    touched = await connection.execute(update(attempts).where(waiting).values(next_ask_at=func.now()).returning(attempts.c.id))
    return touched.one_or_none() is not None


@dataclass(frozen=True)
class Unclear:
    """What a person may want to look at. `attempt` is its running command, if any; `next_ask_at` None: nobody asks any more."""

    payment_id: PaymentId
    merchant_id: MerchantId
    state: str
    total: Money
    provider: str
    reference: str | None
    frozen_reason: str | None
    attempt: str | None
    outcome: str | None
    reason: str | None
    asked: int
    since: datetime
    next_ask_at: datetime | None


async def unclear_payments(connection: AsyncConnection, older_than: timedelta, limit: int) -> Sequence[Unclear]:
    """Frozen payments, those with a command that has been running longer than that, and those approved that nobody could begin;
    longest first."""
    not_begun = and_(payments.c.state == PaymentState.APPROVED, payments.c.created_at < func.now() - older_than)
    query = (
        select(payments, attempts.c.kind, attempts.c.outcome, attempts.c.detail, attempts.c.asked)
        .add_columns(attempts.c.next_ask_at, attempts.c.begun_at, attempts.c.reference.label("attempt_reference"))
        .outerjoin(attempts, and_(attempts.c.payment_id == payments.c.id, attempts.c.ended_at.is_(None)))
        .where(or_(payments.c.frozen_at.is_not(None), attempts.c.created_at < func.now() - older_than, not_begun))
        .order_by(payments.c.updated_at)
        .limit(limit)
    )
    return [
        Unclear(
            payment_id=PaymentId(row.id),
            merchant_id=MerchantId(row.merchant_id),
            state=row.state,
            total=Money.of(row.total_minor, row.total_currency),
            provider=row.provider,
            reference=row.attempt_reference or row.provider_reference,
            frozen_reason=row.frozen_reason,
            attempt=row.kind,
            outcome=row.outcome,
            reason=(row.detail or {}).get("reason"),
            asked=row.asked or 0,
            since=row.begun_at or row.frozen_at or row.created_at,
            next_ask_at=row.next_ask_at,
        )
        for row in await connection.execute(query)
    ]


# Notifications.


@dataclass(frozen=True)
class Referred:
    """A payment that a provider's notification is about. `running`: the kind of its command that has not ended; `at_work`: a
    worker is talking to the provider about it now."""

    payment_id: PaymentId
    journey_id: JourneyId
    state: PaymentState
    total: Money
    captured: Money
    frozen: bool
    running: str | None
    at_work: bool

    @property
    def may_be_partial(self) -> bool:
        return self.running == "capture"


_its_running = attempts.alias("running")
_PAYMENT_OF_REFERENCE = Statement(
    select(
        payments.c.id,
        payments.c.account_id,
        payments.c.journey_id,
        payments.c.state,
        payments.c.total_minor,
        payments.c.total_currency,
        payments.c.captured_minor,
        payments.c.frozen_at,
        _its_running.c.kind.label("running_kind"),
        _its_running.c.leased_by,
    )
    .select_from(attempts)
    .join(payments, payments.c.id == attempts.c.payment_id)
    .outerjoin(_its_running, and_(_its_running.c.payment_id == payments.c.id, _its_running.c.ended_at.is_(None)))
    .where(attempts.c.reference == bindparam("known_as"))
)
_FIND_NOTIFICATION = Statement(
    select(provider_notifications)
    .where(provider_notifications.c.account_id == bindparam("account"), provider_notifications.c.event_id == bindparam("event"))
    .with_for_update()
)
_ADD_NOTIFICATION = Statement(
    upsert(provider_notifications)
    .on_conflict_do_update(index_elements=["account_id", "event_id"], set_={"repeated": provider_notifications.c.repeated + 1})
    .returning(provider_notifications.c.repeated),
    columns=(
        "account_id",
        "event_id",
        "kind",
        "reference",
        "payment_id",
        "amount_minor",
        "amount_currency",
        "attempt_id",
        "note",
        "state",
        "processed_at",
        "occurred_at",
    ),
)
_END_NOTIFICATION = Statement(
    update(provider_notifications)
    .where(provider_notifications.c.account_id == bindparam("account"), provider_notifications.c.event_id == bindparam("event"))
    .values(state="processed", processed_at=bindparam("now"))
)


async def payment_of_reference(connection: AsyncConnection, account_id: AccountId, reference: str) -> Referred | None:
    """The payment of this account that the provider knows by this reference: on record before any money moves."""
    # Which account's it is, is looked at here: an account has very many payments, and is no way to find one.
    rows = await _PAYMENT_OF_REFERENCE.all(connection, known_as=reference)
    row = next((row for row in rows if row.account_id == account_id), None)
    if row is None:
        return None
    return Referred(
        payment_id=PaymentId(row.id),
        journey_id=JourneyId(row.journey_id),
        state=PaymentState(row.state),
        total=Money.of(row.total_minor, row.total_currency),
        captured=Money.of(row.captured_minor, row.total_currency),
        frozen=row.frozen_at is not None,
        running=row.running_kind,
        at_work=row.leased_by is not None,
    )


@dataclass(frozen=True)
class Notification:
    kind: str
    reference: str
    amount: Money | None
    attempt_id: str | None
    note: str | None
    state: str


@dataclass(frozen=True)
class Booked:
    """See `service.Booked`."""

    total: Money
    captured: Money
    state: PaymentState
    may_be_partial: bool


def booked(payment: StoredPayment, running: StoredAttempt | None) -> Booked:
    return Booked(payment.total, payment.captured, payment.state, running is not None and running.kind == "capture")


async def find_notification(connection: AsyncConnection, account_id: AccountId, event_id: str) -> Notification | None:
    row = await _FIND_NOTIFICATION.first(connection, account=account_id, event=event_id)
    if row is None:
        return None
    amount = Money.of(row.amount_minor, row.amount_currency) if row.amount_minor is not None else None
    return Notification(row.kind, row.reference, amount, row.attempt_id, row.note, row.state)


async def ordered_refund(
    connection: AsyncConnection, payment_id: PaymentId, attempt_id: str | None, amount: Money | None
) -> bool:
    """Whether a refund that a provider reports may be one that we asked for: that very attempt, or any of this amount."""
    query = select(attempts.c.id).where(attempts.c.payment_id == payment_id, attempts.c.kind == "refund")
    if attempt_id is not None:
        query = query.where(attempts.c.id == attempt_id)
    if amount is not None:
        query = query.where(attempts.c.amount_minor == amount.minor)
    return (await connection.execute(query.limit(1))).first() is not None


async def add_notification(
    connection: AsyncConnection,
    account_id: AccountId,
    event: ProviderEvent,
    payment_id: PaymentId | None,
    *,
    processed_at: datetime | None = None,
) -> bool:
    """Put it on record, with `processed_at` as one that says nothing new. False where it was before: then the repetition is
    counted, and nothing else changes."""
    repeated = await _ADD_NOTIFICATION.scalar(
        connection,
        account_id=account_id,
        event_id=event.event_id,
        kind=event.kind,
        reference=event.reference,
        payment_id=payment_id,
        amount_minor=event.amount.minor if event.amount else None,
        amount_currency=event.amount.currency if event.amount else None,
        attempt_id=event.attempt_id,
        note=event.note,
        state="processed" if processed_at else "new" if payment_id else "unmatched",
        processed_at=processed_at,
        occurred_at=event.occurred_at,
    )
    return int(repeated) == 0


async def end_notification(connection: AsyncConnection, account_id: AccountId, event_id: str, now: datetime) -> None:
    await _END_NOTIFICATION.run(connection, account=account_id, event=event_id, now=now)
