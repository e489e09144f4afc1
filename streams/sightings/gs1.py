"""GS1 element strings and GS1 Digital Links: a product's number, and what is said beside it. Strictly: what does not follow the
General Specifications to its last character is none of them. Application identifiers are python-stdnum's table of GS1's own."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import cache
from itertools import pairwise
from urllib.parse import parse_qsl, unquote, urlsplit

from stdnum import ean, numdb
from stdnum.exceptions import ValidationError

from schemas.money import Money, exponent
from schemas.recognition import Elements, Measure
from streams.sightings.currencies import BY_NUMBER

SEPARATOR = "\x1d"
"""Ends a value of variable length: what FNC1 is read as."""

_LONGEST = 512
_AIS = numdb.get("gs1_ai")
_BRACKETED = re.compile(r"\(([0-9]{2,4})\)")
_SETS = {"N": "[0-9]", "X": r"[!\"%&'()*+,\-./0-9:;<=>?A-Z_a-z]", "Y": "[#\\-/0-9A-Z]", "Z": "[\\-0-9A-Z_a-z=]"}
_PART = re.compile(r"(\[?)\+?(?:(-)|([NXYZ])(\.\.)?([0-9]+)(?:\.\.(?:[NXYZ])?([0-9]+))?)(\]?)")
_LINK_PATH = re.compile(r"(?:/[^/]*)*?/(?:01|gtin)/([0-9]{8}|[0-9]{12,14})((?:/[^/]+/[^/]+)*)/?")
_QUALIFIERS = {"cpv": "22", "22": "22", "lot": "10", "10": "10", "ser": "21", "21": "21", "235": "235"}


class NotGs1(ValueError):
    """The message says why, and repeats nothing of the text."""


@dataclass(frozen=True)
class Said:
    """`gtin` has 14 digits; None where the elements are about something else (a pallet, a parcel)."""

    gtin: str | None
    elements: Elements | None


def element_string(text: str, currency: str | None = None) -> Said:
    """With FNC1 as `SEPARATOR`, which may also come first; or as people write it, with identifiers in brackets. `currency` is
    that of a price that names none. Raises NotGs1."""
    if not 0 < len(text) <= _LONGEST or not text.isascii():
        raise NotGs1("it is empty, too long, or not ASCII")
    return _said(_bracketed(text) if text.startswith("(") else _plain(text.removeprefix(SEPARATOR)), currency)


def digital_link(text: str, currency: str | None = None) -> Said:
    """Of any domain: the standard lets everybody resolve his own. Raises NotGs1."""
    if len(text) > 4 * _LONGEST:
        raise NotGs1("it is too long")
    try:
        address = urlsplit(text)
        query = parse_qsl(address.query, max_num_fields=64)
    except ValueError as error:
        raise NotGs1("it is no address") from error
    path = _LINK_PATH.fullmatch(address.path)
    if address.scheme.lower() not in {"http", "https"} or not address.netloc or path is None:
        raise NotGs1("it is no GS1 Digital Link")
    values = {"01": path[1].zfill(14)}
    further = path[2].split("/")[1:]
    for name, value in zip(further[::2], further[1::2], strict=True):
        if name not in _QUALIFIERS:
            raise NotGs1("something else than a qualifier follows the number")
        _put(values, _QUALIFIERS[name], unquote(value))
    for name, value in query:
        if name.isascii() and name.isdigit():  # anything else is its resolver's own
            _put(values, name, value)
    return _said(values, currency)


def _plain(text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    while text:
        ai = _identifier(text)
        text = text[len(ai) :]
        fixed = _fixed_length(ai)
        if fixed is None:
            value, _, text = text.partition(SEPARATOR)
        else:
            value, text = text[:fixed], text[fixed:].removeprefix(SEPARATOR)
        _put(values, ai, value)
    return values


def _bracketed(text: str) -> dict[str, str]:
    """A value may hold brackets itself; where that would be ambiguous, it is refused by what its identifier demands."""
    values: dict[str, str] = {}
    starts = list(_BRACKETED.finditer(text))
    if not starts or starts[0].start() != 0:
        raise NotGs1("it does not begin with an identifier")
    for match, following in pairwise([*starts, None]):
        assert match is not None
        _put(values, match[1], text[match.end() : following.start() if following else None])
    return values


def _put(values: dict[str, str], ai: str, value: str) -> None:
    if ai != _identifier(ai) or not _form(ai).fullmatch(value):
        raise NotGs1(f"the value of {ai[:4]} has not the form it must have")
    if values.setdefault(ai, value) != value:
        raise NotGs1(f"{ai} comes twice with different values")


@cache
def _description(ai: str) -> Mapping[str, str]:
    found, properties = _AIS.info(ai)[0]
    return properties if found == ai else {}


def _identifier(text: str) -> str:
    ai, properties = _AIS.info(text)[0] if text[:2].isdigit() else ("", {})
    if not properties or not text.startswith(ai):
        raise NotGs1("an application identifier is not known")
    return str(ai)


def _fixed_length(ai: str) -> int | None:
    return None if _description(ai).get("fnc1") else int(_description(ai)["format"].lstrip("N").partition("+")[0])


@cache
def _form(ai: str) -> re.Pattern[str]:
    """Of the identifier's value, from the notation of the standard: N6, X..20, N3+N..15, N13[+X..17], N6..12."""
    pattern = ""
    for optional, sign, characters, variable, shortest, longest, _ in _PART.findall(_description(ai)["format"]):
        count = f"1,{shortest}" if variable else f"{shortest},{longest}" if longest else shortest
        one = "-?" if sign else f"{_SETS[characters]}{{{count}}}"
        pattern += f"(?:{one})?" if optional else one
    return re.compile(pattern)


def _said(values: Mapping[str, str], currency: str | None) -> Said:
    gtin = values.get("01")
    if gtin is not None and not ean.is_valid(gtin):
        raise NotGs1("the check digit of the GTIN does not hold")
    try:
        elements = _elements(values, currency)
    except (ValidationError, ValueError, ArithmeticError) as error:
        raise NotGs1("a value means nothing") from error
    return Said(gtin, elements)


def _elements(values: Mapping[str, str], currency: str | None) -> Elements | None:
    dates = [_date(values[ai]) for ai in ("15", "17") if ai in values]
    said = Elements(
        expires_on=min(dates, default=None),
        batch=values.get("10"),
        weight=_weight(values),
        price=_price(values, currency),
    )
    return said if said != Elements() else None


def _date(text: str) -> date:
    """YYMMDD, of the century that is nearest (General Specifications, section 7.12). Day 00 is the month's last."""
    year, month, day = int(text[:2]), int(text[2:4]), int(text[4:])
    now = date.today().year  # noqa: DTZ011 (a century's end is not at issue)
    distance = year - now % 100
    year += now - now % 100 - (100 if distance >= 51 else -100 if distance <= -50 else 0)
    if day:
        return date(year, month, day)
    return date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)


def _weight(values: Mapping[str, str]) -> Measure | None:
    """Net, in kilograms (310n); pounds (320n) are converted, exactly by definition, to the gram."""
    for prefix, kilograms in (("310", Decimal(1)), ("320", Decimal("0.45359237"))):
        for ai, value in values.items():
            if ai.startswith(prefix) and int(value):
                weight = Decimal(value).scaleb(-int(ai[3])) * kilograms
                return Measure(value=weight if kilograms == 1 else weight.quantize(Decimal("0.001")), unit="kg")
    return None


def _price(values: Mapping[str, str], currency: str | None) -> Money | None:
    """What is to be paid for the piece: in the currency it names (393n), or in that of the place (392n)."""
    for ai, value in values.items():
        if ai.startswith("393"):
            return _money(value[3:], int(ai[3]), BY_NUMBER.get(value[:3]))
        if ai.startswith("392"):
            return _money(value, int(ai[3]), currency)
    return None


def _money(digits: str, decimals: int, currency: str | None) -> Money | None:
    if currency is None or not int(digits) or decimals > exponent(currency):
        return None
    return Money.of(int(digits) * 10 ** (exponent(currency) - decimals), currency)
