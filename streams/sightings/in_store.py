"""Numbers that one shop makes for one piece: an item that only this shop knows, and the piece's price or weight.

GS1 leaves the digits behind the prefix to each country (General Specifications, section 2.1.14), so that a layout is only read
where the glasses are in a country whose layout is known; anywhere else the number says which item it is, and nothing more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

from schemas.money import Money, exponent
from schemas.recognition import InStore, Measure

_ITEM = slice(2, 7)  # where nothing more is known


@dataclass(frozen=True)
class Layout:
    """Of the 13 digits, the last of which is their check digit: where the item and the value are. The value is a price with so
    many decimals in `currency`, or a weight in kilograms. `verifier` is the place of the digit that checks the value or the
    item."""

    item: slice
    value: slice
    decimals: int
    currency: str | None = None
    verifier: int | None = None


def _swedish(decimals: int, currency: str | None = None) -> Layout:
    return Layout(slice(2, 8), slice(8, 12), decimals, currency)


def _with_verifier(value: slice, decimals: int, currency: str | None) -> Layout:
    return Layout(slice(2, value.start - 1), value, decimals, currency, verifier=value.start - 1)


# Region → prefix → layout. Sources: SE: GS1 Sweden, "Hur skapar jag mina viktvarunummer?"; GB: GS1 UK, "How to barcode variable
# measure items" (20 and 28); US and CA: GS1 General Specifications, UPC-A with number system 2; DE: the in-store layout of scales
# sold there, 22 for a price and 28 for a weight, each behind a verifier.
LAYOUTS: Mapping[str, Mapping[str, Layout]] = MappingProxyType(
    {
        "SE": {
            "20": _swedish(2, "SEK"),
            "21": _swedish(1, "SEK"),
            "22": _swedish(0, "SEK"),
            "23": _swedish(3),
            "24": _swedish(2),
            "25": _swedish(1),
        },
        "GB": {prefix: _with_verifier(slice(8, 12), 2, "GBP") for prefix in ("20", "28")},
        "US": {"02": _with_verifier(slice(8, 12), 2, "USD")},
        "CA": {"02": _with_verifier(slice(8, 12), 2, "CAD")},
        "DE": {"22": _with_verifier(slice(7, 12), 2, "EUR"), "28": _with_verifier(slice(7, 12), 3, None)},
    }
)

# What a digit counts at its place (GS1 General Specifications, section 7.9): times two less the tens, times three, times five
# with or less the tens.
_TIMES = {
    "2-": (0, 2, 4, 6, 8, 9, 1, 3, 5, 7),
    "3": (0, 3, 6, 9, 2, 5, 8, 1, 4, 7),
    "5+": (0, 5, 1, 6, 2, 7, 3, 8, 4, 9),
    "5-": (0, 5, 9, 4, 8, 3, 7, 2, 6, 1),
}
_FOUR, _FIVE = ("2-", "2-", "3", "5-"), ("5+", "2-", "5-", "5+", "2-")


def verifier(value: str) -> int:
    """The digit that checks a value of four or five digits."""
    weights = {4: _FOUR, 5: _FIVE}[len(value)]
    total = sum(_TIMES[weight][int(digit)] for weight, digit in zip(weights, value, strict=True))
    return total * 3 % 10 if weights is _FOUR else _TIMES["5-"].index(-total % 10)


def read(digits: str, region: str | None) -> InStore:
    """Of 13 digits with a restricted prefix, whose check digit holds."""
    layout = LAYOUTS.get(region or "", {}).get(digits[:2])
    if layout is None:
        return InStore(item=digits[_ITEM])
    item, value = digits[layout.item], digits[layout.value]
    if int(value) == 0 or (layout.verifier is not None and int(digits[layout.verifier]) != verifier(value)):
        return InStore(item=digits[_ITEM])
    if layout.currency is None:
        return InStore(item=item, weight=Measure(value=Decimal(value).scaleb(-layout.decimals), unit="kg"))
    minor = int(value) * 10 ** (exponent(layout.currency) - layout.decimals)
    return InStore(item=item, price=Money.of(minor, layout.currency))
