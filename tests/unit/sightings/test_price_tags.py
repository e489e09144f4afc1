"""Price tags by their lines: each tag is lines of text with a left edge, a top and a height, in a frame of 640×480."""

import json
import re
import unicodedata
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.money import Money
from schemas.recognition import Condition, Measure, Point, PriceTag
from streams.sightings import price_tags, thresholds
from streams.sightings.price_places import belongs
from streams.sightings.price_tags import Abstention, Reason
from streams.sightings.price_texts import habits, read_line
from streams.sightings.triton import Line, Text

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
        ("DE", "-,99 €", "0.99 EUR"),
        ("DE", "–,79", "0.79 EUR"),
        ("CH", "-.95", "0.95 CHF"),
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
        ("SE", "2895 kr", None),
        ("SE", "1 295 kr", "1295 SEK"),
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
        ("GB", "£45", "45.00 GBP"),
        ("DE", "5 €", "5.00 EUR"),
        ("DE", "2.49", "2.49 EUR"),
        ("GB", "1.25", "1.25 GBP"),
        ("US", "12.49", "12.49 USD"),
        ("CN", "12.50", "12.50 CNY"),
        ("CH", "3.50", "3.50 CHF"),
        ("FR", "1 € 99", "1.99 EUR"),
        ("GB", "£1,299.00", "1299.00 GBP"),
        ("US", "$2.49", "2.49 USD"),
        ("US", "99¢", "0.99 USD"),
        ("US", "$1,299.00", "1299.00 USD"),
        ("CA", "$2.49", "2.49 CAD"),
        ("US", "$2⁴⁹", "2.49 USD"),
        ("US", "$1,299", "1299 USD"),
        ("IN", "₹45", "45 INR"),
        ("PL", "4,99 zł", "4.99 PLN"),
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


@pytest.mark.parametrize(
    ("region", "text"),
    [
        *[(region, "995") for region in ("SE", "NO", "DK", "CZ", "CN", "HK", "JP", "DE", "US")],
        ("SE", "2895"),
        ("SE", "82"),
        ("JP", "301"),
        ("SE", '31"s'),
        ("SE", "27'"),
        ("SE", "30-"),
        ("DE", "1.299"),
        ("JP", "1,280"),
        ("DE", "23.11.2026"),
        ("DE", "23.11.26"),
        ("DE", "23.11."),
        ("GB", "23/11/26"),
        ("SE", "2026-11-23"),
        ("CN", "2026年11月23日"),
        ("DE", "Mo-Sa 9.00 - 20.00 Uhr"),
        ("DE", "9.00 - 20.00"),
        ("GB", "9.00am"),
        ("DE", "14.30"),
        ("SE", "17.10"),
        ("DE", "9.00"),
        ("DE", "3 € 20 Beutel"),
        ("FR", "1 € 99 l'unité"),
        ("DE", "150 €"),
        ("SE", "100 kr"),
        ("DE", "nur 25"),
        ("DE", "1,99 - 2,49 €"),
        ("DE", "-1,00 €"),
        ("GB", "-£1.00"),
        ("GB", "£1.00 OFF"),
        ("DE", "Sofort-Rabatt 1,00 €"),
        ("DE", "+2,50"),
        ("DE", "24 x 19,99 €"),
        ("DE", "19,99 €/Monat"),
        ("DE", "19,99 € mtl."),
        ("GB", "£19.99 per month"),
        ("SE", "199,00 kr/mån"),
        ("DE", "15111=0.99"),
        ("DE", "ab 19,99 €"),
        ("GB", "from £1.99"),
        ("FR", "à partir de 1,99 €"),
        ("SE", "från 199,90 kr"),
        ("CN", "¥199.00起"),
        ("DE", "ab 2 Stück je 1,49 €"),
    ],
)
def test_what_is_not_surely_the_price_of_one_is_not_told(region: str, text: str) -> None:
    assert isinstance(read(region, (text, 60, 200, 40)), Abstention)


def test_a_unit_price_makes_a_number_alone_a_price() -> None:
    assert tag("SE", ("500 g", 100, 100, 25), ("29", 200, 170, 90), ("Jmf-pris 58:00/kg", 100, 330, 25)).price.minor == 2900


def test_a_sign_beside_a_number_makes_it_a_price() -> None:
    assert tag("JP", ("198", 200, 170, 90), ("円", 345, 200, 50)).price == Money.of(198, "JPY")
    assert isinstance(read("JP", ("198", 200, 170, 90), ("円", 500, 400, 50)), Abstention)


def test_a_number_with_room_for_cents_that_were_not_read_is_no_price() -> None:
    sign, wide = line("kr", 340, 220, 30), box(200, 170, 335, 240)
    unread = Line(text="29", confidence=0.99, corners=wide)
    assert isinstance(price_tags.read([unread, sign], size=SIZE, region="SE"), Abstention)
    assert tag("SE", ("29", 200, 170, 70), ("kr", 275, 200, 40)).price == Money.of(2900, "SEK")


def test_beside_a_price_of_a_weight_stands_no_price() -> None:
    assert isinstance(read("CN", ("3.98", 100, 200, 80), ("元/500g", 100, 300, 60)), Abstention)


@pytest.mark.parametrize(
    "text", ["gültig bis 24.12.2026", "Mo-Sa 9.00 - 20.00 Uhr", "-0,50 €", "RABATT", "oder 24 x 41,63 €", "+ 0,25 € Pfand"]
)
def test_what_else_is_written_leaves_a_price_as_it_is(text: str) -> None:
    seen = tag("DE", ("1,99 €", 100, 150, 100), (text, 100, 300, 40))
    assert (seen.price, seen.was, seen.conditions) == (Money.of(199, "EUR"), None, ())


def test_small_print_below_a_number_that_was_not_understood_is_not_the_price() -> None:
    assert isinstance(read("SE", ("1095", 100, 150, 60), ("36,50", 100, 230, 40)), Abstention)


def test_crowns_with_an_unusual_ending_were_misread() -> None:
    assert reason("SE", ("18", 220, 150, 160), ("96", 395, 155, 80)) is Reason.DOUBTFUL


def test_words_below_a_price_make_it_one_of_many() -> None:
    assert reason("DE", ("19,99 €", 60, 200, 90), ("im Monat, 24 Monate", 60, 310, 40)) is Reason.NO_PRICE
    assert tag("DE", ("19,99 €", 60, 200, 90), ("24 Monate Garantie", 60, 310, 40)).price == Money.of(1999, "EUR")


def test_cents_with_a_sign_before_them() -> None:
    assert tag("FR", ("3", 220, 150, 160), ("€99", 310, 155, 75)).price == Money.of(399, "EUR")


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
        ("DE", (("UVP 2,49 €", 60, 200, 30), ("-20%", 60, 100, 50), ("1,99 €", 250, 180, 90)), 199, 249, ({"percent_off": 20},)),
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
        ("DK", (("Før 69,95", 60, 140, 30), ("49,95", 250, 200, 90)), 4995, 6995, ()),
        ("IT", (("anziché 6,99 €", 60, 140, 30), ("4,99 €", 250, 200, 90)), 499, 699, ()),
        ("PL", (("Cena regularna 6,99", 60, 140, 30), ("4,99 zł", 250, 200, 90)), 499, 699, ()),
        ("NL", (("van 6,99", 60, 140, 30), ("voor 4,99", 60, 200, 90)), 499, 699, ()),
        ("DK", (("2 stk. 18,-", 60, 110, 70), ("10,95", 60, 300, 60)), 1095, None, ({"2": 1800},)),
        ("NL", (("2 voor 3,00", 60, 110, 70), ("1,99", 60, 300, 60)), 199, None, ({"2": 300},)),
        ("IT", (("2 per 3 €", 60, 110, 70), ("1,99 €", 60, 300, 60)), 199, None, ({"2": 300},)),
        ("FR", (("les 2 : 3 €", 60, 110, 70), ("1,99 €", 60, 300, 60)), 199, None, ({"2": 300},)),
        ("FR", (("lot de 2 : 3 €", 60, 110, 70), ("1,99 €", 60, 300, 60)), 199, None, ({"2": 300},)),
        ("SE", (("Ta 3 betala för 2", 60, 110, 40), ("27,90", 60, 200, 90)), 2790, None, ({"3": 5580},)),
        ("GB", (("Buy 1 get 1 free", 60, 110, 40), ("£1.99", 60, 200, 90)), 199, None, ({"2": 199},)),
        ("GB", (("2nd half price", 60, 110, 40), ("£2.00", 60, 200, 90)), 200, None, ({"2": 300},)),
        ("GB", (("2nd half price", 60, 110, 40), ("£1.99", 60, 200, 90)), 199, None, ()),
        ("CN", (("买一送一", 60, 110, 40), ("¥9.90", 60, 200, 90)), 990, None, ({"2": 990},)),
        ("CN", (("第二件半价", 60, 110, 40), ("¥9.90", 60, 200, 90)), 990, None, ({"2": 1485},)),
        ("ES", (("2ª unidad -70%", 60, 110, 40), ("2,00 €", 60, 200, 90)), 200, None, ({"2": 260},)),
        ("DE", (("-50 % auf das 2. Produkt", 60, 110, 30), ("2,00 €", 60, 200, 90)), 200, None, ({"2": 300},)),
        ("DE", (("bis zu -50 %", 60, 110, 40), ("1,99 €", 60, 200, 90)), 199, None, ()),
        ("GB", (("max 3 per customer", 60, 400, 30), ("£1.99", 60, 200, 90)), 199, None, ()),
        ("DE", (("1,99 €", 250, 200, 90), ("zzgl. Pfand 0,25 €", 60, 320, 25)), 199, None, ()),
        ("JP", (("198円", 100, 100, 90), ("税込 213円", 300, 220, 60)), 213, None, ()),
        ("DE", (("mit Kundenkarte -20%", 60, 110, 30), ("2,00 €", 60, 200, 90)), 200, None, ({"card percent": 20},)),
        ("SE", (("20,00 kr", 60, 110, 90), ("Medlem -20%", 60, 260, 40)), 2000, None, ({"members percent": 20},)),
        ("FR", (("12e anniversaire -20%", 60, 110, 30), ("2,00 €", 60, 200, 90)), 200, None, ({"percent_off": 20},)),
        ("GB", (("ready in 90 second half price", 60, 110, 30), ("£2.00", 60, 200, 90)), 200, None, ()),
        ("GB", (("£2.00 2nd half price", 60, 200, 40),), 200, None, ({"2": 300},)),
        (
            "CN",
            (("第2件半价", 60, 60, 40), ("¥19.90", 60, 150, 90), ("原价 24.90", 60, 300, 30)),
            1990,
            2490,
            ({"2": 2985},),
        ),
        ("CN", (("85折", 60, 110, 40), ("¥9.90", 60, 200, 90)), 990, None, ({"percent_off": 15},)),
        ("CN", (("8.5折", 60, 110, 40), ("¥9.90", 60, 200, 90)), 990, None, ({"percent_off": 15},)),
        ("CN", (("8折", 60, 110, 40), ("¥9.90", 60, 200, 90)), 990, None, ({"percent_off": 20},)),
        ("DE", (("33,5% billiger", 60, 110, 40), ("2,00 €", 60, 200, 90)), 200, None, ()),
        ("DE", (("33% billiger", 60, 110, 40), ("2,00 €", 60, 200, 90)), 200, None, ({"percent_off": 33},)),
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
        return {condition.kind if condition.kind == "percent_off" else f"{condition.kind} percent": condition.percent}
    name = str(condition.pieces) if condition.kind == "multi_buy" else condition.kind
    return {name: condition.total.minor if condition.total else None}


@pytest.mark.parametrize(
    ("region", "size", "price", "regular"),
    [
        ("SE", "6 st 63 g", "29,90 kr", "Ord pris 34,90 kr"),
        ("DE", "3 à 250 ml", "1,99 €", "statt 2,49 €"),
        ("DE", "3 à 1,25 l", "1,99 €", "statt 2,49 €"),
        ("DE", "5 Stk 20 g", "1,99 €", "statt 2,49 €"),
        ("DE", "10 St. 1er", "1,99 €", "statt 2,49 €"),
        ("FR", "lot de 6 33 cl", "1,99 €", "ancien prix 2,49 €"),
        ("FR", "les 6 75 cl", "1,99 €", "ancien prix 2,49 €"),
        ("IT", "6 pz 63 g", "1,99 €", "anziché 2,49 €"),
        ("GB", "10 per 100g", "£1.99", "was £2.49"),
        ("GB", "10 per 1", "£1.99", "was £2.49"),
    ],
)
def test_the_size_of_a_pack_is_no_promise(region: str, size: str, price: str, regular: str) -> None:
    rows = (size, 200, 100, 30), (price, 200, 170, 90), (regular, 200, 300, 30)
    plain, reduced = tag(region, *rows[:2]), tag(region, *rows)
    assert plain.price == reduced.price
    assert str(reduced.price.major).replace(".", ",") in price.replace(".", ",")
    assert reduced.was is not None
    assert (plain.conditions, reduced.conditions) == ((), ())


@pytest.mark.parametrize(
    ("region", "price", "promise"),
    [
        ("DE", "1,79 €", "ab 2 Stück je 1,49 €"),
        ("DE", "1,79 €", "ab 2 Stück 1,49 €"),
        ("DE", "1,99 €", "3 à 1,89 €"),
        ("DE", "1,79 €", "2 für je 1,49 €"),
        ("GB", "£1.79", "from 2 £1.49 each"),
        ("SE", "19,90 kr", "Från 2 st 15,00/st"),
        ("FR", "1,79 €", "par 2 : 1,49 € l'unité"),
    ],
)
def test_what_each_of_several_costs_is_not_what_they_cost_together(region: str, price: str, promise: str) -> None:
    seen = tag(region, (price, 200, 170, 90), (promise, 200, 300, 30))
    assert str(seen.price.major).replace(".", ",") in price.replace(".", ",")
    assert seen.conditions == ()


@pytest.mark.parametrize(
    ("region", "price", "text"),
    [
        ("DE", "9,99 €", "ab 18 Jahren"),
        ("DE", "9,99 €", "ab 23.11."),
        ("DE", "9,99 €", "ab Montag"),
        ("GB", "£9.99", "from 6 months"),
        ("FR", "9,99 €", "dès 18 mois"),
        ("IT", "9,99 €", "da 500 g"),
        ("JP", "999円", "10時より"),
    ],
)
def test_from_an_age_a_day_or_a_weight_on_is_not_from_a_price_on(region: str, price: str, text: str) -> None:
    assert str(tag(region, (price, 200, 170, 90), (text, 200, 300, 30)).price.major) in {"9.99", "999"}


@pytest.mark.parametrize(("region", "price", "text"), [("DE", "9,99 €", "ab"), ("CN", "¥199", "起"), ("DE", "9,99 €", "mtl.")])
def test_from_alone_leaves_the_price_open(region: str, price: str, text: str) -> None:
    assert reason(region, (price, 200, 170, 90), (text, 200, 300, 30)) is Reason.NO_PRICE


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


def _on_its_head(upright: Line) -> Line:
    one, two, three, four = upright.corners
    return Line(text=upright.text, confidence=upright.confidence, corners=(three, four, one, two))


@pytest.mark.parametrize("width", [160, 300, 450])
def test_a_price_among_longer_lines_on_their_heads_is_read(width: float) -> None:
    heads = [_on_its_head(line("product of Sweden, as nice as it can be", 20, top, 30)) for top in (10, 400)]
    price = Line(text="198円", confidence=0.99, corners=box(100, 170, 100 + width, 250))
    answer = price_tags.read([*heads, price], size=SIZE, region="JP")
    assert isinstance(answer, PriceTag)
    assert answer.price == Money.of(198, "JPY")
    assert answer.corners == price.corners


def test_a_long_line_is_cut_after_folding_too() -> None:
    folded = "㍿" * 200  # four characters each
    assert isinstance(read("JP", (folded, 0, 100, 20)), Abstention)
    assert len(read_line(folded, habits("JP")).folded) == 200


def test_an_uncertain_digit_lowers_the_confidence() -> None:
    sure = price_tags.read([line("1,99 €", 200, 200, 80)], size=SIZE, region="DE")
    unsure = price_tags.read([line("1,99 €", 200, 200, 80, confidence=0.4)], size=SIZE, region="DE")
    assert isinstance(sure, PriceTag)
    assert isinstance(unsure, Abstention)
    assert unsure.reason is Reason.DOUBTFUL
    assert unsure.confidence < thresholds.shipped().price_tag.least_confidence <= sure.confidence


def test_two_prices_on_one_line_are_told_from_each_other() -> None:
    row = ("1,99 €     2,49 €", 60, 200, 60)
    assert reason("DE", row) is Reason.SEVERAL_TAGS
    assert tag("DE", row, near=((60, 100), (100, 100), (100, 190), (60, 190))).price == Money.of(199, "EUR")


PHOTOGRAPHS = json.loads((Path(__file__).parents[2] / "data" / "grocery" / "price_tag_lines.json").read_text(encoding="utf-8"))
"""What `ocr` reads in photographs of the Grocery Store dataset (Klasson et al. 2019, see LICENSE beside the file): Swedish
shelves, 348×348 pixels. `price`: what the tag that is nearest to the middle says, null where none can be read. `product`: left,
top, right and bottom of the product in front; `its_tag`: whether the price is its own, or that of other goods on the shelf."""


def _ids(photographs: list[Any]) -> list[str]:
    return [Path(each["photo"]).stem for each in photographs]


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=_ids(PHOTOGRAPHS))
def test_photographs_of_shelves(photograph: Any) -> None:
    text = Text.model_validate(photograph)
    answer = price_tags.read(text.lines, size=(text.width, text.height), region="SE")
    told = str(answer.price.major) if isinstance(answer, PriceTag) else None
    assert told == photograph["price"]


WITH_PRODUCT = [each for each in PHOTOGRAPHS if "product" in each]


@pytest.mark.parametrize("photograph", WITH_PRODUCT, ids=_ids(WITH_PRODUCT))
def test_a_tag_belongs_to_the_goods_above_it(photograph: Any) -> None:
    text = Text.model_validate(photograph)
    answer = price_tags.read(text.lines, size=(text.width, text.height), region="SE")
    assert isinstance(answer, PriceTag)
    assert belongs(answer.corners, box(*photograph["product"])) is photograph["its_tag"]


def box(left: float, top: float, right: float, bottom: float) -> tuple[Point, Point, Point, Point]:
    return (left, top), (right, top), (right, bottom), (left, bottom)


PRODUCT = box(100, 100, 200, 300)


@pytest.mark.parametrize(
    ("tag_box", "its"),
    [
        (box(110, 310, 190, 340), True),
        (box(40, 310, 180, 340), True),
        (box(110, 430, 190, 460), True),
        (box(120, 240, 180, 260), True),
        (box(110, 460, 190, 490), False),
        (box(110, 50, 190, 90), False),
        (box(120, 110, 180, 130), False),
        (box(210, 310, 290, 340), False),
        (box(20, 310, 100, 340), False),
        (box(210, 200, 290, 230), False),
    ],
)
def test_a_tag_is_a_products_below_it_and_not_far(tag_box: tuple[Point, ...], its: bool) -> None:
    assert belongs(tag_box, PRODUCT) is its


def test_a_tag_is_a_codes_where_both_are_on_one_label() -> None:
    code = box(100, 100, 180, 140)
    assert belongs(box(200, 90, 300, 140), code, code=True)
    assert belongs(box(100, 150, 180, 190), code, code=True)
    assert not belongs(box(300, 90, 400, 140), code, code=True)
    assert not belongs(box(100, 230, 180, 260), code, code=True)


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


_POINTS = st.tuples(st.integers(0, 640), st.integers(0, 480))
_UPRIGHT = st.builds(
    lambda left, top, width, height: box(left, top, left + width, top + height),
    st.integers(0, 300),
    st.integers(0, 440),
    st.integers(50, 340),
    st.integers(5, 40),
)
_ANYWHERE = st.builds(
    lambda text, corners, head: (_on_its_head if head else Line.model_copy)(Line(text=text, confidence=0.99, corners=corners)),
    st.sampled_from(["198円", "1,99 €", "99", "19:90", "2 för 30:-", "statt", "€", "1 kg = 3,98 €"]),
    st.one_of(_UPRIGHT, _UPRIGHT, st.tuples(_POINTS, _POINTS, _POINTS, _POINTS)),
    st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_ANYWHERE, min_size=1, max_size=6), st.sampled_from(["DE", "SE", "JP"]))
def test_lines_that_lie_in_any_direction_crash_nothing(lines: list[Line], region: str) -> None:
    price_tags.read(lines, size=SIZE, region=region, least_confidence=0)
