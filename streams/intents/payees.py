"""From a payee's code to what the wearer is asked to pay. The code was seen in several frames (`streams.offers.payees`); who is
behind it, says the registry of payees alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.errors import Rejected
from schemas.ids import MerchantId, PayeeCodeId, PayeeId
from schemas.money import Money
from schemas.payments import PaymentRequested, PaymentState
from schemas.recognition import PayeeCode, PayeeScheme
from schemas.tables import payee_codes, payees, payments, proposals
from streams.core import wording
from streams.intents.service import Device
from streams.offers.payees import FRAMES_NEEDED

_LOCK_CLASS = 0xB111  # names the bills among the users of advisory locks; a trigger on proposals (migration 0003) locks them, too

# Payments that ended without money: their bill may be proposed again. One that was refunded was paid, and its code is used up.
_CAME_TO_NOTHING = (PaymentState.DECLINED, PaymentState.FAILED, PaymentState.CANCELLED, PaymentState.EXPIRED)


@dataclass(frozen=True)
class PayeeProposal:
    """What goes into the terms: the cart is empty, `text_key` and `text_values` are for `wording.say` in the device's language.
    `evidence` is for the receipt's first entry; it has no raw code in it."""

    merchant_id: MerchantId
    payee_name: str
    total: Money
    text_key: str
    text_values: Mapping[str, str]
    payee_code_id: PayeeCodeId
    journey_id: str
    evidence: dict[str, Any]


async def propose_payee(connection: AsyncConnection, request: PaymentRequested, device: Device, now: datetime) -> PayeeProposal:
    """For a request with a `payee_code_id`. The device's row must be locked, which keeps the code's row as it is; whether the
    device may pay at all is for the caller to see. Raises Rejected where there is nothing to propose.

    A dynamic code is one bill. While it is proposed to other glasses, being paid or paid, it is not proposed again; what is
    still open on these glasses does not count, for the new proposal takes its place. Bills are serialised until the transaction
    ends, so that two glasses that look at one bill cannot both get it. Some codes say that they are dynamic and have no number by
    which a bill differs from the next one of the same amount: such a code is paid once by who saw it, until it is seen anew.
    """
    row = await _find(connection, request.payee_code_id, device.id)
    code = PayeeCode.model_validate(row.code, strict=False)
    if row.expires_at <= now:
        raise Rejected("payee-code-expired", "this code was seen too long ago", instance=row.id)
    if len(set(row.frames)) < FRAMES_NEEDED:
        raise Rejected("payee-code-unknown", "this code was not seen in two frames that agree", instance=row.id)
    payee = await _registered(connection, code)
    if payee is None or payee.id != row.payee_id:
        raise Rejected("payee-code-unknown", "nobody is registered for this code", instance=row.id)
    total = _total(request, code, payee.currency, row.id)
    if code.dynamic:
        await _lock_bill(connection, row.code_digest)
        if await _is_taken(connection, row, code, device.id, now):
            raise Rejected("payment-state", "this bill is being paid, or was paid already", instance=row.id)
    return PayeeProposal(
        merchant_id=MerchantId(payee.merchant_id),
        payee_name=payee.name,
        total=total,
        text_key="proposal_payee",
        text_values={"total": wording.money(total, device.locale), "payee": payee.name},
        payee_code_id=PayeeCodeId(row.id),
        journey_id=row.journey_id,
        evidence={
            "payee_id": PayeeId(payee.id),
            "scheme": code.scheme.value,
            "code_digest": row.code_digest,
            "frames": list(row.frames),
            "last_seen_at": row.last_seen_at.isoformat(),
        },
    )


def _total(request: PaymentRequested, code: PayeeCode, payees_currency: str, code_id: str) -> Money:
    if request.quantity != 1:
        raise Rejected("amount-not-free", "a payee's code has no quantity", instance=code_id)
    if code.amount is not None:
        if request.amount is not None:
            raise Rejected("amount-not-free", f"the code says {code.amount}", instance=code_id)
        return code.amount
    currency = code.currency or payees_currency
    if request.amount is None or request.amount.currency != currency:
        raise Rejected("amount-missing", f"say how much to pay, in {currency}", instance=code_id)
    return request.amount


async def _find(connection: AsyncConnection, code_id: PayeeCodeId | None, device_id: str) -> Row[Any]:
    query = select(payee_codes).where(payee_codes.c.id == code_id, payee_codes.c.device_id == device_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise Rejected("payee-code-unknown", "no such code was seen by these glasses", instance=code_id)
    return row


async def _registered(connection: AsyncConnection, code: PayeeCode) -> Row[Any] | None:
    """The payee that is registered for the code, and stays so until the transaction ends."""
    query = select(payees).where(payees.c.scheme == code.scheme, payees.c.key == code.key, payees.c.removed_at.is_(None))
    return (await connection.execute(query.with_for_update(read=True))).one_or_none()


async def _lock_bill(connection: AsyncConnection, digest: str) -> None:
    await connection.execute(select(func.pg_advisory_xact_lock(_LOCK_CLASS, func.hashtext(digest))))


async def _is_taken(connection: AsyncConnection, row: Row[Any], code: PayeeCode, device_id: str, now: datetime) -> bool:
    seen = proposals.join(payee_codes, payee_codes.c.id == proposals.c.payee_code_id)
    seen = seen.outerjoin(payments, payments.c.proposal_id == proposals.c.id)
    numbered = code.scheme is not PayeeScheme.EMVCO or code.reference is not None
    the_bill = payee_codes.c.code_digest == row.code_digest if numbered else payee_codes.c.id == row.id
    open_elsewhere = and_(proposals.c.state == "open", proposals.c.expires_at > now, proposals.c.device_id != device_id)
    paid = and_(proposals.c.state == "approved", or_(payments.c.id.is_(None), payments.c.state.not_in(_CAME_TO_NOTHING)))
    query = select(exists().select_from(seen).where(the_bill, or_(open_elsewhere, paid)))
    return bool((await connection.execute(query)).scalar_one())
