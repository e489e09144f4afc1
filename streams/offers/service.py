"""From what the shops answered to what the wearer sees. Plain functions on plain values."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

from schemas.commerce import ExchangeRate, Offer, OffersFound, ShownOffer, Translation
from schemas.events import derived_id
from schemas.ids import OfferId
from schemas.money import Money, exponent
from schemas.recognition import Recognition
from streams.core import wording

# How long a shown price may be paid. A wearer decides within a minute or two; a price older than that deserves a new look.
GOOD_FOR = timedelta(minutes=5)


def convert(price: Money, rate: ExchangeRate) -> Money:
    """To the other currency's minor units, rounded half to even. For orientation only, never to be paid."""
    major = price.major * rate.rate
    minor = major.scaleb(exponent(rate.target)).quantize(Decimal(1), rounding=ROUND_HALF_EVEN)
    return Money(minor=int(minor), currency=rate.target)


def show(
    offer: Offer,
    title: Translation,
    rate: ExchangeRate | None,
    *,
    cause: str,
    locale: str,
    now: datetime,
    fresh_for: timedelta,
) -> ShownOffer:
    """The offer the wearer's way. Its id follows from the sighting's event, so that a repetition makes the same offer."""
    converted = convert(offer.price, rate) if rate else None
    if converted is not None and converted.minor <= 0:
        converted = rate = None  # less than one minor unit: saying "about 0" would mislead
    return ShownOffer(
        offer_id=OfferId.from_uuid(derived_id(cause, f"offer {offer.shop} {offer.merchant_id}").uuid),
        offer=offer,
        title=title.text,
        title_language=title.language,
        price_text=wording.money(offer.price, locale),
        converted=converted,
        converted_text=wording.money(converted, locale) if converted else None,
        rate=rate,
        stale=now - offer.observed_at > fresh_for,
        expires_at=now + GOOD_FOR,
    )


def order(offers: Sequence[ShownOffer], currency: str) -> tuple[ShownOffer, ...]:
    """Cheapest first in the wearer's currency; offers that cannot be compared come last, in the shops' order."""

    def rank(shown: ShownOffer) -> tuple[bool, int]:
        comparable = shown.converted or (shown.offer.price if shown.offer.price.currency == currency else None)
        return comparable is None, comparable.minor if comparable else 0

    return tuple(sorted(offers, key=rank))


def answer(
    recognition: Recognition, offers: tuple[ShownOffer, ...], locale: str, late: tuple[str, ...], failed: tuple[str, ...]
) -> OffersFound:
    return OffersFound(
        sighting_id=recognition.sighting_id,
        frame_digest=recognition.frame_digest,
        gtin=recognition.gtin,
        offers=offers,
        text=sentence(offers, locale, complete=not late and not failed),
        late_shops=late,
        failed_shops=failed,
    )


def sentence(offers: tuple[ShownOffer, ...], locale: str, *, complete: bool = True) -> str:
    """`complete`: every shop has answered. Only then may it be said that none sells the product."""
    if not offers:
        return wording.say("no_offer" if complete else "shops_silent", locale)
    best = offers[0]
    key = "offer_found_converted" if best.converted_text else "offer_found"
    return wording.say(
        key,
        locale,
        title=best.title,
        price=best.price_text,
        shop=best.offer.merchant_name,
        converted=best.converted_text,
    )
