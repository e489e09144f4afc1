"""Price tags by their lines: each tag is lines of text with a left edge, a top and a height, in a frame of 640×480."""

import re
import unicodedata
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.money import Money
from schemas.recognition import Condition, Measure, PriceTag
from streams.sightings import price_tags, thresholds
from streams.sightings.price_tags import Abstention, Reason
from streams.sightings.triton import Line

SIZE = (640, 480)
At = tuple[str, float, float, float]


def line(text: str, left: float, top: float, height: float, confidence: float = 0.99) -> Line:
    right, bottom = left + 0.5 * height * len(text), top + height
    return Line(text=text, confidence=confidence, corners=((left, top), (right, top), (right, bottom), (left, bottom)))


def read(region: str | None, *rows: At, **more: Any) -> PriceTag | Abstention:
    return price_tags.read([line(*row) for row in rows], size=SIZE, region=region, **more)


def tag(region: str | None, *rows: At, **more: Any) -> PriceTag:
    answer = read(region, *rows, **more)
    assert isinstance(answer, PriceTag), answer
    return answer


def reason(region: str | None, *rows: At, **more: Any) -> Reason:
    answer = read(region, *rows, **more)
    assert isinstance(answer, Abstention), answer
    return answer.reason


@pytest.mark.parametrize(
    ("region", "text", "price"),
    [
        ("DE", "1,99 €", "1.99 EUR"),
        ("DE", "1.99", "1.99 EUR"),
        ("DE", "1,99", "1.99 EUR"),
        ("DE", "0,79 €*", "0.79 EUR"),
        ("DE", "1.299,00 €", "1299.00 EUR"),
        ("DE", "-,99 €", None),
        ("DE", "5.-", "5.00 EUR"),
        ("DE", "2,4 €", None),
        ("DE", "1,799 €", None),
        ("IE", "€1.99", "1.99 EUR"),
        ("FR", "1€99", "1.99 EUR"),
        ("FR", "1 299,00 €", "1299.00 EUR"),
        ("ES", "12,50€", "12.50 EUR"),
        ("SE", "19:90", "19.90 SEK"),
        ("SE", "19,90 kr", "19.90 SEK"),
        ("SE", "19:-", "19 SEK"),
        ("SE", "1 299:-", "1299 SEK"),
        ("SE", "139 kr", "139 SEK"),
        ("NO", "29,90 kr", "29.90 NOK"),
        ("DE", "19:90", None),
        ("CN", "¥12.80", "12.80 CNY"),
        ("CN", "￥12.80", "12.80 CNY"),
        ("CN", "12.80元", "12.80 CNY"),
        ("CN", "¥9.9", "9.90 CNY"),
        ("CN", "￥1,280", "1280 CNY"),
        ("JP", "¥1,280", "1280 JPY"),
        ("JP", "198円", "198 JPY"),
        ("JP", "¥12.80", None),
        ("GB", "£1.20", "1.20 GBP"),
        ("GB", "99p", "0.99 GBP"),
        ("GB", "£1,299.00", "1299.00 GBP"),
        ("US", "$2.49", "2.49 USD"),
        ("US", "99¢", "0.99 USD"),
        ("US", "$1,299.00", "1299.00 USD"),
        ("CA", "$2.49", "2.49 CAD"),
        ("US", "$2⁴⁹", "2.49 USD"),
        (None, "1,99 €", "1.99 EUR"),
        (None, "£1.20", "1.20 GBP"),
        (None, "198円", "198 JPY"),
        (None, "¥12.80", "12.80 CNY"),
        (None, "¥128", None),
        (None, "$2.49", None),
        (None, "19,90 kr", None),
        (None, "1,99", None),
        ("DE", "Vollmilch", None),
        ("DE", "3,5 % Fett", None),
        ("DE", "500 g", None),
    ],
)
def test_a_price_is_read_as_its_region_writes_it(region: str | None, text: str, price: str | None) -> None:
    answer = read(region, (text, 200, 200, 80))
    if price is None:
        assert isinstance(answer, Abstention), answer
    else:
        amount, currency = price.split()
        assert isinstance(answer, PriceTag), answer
        assert answer.price == Money.from_major(amount, currency)


@pytest.mark.parametrize("share", ["100%", "100 %", "12.5 % vol.", "3,5% Fett"])
def test_a_share_is_no_price(share: str) -> None:
    assert reason("SE", (share, 320, 200, 90)) is Reason.NO_PRICE


def test_small_raised_digits_are_cents() -> None:
    seen = tag("DE", ("Apfelsaft", 100, 100, 30), ("8", 220, 150, 160), ("59", 310, 155, 75), ("€", 310, 240, 50))
    assert seen.price == Money.of(859, "EUR")


def test_cents_behind_a_whole_with_a_point() -> None:
    assert tag("DE", ("1.", 220, 150, 160), ("79", 395, 155, 90)).price == Money.of(179, "EUR")


def test_a_number_of_three_digits_without_cents_is_doubted_where_cents_are_usual() -> None:
    assert reason("US", ("$149", 220, 150, 160)) is Reason.DOUBTFUL


def test_cents_whose_whole_was_not_found_are_no_price() -> None:
    assert reason("US", ("Corn flakes", 100, 100, 40), ("99", 400, 150, 84)) is Reason.DOUBTFUL


def test_a_number_that_was_cut_in_two_is_not_half_told() -> None:
    assert reason("DE", ("1", 200, 200, 80), ("2,99 €", 250, 200, 80)) is Reason.CUT_OFF


def test_a_price_at_the_edge_of_the_frame_may_have_lost_digits() -> None:
    assert reason("DE", ("2,99 €", 0, 200, 80)) is Reason.CUT_OFF


@pytest.mark.parametrize(
    ("region", "quantity", "unit", "price", "per", "amount"),
    [
        ("DE", "500 g", "1 kg = 3,98 €", "1,99 €", ("1", "kg"), "3.98"),
        ("DE", "0,7 l", "(1 l = 2,84 €)", "1,99 €", ("1", "l"), "2.84"),
        ("DE", "0,71", "(1 1 = 2,84 €)", "1,99 €", ("1", "l"), "2.84"),
        ("DE", "6 x 0,33 l", "1 l = 2,52", "4,99 €", ("1", "l"), "2.52"),
        ("FR", "200 ml", "0,66 €/100ml", "1€31", ("100", "ml"), "0.66"),
        ("FR", "250 g", "Prix au kg : 9,96 €", "2,49 €", ("1", "kg"), "9.96"),
        ("SE", "125 g", "Jmf-pris 88:00/kg", "11:-", ("1", "kg"), "88.00"),
        ("GB", "400g", "£2.50 per kg", "£1.00", ("1", "kg"), "2.50"),
        ("CN", "500g", "¥25.60/kg", "¥12.80", ("1", "kg"), "25.60"),
    ],
)
def test_unit_price_and_quantity_confirm_the_price(
    region: str, quantity: str, unit: str, price: str, per: tuple[str, str], amount: str
) -> None:
    seen = tag(region, (quantity, 100, 100, 25), (price, 200, 170, 90), (unit, 100, 330, 25))
    assert seen.unit_price is not None
    assert seen.unit_price.price == Money.from_major(amount, seen.price.currency)
    assert seen.unit_price.per == Measure.model_validate({"value": Decimal(per[0]), "unit": per[1]})
    assert seen.quantity is not None
    assert seen.confidence > 0.99


def test_a_unit_price_in_parts_of_a_cent_is_told_for_more() -> None:
    seen = tag("US", ("12 OZ", 100, 100, 25), ("$2.49", 200, 170, 90), ("UNIT PRICE 20.8¢ per oz", 100, 330, 25))
    assert seen.unit_price is not None
    assert (seen.unit_price.price, seen.unit_price.per.value) == (Money.of(208, "USD"), Decimal("283.495231250"))


def test_what_does_not_agree_with_its_unit_price_is_not_told() -> None:
    rows: tuple[At, ...] = (("500 g", 100, 100, 25), ("1,99 €", 200, 170, 90), ("1 kg = 9,98 €", 100, 330, 25))
    assert reason("DE", *rows) is Reason.CONFLICT


@pytest.mark.parametrize(
    ("region", "rows", "price", "was", "conditions"),
    [
        ("DE", (("statt 2,49", 60, 200, 30), ("1,99 €", 250, 180, 90)), 199, 249, ()),
        ("DE", (("UVP 2,49 €", 60, 200, 30), ("-20%", 60, 100, 50), ("1,99 €", 250, 180, 90)), 199, 249, ({"percent": 20},)),
        ("ES", (("Antes 2,49 €", 60, 140, 30), ("1,99 €", 250, 200, 90)), 199, 249, ()),
        ("GB", (("WAS £6.49", 60, 140, 40), ("NOW £5.49", 60, 220, 80)), 549, 649, ()),
        ("CN", (("¥ 40", 60, 140, 90), ("原价 ¥61", 60, 280, 40)), 4000, 6100, ()),
        (
            "DE",
            (("mit Karte", 60, 80, 40), ("1,49 €", 250, 150, 90), ("ohne Karte 1,99 €", 60, 300, 30)),
            199,
            None,
            ({"card": 149},),
        ),
        ("GB", (("£2.00", 60, 200, 60), ("Clubcard Price", 330, 140, 30), ("£1.50", 340, 200, 60)), 200, None, ({"card": 150},)),
        (
            "SE",
            (("Medlemspris", 60, 80, 40), ("24,90 kr", 200, 150, 90), ("Ord pris 29,90 kr", 60, 300, 30)),
            2990,
            None,
            ({"members": 2490},),
        ),
        (
            "SE",
            (("2 för", 60, 110, 50), ("30:-", 220, 100, 100), ("Ord. pris 19:90/st", 60, 300, 30)),
            1990,
            None,
            ({"2": 3000},),
        ),
        ("SE", (("2 st för 30:-", 60, 110, 70), ("19:90/st", 60, 300, 40)), 1990, None, ({"2": 3000},)),
        ("DE", (("2 für 3 €", 60, 110, 70), ("1,99 €", 60, 300, 60)), 199, None, ({"2": 300},)),
        ("US", (("2/$5", 60, 110, 90), ("$2.99 ea.", 60, 300, 40)), 299, None, ({"2": 500},)),
        ("FR", (("2 pour 3,20 €", 60, 110, 60), ("l'unité", 60, 300, 30), ("2,00 €", 250, 280, 70)), 200, None, ({"2": 320},)),
        ("DE", (("3 für 2", 60, 100, 60), ("1,99 €", 250, 200, 90)), 199, None, ({"3": 398},)),
        ("CN", (("会员价 ¥9.9", 60, 100, 60), ("原价 ¥12.8", 60, 250, 30)), 1280, None, ({"members": 990},)),
        ("DE", (("1,99 €", 250, 200, 90), ("zzgl. Pfand 0,25 €", 60, 320, 25)), 199, None, ()),
        ("JP", (("198円", 100, 100, 90), ("税込 213円", 300, 220, 60)), 213, None, ()),
    ],
)
def test_words_say_what_an_amount_is(
    region: str, rows: tuple[At, ...], price: int, was: int | None, conditions: tuple[dict[str, int], ...]
) -> None:
    seen = tag(region, *rows, least_confidence=0.5)
    currency = seen.price.currency
    assert seen.price.minor == price
    assert seen.was == (Money.of(was, currency) if was else None)
    assert [_short(condition) for condition in seen.conditions] == list(conditions)


def _short(condition: Condition) -> dict[str, int | None]:
    if condition.percent:
        return {"percent": condition.percent}
    name = str(condition.pieces) if condition.kind == "multi_buy" else condition.kind
    return {name: condition.total.minor if condition.total else None}


def test_a_promise_without_a_price_for_one_is_no_price() -> None:
    assert reason("SE", ("2 för 30:-", 60, 110, 90)) is Reason.NO_PRICE
    assert reason("GB", ("Clubcard Price", 60, 80, 30), ("£1.50", 60, 120, 80)) is Reason.NO_PRICE


def test_a_condition_that_is_dearer_than_the_price_was_misread() -> None:
    rows: tuple[At, ...] = (("mit Karte", 60, 80, 40), ("7,49 €", 250, 150, 90), ("ohne Karte 1,99 €", 60, 300, 30))
    assert reason("DE", *rows) is Reason.CONFLICT


def test_a_sign_that_is_not_the_regions_is_not_taken_for_it() -> None:
    assert reason("US", ("€2.49", 200, 200, 80)) is Reason.CONFLICT


_THREE: tuple[At, ...] = (("1,99 €", 10, 200, 40), ("3,47 €", 260, 200, 40), ("7,99 €", 510, 200, 40))


def test_of_several_tags_the_one_in_the_middle_counts() -> None:
    seen = tag("DE", *_THREE, ("500 g", 20, 260, 15), ("1 kg = 3,98", 20, 280, 15), ("750 g", 270, 260, 15))
    assert seen.price == Money.of(347, "EUR")
    assert seen.quantity == Measure(value=Decimal(750), unit="g")
    assert seen.unit_price is None


def test_of_several_tags_the_one_nearest_to_the_product_counts() -> None:
    assert tag("DE", *_THREE, near=((500, 20), (600, 20), (600, 180), (500, 180))).price == Money.of(799, "EUR")


def test_between_two_tags_nothing_is_guessed() -> None:
    assert reason("DE", ("1,99 €", 100, 200, 60), ("3,47 €", 380, 200, 60)) is Reason.SEVERAL_TAGS


def test_a_tilted_tag_is_read_like_a_level_one() -> None:
    rows = (("Ord. pris 19:90/st", 60.0, 300.0, 30.0), ("2 för", 60.0, 110.0, 50.0), ("30:-", 220.0, 100.0, 100.0))
    tilted = []
    for row in rows:
        level = line(*row)
        turned = [(0.97 * x - 0.24 * y + 100, 0.24 * x + 0.97 * y) for x, y in level.corners]
        tilted.append(Line(text=level.text, confidence=0.99, corners=(turned[0], turned[1], turned[2], turned[3])))
    answer = price_tags.read(tilted, size=SIZE, region="SE")
    assert isinstance(answer, PriceTag)
    assert (answer.price.minor, answer.conditions[0].pieces) == (1990, 2)


def test_an_uncertain_digit_lowers_the_confidence() -> None:
    sure = price_tags.read([line("1,99 €", 200, 200, 80)], size=SIZE, region="DE")
    unsure = price_tags.read([line("1,99 €", 200, 200, 80, confidence=0.4)], size=SIZE, region="DE")
    assert isinstance(sure, PriceTag)
    assert isinstance(unsure, Abstention)
    assert unsure.reason is Reason.DOUBTFUL
    assert unsure.confidence < thresholds.shipped().price_tag.least_confidence <= sure.confidence


_PRICED = st.from_regex(r"[€£$¥￥]?[0-9]{1,4}[.,: ]?[0-9]{0,3}( ?(€|kr|元|円|p|¢|:-|/kg|g|ml|%))?", fullmatch=True)
_WORDED = st.sampled_from(
    ["statt", "2 för", "3 für 2", "1 kg =", "mit Karte", "was", "ea.", "会员价", "税込", "", "x", "l'unité"]
)
_TEXTS = st.one_of(_PRICED, st.builds(lambda word, amount: f"{word} {amount}", _WORDED, _PRICED), st.text(max_size=30))
_LINES = st.builds(
    line,
    _TEXTS,
    st.floats(0, 600),
    st.floats(0, 440),
    st.floats(0, 200),
    st.floats(0, 1),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_LINES, max_size=8), st.sampled_from(["DE", "SE", "CN", "JP", "GB", "US", "CH", "ZZ", "??", None]))
def test_nothing_crashes_and_no_price_is_invented(lines: list[Line], region: str | None) -> None:
    answer = price_tags.read(lines, size=SIZE, region=region, least_confidence=0)
    if not isinstance(answer, PriceTag):
        return
    # As it is, in pence, without the zeros that 9.9 and 5 € do not write, or whole and cents in two lines.
    written = [re.sub("[^0-9]", "", unicodedata.normalize("NFKC", each.text)) for each in lines]
    whole, _, cents = f"{answer.price.major:f}".partition(".")
    forms = {whole + cents, str(answer.price.minor), (whole + cents.rstrip("0")) if cents.endswith("0") else whole + cents}
    in_one = any(form in text for form in forms for text in written)
    in_two = whole in written and any(text.endswith(cents) for text in written)
    assert in_one or in_two
