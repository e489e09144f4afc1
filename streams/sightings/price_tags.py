"""From the lines that `ocr` read to the price tag that they are, or why nothing is said. Plain functions on plain values.

The tallest amount is the price, unless words make it something else: what a customer's card, several pieces or a coupon promise
is a condition, and the price is then what one piece costs without. What a tag says twice has to agree. A wrong price is worse
than none: what is doubtful is left to a second glance.

`price_texts` reads one line, `price_places` puts lines together, `price_checks` counts.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from schemas.money import Money, exponent
from schemas.recognition import Condition, Point, PriceTag
from streams.sightings import thresholds
from streams.sightings.price_checks import DOLLARS, Check, checked, money_of
from streams.sightings.price_places import (
    Box,
    Corners,
    Found,
    Line,
    Placed,
    apart,
    centre,
    height_of,
    is_beside_larger,
    is_minor,
    is_wider_than_its_digits,
    joined,
    labelled,
    nearest,
    place,
    turn,
)
from streams.sightings.price_texts import Amount, Habits, Part, habits, sign_of

_CONDITIONS = {Part.CARD: "card", Part.MEMBERS: "members", Part.COUPON: "coupon"}
_WHOLE = frozenset(
    {"CNY", "HKD", "TWD", "JPY", "KRW", "SEK", "NOK", "DKK", "ISK", "CZK", "HUF", "INR", "THB", "RUB"}
)  # usually without decimals
_RAISED = frozenset({"SEK", "NOK", "DKK", "CZK", "CNY", "HKD"})  # of these, often with small raised ones all the same
_SHARED_SIGNS = {"$": DOLLARS, "kr": frozenset({"SEK", "NOK", "DKK", "ISK"})}
_NO_PRICES = frozenset({Part.UNIT, Part.DEPOSIT, Part.SAVING, Part.WITHOUT_TAX, Part.OPEN})


class Reason(StrEnum):
    """Why no price is told."""

    NO_PRICE = "no_price"
    SEVERAL_TAGS = "several_tags"
    CURRENCY_UNKNOWN = "currency_unknown"
    CONFLICT = "conflict"
    CUT_OFF = "cut_off"
    DOUBTFUL = "doubtful"


@dataclass(frozen=True)
class Abstention:
    """`confidence`: of the reading that was not good enough."""

    reason: Reason
    confidence: float = 0.0


def read(
    lines: Sequence[Line],
    *,
    size: tuple[int, int],
    region: str | None,
    near: Sequence[Point] = (),
    least_confidence: float | None = None,
) -> PriceTag | Abstention:
    """`size`: the frame's width and height. `region`: where the frame was taken (ISO 3166): it says which currency ¥, $, kr, or
    no sign at all, stand for. `near`: corners of the product or its code; of several tags the nearest to its foot counts, else
    the nearest to the frame's middle. `least_confidence`: another than the one that is shipped (thresholds.json)."""
    ways = habits(region)
    level = turn(line.corners for line in lines)
    placed = [place(line, ways, level, size) for line in lines if line.text.strip() and height_of(line.corners) > 0]
    found = labelled(joined(placed, ways), placed)
    target = level.apply((centre(near)[0], max(y for _, y in near)) if near else (size[0] / 2, size[1] / 2))
    chosen = _main(found, target)
    if isinstance(chosen, Reason):
        return Abstention(chosen)
    rivals, main = chosen
    # A promise may be printed larger than the price.
    largest = max(each.height for each in found if _within_reach(each.box, main.box, each.height))
    placed = [
        line
        for line in placed
        if _within_reach(line.box, main.box, largest) and (nearest(line.box, rivals) is main or apart(line.box, main.box) == 0)
    ]
    found = [
        each
        for each in found
        if each is main or (_within_reach(each.box, main.box, largest) and nearest(each.box, rivals) is main)
    ]
    answer = _tag(main, found, placed, ways)
    least = thresholds.shipped().price_tag.least_confidence if least_confidence is None else least_confidence
    if isinstance(answer, PriceTag) and answer.confidence < least:
        return Abstention(Reason.DOUBTFUL, answer.confidence)
    return answer


_REACH = 5.0, 2.5  # heights of the largest number on a tag: nothing of it is farther aside, or up and down, from its price
_SURELY = 1.5, 1.5  # what is so near is on the same tag, and on no packet beside it


def _within_reach(box: Box, main: Box, height: float, reach: tuple[float, float] = _REACH) -> bool:
    aside, upright = max(box[0] - main[2], main[0] - box[2]), max(box[1] - main[3], main[1] - box[3])
    return aside <= reach[0] * height and upright <= reach[1] * height


def _main(found: list[Found], target: Point) -> tuple[list[Found], Found] | Reason:
    """The prices in view that are as good as each other, and the one among them that is meant."""
    tellable = [each for each in found if each.amount.part not in _NO_PRICES]
    tellable = [each for each in tellable if not is_minor(each, found) or each.amount.part is not Part.PLAIN]
    if not tellable:
        return Reason.NO_PRICE
    # Where the law lets shops print a price without its tax, larger than the one that is paid, the latter is there as well.
    free = [each for each in tellable if each.amount.part is Part.WITH_TAX]
    free = free or [each for each in tellable if each.amount.part in {Part.PLAIN, Part.NOW, Part.EACH}]
    if not free:
        conditional = any(each.amount.part in {*_CONDITIONS, Part.SEVERAL} for each in tellable)
        regular = [each for each in tellable if each.amount.part is Part.BEFORE]
        free = regular if conditional else []
    if not free:
        return Reason.NO_PRICE
    free = _largest_of_their_tags(free)
    tallest = max(each.height for each in free)
    if any(each.amount.part is Part.OPEN and each.height >= 0.8 * tallest for each in found):
        return Reason.NO_PRICE
    rivals = [each for each in free if each.height >= 0.6 * tallest]
    rivals.sort(key=lambda each: math.dist(each.middle, target))
    first, others = rivals[0], [each for each in rivals[1:] if each.amount.value != rivals[0].amount.value]
    if others and math.dist(first.middle, target) > 0.6 * math.dist(others[0].middle, target):
        return Reason.SEVERAL_TAGS
    if first.at_edge:
        return Reason.CUT_OFF
    return rivals if others else [first], first


def _largest_of_their_tags(found: list[Found]) -> list[Found]:
    """Without those that a larger number stands beside: they are a unit's price, a size, a part. Numbers that nothing makes a
    price are left out where there are others, but not what they say of those beside them: a price may have been misread."""
    largest = [each for each in found if not any(is_beside_larger(each, other) for other in found)]
    return [each for each in largest if each.amount.ended or each.amount.sign] or largest or found


def _tag(main: Found, found: list[Found], lines: list[Placed], ways: Habits) -> PriceTag | Abstention:
    currency = _currency(main, found, lines, ways)
    if isinstance(currency, Reason):
        return Abstention(currency)
    price = money_of(main.amount, currency)
    if price is None or _touches_digits(main, lines):
        return Abstention(Reason.CUT_OFF)
    before = _one(found, (Part.BEFORE,), currency)
    conditions = _conditions(price, found, lines, currency)
    if conditions is None:
        return Abstention(Reason.CONFLICT)
    was = before if before and before.minor != price.minor else None
    if was and was.minor < price.minor:
        return Abstention(Reason.CONFLICT)
    others = [money for each in found if each is not main and (money := money_of(each.amount, currency)) and _has_part(each)]
    check = checked(main, price, others, found, lines, currency)
    if check is None:
        return Abstention(Reason.CONFLICT)
    return PriceTag(
        price=price,
        was=was,
        unit_price=check.unit_price,
        quantity=check.quantity,
        conditions=conditions[:4],
        confidence=_confidence(main, found, currency, check, agrees=_discount_agrees(price, was, conditions)),
        corners=_around([line for line in lines if _within_reach(line.box, main.box, main.height, _SURELY)]),
    )


def _has_part(each: Found) -> bool:
    return each.amount.part in {Part.BEFORE, Part.SEVERAL, *_CONDITIONS}


def _currency(main: Found, found: list[Found], lines: list[Placed], ways: Habits) -> str | Reason:
    """The price's own sign, else one that stands alone, else another amount's, else the region's currency."""
    own = [main.amount.sign] if main.amount.sign else []
    alone = [sign for line in lines if (sign := sign_of(line.content.folded))]
    other = [each.amount.sign for each in found if each.amount.sign and each.amount.part is not Part.UNIT]
    for sign in own or alone[:1] or other[:1]:
        possible = _possible(sign, main.amount, ways)
        if not possible:
            return Reason.CURRENCY_UNKNOWN
        if not ways.currencies or possible in ways.currencies:
            return possible
        return Reason.CONFLICT if own else ways.currencies[0]
    return ways.currencies[0] if ways.currencies else Reason.CURRENCY_UNKNOWN


def _possible(sign: str, amount: Amount, ways: Habits) -> str | None:
    if sign == "¥":
        for currency in ways.currencies:
            if currency in {"CNY", "JPY"}:
                return currency
        # Yen have no decimals; without them it may be either.
        return "CNY" if not ways.currencies and amount.decimals == 2 else None
    if sign in _SHARED_SIGNS:
        return next((currency for currency in ways.currencies if currency in _SHARED_SIGNS[sign]), None)
    return sign


def _touches_digits(main: Found, lines: Iterable[Placed]) -> bool:
    """Another number of the same height directly beside it: the detector has cut one number into two."""
    for line in lines:
        same_row = abs(line.box[1] - main.box[1]) < 0.4 * main.height and abs(line.box[3] - main.box[3]) < 0.4 * main.height
        apart = max(line.box[0] - main.box[2], main.box[0] - line.box[2])
        if same_row and -0.2 * main.height < apart < 0.4 * main.height and re.fullmatch(r"[\d.,:]+", line.content.folded.strip()):
            return True
    return False


def _one(found: Iterable[Found], parts: tuple[Part, ...], currency: str) -> Money | None:
    """The tallest of these parts."""
    of_parts = sorted((each for each in found if each.amount.part in parts), key=lambda each: -each.height)
    return next((money for each in of_parts if (money := money_of(each.amount, currency))), None)


def _conditions(price: Money, found: list[Found], lines: list[Placed], currency: str) -> tuple[Condition, ...] | None:
    """None where one promises what is dearer than the price: something was misread."""
    conditions = []
    for each in found:
        total, part = money_of(each.amount, currency), each.amount.part
        if total is None:
            continue
        if part is Part.SEVERAL and each.amount.pieces:
            if total.minor > price.minor * each.amount.pieces:
                return None
            conditions.append(Condition(kind="multi_buy", pieces=each.amount.pieces, total=total))
        elif part in _CONDITIONS:
            if total.minor > price.minor:
                return None
            conditions.append(Condition.model_validate({"kind": _CONDITIONS[part], "total": total}))
    for line in lines:
        if line.content.paid_for:
            got, paid = line.content.paid_for
            conditions.append(Condition(kind="multi_buy", pieces=got, total=price * paid))
        percent = line.content.percent
        if percent and line.content.off is Part.SEVERAL:
            both, uneven = divmod(price.minor * (200 - percent), 100)
            if not uneven:
                conditions.append(Condition(kind="multi_buy", pieces=2, total=Money.of(both, currency)))
        elif percent:
            kind = _CONDITIONS.get(line.content.off, "percent_off")
            conditions.append(Condition.model_validate({"kind": kind, "percent": percent}))
    return tuple(dict.fromkeys(conditions))


def _discount_agrees(price: Money, was: Money | None, conditions: Iterable[Condition]) -> bool | None:
    """Whether the percents off are those between the two prices; None where one of the three is missing."""
    percents = [condition.percent for condition in conditions if condition.kind == "percent_off" and condition.percent]
    if not was or not percents:
        return None
    exact = 100 * (1 - price.major / was.major)
    return any(abs(exact - percent) <= Decimal("1.5") for percent in percents)


def _around(lines: Sequence[Placed]) -> Corners:
    """The corners of these lines together, upright in the frame."""
    xs, ys = zip(*(corner for line in lines for corner in line.corners), strict=True)
    return (min(xs), min(ys)), (max(xs), min(ys)), (max(xs), max(ys)), (min(xs), max(ys))


def _confidence(main: Found, found: Sequence[Found], currency: str, check: Check, *, agrees: bool | None) -> float:
    """Chance that price and currency are right, from what speaks for and against it (log-odds)."""
    odds = 4.0 - 6.0 * (1 - main.confidence)
    odds += 2.5 if check.holds else 0.0
    odds += {True: 1.5, False: -3.0, None: 0.0}[agrees]
    amount, supported = main.amount, check.holds or agrees
    if not supported:
        odds -= _missing(amount, currency)
        if exponent(currency) and amount.decimals == 0 and not amount.round and is_wider_than_its_digits(main):
            odds -= 4.0
        if amount.perhaps_time and amount.part is Part.PLAIN and amount.sign is None and not check.unit_price:
            odds -= 4.0
    # A higher price that no word explains: the word may have been misread, and the higher one be what everybody pays.
    others = [each for each in found if each.amount.part is Part.PLAIN and each.amount.ended and not each.perhaps_goods]
    if any(each.height > 0.3 * main.height and each.amount.value > amount.value for each in others):
        odds -= 3.0
    return round(1 / (1 + math.exp(-odds)), 3)


def _missing(amount: Amount, currency: str) -> float:
    """How much speaks for it that cents are there and were not seen, or were taken for more digits of a whole number, or that it
    is no price at all: a platform's number, what is in a hundred grams."""
    digits = exponent(currency)
    if amount.decimals == digits > 0:
        # Where coins are whole, prices end in 0, 5, 8 or 9; another digit was probably misread.
        return 3.0 if currency in _RAISED and amount.value * 100 % 10 not in {0, 5, 8, 9} else 0.0
    if amount.sign is None and not amount.ended:
        return 6.0 if amount.part is Part.PLAIN or digits else 1.0
    if currency in _WHOLE:
        run_together = not amount.round and amount.value >= 100 and amount.value % 5 == 0 and amount.decimals == 0
        return 4.0 if run_together and currency in _RAISED else 0.0
    if amount.round:
        return 1.0
    return 1.0 if amount.value < 100 else 5.0
