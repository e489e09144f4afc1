"""From what the shops answered to what the wearer sees. Plain functions on plain values."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

from babel.lists import format_list

from schemas.commerce import ExchangeRate, Offer, OffersFound, ProductQuery, ShownOffer, Translation
from schemas.events import derived_id
from schemas.ids import OfferId
from schemas.money import Money, exponent
from schemas.recognition import Choice, ChoiceMade, Evidence, PriceTag, Recognition, Unclear, Undecided
from streams.core import wording

# How long a shown price may be paid. A wearer decides within a minute or two; a price older than that deserves a new look.
GOOD_FOR = timedelta(minutes=5)


def query(recognition: Recognition) -> ProductQuery:
    """Every shop understands a GTIN; what has none is its own merchant's, and is asked of nobody else."""
    candidate = recognition.candidate
    if candidate is None:
        return ProductQuery(gtin=recognition.gtin)
    return ProductQuery(gtin=recognition.gtin, merchant_id=candidate.merchant_id, product_id=candidate.product_id)


def chosen(made: ChoiceMade) -> Recognition:
    """What the wearer said it is."""
    offered, choice = made.offered, made.chosen
    return Recognition(
        sighting_id=offered.sighting_id,
        frame_digest=offered.frame_digest,
        intent=offered.intent,
        gtin=choice.gtin or (choice.candidate.gtin if choice.candidate else None),
        candidate=choice.candidate,
        evidence=Evidence.WEARER,
        confidence=1.0,
        price_tag=offered.price_tag,
        models=offered.models,
        late_models=offered.late_models,
        failed_models=offered.failed_models,
    )


def titles(undecided: Undecided) -> list[Translation]:
    """Of the choices, as their merchants wrote them; a code's product that no catalogue describes is called by its number."""
    return [_title(choice) for choice in undecided.choices]


def _title(choice: Choice) -> Translation:
    if choice.candidate is not None:
        return Translation(text=choice.candidate.title, language=choice.candidate.language, by="shop")
    return Translation(text=choice.gtin or "", language="en", by="shop")


def question(undecided: Undecided, titles: Sequence[Translation], locale: str) -> Undecided:
    """With what is shown and spoken; `titles` are those of the choices, in the wearer's language as far as they could be."""
    choices = tuple(
        choice.model_copy(update={"title": title.text, "picture": _picture(choice)})
        for choice, title in zip(undecided.choices, titles, strict=True)
    )
    names = tuple(dict.fromkeys(title.text for title in titles))
    sentence = "which_product" if len(names) > 1 else "is_it_this"
    text = wording.say(sentence, locale, products=format_list(names, style="or", locale=wording.locale_of(locale)))
    return undecided.model_copy(update={"choices": choices, "text": text})


def _picture(choice: Choice) -> str | None:
    picture = choice.candidate.picture if choice.candidate else None
    return f"/v1/pictures/{picture}" if picture else None


def look_again(unclear: Unclear, locale: str) -> Unclear:
    """With the hint; and with the price that the frame shows all the same."""
    hint = wording.say(unclear.reason, locale)
    prices = [code.in_store.price for code in unclear.codes if code.in_store and code.in_store.price]
    if unclear.price_tag is not None or prices:
        price = unclear.price_tag.price if unclear.price_tag else prices[0]
        hint = f"{wording.say('tag_says', locale, price=wording.money(price, locale))} {hint}"
    return unclear.model_copy(update={"hint": hint})


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
        product_id=recognition.candidate.product_id if recognition.candidate else None,
        price_tag=recognition.price_tag,
        offers=offers,
        text=sentence(
            offers,
            locale,
            complete=not late and not failed,
            name=recognition.candidate.title if recognition.candidate else None,
            tag=recognition.price_tag,
        ),
        late_shops=late,
        failed_shops=failed,
    )


def sentence(
    offers: tuple[ShownOffer, ...],
    locale: str,
    *,
    complete: bool = True,
    name: str | None = None,
    tag: PriceTag | None = None,
) -> str:
    """`complete`: every shop has answered. Only then may it be said that none sells the product. `name`: what the catalogue calls
    it, where nobody offers it; `tag`: what the shelf asks."""
    said = _offered(offers, locale, complete=complete, name=name)
    if tag is None:
        return said
    return f"{said} {wording.say('tag_says', locale, price=wording.money(tag.price, locale))}"


def _offered(offers: tuple[ShownOffer, ...], locale: str, *, complete: bool, name: str | None) -> str:
    if not offers and name:
        return wording.say("no_offer_named" if complete else "shops_silent_named", locale, product=name)
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
