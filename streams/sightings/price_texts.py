"""What one line of text on a price tag says: amounts, goods, percents, and the words that give them their part.

Only the text is looked at here. Words, units and signs are data (price_words.json). Everything is compared folded: without case
and without accents.
"""

import difflib
import itertools
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from babel import Locale, UnknownLocaleError, numbers

from schemas.recognition import Measure

Span = tuple[int, int]

_LONGEST = 200  # characters of a line; a longer one is no price tag's


class Part(StrEnum):
    """What an amount is on its tag. Values are keys of price_words.json, but for PLAIN, UNIT and SEVERAL."""

    PLAIN = "plain"
    BEFORE = "before"
    NOW = "now"
    CARD = "card"
    MEMBERS = "members"
    COUPON = "coupon"
    DEPOSIT = "deposit"
    SAVING = "saving"
    WITH_TAX = "with_tax"
    WITHOUT_TAX = "without_tax"
    EACH = "each"
    OPEN = "open"  # from so much, or so much a month: not what is paid
    UNIT = "unit"
    SEVERAL = "several"


WORDED: tuple[Part, ...] = tuple(set(Part) - {Part.PLAIN, Part.UNIT, Part.SEVERAL})


@dataclass(frozen=True)
class Habits:
    """How prices are written in a region: its currencies, the usual one first, and its separators. Unknown region: nothing."""

    currencies: tuple[str, ...] = ()
    decimal: str | None = None
    thousands: str | None = None


@dataclass(frozen=True)
class Amount:
    """A number that may be a price. `value` is in major units. `sign`: a currency's code, or `$`, `¥` or `kr`, which several
    have. `decimals`: how many digits were written behind the separator. `ended`: written so that nothing can be missing behind
    it, as 1,99 or 30:- or 5 € are; `round`: and that it surely has no cents, as 30:- and 1,280 have none. `perhaps_time`: or a
    date, as 14.30 where prices have commas. `per`: of the goods, where it is a unit price; `pieces`: of Part.SEVERAL, None
    where it is what each of them costs."""

    value: Decimal
    sign: str | None
    decimals: int
    ended: bool
    span: Span
    part: Part = Part.PLAIN
    per: Measure | None = None
    pieces: int | None = None
    round: bool = False
    perhaps_time: bool = False


@dataclass(frozen=True)
class Content:
    """Of one line. `label`: the part that a line without an amount gives to an amount near it; `pieces`, for Part.SEVERAL.
    `goods_if_litres`: a quantity that is one only if its last `1` is a misread `l`. `paid_for`: of three for two, (3, 2).
    `percent`: off; `off`: of what, PLAIN where it is off every piece, SEVERAL where it is off the second one."""

    folded: str
    amounts: tuple[Amount, ...] = ()
    goods: tuple[Measure, ...] = ()
    goods_if_litres: tuple[Measure, ...] = ()
    percent: int | None = None
    off: Part = Part.PLAIN
    paid_for: tuple[int, int] | None = None
    label: Part | None = None
    pieces: int | None = None


@cache
def habits(region: str | None) -> Habits:
    """Of an ISO 3166 region, as the Unicode CLDR has them."""
    if region is None:
        return Habits()
    try:
        locale = Locale.parse(f"und_{region}")
        currencies = numbers.get_territory_currencies(region)
    except (UnknownLocaleError, ValueError):
        return Habits()
    return Habits(tuple(currencies), numbers.get_decimal_symbol(locale), numbers.get_group_symbol(locale))


def fold(text: str) -> str:
    """Lower case, full width to half, accents off Latin letters; raised digits behind a digit become decimals: 1⁹⁹ is 1.99."""
    text = re.sub(r"(?<=\d)[.,]?\s?([⁰¹²³⁴-⁹]{2})(?![⁰¹²³⁴-⁹])", r".\1", text)
    folded: list[str] = []
    for character in unicodedata.normalize("NFKD", text.casefold()):
        if unicodedata.combining(character):
            if folded and folded[-1] > "\u02ff":
                folded.append(character)
            continue
        folded.append(character)
    return unicodedata.normalize("NFC", "".join(folded)).translate(_ALIKE)


_ALIKE = str.maketrans("·’`–—−≈≡：\u00a0⁄", ".''---==: /")


@dataclass(frozen=True)
class _Words:
    parts: re.Pattern[str]
    part_of: Mapping[str, Part]
    amount: re.Pattern[str]
    goods: re.Pattern[str]
    unit: re.Pattern[str]
    units: Mapping[str, tuple[Decimal, str]]
    per: re.Pattern[str]
    per_unit: re.Pattern[str]
    several: re.Pattern[str]
    bought: tuple[re.Pattern[str], ...]
    percent: re.Pattern[str]
    off: re.Pattern[str]
    up_to: re.Pattern[str]
    second: re.Pattern[str]
    half: re.Pattern[str]
    starts: re.Pattern[str]
    signs: Mapping[str, str]
    minor_signs: Mapping[str, str]


@cache
def _words() -> _Words:
    data: dict[str, Any] = json.loads((Path(__file__).parent / "price_words.json").read_text(encoding="utf-8"))
    part_of = {fold(word): part for part in WORDED for word in data[part]}
    part_of |= {fold(word): Part.OPEN for word in data["starts"]}
    units: dict[str, tuple[Decimal, str]] = {}
    for name, (factor, unit, *others) in data["units"].items():
        units |= {fold(word): (Decimal(factor), unit) for word in (name, *others)}
    signs = {fold(sign): code for sign, code in data["signs"].items()}
    minor = {fold(sign): code for sign, code in data["minor_signs"].items()}
    unit = _any(units)
    before, after = _any(signs), _any({**signs, **minor})
    # An amount with cents or a sign, and no size.
    money = (
        rf"(?:{before}\s?\d|(?:\d{{1,3}}(?: \d{{3}})+|\d+)"
        rf"(?:[.,:]\d\d(?!\d|\s?{unit})|\s?[.,:]?\s?-|\s?{after}))"
    )
    # Grouped, with decimals, whole with a dash, the sign in place of the separator, whole.
    number = (
        r"\d{1,3}(?:[.,' ]\d{3})+(?:[.,:]\d{2}|[.,:]?\s?-{1,2})?|-\s?[.,]\s?\d{2}"
        r"|\d+[.,:] \d{2}|\d+[.,:]\d{1,3}|\d+\s?[.,:]?\s?-{1,2}(?![\d-])|\d+\s?(?:€|£|\$|kr)\s?\d{2}|\d+"
    )
    return _Words(
        parts=re.compile(_any(part_of)),
        part_of=part_of,
        amount=re.compile(
            rf"(?:(?P<before>{before})\s?)?(?<![\d.,:])(?P<number>{number})(?![\d])(?:\s?(?P<after>{after}))?", re.ASCII
        ),
        goods=re.compile(
            rf"(?<![\d.,])(?:(?P<times>\d{{1,2}})\s?[x×*]\s?)?(?P<value>\d{{1,6}}(?:[.,]\d{{1,4}})?)\s?(?P<unit>{unit})(?!')"
            rf"|(?<![\d.,])(?P<litres>\d{{1,2}}(?:[.,]\d{{1,2}})?)\s?[1i|!](?=\s?=|\s*$)",
            re.ASCII,
        ),
        unit=re.compile(rf"\s?(?P<unit>{unit})"),
        units=units,
        per=re.compile(rf"\s?(?:{_any(data['per'])})\s?"),
        per_unit=re.compile(rf"(?:{_any(signs)})?\s?/\s?(?:\d{{1,4}}\s?)?(?P<unit>{unit})\.?", re.ASCII),
        several=re.compile(
            rf"(?<![\d.,第])(?<!第 )(?P<pieces>\d{{1,2}})\s?(?:st|stk|stuck|x)?\.?\s?"
            rf"(?:{_any(data['for'])}|[件個个点](?!目)|/(?=\s?(?:{before})))"
            rf"|(?<![\d.,])(?P<got>[2-9])\s?x\s?(?P<paid>[1-8])(?!\s?(?:{unit})|[\d.,])"
            rf"|(?<![\d.,])(?P<of>\d{{1,2}})\s?(?:st|stk|stuck|styck|pz|per)\.?(?=\s?{money})"
            rf"|(?<![a-z])(?:les|lot de)\s(?P<set>\d{{1,2}})(?=\s?:?\s?{money}|\s(?:st|stk|stuck)(?![a-z]))"
            rf"|(?<![\d.,])(?P<at>\d{{1,2}})\s?a(?=\s?{money})"
            rf"|(?<![a-z])(?:par|ab|from|fran|fra)\s(?P<least>\d{{1,2}})(?=\s?:?\s?{money}|\s(?:st|stk|stuck)(?![a-z]))",
            re.ASCII,
        ),
        bought=tuple(_bought(words) for words in data["bought"]),
        percent=re.compile(
            rf"-\s?(?P<minus>\d{{1,2}})\s?%|(?<![\d.,])(?P<plain>\d{{1,2}})\s?%\s?(?:{_any(data['off'])})"
            rf"|(?<![\d.])(?P<tenths>\d\.\d|[1-9]{{1,2}})\s?折|(?<!\d)(?P<parts>\d)\s?割引",
            re.ASCII,
        ),
        off=re.compile(_any(data["off"])),
        up_to=re.compile(_any(data["up_to"])),
        # Not the 12th, nor 90 seconds.
        second=re.compile(rf"(?<!\d)(?<!(?<![.,]\d)\d ){_any(data['second'])}"),
        half=re.compile(_any(data["half"])),
        starts=re.compile(_any(data["starts"])),
        signs=signs,
        minor_signs=minor,
    )


_NUMERALS = {"一": 1, "二": 2, "两": 2, "三": 3, "四": 4, "五": 5}


def _bought(words: str) -> re.Pattern[str]:
    """`buy {paid} get {free} free`, with any small numbers."""
    pattern = re.sub(r"\\{(\w+)\\}", rf"(?P<\1>[1-9]|[{''.join(_NUMERALS)}])", re.escape(fold(words)))
    return re.compile(rf"(?<![a-z\d]){pattern}(?!\d)".replace(r"\ ", r"\s?"), re.ASCII)


def _any(words: Mapping[str, object] | list[str]) -> str:
    """A pattern for any of the words, the longest first; a Latin word stands alone, a Chinese one need not."""
    patterns = []
    for word in sorted({fold(word) for word in words}, key=len, reverse=True):
        start = r"(?<![a-z])" if re.match("[a-z]", word) else ""
        end = r"(?![a-z])" if re.search("[a-z]$", word) else ""
        patterns.append(f"{start}{re.escape(word)}{end}")
    return f"(?:{'|'.join(patterns)})"


# 100 % juice and 12.5 % vol. are no prices, and small raised cents that were not read look like quotes.
_SHARE = re.compile(r"\s?[%‰°]|['\"”″]")
_NO_AMOUNT = re.compile(
    r"(?<![\d.,])\d{1,2}\s?([./-])\s?\d{1,2}\s?\1\s?(?:20)?\d\d(?!\d)|(?<!\d)20\d\d[./-]\d{1,2}[./-]\d{1,2}(?!\d)"
    r"|(?<![\d.,])(?:0?[1-9]|[12]\d|3[01])\.\s?(?:0?[1-9]|1[0-2])\.(?![\d-])|\d{1,4}\s?[年月日时時]"
    r"|(?<![\d.,])\d{1,2}\s?(?:monat|month|mois|mes|manad|maned|jahr|year|woch|week|tage|day)[a-z]{0,2}(?![a-z])"
    r"|(?<![\d.,])\d{1,2}(?:[.:]\d\d)?\s?(?:uhr|h|am|pm|a\.m|p\.m)(?![a-z\d])|\d{1,2}[.:]\d\d[.:]\d\d"
    r"|(?<![\d.,])\d{1,5}[.,:]\d\d\s?(?:€|£|kr)?\s?(?:-|bis|to|till|til|a)\s?[€£$]?\d{1,5}[.,:]\d\d(?![\d.,])"
)
"""Dates, hours, how long, and from one to another."""


def read_line(text: str, ways: Habits) -> Content:
    """What the line says. Never fails: what is not understood is left out."""
    words, folded = _words(), fold(text[:_LONGEST])[:_LONGEST]
    rest = _NO_AMOUNT.sub(lambda match: "\0" * len(match.group()), folded)
    promised, rest = _percent(rest)
    percent = promised
    several, paid_for, rest = _several(rest)
    unit_prices, rest = _unit_prices(rest, ways)
    goods, if_litres, rest = _goods(rest)
    plain = [
        replace(amount, part=_part_by_mark(rest[: match.start()]))
        for match in words.amount.finditer(rest)
        if not _SHARE.match(rest, match.end())
        and (amount := _amount(match, ways))
        and (amount.sign or amount.decimals or not _TIMES.search(rest[: match.start()]))
    ]
    if percent is None and words.off.search(folded):
        plain = [replace(amount, part=Part.SAVING) for amount in plain]
    parts = [(match.span(), words.part_of[match.group()]) for match in words.parts.finditer(rest)] or _misread(rest)
    amounts = tuple(unit_prices) + tuple(
        _with_part(amount, plain, parts) if amount.part is Part.PLAIN else amount for amount in plain
    )
    off = Part.PLAIN
    if words.second.search(folded):
        off, percent = Part.SEVERAL, percent or (50 if words.half.search(folded) else None)
    elif percent:
        off = next((part for _, part in parts if part in {Part.CARD, Part.MEMBERS, Part.COUPON}), off)
        percent = None if words.up_to.search(folded) else percent
    label, pieces = Part.OPEN if _is_per_unit(folded) else _label(rest, parts), None
    if several:
        pieces, end = several
        behind = [amount for amount in amounts if amount.span[0] >= end and amount.part is not Part.UNIT]
        if len(behind) == 1 and (_EACH.search(folded) or any(part is Part.EACH for _, part in parts)):
            pieces = None
        if behind and pieces and behind[0].sign is None and behind[0].value < pieces and behind[0].decimals == 0:
            paid_for = (pieces, int(behind[0].value)) if behind[0].value > 0 else None
            amounts = tuple(amount for amount in amounts if amount is not behind[0])
        elif behind:
            bought = replace(behind[0], part=Part.SEVERAL, pieces=pieces)
            amounts = tuple(bought if amount is behind[0] else amount for amount in amounts)
        else:
            label = Part.SEVERAL
    elif promised:
        label = None  # a percentage is what these words promise, not the price beside it
    return Content(
        folded=folded,
        amounts=amounts,
        goods=goods,
        goods_if_litres=if_litres,
        percent=percent,
        off=off,
        paid_for=paid_for,
        label=label if not any(amount.part is not Part.UNIT for amount in amounts) else None,
        pieces=pieces,
    )


_EACH = re.compile(r"/\s?(?:st|stk|stuck|pz|ea)(?![a-z])")
_CHANGE = re.compile(r"(?:^\s*[-+]\s?|(?<![\w,.:])[-+])$")
_TIMES = re.compile(r"(?<!\d)\d{1,2}\s?[x×*]\s?$")


def _part_by_mark(before: str) -> Part:
    """-1,00 € is off, and +0,25 € on top; 24 x 19,99 € is paid in parts; behind = stands a unit's price."""
    if _CHANGE.search(before):
        return Part.SAVING
    if _TIMES.search(before):
        return Part.OPEN
    return Part.UNIT if before.rstrip().endswith("=") else Part.PLAIN


def _blank(text: str, span: Span) -> str:
    """The text with a part of it taken away, and everything else where it was."""
    return text[: span[0]] + "\0" * (span[1] - span[0]) + text[span[1] :]


def _percent(text: str) -> tuple[int | None, str]:
    match = _words().percent.search(text)
    if match is None:
        return None, text
    if match["tenths"]:
        tenths = match["tenths"]
        percent = 100 - int(tenths.replace(".", "").ljust(2, "0"))  # 85折 is 8.5折: 85 % are paid
    else:
        percent = int(match["minus"] or match["plain"] or 10 * int(match["parts"]))
    return percent if 1 <= percent <= 99 else None, _blank(text, match.span())


def _several(text: str) -> tuple[tuple[int | None, int] | None, tuple[int, int] | None, str]:
    """(pieces, where the line goes on behind it), (pieces got, pieces paid for), and the rest of the line. Pieces are None where
    an amount behind them is that of each, as from two on."""
    words = _words()
    for bought in filter(None, (pattern.search(text) for pattern in words.bought)):
        said = {name: int(value) if value.isdecimal() else _NUMERALS[value] for name, value in bought.groupdict().items()}
        paid = said["paid"]
        got = said.get("got") or paid + said["free"]
        return None, (got, paid) if 0 < paid < got else None, _blank(text, bought.span())
    match = words.several.search(text)
    if match is None:
        return None, None, text
    if match["got"]:
        got, paid = int(match["got"]), int(match["paid"])
        return None, (got, paid) if paid < got else None, _blank(text, match.span()) if paid < got else text
    for_all, for_each = match["pieces"] or match["of"] or match["set"], match["at"] or match["least"]
    if not 2 <= int(for_all or for_each) <= 12:
        return None, None, text
    return (int(for_all) if for_all else None, match.end()), None, _blank(text, match.span())


# A lone l looks like a 1, an I or a stroke, and behind a stroke like nothing at all.
_LITRE_MISREAD = re.compile(r"(?P<misread>[1i|])(?=\s*$)")
_LITRE_LOST = re.compile(r"(?<=[a-z]) .*/(?P<misread>)\s*$")
_LITRE_BEFORE = re.compile(r"(?<![a-z])(?:au|pro|per|je)\s?(?P<misread>[1il|])(?=\s?:)")


def _unit_prices(text: str, ways: Habits) -> tuple[list[Amount], str]:
    """`1 kg = 3,98 €`, `3,98 €/kg`, `Prix au kg : 3,98 €`, `€/kg 3,98`."""
    words, found = _words(), []
    for match in words.goods.finditer(text):
        behind = re.compile(r"\s?[=:]\s?").match(text, match.end())
        amount_match = behind and words.amount.match(text, behind.end())
        measure = _measure(match)
        amount = amount_match and _amount(amount_match, ways)
        if amount and amount_match and measure:
            found.append(replace(amount, part=Part.UNIT, per=measure))
            text = _blank(text, (match.start(), amount_match.end()))
    for match in words.amount.finditer(text):
        amount, per = _amount(match, ways), words.per.match(text, match.end())
        if amount is None or per is None:
            continue
        unit = words.goods.match(text, per.end()) or words.unit.match(text, per.end()) or _LITRE_MISREAD.match(text, per.end())
        unit = unit or (_LITRE_LOST.search(text) if not text[per.end() :].strip() else None)
        measure = unit and _measure(unit)
        if unit and measure and measure.unit != "piece":
            found.append(replace(amount, part=Part.UNIT, per=measure))
            text = _blank(text, (match.start(), unit.end()))
        elif unit and measure:
            # A price of one piece is no price of a unit.
            text = _blank(text, (per.start(), unit.end()))
    for match in itertools.chain(words.unit.finditer(text), _LITRE_BEFORE.finditer(text)):
        before = match.re is _LITRE_BEFORE or re.search(rf"(?:{words.per.pattern}|pris|preis)$", text[: match.start()])
        amount_match = re.compile(r"[\s:=]{0,3}").match(text, match.end())
        amount_match = amount_match and words.amount.match(text, amount_match.end())
        amount, measure = amount_match and _amount(amount_match, ways), _measure(match)
        if before and amount and amount_match and measure and measure.unit != "piece":
            found.append(replace(amount, part=Part.UNIT, per=measure))
            text = _blank(text, (match.start(), amount_match.end()))
    return found, text


def _goods(text: str) -> tuple[tuple[Measure, ...], tuple[Measure, ...], str]:
    sure: list[Measure] = []
    if_litres: list[Measure] = []
    for match in _words().goods.finditer(text):
        measure = _measure(match)
        if measure is None:
            continue
        if match["litres"]:
            if_litres.append(measure)  # and it stays: it may be a price all the same
        else:
            sure.append(measure)
            text = _blank(text, match.span())
    return tuple(sure), tuple(if_litres), text


def _measure(match: re.Match[str]) -> Measure | None:
    groups = match.groupdict()
    if groups.get("litres") or "misread" in groups:
        value, (factor, unit) = Decimal((groups.get("litres") or "1").replace(",", ".")), (Decimal(1), "l")
    else:
        factor, unit = _words().units[groups["unit"]]
        value = Decimal((groups.get("value") or "1").replace(",", ".")) * int(groups.get("times") or 1)
    value *= factor
    return Measure.model_validate({"value": value, "unit": unit}) if 0 < value < 100_000 else None


def _amount(match: re.Match[str], ways: Habits) -> Amount | None:
    """None where the number cannot be a price's: three digits behind a separator that is not the region's for thousands."""
    words = _words()
    number, before, after = match["number"], match["before"], match["after"]
    inner = re.fullmatch(r"(\d+)\s?(€|£|\$|kr)\s?(\d{2})", number)
    if inner:
        if number[-3].isspace() and re.match(r"\s?[^\W\d]", match.string[match.end("number") :]):
            return None  # 1 € 99, or 3 € for 20 of them
        number, before = f"{inner[1]}.{inner[3]}", before or inner[2]
    cents_only = re.fullmatch(r"-\s?[.,]\s?(\d{2})", number)
    if cents_only:
        number = f"0.{cents_only[1]}"
    dashed = whole_only = bool(re.search(r"[.,:]\s?-{1,2}$|--$", number))
    number = re.sub("(?<=[.,:]) ", "", number.rstrip(" .,:-"))
    grouped = re.fullmatch(r"(\d{1,3}(?:([.,' ])\d{3})+)(?:[.,:](\d{2}))?", number)
    if grouped and grouped[2]:
        separator, signed = grouped[2], before or after or dashed
        if grouped[3] is None and separator in ".," and (ways.decimal or ".") == separator and "JPY" not in ways.currencies:
            return None
        if separator == " " and not (grouped[3] or signed):
            return None
        whole, cents = re.sub(r"\D", "", grouped[1]), grouped[3] or ""
        whole_only = whole_only or not cents
    else:
        whole, _, cents = re.sub("[.,:]", ".", number).partition(".")
        if len(cents) > 2:
            return None
    if ":" in number and "SEK" not in ways.currencies and ways.currencies:
        return None  # elsewhere it is a time of day
    if len(whole) > 7:
        return None
    value = Decimal(f"{whole}.{cents or 0}")
    sign = words.signs.get(before or "") or words.signs.get(after or "")
    if sign is None and after in words.minor_signs:
        sign, value = words.minor_signs[after], value / 100
        return Amount(value, sign, 2, True, match.span())
    if dashed and sign is None and number != match["number"] and ":" in match["number"]:
        sign = "kr"
    return Amount(
        value,
        sign,
        len(cents),
        len(cents) == 2 or dashed or bool(after),
        match.span(),
        round=whole_only,
        perhaps_time=ways.decimal != "." and bool(_PERHAPS_TIME.fullmatch(number)),
    )


_PERHAPS_TIME = re.compile(r"(?:[01]\d|2[0-4])[.:][0-5]\d|\d[.:][03]0|(?:[0-2]\d|3[01])\.(?:0\d|1[0-2])")


def _with_part(amount: Amount, all_amounts: list[Amount], parts: list[tuple[Span, Part]]) -> Amount:
    """The word nearest before it gives an amount its part, else the one behind it, if no other amount is in between."""
    previous = max((other.span[1] for other in all_amounts if other.span[1] <= amount.span[0]), default=0)
    following = min((other.span[0] for other in all_amounts if other.span[0] >= amount.span[1]), default=10_000)
    before = [part for span, part in parts if previous <= span[0] and span[1] <= amount.span[0]]
    behind = [part for span, part in parts if amount.span[1] <= span[0] and span[1] <= following]
    leading = not any(span[1] <= all_amounts[0].span[0] for span, _ in parts)
    if before and not (leading and previous and before[-1] not in {Part.BEFORE, Part.DEPOSIT, Part.SAVING, Part.NOW}):
        return replace(amount, part=before[-1])
    if behind and (following == 10_000 or behind[0] not in {Part.BEFORE, Part.DEPOSIT, Part.SAVING, Part.NOW}):
        return replace(amount, part=behind[0])
    return amount


def _misread(text: str) -> list[tuple[Span, Part]]:
    """A word with a letter that was misread, where it is long enough to be no other."""
    found = [(match.start(), match.group()) for match in re.finditer(r"[^\W\d_]+(?:[ .-]{1,2}[^\W\d_]+)*", text)]
    for start, run in found[:3]:
        if len(run) < 6:
            continue
        for close in difflib.get_close_matches(run, _words().part_of, n=1, cutoff=0.85):
            return [((start, start + len(run)), _words().part_of[close])]
    return []


def _label(text: str, parts: list[tuple[Span, Part]]) -> Part | None:
    """The part that a line of words alone names; None where the words are a smaller part of it, as in a product's name."""
    letters = sum(character.isalpha() for character in text)
    named = sum(character.isalpha() for span, _ in parts for character in text[slice(*span)])
    if not letters or named < 0.6 * letters:
        return None
    # From 18 years on, from 10 o'clock: that says nothing about the price. From, and nothing else, does.
    if any(_words().starts.fullmatch(text[slice(*span)]) for span, _ in parts) and (named < letters or "\0" in text):
        return None
    strong: list[Part] = [part for _, part in parts if part is not Part.NOW]
    return (strong or [part for _, part in parts])[-1]


def _is_per_unit(folded: str) -> bool:
    """€/kg, 元/500g, /kg: what stands beside it is no price of a piece."""
    match = _words().per_unit.fullmatch(folded.strip())
    return match is not None and _words().units[match["unit"]][1] not in {"piece", "wash", "dose"}


def sign_of(folded: str) -> str | None:
    """The currency's code, or `$`, `¥` or `kr`, where the text is nothing but a sign: €, kr/st, 円."""
    return _words().signs.get(folded.strip().removesuffix("/st").strip(" ."))
