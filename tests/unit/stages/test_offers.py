"""Prices the wearer's way: converted for orientation, ordered by what they cost, never a bare ¥."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from schemas.commerce import ExchangeRate, Offer, Product, ShownOffer, Translation
from schemas.ids import EventId, MerchantId
from schemas.money import Money
from streams.core import wording
from streams.offers.service import convert, order, sentence, show

NOW = datetime(2026, 11, 22, tzinfo=UTC)
CAUSE = str(EventId.new())


def rate(source: str, target: str, value: str) -> ExchangeRate:
    return ExchangeRate(source=source, target=target, rate=Decimal(value), published_on=date(2026, 11, 20))


def shown(price: Money, found: ExchangeRate | None = None, *, observed_at: datetime = NOW, locale: str = "de-DE") -> ShownOffer:
    offer = Offer(
        shop="catalogue",
        merchant_id=MerchantId.new(),
        merchant_name="Laden",
        product=Product(gtin="09520000010010", title="Milk", language="en"),
        price=price,
        observed_at=observed_at,
    )
    title = Translation(text="Milch", language="de", by="glossary")
    return show(offer, title, found, cause=CAUSE, locale=locale, now=NOW, fresh_for=timedelta(days=7))


@pytest.mark.parametrize(
    ("price", "found", "converted"),
    [
        (Money.of(1895, "SEK"), rate("SEK", "EUR", "0.09151"), Money.of(173, "EUR")),
        (Money.of(1000, "EUR"), rate("EUR", "JPY", "162.35"), Money.of(1624, "JPY")),
        (Money.of(100, "JPY"), rate("JPY", "KWD", "0.0021"), Money.of(210, "KWD")),
        (Money.of(150, "EUR"), rate("EUR", "USD", "1.01"), Money.of(152, "USD")),  # 1.515, half to even
    ],
)
def test_conversion_counts_in_the_other_currencys_minor_units(price: Money, found: ExchangeRate, converted: Money) -> None:
    assert convert(price, found) == converted


def test_less_than_a_minor_unit_is_not_shown_as_nothing() -> None:
    tiny = shown(Money.of(1, "JPY"), rate("JPY", "KWD", "0.000001"))
    assert tiny.converted is None and tiny.converted_text is None and tiny.rate is None


def test_cheapest_first_and_what_cannot_be_compared_last() -> None:
    dear = shown(Money.of(900, "EUR"))
    cheap = shown(Money.of(1895, "SEK"), rate("SEK", "EUR", "0.09151"))
    unknown = shown(Money.of(1, "XAF"))
    assert order([unknown, dear, cheap], "EUR") == (cheap, dear, unknown)


def test_an_old_price_is_marked() -> None:
    assert not shown(Money.of(1, "EUR")).stale
    assert shown(Money.of(1, "EUR"), observed_at=NOW - timedelta(days=8)).stale


def test_repeating_the_work_makes_the_same_offer() -> None:
    one = shown(Money.of(1, "EUR"))
    again = show(
        one.offer,
        Translation(text="Milch", language="de", by="glossary"),
        None,
        cause=CAUSE,
        locale="de-DE",
        now=NOW + timedelta(seconds=3),
        fresh_for=timedelta(days=7),
    )
    assert again.offer_id == one.offer_id


def test_the_sentence_names_price_and_shop() -> None:
    assert sentence((shown(Money.of(159, "EUR")),), "de-DE") == "Milch: 1,59\xa0€ bei Laden."
    assert "kein verbundener Laden" in sentence((), "de-DE")


def test_of_a_product_nobody_sells_is_spoken_only_when_every_shop_has_answered() -> None:
    assert "antworten gerade nicht" in sentence((), "de-DE", complete=False)


@pytest.mark.parametrize("locale", ["zh-CN", "ja-JP", "en-US", "de-DE", "sv-SE", "fr-FR"])
def test_yuan_and_yen_are_never_mistaken(locale: str) -> None:
    yuan, yen = wording.money(Money.of(1200, "CNY"), locale), wording.money(Money.of(1200, "JPY"), locale)
    assert yuan != yen
    for text in (yuan, yen):
        assert text.replace("\xa0", "").strip("0123456789.,\u202f ").strip() not in {"¥", "￥", "元"}


def test_every_minor_unit_is_shown() -> None:
    assert wording.money(Money.of(1234, "KWD"), "en-US").endswith("1.234")
    assert wording.money(Money.of(1234, "JPY"), "en-US").endswith("1,234")
    assert "12.34" in wording.money(Money.of(1234, "HUF"), "en-US")


def test_every_sentence_exists_in_english_and_takes_the_same_values_everywhere() -> None:
    import string

    for key, versions in wording._sentences().items():
        fields = {
            language: {name for _, name, _, _ in string.Formatter().parse(text) if name} for language, text in versions.items()
        }
        assert "en" in fields, key
        assert all(each == fields["en"] for each in fields.values()), key


def test_an_unknown_language_falls_back_to_english() -> None:
    assert wording.say("no_code", "xx") == wording.say("no_code", "en-US")
    assert wording.say("no_code", "not a tag") == wording.say("no_code", "en")
