"""Holding receipts against the tables beside them: what a chain alone cannot show, because its end or all of it was removed, and
what was changed in a table while the receipt still says how it was.

`contradictions` compares; the rest reads, many journeys at a time, each time as of one moment, so that it may run while payments
are being made.
"""

import base64
import binascii
import json
from collections.abc import AsyncIterator, Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.digests import canonical_json, sha256_hex
from schemas.ids import OrderId
from schemas.payments import PaymentState
from schemas.tables import approvals, attempts, deliveries, messages, payments, proposals
from streams.core import receipts
from streams.core.database import Database
from streams.core.receipts import Entry
from streams.webhooks import store as webhooks
from streams.webhooks.service import CLOSING_STATES

_JOURNEYS_AT_ONCE = 200

_MOVED = {PaymentState.CAPTURED, PaymentState.PARTIALLY_REFUNDED, PaymentState.REFUNDED}
_NOTHING_SAID_YET = {PaymentState.PROPOSED, PaymentState.APPROVED, PaymentState.SUBMITTING}
_CLOSED_UNPAID = {"declined", "cancelled", "expired"}


@dataclass(frozen=True)
class Proposal:
    """`jws` is the wearer's yes, where there was one."""

    id: str
    state: str
    digest: str
    terms: dict[str, Any]
    jws: str | None


@dataclass(frozen=True)
class Attempt:
    id: str
    kind: str
    outcome: str | None
    reference: str | None
    amount_minor: int | None
    ended: bool


@dataclass(frozen=True)
class Payment:
    """`must_be_closed`: it is done, its merchant was told, and has acknowledged all of it."""

    id: str
    proposal_id: str
    state: str
    total: tuple[int, str]
    captured: int
    refunded: int
    reference: str | None
    must_be_closed: bool
    attempts: tuple[Attempt, ...]


@dataclass
class Tables:
    """What the tables have of one journey. `acknowledged`: messages, each with the endpoint that took it."""

    proposals: list[Proposal] = field(default_factory=list)
    payments: list[Payment] = field(default_factory=list)
    acknowledged: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Examined:
    """Some journeys: how many, with how many entries, and what is wrong, each with its journey."""

    journeys: int
    entries: int
    problems: tuple[tuple[str, str], ...]


async def examine(database: Database, journey_ids: Sequence[str] | None = None) -> AsyncIterator[Examined]:
    """All journeys, or these, some at a time: their chains, and whether they fit the tables."""
    if journey_ids is not None:
        for start in range(0, len(journey_ids), _JOURNEYS_AT_ONCE):
            async with receipts.one_moment(database) as connection:
                yield await _examine(connection, journey_ids[start : start + _JOURNEYS_AT_ONCE])
        return
    last = ""
    while True:
        async with receipts.one_moment(database) as connection:
            some = await receipts.journeys_after(connection, last, _JOURNEYS_AT_ONCE)
            if not some:
                return
            examined = await _examine(connection, some)
        yield examined
        last = some[-1]


async def _examine(connection: AsyncConnection, journey_ids: Sequence[str]) -> Examined:
    entries = await receipts.load(connection, journey_ids)
    closed = {
        entry.content.get("payment_id")
        for of_one in entries.values()
        for entry in of_one
        if entry.kind == "closed" and isinstance(entry.content, dict)
    }
    tables = await _tables(connection, journey_ids, closed)
    problems = []
    for journey_id in journey_ids:
        found, beside = entries.get(journey_id, []), tables.get(journey_id, Tables())
        if not found and not beside.proposals and not beside.payments:
            problems.append((journey_id, "there is no receipt of this journey"))
        problems += [(journey_id, problem) for problem in receipts.problems(journey_id, found)]
        problems += [(journey_id, problem) for problem in contradictions(found, beside)]
    return Examined(len(journey_ids), sum(map(len, entries.values())), tuple(problems))


# Comparing.


def contradictions(entries: Sequence[Entry], tables: Tables) -> list[str]:
    """What the receipt and the tables do not agree on, one sentence each."""
    said = [(entry.kind, entry.content) for entry in entries if isinstance(entry.content, dict)]
    by_id = {proposal.id: proposal for proposal in tables.proposals}
    found: list[str] = []
    for proposal in tables.proposals:
        found += _of_proposal(proposal, said)
    for payment in tables.payments:
        found += _of_payment(payment, by_id.get(payment.proposal_id), said)
    found += _gone(tables, said)
    acknowledged = {(said_of["message_id"], said_of["endpoint_id"]) for said_of in _of(said, "webhook_acknowledged")}
    found += [
        f"{message} was acknowledged by {endpoint}, and no entry says so"
        for message, endpoint in tables.acknowledged
        if (message, endpoint) not in acknowledged
    ]
    return found


_Said = Sequence[tuple[str, dict[str, Any]]]


def _of(said: _Said, kind: str, **equal: object) -> list[dict[str, Any]]:
    return [content for name, content in said if name == kind and all(content.get(key) == equal[key] for key in equal)]


def _of_proposal(proposal: Proposal, said: _Said) -> Iterable[str]:
    if _digest(proposal.terms) != proposal.digest:
        yield f"the terms of {proposal.id} are not those its digest was made of"
    proposed = _of(said, "proposed", proposal_id=proposal.id)
    if not proposed:
        yield f"{proposal.id} was proposed, and no entry says so"
    elif all(content.get("digest") != proposal.digest for content in proposed):
        yield f"{proposal.id} has another digest than the entry `proposed`"
    if proposal.state in _CLOSED_UNPAID and not _of(said, "proposal_closed", proposal_id=proposal.id, state=proposal.state):
        yield f"{proposal.id} was {proposal.state}, and no entry says so"


def _of_payment(payment: Payment, proposal: Proposal | None, said: _Said) -> Iterable[str]:
    approved = _of(said, "approved", payment_id=payment.id)
    if not approved:
        yield f"{payment.id} has no entry `approved`"
    elif proposal is not None:
        yield from _of_approval(payment, proposal, approved[-1])
    answered = _of(said, "provider_answered", payment_id=payment.id)
    yield from _of_attempts(payment, answered)
    moves = [content for kind, content in said if kind in ("provider_answered", "cancelled")]
    moves = [content for content in moves if content.get("payment_id") == payment.id]
    last = moves[-1].get("state") if moves else None
    if payment.state not in _NOTHING_SAID_YET and last != payment.state:
        yield f"{payment.id} is {payment.state}, and its receipt says {last or 'nothing of it'}"
    yield from _of_money(payment, answered)
    if payment.must_be_closed and not _of(said, "closed", payment_id=payment.id):
        yield f"{payment.id} is done and acknowledged, and has no entry `closed`"


def _of_approval(payment: Payment, proposal: Proposal, approved: dict[str, Any]) -> Iterable[str]:
    if approved.get("digest") != proposal.digest:
        yield f"{payment.id} was approved for another digest than {proposal.id} has"
    if approved.get("approval") != proposal.jws:
        yield f"the approval of {payment.id} is another than the one on record"
    elif _claims(proposal.jws).get("digest") != proposal.digest:
        yield f"the approval of {payment.id} is for another digest than {proposal.id} has"
    total = proposal.terms.get("total")
    if total != {"minor": payment.total[0], "currency": payment.total[1]}:
        yield f"{payment.id} is for another amount than the wearer approved"


def _of_attempts(payment: Payment, answered: Sequence[dict[str, Any]]) -> Iterable[str]:
    for attempt in payment.attempts:
        if not attempt.ended:
            continue
        # Before attempts had kinds, entries did not name them.
        ours = [content for content in answered if content.get("attempt_id", attempt.id) == attempt.id]
        if not any(_fits(attempt, content) for content in ours):
            what = "says something else" if ours else "is missing"
            yield f"the {attempt.kind} {attempt.id} ended as {attempt.outcome}, and its entry `provider_answered` {what}"
    known = {attempt.id for attempt in payment.attempts}
    for content in answered:
        if "attempt_id" in content and content["attempt_id"] not in known:
            yield f"{content['attempt_id']} of {payment.id} is in the receipt, and gone from the attempts"


def _fits(attempt: Attempt, content: dict[str, Any]) -> bool:
    if "attempt_id" not in content:
        return attempt.reference in (None, content.get("reference"))
    return (
        content.get("kind") == attempt.kind
        and content.get("outcome") == attempt.outcome
        and content.get("amount_minor") == attempt.amount_minor
        and attempt.reference in (None, content.get("reference"))
    )


def _of_money(payment: Payment, answered: Sequence[dict[str, Any]]) -> Iterable[str]:
    if payment.state in _MOVED and all(content.get("reference") != payment.reference for content in answered):
        yield f"{payment.id} has a provider's reference that its receipt does not know"
    if any("attempt_id" not in content for content in answered):
        return
    succeeded = [content for content in answered if content.get("outcome") == "succeeded"]
    taken = sum(content.get("amount_minor") or 0 for content in _with(succeeded, kind="capture"))
    if _with(succeeded, kind="authorise", state=PaymentState.CAPTURED):
        taken += payment.total[0]
    given_back = sum(content.get("amount_minor") or 0 for content in _with(succeeded, kind="refund"))
    currency = payment.total[1]
    for what, ours, theirs in (("captured", payment.captured, taken), ("given back", payment.refunded, given_back)):
        if ours != theirs:
            yield f"{payment.id} has {ours} {what} (minor units, {currency}), and by its receipt {theirs}"


def _with(contents: Sequence[dict[str, Any]], **equal: object) -> list[dict[str, Any]]:
    return [content for content in contents if all(content.get(key) == equal[key] for key in equal)]


def _gone(tables: Tables, said: _Said) -> Iterable[str]:
    here = {payment.id for payment in tables.payments}
    proposed = {proposal.id for proposal in tables.proposals}
    for content in _of(said, "approved"):
        if content.get("payment_id") not in here:
            yield f"{content.get('payment_id')} was approved, and is gone from the payments"
    for content in _of(said, "proposed"):
        if content.get("proposal_id") not in proposed:
            yield f"{content.get('proposal_id')} was proposed, and is gone from the proposals"


def _digest(terms: dict[str, Any]) -> str:
    try:
        return sha256_hex(canonical_json(terms))
    except ValueError:
        return ""


def _claims(jws: str | None) -> dict[str, Any]:
    """What an approval says; its signature was verified when it came, by the key the device had then."""
    try:
        payload = (jws or "").split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, binascii.Error, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


# Reading.


async def _tables(connection: AsyncConnection, journey_ids: Sequence[str], closed: Set[object]) -> dict[str, Tables]:
    """`closed`: payments whose receipts say that they are."""
    found: dict[str, Tables] = {}
    ids = list(journey_ids)
    query = select(proposals, approvals.c.jws).outerjoin(approvals, approvals.c.proposal_id == proposals.c.id)
    for row in await connection.execute(query.where(proposals.c.journey_id == func.any(ids))):
        proposal = Proposal(row.id, row.state, row.digest, row.terms, row.jws)
        found.setdefault(row.journey_id, Tables()).proposals.append(proposal)
    paid = (await connection.execute(select(payments).where(payments.c.journey_id == func.any(ids)))).all()
    by_payment = await _attempts(connection, [row.id for row in paid])
    for row in paid:
        may_be_open = row.state in CLOSING_STATES and row.id not in closed
        unclosed = may_be_open and await webhooks.to_be_closed(connection, OrderId(row.order_id), CLOSING_STATES)
        payment = _payment(row, by_payment.get(row.id, []), must_be_closed=bool(unclosed))
        found.setdefault(row.journey_id, Tables()).payments.append(payment)
    told = (
        select(messages.c.journey_id, deliveries.c.message_id, deliveries.c.endpoint_id)
        .join(messages, messages.c.id == deliveries.c.message_id)
        .where(messages.c.order_id == func.any([row.order_id for row in paid]), deliveries.c.state == "delivered")
    )
    for delivered in await connection.execute(told):
        tables = found.setdefault(delivered.journey_id, Tables())
        tables.acknowledged.append((delivered.message_id, delivered.endpoint_id))
    return found


async def _attempts(connection: AsyncConnection, payment_ids: Sequence[str]) -> dict[str, list[Attempt]]:
    query = select(attempts).where(attempts.c.payment_id == func.any(list(payment_ids))).order_by(attempts.c.created_at)
    found: dict[str, list[Attempt]] = {}
    for row in await connection.execute(query):
        attempt = Attempt(row.id, row.kind, row.outcome, row.reference, row.amount_minor, row.ended_at is not None)
        found.setdefault(row.payment_id, []).append(attempt)
    return found


def _payment(row: Row[Any], its_attempts: Sequence[Attempt], *, must_be_closed: bool) -> Payment:
    return Payment(
        id=row.id,
        proposal_id=row.proposal_id,
        state=row.state,
        total=(row.total_minor, row.total_currency),
        captured=row.captured_minor,
        refunded=row.refunded_minor,
        reference=row.provider_reference,
        must_be_closed=must_be_closed,
        attempts=tuple(its_attempts),
    )
