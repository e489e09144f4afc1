"""Draws price tags as a camera in glasses sees them, with what they say:
`python -m infra.sandbox.pictures.price_tags FOLDER [COUNT]`.

Every tag is one of `LAYOUTS`, filled with invented goods and photographed: before a shelf, in perspective, turned, blurred,
noisy, unevenly lit, as a JPEG of 640×480 or 960×720. A seed and a number always give the same tag. The layouts that are not
`tuned` measure the reader of price tags; nothing is adjusted to what it makes of them.

The fonts are those that matplotlib's wheel brings (DejaVu, STIX), squeezed by chance. None of them has Chinese characters: the
few that prices need are drawn here, stroke by stroke.
"""

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import cv2
import matplotlib
import numpy
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from schemas.money import Money, exponent
from schemas.recognition import Condition, Measure, UnitPrice

Ink = tuple[int, int, int]
Box = tuple[int, int, int, int]

_BLACK, _WHITE, _RED = (20, 20, 20), (250, 250, 246), (190, 20, 30)
_YELLOW, _GREEN, _BLUE = (255, 214, 0), (0, 110, 60), (0, 60, 140)
_SHEET = (960, 560)

# Strokes in a square of 100 × 100.
_STROKES = {
    "元": "22,18 78,18|8,42 92,42|38,42 36,62 28,80 10,94|60,42 60,84 66,92 90,92 92,76",
    "円": "16,94 16,14 84,14 84,90 74,94|50,14 50,52|16,52 84,52",
    "价": "32,8 8,48|22,34 22,94|62,8 34,42|62,8 94,42|52,44 50,70 38,94|74,44 74,94",
    "原": "14,14 92,14|16,14 14,60 4,92|54,18 46,28|32,28 32,60 80,60 80,28 32,28|32,44 80,44|56,60 56,90 46,94|38,68 24,88"
    "|72,68 88,88",
    "会": "50,6 6,44|50,6 94,44|32,42 68,42|14,60 86,60|46,62 24,90 76,86|62,70 84,94",
    "税": "36,6 12,16|6,32 44,32|26,12 26,94|26,34 6,70|28,42 42,58|58,4 66,18|88,4 78,18|56,24 56,46 92,46 92,24 56,24"
    "|66,48 62,74 46,94|80,48 80,86 96,88 96,76",
    "込": "20,8 28,20|8,38 26,38 26,70 8,88|26,74 50,92 96,92|52,12 64,12 58,40 40,66|64,14 72,46 92,66",
    "员": "28,10 28,34 72,34 72,10 28,10|18,80 18,44 82,44 82,80|50,54 46,76 8,96|54,78 90,96",
}


@dataclass(frozen=True)
class Truth:
    """What the tag says. `price` is what one piece costs when nothing more is done."""

    price: Money
    was: Money | None = None
    unit_price: UnitPrice | None = None
    quantity: Measure | None = None
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class Tag:
    """`jpeg`: the frame. `region`: where it was taken."""

    number: int
    layout: str
    tuned: bool
    region: str
    size: tuple[int, int]
    truth: Truth
    jpeg: bytes


@dataclass(frozen=True)
class Goods:
    """What a tag is drawn for; `per` is what its unit price is for."""

    title: str
    price: Money
    quantity: Measure
    per: Measure

    @property
    def unit_price(self) -> UnitPrice:
        whole = self.price.major / self.quantity.value * self.per.value * _in_base(self.per) / _in_base(self.quantity)
        return UnitPrice(price=_rounded(whole, self.price.currency), per=self.per)


def _in_base(measure: Measure) -> Decimal:
    return Decimal(1000) if measure.unit in {"kg", "l"} else Decimal(1)


def _rounded(major: Decimal, currency: str) -> Money:
    digits = Decimal(1).scaleb(-exponent(currency))
    return Money.from_major(major.quantize(digits, ROUND_HALF_UP), currency)


@dataclass(frozen=True)
class Style:
    """How a tag's letters look. `stretch`: their width, against the font's own."""

    face: str
    bold: str
    stretch: float


_STYLES = (("DejaVuSans", "DejaVuSans-Bold"), ("DejaVuSerif", "DejaVuSerif-Bold"), ("STIXGeneral", "STIXGeneralBol"))


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


class Sheet:
    """The tag, drawn flat. `put` writes with the given height of its capitals, in pixels."""

    def __init__(self, style: Style, ground: Ink = _WHITE, size: tuple[int, int] = _SHEET) -> None:
        self.image = Image.new("RGB", size, ground)
        self.drawing = ImageDraw.Draw(self.image)
        self.style = style

    def put(
        self,
        text: str,
        at: tuple[int, int],
        height: int,
        *,
        ink: Ink = _BLACK,
        bold: bool = False,
        right: bool = False,
        room: int | None = None,
    ) -> Box:
        """`at`: where the capitals' top left is, or with `right` their top right. What is wider than `room`, or than the tag, is
        written smaller, on the same base line. The answer is the box that the text covers."""
        font = _font(self.style.bold if bold else self.style.face, round(height / 0.72))
        pieces = ["".join(group) for _, group in itertools.groupby(text, key=lambda letter: letter if letter in _STROKES else "")]
        widths = [height if piece in _STROKES else font.getlength(piece) for piece in pieces]
        mask = Image.new("L", (max(1, round(sum(widths)) + 4), round(height * 1.7)), 0)
        drawing, left, top = ImageDraw.Draw(mask), 0.0, round(height * 0.3)
        for piece, width in zip(pieces, widths, strict=True):
            if piece in _STROKES:
                for stroke in _STROKES[piece].split("|"):
                    points = [tuple(float(value) for value in point.split(",")) for point in stroke.split()]
                    scaled = [(left + x * height / 100, top + y * height / 100) for x, y in points]
                    drawing.line(scaled, fill=255, width=max(2, round(height * (0.12 if bold else 0.08))), joint="curve")
            else:
                drawing.text((left, top + height), piece, fill=255, font=font, anchor="ls")
            left += width
        room = room or (at[0] if right else self.image.width - at[0]) - 20
        smaller = min(1.0, room / (mask.width * self.style.stretch))
        size = max(1, round(mask.width * self.style.stretch * smaller)), max(1, round(mask.height * smaller))
        mask = mask.resize(size, Image.Resampling.BICUBIC)
        x, y = at[0] - mask.width if right else at[0], at[1] + round(height * (1 - smaller))
        self.image.paste(Image.new("RGB", mask.size, ink), (x, y - round(top * smaller)), mask)
        return x, y, x + mask.width, at[1] + height

    def strike(self, box: Box, ink: Ink = _BLACK) -> None:
        self.drawing.line((box[0] - 4, box[3] - 6, box[2] + 4, box[1] + 6), fill=ink, width=max(2, (box[3] - box[1]) // 14))

    def band(self, box: Box, ink: Ink) -> None:
        self.drawing.rectangle(box, fill=ink)

    def bars(self, box: Box, chance: Random) -> None:
        """Something like a barcode, so that there is one."""
        x = box[0]
        while x < box[2]:
            width = chance.choice((2, 2, 4, 6))
            self.drawing.rectangle((x, box[1], min(x + width, box[2]), box[3]), fill=_BLACK)
            x += width + chance.choice((2, 4, 4, 6))


def _digits(money: Money, decimal: str, thousands: str) -> str:
    whole, _, cents = str(money.major).partition(".")
    grouped = f"{int(whole):,}".replace(",", thousands)
    return f"{grouped}{decimal}{cents}" if cents else grouped


def comma(money: Money) -> str:
    return _digits(money, ",", ".")


def point(money: Money) -> str:
    return _digits(money, ".", ",")


def colon(money: Money) -> str:
    """Swedish: 19:90, and 20:- for a whole number."""
    text = _digits(money, ":", " ")
    return text.replace(":00", ":-")


def _split(money: Money) -> tuple[str, str]:
    whole, _, cents = str(money.major).partition(".")
    return whole, cents


def _written(measure: Measure, decimal: str = ",") -> str:
    names = {"piece": "St", "wash": "WL"}
    return f"{measure.value.normalize():f} {names.get(measure.unit, measure.unit)}".replace(".", decimal)


def _unit_only(measure: Measure) -> str:
    return measure.unit if measure.value == 1 else f"{measure.value.normalize():f}{measure.unit}"


_TITLES = {
    "DE": ("Bio Vollmilch", "Roggenbrot", "Apfelsaft naturtrüb", "Haferflocken", "Kaffee gemahlen", "Vollwaschmittel"),
    "FR": ("Lait demi-écrémé", "Confiture abricot", "Café moulu", "Jus de pomme", "Farine de blé"),
    "ES": ("Leche entera", "Aceite de oliva", "Zumo de naranja", "Café molido", "Arroz redondo"),
    "SE": ("Mellanmjölk", "Havregryn", "Bryggkaffe", "Äppeljuice", "Knäckebröd"),
    "GB": ("Semi Skimmed Milk", "Porridge Oats", "Orange Juice", "Ground Coffee", "Strawberry Jam"),
    "US": ("Whole Milk", "Rolled Oats", "Apple Juice", "Peanut Butter", "Corn Flakes"),
    "CN": ("NONGFU SPRING", "YILI MILK", "TSINGTAO", "LAOGANMA"),
    "JP": ("POCARI SWEAT", "KIKKOMAN", "MEIJI MILK", "NISSIN"),
}
_CURRENCIES = {"DE": "EUR", "FR": "EUR", "ES": "EUR", "SE": "SEK", "GB": "GBP", "US": "USD", "CN": "CNY", "JP": "JPY"}
_QUANTITIES = (
    (("500", "g"), ("1", "kg")),
    (("250", "g"), ("1", "kg")),
    (("750", "g"), ("1", "kg")),
    (("1", "l"), ("1", "l")),
    (("1.5", "l"), ("1", "l")),
    (("0.7", "l"), ("1", "l")),
    (("330", "ml"), ("1", "l")),
    (("400", "g"), ("1", "kg")),
    (("200", "ml"), ("100", "ml")),
    (("125", "g"), ("100", "g")),
)


def _measure(value: str, unit: str) -> Measure:
    return Measure.model_validate({"value": Decimal(value), "unit": unit})


def _money(chance: Random, currency: str) -> Money:
    """A price as shops make them: mostly small, often ending in 9, now and then above a thousand."""
    scale = {"SEK": 10, "CNY": 6, "JPY": 100}.get(currency, 1)
    major = Decimal(str(round(chance.lognormvariate(1.1, 0.8), 2))) * scale
    if chance.random() < 0.05:
        major *= 150
    if exponent(currency) == 0:
        return Money.of(max(38, int(major) // 10 * 10 + chance.choice((8, 8, 0, 9))), currency)
    minor = max(29, int(major * 100))
    endings = {"SEK": (0, 50, 90, 95), "CNY": (0, 50, 80, 90, 99)}.get(currency, (99, 99, 49, 79, 29, 59, 85, minor % 100))
    return Money.of(max(29, minor // 100 * 100 + chance.choice(endings)), currency)


def _goods(chance: Random, region: str) -> Goods:
    quantity, per = chance.choice(_QUANTITIES)
    price = _money(chance, _CURRENCIES[region])
    return Goods(chance.choice(_TITLES[region]), price, _measure(*quantity), _measure(*per))


def _dearer(chance: Random, money: Money) -> Money:
    """A higher price of the same look."""
    more = max(10, int(money.minor * chance.uniform(0.15, 0.6)))
    step = 100 if exponent(money.currency) else 10
    return Money.of(money.minor + max(step, more // step * step), money.currency)


def _truth(goods: Goods, **more: object) -> Truth:
    return Truth(goods.price, quantity=goods.quantity, unit_price=goods.unit_price, **more)  # type: ignore[arg-type]


def _shelf_euro(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    """Title, quantity, the price with its sign, the unit price below."""
    sheet.put(goods.title, (40, 40), 44, bold=True)
    sheet.put(_written(goods.quantity), (40, 130), 36)
    sign = chance.choice((" €", "€", " EUR"))
    sheet.put(comma(goods.price) + sign, (920, 210), 150, bold=True, right=True)
    unit = goods.unit_price
    sheet.put(f"{_written(unit.per)} = {comma(unit.price)} €", (40, 470), 38)
    return _truth(goods)


def _raised_cents_euro(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    """The cents small and raised, without a comma; the unit price in brackets."""
    whole, cents = _split(goods.price)
    sheet.put(goods.title, (40, 30), 48)
    box = sheet.put(whole, (300, 150), 230, bold=True, room=400)
    raised = sheet.put(cents, (box[2] + 8, box[1]), chance.choice((100, 115)), bold=True)
    sheet.put("€", (raised[0], 310), 70, bold=True)
    sheet.put(_written(goods.quantity), (40, 180), 38)
    sheet.put(f"({_written(goods.unit_price.per)} = {comma(goods.unit_price.price)} €)", (40, 470), 36)
    return _truth(goods)


def _offer_euro(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    """What is off on a red badge, the old price struck out, the new one large."""
    was = _dearer(chance, goods.price)
    percent = int((1 - goods.price.major / was.major) * 100)
    sheet.band((0, 0, 960, 110), _RED)
    sheet.put("AKTION", (40, 30), 54, ink=_WHITE, bold=True)
    sheet.put(f"-{percent}%", (900, 30), 56, ink=_YELLOW, bold=True, right=True)
    sheet.put(goods.title, (40, 140), 40)
    sheet.put(_written(goods.quantity), (40, 210), 36)
    before = sheet.put(f"statt {comma(was)}", (40, 330), 48, room=300)
    if chance.random() < 0.5:
        sheet.strike((before[0] + 110, *before[1:]))
    sheet.put(comma(goods.price) + chance.choice((" €", "€", "*")), (920, 250), 150, bold=True, right=True, room=540)
    sheet.put(f"{_written(goods.unit_price.per)} = {comma(goods.unit_price.price)} €", (40, 480), 36)
    return _truth(goods, was=was, conditions=(Condition(kind="percent_off", percent=percent),))


def _shelf_french(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    """The sign in place of the comma."""
    whole, cents = _split(goods.price)
    sheet.put(goods.title, (40, 40), 44, bold=True)
    sheet.put(_written(goods.quantity), (40, 120), 38)
    sheet.put(f"{whole}€{cents}", (920, 190), 170, bold=True, right=True)
    unit = goods.unit_price
    form = chance.choice(("{price} €/{per}", "Prix au {per} : {price} €", "soit {price}€ / {per}"))
    sheet.put(form.format(price=comma(unit.price), per=_unit_only(unit.per)), (40, 470), 38)
    return _truth(goods)


def _shelf_swedish(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    """19:90 with the comparison price."""
    write = chance.choice((colon, comma))
    sheet.put(goods.title, (40, 40), 46, bold=True)
    sheet.put(_written(goods.quantity), (40, 120), 38)
    sheet.put(write(goods.price), (800, 200), 160, bold=True, right=True)
    sheet.put(chance.choice(("/st", "kr/st", "kr")), (820, 310), 50)
    sheet.put(f"Jmf-pris {write(goods.unit_price.price)}/{_unit_only(goods.unit_price.per)}", (40, 470), 40)
    return _truth(goods)


def _several_swedish(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    """So many for so much, large; what one costs, small."""
    pieces = chance.choice((2, 2, 3, 4))
    total = Money.of(max(100, goods.price.minor * pieces * 4 // 500 * 100), "SEK")
    sheet.band((0, 0, 960, 560), _YELLOW)
    sheet.put(f"{pieces} för", (60, 100), 90, bold=True)
    sheet.put(colon(total), (900, 130), 190, ink=_RED, bold=True, right=True, room=520)
    sheet.put(goods.title, (60, 370), 44)
    sheet.put(f"{_written(goods.quantity)}. Ord. pris {colon(goods.price)}/st", (60, 450), 42)
    return Truth(goods.price, quantity=goods.quantity, conditions=(Condition(kind="multi_buy", pieces=pieces, total=total),))


def _shelf_british(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    """Pounds, or pence below one pound."""
    if chance.random() < 0.3:
        goods = Goods(goods.title, Money.of(chance.randrange(29, 99), "GBP"), goods.quantity, goods.per)
    sheet.put(goods.title, (40, 40), 46, bold=True)
    sheet.put(_written(goods.quantity, "."), (40, 120), 38)
    price = f"£{point(goods.price)}" if goods.price.minor >= 100 else f"{goods.price.minor}p"
    sheet.put(price, (900, 190), 170, bold=True, right=True)
    unit = goods.unit_price
    sheet.put(f"£{point(unit.price)}{chance.choice(('/', ' per '))}{_unit_only(unit.per)}", (40, 470), 40)
    return _truth(goods)


def _shelf_american(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    """The cents raised behind dollars; the unit price in cents per ounce or dollars per pound."""
    whole, cents = _split(goods.price)
    ounces = chance.choice((8, 12, 16, 24, 32))
    sheet.put(goods.title.upper(), (40, 40), 46, bold=True)
    sheet.put(f"{ounces} OZ", (40, 120), 40)
    sheet.put("$", (330, 200), 100, bold=True)
    if chance.random() < 0.6:
        box = sheet.put(whole, (420, 190), 220, bold=True, room=300)
        sheet.put(cents, (box[2] + 8, box[1]), 110, bold=True)
    else:
        sheet.put(f"{whole}.{cents}", (420, 190), 220, bold=True)
    tenths = (goods.price.major * 1000 / ounces).quantize(Decimal(1), ROUND_HALF_UP)
    sheet.put(f"UNIT PRICE {tenths / 10}¢ per oz", (40, 470), 36)
    per = Measure.model_validate({"value": Decimal("283.49523125"), "unit": "g"})
    quantity = Measure.model_validate({"value": ounces * Decimal("28.349523125"), "unit": "g"})
    return Truth(goods.price, quantity=quantity, unit_price=UnitPrice(price=Money.of(int(tenths), "USD"), per=per))


def _shelf_chinese(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    """The sign before it, or 元 behind it."""
    sheet.put(goods.title, (40, 40), 46, bold=True)
    sheet.put(_written(goods.quantity, "."), (40, 120), 40)
    if chance.random() < 0.5:
        sheet.put(f"¥{point(goods.price)}", (900, 190), 160, ink=_RED, bold=True, right=True)
    else:
        sheet.put(f"{point(goods.price)}元", (900, 190), 150, ink=_RED, bold=True, right=True)
    sheet.put(f"¥{point(goods.unit_price.price)}/{_unit_only(goods.unit_price.per)}", (40, 470), 40)
    return _truth(goods)


def _shelf_japanese(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    """Yen have no decimals, but thousands."""
    sheet.band((0, 0, 960, 120), _GREEN)
    sheet.put(goods.title, (40, 34), 50, ink=_WHITE, bold=True)
    sheet.put(_written(goods.quantity, "."), (40, 150), 40)
    text = f"¥{point(goods.price)}" if chance.random() < 0.6 else f"{point(goods.price)}円"
    sheet.put(text, (900, 230), 180, ink=_RED, bold=True, right=True)
    return Truth(goods.price, quantity=goods.quantity)


def _card_euro(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    """The large price is for who has the card; the small one for everybody."""
    with_card = Money.of(max(19, goods.price.minor * 8 // 10), "EUR")
    sheet.band((0, 0, 960, 130), _BLUE)
    sheet.put(chance.choice(("mit Karte", "nur mit Kundenkarte", "Mit Bonuskarte")), (40, 36), 56, ink=_WHITE, bold=True)
    sheet.put(f"{comma(with_card)} €", (900, 190), 150, ink=_BLUE, bold=True, right=True)
    sheet.put(f"{goods.title}, {_written(goods.quantity)}", (40, 400), 38)
    sheet.put(f"{chance.choice(('ohne Karte', 'Normalpreis', 'regulär'))} {comma(goods.price)} €", (40, 470), 46)
    return Truth(goods.price, quantity=goods.quantity, conditions=(Condition(kind="card", total=with_card),))


def _three_for_two(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    """Three for the price of two."""
    sheet.band((0, 0, 960, 170), _GREEN)
    sheet.put("3 für 2", (40, 40), 90, ink=_YELLOW, bold=True)
    sheet.put(goods.title, (40, 200), 42)
    sheet.put(f"{_written(goods.quantity)}", (40, 270), 38)
    sheet.put(f"{comma(goods.price)} €", (900, 250), 140, bold=True, right=True)
    sheet.put(f"{_written(goods.unit_price.per)} = {comma(goods.unit_price.price)} €", (40, 480), 36)
    condition = Condition(kind="multi_buy", pieces=3, total=goods.price * 2)
    return _truth(goods, conditions=(condition,))


def _offer_spanish(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    was = _dearer(chance, goods.price)
    sheet.band((0, 0, 960, 130), _YELLOW)
    sheet.put("OFERTA", (40, 34), 64, ink=_RED, bold=True)
    sheet.put(goods.title, (40, 170), 42)
    sheet.put(f"Antes {comma(was)} €", (40, 260), 44, room=300)
    sheet.put(f"{comma(goods.price)}€", (910, 250), 150, ink=_RED, bold=True, right=True, room=540)
    unit = goods.unit_price
    sheet.put(f"{_written(goods.quantity)}   {comma(unit.price)} €/{_unit_only(unit.per)}", (40, 470), 40)
    return _truth(goods, was=was)


def _discounter(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    whole, cents = _split(goods.price)
    sheet.band((0, 0, 960, 560), _YELLOW)
    box = sheet.put(f"{whole}.", (120, 130), 250, ink=_RED, bold=True, room=540)
    sheet.put(cents, (box[2], box[1]), chance.choice((130, 150)), ink=_RED, bold=True)
    sheet.put(goods.title, (40, 40), 46)
    sheet.put(f"{_written(goods.quantity)}  {_written(goods.unit_price.per)}={comma(goods.unit_price.price)}", (40, 470), 40)
    return _truth(goods)


def _promotion_french(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    pieces = chance.choice((2, 3))
    total = Money.of(max(50, goods.price.minor * pieces * 8 // 10), "EUR")
    sheet.band((0, 0, 960, 190), _RED)
    sheet.put(f"{pieces} pour {comma(total)} €", (60, 50), 90, ink=_WHITE, bold=True)
    sheet.put(goods.title, (60, 240), 44)
    sheet.put(f"{comma(goods.price)} €", (900, 300), 110, bold=True, right=True, room=560)
    sheet.put("l'unité", (60, 340), 44)
    sheet.put(f"{_written(goods.quantity)}", (60, 470), 40)
    return Truth(goods.price, quantity=goods.quantity, conditions=(Condition(kind="multi_buy", pieces=pieces, total=total),))


def _members_swedish(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    members = Money.of(max(100, goods.price.minor * 8 // 1000 * 100 + 90), "SEK")
    if members.minor >= goods.price.minor:
        members = Money.of(goods.price.minor // 2 + 50, "SEK")
    sheet.band((0, 0, 960, 120), _RED)
    sheet.put("Medlemspris", (40, 30), 60, ink=_WHITE, bold=True)
    sheet.put(f"{comma(members)} kr", (900, 180), 150, ink=_RED, bold=True, right=True)
    sheet.put(f"{goods.title} {_written(goods.quantity)}", (40, 390), 42)
    sheet.put(f"Ord pris {comma(goods.price)} kr", (40, 470), 44)
    return Truth(goods.price, quantity=goods.quantity, conditions=(Condition(kind="members", total=members),))


def _clubcard(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    club = Money.of(max(15, goods.price.minor * 3 // 4), "GBP")
    sheet.put(goods.title, (40, 40), 46, bold=True)
    sheet.put(f"£{point(goods.price)}", (40, 150), 110, bold=True, room=400)
    unit = f"£{point(goods.unit_price.price)}/{_unit_only(goods.unit_price.per)}"
    sheet.put(f"{_written(goods.quantity, '.')}   {unit}", (40, 320), 38, room=420)
    sheet.band((480, 110, 960, 560), _YELLOW)
    sheet.put("Clubcard Price", (510, 150), 46, ink=_BLUE, bold=True)
    sheet.put(f"£{point(club)}", (510, 260), 110, ink=_BLUE, bold=True)
    return _truth(goods, conditions=(Condition(kind="card", total=club),))


def _reduced_british(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    was = _dearer(chance, goods.price)
    sheet.band((0, 0, 960, 560), _YELLOW)
    sheet.put("REDUCED", (60, 50), 90, bold=True)
    sheet.put(f"WAS £{point(was)}", (60, 230), 56)
    sheet.put(f"NOW £{point(goods.price)}", (60, 350), 100, bold=True)
    return Truth(goods.price, was=was)


def _sale_american(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    pieces = chance.choice((2, 3, 5))
    total = Money.of(max(100, goods.price.minor * pieces * 8 // 1000 * 100), "USD")
    sheet.band((0, 0, 960, 140), _RED)
    sheet.put("SALE", (40, 36), 70, ink=_WHITE, bold=True)
    sheet.put(f"{pieces}/${total.minor // 100}", (900, 190), 190, ink=_RED, bold=True, right=True)
    sheet.put(goods.title.upper(), (40, 400), 42)
    sheet.put(f"${point(goods.price)} ea.", (40, 470), 54, bold=True)
    return Truth(goods.price, conditions=(Condition(kind="multi_buy", pieces=pieces, total=total),))


def _electronic_chinese(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    was = _dearer(chance, goods.price)
    sheet.drawing.rectangle((6, 6, 953, 553), outline=_BLACK, width=6)
    sheet.put(goods.title, (40, 50), 44)
    sheet.put(f"¥ {goods.price.major.normalize():f}", (60, 180), 180, ink=_RED, bold=True)
    sheet.put(f"原价 ¥{was.major.normalize():f}", (60, 440), 54)
    sheet.put(_written(goods.quantity, "."), (900, 450), 44, right=True)
    return Truth(goods.price, was=was, quantity=goods.quantity)


def _electronic_japanese(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    sheet.drawing.rectangle((6, 6, 953, 553), outline=_BLACK, width=6)
    sheet.put(goods.title, (40, 50), 48)
    sheet.put(_written(goods.quantity, "."), (40, 140), 44)
    sheet.put(f"{point(goods.price)}", (780, 230), 220, bold=True, right=True)
    sheet.put("円", (800, 350), 100)
    sheet.bars((40, 500, 400, 540), chance)
    return Truth(goods.price, quantity=goods.quantity)


def _with_neighbours(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    """Three tags on one rail; the one in the middle is meant."""
    sheet.band((0, 0, 960, 560), (120, 120, 120))
    for index, left in enumerate((10, 335, 660)):
        each = goods if index == 1 else _goods(chance, "DE")
        sheet.band((left, 120, left + 290, 430), _WHITE)
        sheet.put(each.title, (left + 16, 140), 26, room=260)
        sheet.put(f"{comma(each.price)} €", (left + 276, 220), 62, bold=True, right=True, room=260)
        unit = f"{_written(each.per)}={comma(each.unit_price.price)}€"
        sheet.put(f"{_written(each.quantity)}  {unit}", (left + 16, 380), 22, room=260)
    return _truth(goods)


def _electronic_german(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    """The comma large, the cents behind it small and raised."""
    whole, cents = _split(goods.price)
    sheet.drawing.rectangle((6, 6, 953, 553), outline=_BLACK, width=6)
    sheet.put(goods.title, (40, 40), 42)
    sheet.put(_written(goods.quantity), (40, 110), 36)
    box = sheet.put(f"{whole},", (380, 170), 200, bold=True, room=330)
    sheet.put(cents, (box[2], box[1]), 110, bold=True)
    sheet.put(f"{_written(goods.unit_price.per)} = {comma(goods.unit_price.price)} €", (40, 470), 36)
    sheet.bars((560, 480, 900, 530), chance)
    return _truth(goods)


def _app_german(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    """Both prices in sentences; the one for the app is the larger print."""
    with_app = Money.of(max(19, goods.price.minor * 3 // 4), "EUR")
    sheet.put(goods.title, (40, 40), 46, bold=True)
    sheet.put(_written(goods.quantity), (40, 120), 38)
    sheet.band((0, 180, 960, 340), _RED)
    sheet.put(f"mit App {comma(with_app)} €", (40, 210), 90, ink=_WHITE, bold=True)
    sheet.put(f"ohne App {comma(goods.price)} €", (40, 400), 66, bold=True)
    return Truth(goods.price, quantity=goods.quantity, conditions=(Condition(kind="card", total=with_app),))


def _instead_french(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    """The old price below the new one."""
    was = _dearer(chance, goods.price)
    sheet.band((0, 0, 960, 120), _YELLOW)
    sheet.put("PROMO", (40, 34), 60, ink=_RED, bold=True)
    sheet.put(f"{comma(goods.price)} €", (60, 160), 150, ink=_RED, bold=True)
    sheet.put(f"au lieu de {comma(was)} €", (60, 360), 46)
    sheet.put(f"{goods.title} {_written(goods.quantity)}", (60, 460), 38)
    return Truth(goods.price, was=was, quantity=goods.quantity)


def _reduced_swedish(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    """A lower price for everybody; the usual one in small print."""
    was = _dearer(chance, goods.price)
    sheet.band((0, 0, 960, 560), _YELLOW)
    sheet.put("Extrapris", (60, 50), 80, ink=_RED, bold=True)
    sheet.put(colon(goods.price), (900, 170), 180, ink=_RED, bold=True, right=True)
    sheet.put(f"{goods.title} {_written(goods.quantity)}", (60, 390), 40)
    sheet.put(f"Ord. pris {colon(was)}. Jmf {colon(goods.unit_price.price)}/{_unit_only(goods.unit_price.per)}", (60, 470), 40)
    return _truth(goods, was=was)


def _any_british(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    """Any two for less, and what one costs."""
    pieces = chance.choice((2, 2, 3))
    total = Money.of(max(50, goods.price.minor * pieces * 5 // 600 * 100 or goods.price.minor * pieces - 5), "GBP")
    sheet.band((0, 0, 960, 220), _RED)
    sheet.put(f"Any {pieces} for £{point(total)}", (50, 70), 96, ink=_WHITE, bold=True)
    sheet.put(goods.title, (50, 260), 44)
    sheet.put(f"£{point(goods.price)} each", (50, 350), 80, bold=True)
    sheet.put(f"{_written(goods.quantity, '.')}", (50, 490), 36)
    return Truth(goods.price, quantity=goods.quantity, conditions=(Condition(kind="multi_buy", pieces=pieces, total=total),))


def _dark_american(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    """Light on dark, with what is saved."""
    was = _dearer(chance, goods.price)
    sheet.band((0, 0, 960, 560), (25, 28, 32))
    sheet.put(goods.title, (50, 40), 48, ink=_WHITE)
    sheet.put(f"${point(goods.price)}", (50, 150), 190, ink=_YELLOW, bold=True)
    sheet.put(f"Reg. ${point(was)}", (50, 400), 48, ink=_WHITE)
    sheet.put(f"SAVE ${point(was - goods.price)}", (50, 480), 48, ink=_WHITE)
    return Truth(goods.price, was=was)


def _members_chinese(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    """Two prices with a word each."""
    members = Money.of(max(20, goods.price.minor * 8 // 10), "CNY")
    sheet.put(goods.title, (40, 40), 46, bold=True)
    sheet.put("会员价", (40, 150), 60, ink=_RED, bold=True)
    sheet.put(f"¥{point(members)}", (300, 140), 120, ink=_RED, bold=True)
    sheet.put("原价", (40, 350), 60)
    sheet.put(f"¥{point(goods.price)}", (300, 350), 80)
    sheet.put(_written(goods.quantity, "."), (40, 480), 40)
    return Truth(goods.price, quantity=goods.quantity, conditions=(Condition(kind="members", total=members),))


def _taxed_japanese(sheet: Sheet, goods: Goods, chance: Random) -> Truth:
    """The large price is without tax; the one that is paid is smaller, in brackets."""
    paid = Money.of(goods.price.minor * 108 // 100, "JPY")
    sheet.put(goods.title, (40, 40), 50, bold=True)
    sheet.put(_written(goods.quantity, "."), (40, 130), 40)
    sheet.put(f"¥{point(goods.price)}", (900, 190), 170, ink=_RED, bold=True, right=True)
    sheet.put(f"(税込 ¥{point(paid)})", (900, 430), 70, right=True)
    return Truth(paid, quantity=goods.quantity)


@dataclass(frozen=True)
class Layout:
    name: str
    region: str
    tuned: bool
    draw: Callable[[Sheet, Goods, Random], Truth]


LAYOUTS = (
    Layout("shelf, euro", "DE", True, _shelf_euro),
    Layout("raised cents, euro", "DE", True, _raised_cents_euro),
    Layout("offer, euro", "DE", True, _offer_euro),
    Layout("shelf, French", "FR", True, _shelf_french),
    Layout("shelf, Swedish", "SE", True, _shelf_swedish),
    Layout("several, Swedish", "SE", True, _several_swedish),
    Layout("shelf, British", "GB", True, _shelf_british),
    Layout("shelf, American", "US", True, _shelf_american),
    Layout("shelf, Chinese", "CN", True, _shelf_chinese),
    Layout("shelf, Japanese", "JP", True, _shelf_japanese),
    Layout("card, euro", "DE", True, _card_euro),
    Layout("three for two, euro", "DE", True, _three_for_two),
    Layout("offer, Spanish", "ES", True, _offer_spanish),
    Layout("discounter, euro", "DE", True, _discounter),
    Layout("promotion, French", "FR", True, _promotion_french),
    Layout("members, Swedish", "SE", True, _members_swedish),
    Layout("club card, British", "GB", True, _clubcard),
    Layout("reduced, British", "GB", True, _reduced_british),
    Layout("sale, American", "US", True, _sale_american),
    Layout("electronic, Chinese", "CN", True, _electronic_chinese),
    Layout("electronic, Japanese", "JP", True, _electronic_japanese),
    Layout("with neighbours, euro", "DE", True, _with_neighbours),
    Layout("electronic, German", "DE", False, _electronic_german),
    Layout("app, German", "DE", False, _app_german),
    Layout("instead, French", "FR", False, _instead_french),
    Layout("reduced, Swedish", "SE", False, _reduced_swedish),
    Layout("any two, British", "GB", False, _any_british),
    Layout("dark, American", "US", False, _dark_american),
    Layout("members, Chinese", "CN", False, _members_chinese),
    Layout("taxed, Japanese", "JP", False, _taxed_japanese),
)


def _shelf(chance: Random, width: int, height: int) -> NDArray[numpy.uint8]:
    """What is behind the tag: packets above and below a rail."""
    image = Image.new("RGB", (width, height), (90, 86, 80))
    drawing = ImageDraw.Draw(image)
    left = 0
    while left < width:
        wide = chance.randrange(width // 10, width // 5)
        colour = tuple(chance.randrange(40, 230) for _ in range(3))
        drawing.rectangle((left, 0, left + wide - 4, height), fill=colour)
        stripe = chance.randrange(0, height)
        drawing.rectangle((left, stripe, left + wide - 4, stripe + height // 12), fill=tuple(255 - part for part in colour))
        left += wide
    middle = height // 2
    drawing.rectangle((0, middle - height // 5, width, middle + height // 5), fill=(190, 190, 188))
    return numpy.asarray(image)


def photograph(tag: Image.Image, chance: Random) -> tuple[bytes, tuple[int, int]]:
    """A frame with the tag near its middle: JPEG, and its size."""
    width, height = chance.choice(((640, 480), (960, 720)))
    frame = cv2.GaussianBlur(_shelf(chance, width, height), (0, 0), 2.0)
    wide = width * chance.uniform(0.35, 0.85)
    high = wide * tag.height / tag.width
    turned = numpy.deg2rad(chance.gauss(0, 5))
    corners = numpy.array([(-wide, -high), (wide, -high), (wide, high), (-wide, high)]) / 2
    rotation = numpy.array([[numpy.cos(turned), -numpy.sin(turned)], [numpy.sin(turned), numpy.cos(turned)]])
    jitter = numpy.array([[chance.uniform(-0.07, 0.07) * wide, chance.uniform(-0.07, 0.07) * wide] for _ in range(4)])
    centre = numpy.array([width * chance.uniform(0.46, 0.54), height * chance.uniform(0.46, 0.54)])
    to = (corners @ rotation.T + jitter + centre).astype(numpy.float32)
    flat = numpy.asarray(tag)
    # Made smaller first: a warp alone takes single pixels of the large drawing, which no lens does.
    shrunk = cv2.resize(flat, (round(wide), round(high)), interpolation=cv2.INTER_AREA)
    source = numpy.array([(0, 0), (shrunk.shape[1], 0), shrunk.shape[1::-1], (0, shrunk.shape[0])], numpy.float32)
    matrix = cv2.getPerspectiveTransform(source, to)
    placed = cv2.warpPerspective(shrunk, matrix, (width, height), flags=cv2.INTER_LINEAR)
    mask = cv2.warpPerspective(numpy.full(shrunk.shape[:2], 255, numpy.uint8), matrix, (width, height), flags=cv2.INTER_LINEAR)
    alpha = mask[..., None].astype(numpy.float32) / 255
    mixed = frame.astype(numpy.float32) * (1 - alpha) + placed.astype(numpy.float32) * alpha
    return _exposed(mixed, chance), (width, height)


def _exposed(picture: NDArray[Any], chance: Random) -> bytes:
    """Light, lens, sensor and encoder. `picture`: RGB float32, 0 to 255."""
    height, width = picture.shape[:2]
    across, down = numpy.meshgrid(numpy.linspace(-1, 1, width), numpy.linspace(-1, 1, height))
    direction = chance.uniform(0, 2 * numpy.pi)
    slope = chance.uniform(0, 0.3)
    light = 1 + slope * (across * numpy.cos(direction) + down * numpy.sin(direction))
    light = light * (chance.uniform(0.25, 0.45) if chance.random() < 0.15 else chance.uniform(0.7, 1.05))
    picture = picture * light[..., None]
    if chance.random() < 0.15:
        x, y, size = chance.uniform(-0.7, 0.7), chance.uniform(-0.7, 0.7), chance.uniform(0.1, 0.25)
        picture = picture + (150 * numpy.exp(-((across - x) ** 2 + (down - y) ** 2) / (2 * size**2)))[..., None]
    picture = cv2.GaussianBlur(picture, (0, 0), chance.uniform(0.3, 1.3) * width / 800)
    if chance.random() < 0.3:
        length = chance.randrange(3, 6)
        kernel = numpy.zeros((length, length), numpy.float32)
        ends = chance.choice((((0, length // 2), (length - 1, length // 2)), ((0, 0), (length - 1, length - 1))))
        cv2.line(kernel, *ends, 1.0)
        picture = cv2.filter2D(picture, -1, kernel / kernel.sum())
    grain = numpy.random.default_rng(chance.randrange(2**32)).normal(0, chance.uniform(1.5, 9), picture.shape)
    finished = numpy.clip(picture + grain, 0, 255).astype(numpy.uint8)
    _, encoded = cv2.imencode(".jpg", finished[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, chance.randrange(60, 93)])
    return encoded.tobytes()


def tag(number: int, seed: str = "tags", layouts: tuple[Layout, ...] = LAYOUTS) -> Tag:
    """The tag of this number; layouts take turns."""
    layout = layouts[number % len(layouts)]
    chance = Random(f"{seed} {number} {layout.name}")  # noqa: S311 (a picture, no secret)
    face, bold = chance.choice(_STYLES)
    sheet = Sheet(Style(face, bold, chance.uniform(0.75, 1.0)))
    truth = layout.draw(sheet, _goods(chance, layout.region), chance)
    jpeg, size = photograph(sheet.image, chance)
    return Tag(number, layout.name, layout.tuned, layout.region, size, truth, jpeg)


def tags(count: int, seed: str = "tags", layouts: tuple[Layout, ...] = LAYOUTS) -> Iterator[Tag]:
    return (tag(number, seed, layouts) for number in range(count))


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for each in tags(int(sys.argv[2]) if len(sys.argv) > 2 else len(LAYOUTS)):
        (folder / f"{each.number:04d}.jpg").write_bytes(each.jpeg)
        print(f"{each.number:04d}.jpg", each.layout, each.region, each.truth)


if __name__ == "__main__":
    main()
