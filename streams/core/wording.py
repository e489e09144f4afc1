"""What is said to a wearer, in the wearer's language. Sentences are data (wording.toml); a language that is missing falls back
to English. Money is written by Babel, never with a bare ¥ or kr, for several currencies share them."""

import tomllib
from datetime import date
from functools import cache
from importlib.resources import files

from babel import Locale, UnknownLocaleError
from babel.dates import format_date
from babel.numbers import format_currency, get_currency_symbol

from schemas.money import Money, exponent

_AMBIGUOUS = frozenset({"¥", "￥", "元", "kr", "$", "£"})
_UNMISTAKABLE = {("USD", "US"), ("GBP", "GB")}


@cache
def _sentences() -> dict[str, dict[str, str]]:
    return tomllib.loads(files("streams.core").joinpath("wording.toml").read_text(encoding="utf-8"))


@cache
def locale_of(tag: str) -> Locale:
    """From a BCP 47 tag; English where the tag is unknown."""
    try:
        return Locale.parse(tag, sep="-")
    except (UnknownLocaleError, ValueError):
        return Locale("en")


def say(key: str, tag: str, **values: object) -> str:
    """The sentence `key` in the language of `tag`, with its values filled in. KeyError for a key that is none."""
    versions = _sentences()[key]
    return versions.get(locale_of(tag).language, versions["en"]).format(**values)


def money(amount: Money, tag: str) -> str:
    """`6,50 €` for a German, `CNY 12.50` for a Chinese wearer: the ISO code instead of a symbol that others share. Every
    minor unit is shown, as ISO 4217 counts them, for this is what will be paid."""
    locale = locale_of(tag)
    digits = exponent(amount.currency)
    pattern = locale.currency_formats["standard"].pattern.replace(".00", "." + "0" * digits if digits else "")
    symbol = get_currency_symbol(amount.currency, locale)
    if symbol in _AMBIGUOUS and (amount.currency, locale.territory) not in _UNMISTAKABLE:
        pattern = pattern.replace("¤#", "¤\xa0#").replace("¤", "¤¤")
    return format_currency(amount.major, amount.currency, pattern, locale=locale, currency_digits=False)


def day(value: date, tag: str) -> str:
    return format_date(value, format="medium", locale=locale_of(tag))
