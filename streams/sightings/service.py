"""From what the models read to what is said: one product surely, whom codes ask to pay, or a reason to look again. Plain
functions."""

from stdnum import ean
from stdnum.exceptions import ValidationError

from schemas.recognition import Code, Intent, PayeesSeen, Recognition, Unclear, UnclearReason
from streams.sightings.payee_codes import PayersCode

# Symbologies whose text may be a GTIN. UPC-E arrives expanded (zxing-cpp gives its UPC-A form).
_PRODUCT_FORMATS = frozenset({"EAN13", "EAN8", "UPCA", "UPCE", "ITF14"})

_PAYEES_AT_MOST = 8  # of one frame; see schemas.recognition.PayeesSeen

# GS1 prefixes for in-store numbers, coupons and variable weight: they mean nothing outside one shop.
_RESTRICTED = ("02", "04", *(str(prefix) for prefix in range(20, 30)))


def gtin_of(text: str, symbology: str) -> str | None:
    """The GTIN, normalised to 14 digits, that a code stands for; None where it stands for none: another symbology, a wrong
    length or check digit, or a number that only one shop understands (GS1 General Specifications, section 1.4)."""
    if symbology not in _PRODUCT_FORMATS or not text.isascii() or not text.isdigit():
        return None
    try:
        ean.validate(text)
    except ValidationError:
        return None
    gtin = text.zfill(14)
    if symbology in {"EAN13", "UPCA"} and gtin[1:3] in _RESTRICTED:
        return None
    return gtin


def decide(
    sighting_id: str, frame_digest: str, intent: Intent, codes: tuple[Code, ...], model: str
) -> Recognition | PayeesSeen | Unclear:
    """One product in view: say so. None or several: ask to look again, for a wrong guess costs more than a second glance.

    Payees' codes count only for who wants to pay, and only where no product is in view. A product beside them is what the wearer
    holds up: its own packet may carry a payee's code (a donation, a raffle), and a shop's price for it is better than a payee
    without a bill. Whoever means the payee looks at its code alone.
    """
    products = {code.gtin for code in codes if code.gtin}
    payees = tuple(dict.fromkeys(code.payee for code in codes if code.payee)) if intent is Intent.PAY else ()
    if len(products) == 1:
        return Recognition(
            sighting_id=sighting_id,
            frame_digest=frame_digest,
            intent=intent,
            gtin=products.pop(),
            confidence=1.0,  # the check digit holds, and nothing contradicts it
            codes=tuple(code.model_copy(update={"payee": None}) for code in codes),
            model=model,
        )
    if products or len(payees) > _PAYEES_AT_MOST:
        reason = UnclearReason.SEVERAL_PRODUCTS
    elif payees:
        return PayeesSeen(sighting_id=sighting_id, frame_digest=frame_digest, intent=intent, payees=payees)
    elif any(isinstance(code, PayersCode) for code in codes):
        reason = UnclearReason.PAYERS_CODE
    elif codes:
        reason = UnclearReason.NOT_A_PRODUCT_CODE
    else:
        reason = UnclearReason.NO_CODE
    return unclear(sighting_id, frame_digest, intent, reason)


def unclear(sighting_id: str, frame_digest: str, intent: Intent, reason: UnclearReason) -> Unclear:
    return Unclear(sighting_id=sighting_id, frame_digest=frame_digest, intent=intent, reason=reason)
