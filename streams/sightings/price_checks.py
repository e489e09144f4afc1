"""What a tag says twice has to agree: unit price × quantity = price. And how a written amount becomes money."""

from dataclasses import dataclass, replace
from decimal import Decimal

from schemas.money import Money, exponent
from schemas.recognition import Measure, UnitPrice
from streams.sightings.price_places import Found, Placed
from streams.sightings.price_texts import Amount, Part

DOLLARS = frozenset({"USD", "CAD", "AUD", "NZD", "SGD", "HKD", "TWD", "MXN"})
_ONE_DECIMAL = frozenset({"CNY", "HKD", "TWD"})  # 9.9 is a usual way to write 9.90
_SURE = 0.8  # of a unit price that was misread no conflict is made


def money_of(amount: Amount, currency: str) -> Money | None:
    """None where it is not written as an amount of the currency is: 2,4 € has lost a digit."""
    digits = exponent(currency)
    if amount.decimals > digits or (amount.decimals == 1 and currency not in _ONE_DECIMAL):
        return None
    try:
        money = Money.from_major(amount.value, currency)
    except ValueError:
        return None
    return money if money.minor > 0 else None


@dataclass(frozen=True)
class Check:
    """`holds`: unit price × quantity is the price."""

    holds: bool
    unit_price: UnitPrice | None = None
    quantity: Measure | None = None


_IN_BASE = {"kg": ("g", 1000), "g": ("g", 1), "l": ("ml", 1000), "ml": ("ml", 1)}


def checked(
    main: Found, price: Money, others: list[Money], found: list[Found], lines: list[Placed], currency: str
) -> Check | None:
    """None where unit price, quantity and price contradict each other, although they were well read."""
    goods = [measure for line in lines for measure in line.content.goods]
    if_litres = [measure for line in lines for measure in line.content.goods_if_litres]
    units = [each for each in found if each.amount.part is Part.UNIT and each.amount.per]
    quantity = goods[0] if goods else None
    contradicted = None
    for each in units:
        unit_price = _unit_price(each.amount, currency)
        for measure in (*goods, *if_litres):
            for whole in (price, *others):
                for stated in _stated(each.amount, currency):
                    if _agree(stated, each.amount.per, measure, whole):
                        fitting = _unit_price(replace(each.amount, value=stated), currency)
                        clear = exponent(currency) == 0 or main.amount.decimals > 0 or len(_stated(each.amount, currency)) == 1
                        return Check(whole is price and clear, fitting, measure)
        if any(_base(measure)[0] == _base(each.amount.per)[0] for measure in goods if each.amount.per):
            contradicted = each
        elif unit_price:
            return Check(False, unit_price, quantity)
    if contradicted and contradicted.confidence > _SURE:
        return None
    return Check(False, None, quantity)


def _stated(amount: Amount, currency: str) -> list[Decimal]:
    """What a unit price may be: `¢` is easily misread, and what is left of it looks like a hundred times as much."""
    return [amount.value, amount.value / 100] if currency in DOLLARS and amount.sign != "$" else [amount.value]


def _base(measure: Measure | None) -> tuple[str, Decimal]:
    if measure is None:
        return "", Decimal(1)
    unit, factor = _IN_BASE.get(measure.unit, (measure.unit, 1))
    return unit, measure.value * factor


def _agree(stated: Decimal, per: Measure | None, quantity: Measure, price: Money) -> bool:
    (unit, size), (other, amount) = _base(per), _base(quantity)
    if unit != other:
        return False
    exact = price.major * size / amount
    # Shops round the unit price, and some cut it off.
    return abs(exact - stated) <= max(Decimal(1).scaleb(-exponent(price.currency)), exact * Decimal("0.006"))


def _unit_price(amount: Amount, currency: str) -> UnitPrice | None:
    """In whole minor units: 20.8 ¢ for 1 oz is 208 ¢ for 10 oz."""
    if amount.per is None:
        return None
    for factor in (1, 10, 100):
        minor = amount.value.scaleb(exponent(currency)) * factor
        if minor == minor.to_integral_value() and minor > 0:
            per = amount.per.model_copy(update={"value": amount.per.value * factor})
            return UnitPrice(price=Money.of(int(minor), currency), per=per)
    return None
