"""The registry of payees: whose codes may be paid, and under which name wearers are shown them. Only a code's key is kept.

Every function works in its caller's transaction.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import exists, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.errors import FieldError, Misconfigured, Rejected
from schemas.ids import MerchantId, PayeeId
from schemas.money import Currency
from schemas.recognition import PayeeCode, PayeeScheme
from schemas.tables import devices, merchants, payee_codes, payees, proposals
from streams.core.outbox import Transaction
from streams.intents import closing
from streams.intents import store as intents
from streams.sightings import payee_codes as reading


@dataclass(frozen=True)
class RegisteredPayee:
    id: PayeeId
    merchant_id: MerchantId
    name: str
    scheme: PayeeScheme
    currency: str
    created_at: datetime


async def add(connection: AsyncConnection, merchant_id: MerchantId, *, name: str, currency: str, code: str) -> PayeeId:
    """`code` is the text of the payee's code. `name` is what wearers are shown, `currency` what they pay in where the code names
    none. Raises Rejected where one of them does not fit, the merchant is not known, or the code is registered already."""
    shown = " ".join(name.split())
    if not 1 <= len(shown) <= 100 or not shown.isprintable():
        raise _refuse("/name", "a name has 1 to 100 characters that can be shown")
    try:
        TypeAdapter(Currency).validate_python(currency)
    except ValidationError as error:
        raise _refuse("/currency", "this is not an ISO 4217 currency code") from error
    read = _read(code)
    if read.currency not in {None, currency}:
        raise _refuse("/currency", f"the code is for {read.currency}")
    if not (await connection.execute(select(exists().where(merchants.c.id == merchant_id)))).scalar_one():
        raise Rejected("not-found", f"there is no merchant {merchant_id}")
    payee_id = PayeeId.new()
    values = {"id": payee_id, "merchant_id": merchant_id, "scheme": read.scheme, "key": read.key}
    statement = insert(payees).values(**values, name=shown, currency=currency).on_conflict_do_nothing().returning(payees.c.id)
    if (await connection.execute(statement)).one_or_none() is None:
        raise _refuse("/code", "this code is registered already")
    return payee_id


async def listed(connection: AsyncConnection, merchant_id: MerchantId | None = None) -> Sequence[RegisteredPayee]:
    """Those that may be paid now, oldest first."""
    query = select(payees).where(payees.c.removed_at.is_(None)).order_by(payees.c.created_at, payees.c.id)
    if merchant_id is not None:
        query = query.where(payees.c.merchant_id == merchant_id)
    return [
        RegisteredPayee(
            id=PayeeId(row.id),
            merchant_id=MerchantId(row.merchant_id),
            name=row.name,
            scheme=PayeeScheme(row.scheme),
            currency=row.currency,
            created_at=row.created_at,
        )
        for row in await connection.execute(query)
    ]


async def remove(connection: AsyncConnection, payee_id: PayeeId) -> None:
    """From the commit on nothing more is proposed for the payee; `cancel_open` ends what is. What was approved before stays
    approved. Raises Rejected("not-found")."""
    statement = update(payees).where(payees.c.id == payee_id, payees.c.removed_at.is_(None)).values(removed_at=datetime.now(UTC))
    if (await connection.execute(statement.returning(payees.c.id))).one_or_none() is None:
        raise Rejected("not-found", f"there is no payee {payee_id}")


async def cancel_open(unit: Transaction, payee_id: PayeeId) -> int:
    """Cancel the proposals for a payee that was removed, in a transaction after the removal's: one that is being made meanwhile
    holds the removal up, and is seen here. Returns how many."""
    seen = proposals.join(payee_codes, payee_codes.c.id == proposals.c.payee_code_id)
    query = select(proposals.c.id, proposals.c.device_id).select_from(seen).join(devices, devices.c.id == proposals.c.device_id)
    query = query.add_columns(devices.c.locale).where(payee_codes.c.payee_id == payee_id, proposals.c.state == "open")
    cancelled = 0
    for row in (await unit.connection.execute(query.order_by(proposals.c.device_id))).all():
        await intents.lock_device(unit.connection, row.device_id)
        proposal = await intents.proposal_of(unit, row.id)
        if proposal is not None and proposal.state == "open":
            await closing.close(unit, proposal, "cancelled", "payee_removed", row.locale)
            cancelled += 1
    return cancelled


def text_of_picture(picture: bytes) -> str:
    """The text of the one QR code in a picture (PNG or JPEG). Raises Rejected where there is none or more than one."""
    try:
        import zxingcpp
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise Misconfigured("Reading pictures needs the package zxing-cpp; or give the code's text instead.") from error

    try:
        image = Image.open(io.BytesIO(picture), formats=("PNG", "JPEG")).convert("L")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise _refuse("/picture", "this is not a PNG or JPEG that can be read") from error
    found = zxingcpp.read_barcodes(image, formats=zxingcpp.barcode_formats_from_str("QRCode"), text_mode=zxingcpp.TextMode.Plain)
    texts = {str(code.text) for code in found}
    if len(texts) != 1:
        raise _refuse("/picture", "the picture must show one QR code" + (", and shows several" if texts else ""))
    return texts.pop()


def _read(text: str) -> PayeeCode:
    if reading.is_payers_code(text):
        raise _refuse("/code", "this is a consumer's payment code, and no payee's")
    try:
        code = reading.read(text)
    except reading.NotAPayeesCode as error:
        raise _refuse("/code", f"this is no payee's code: {error}") from error
    if code.dynamic and code.scheme is not PayeeScheme.EMVCO:
        raise _refuse("/code", "this code is one bill's, and does not say whose: give the one that takes any amount")
    return code


def _refuse(pointer: str, detail: str) -> Rejected:
    return Rejected("request-invalid", detail, errors=(FieldError(pointer=pointer, detail=detail),))
