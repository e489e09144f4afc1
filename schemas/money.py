"""Money: integer minor units and an ISO 4217 currency. Floats are refused everywhere."""

from decimal import Context, Decimal, Inexact
from functools import cache
from typing import Annotated, Self

from babel.core import get_global
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt

# ISO 4217 minor units that are not 2 (list one, 2024-06-25). Providers have exceptions of their own: those live beside
# each connector's mapping, never here.
_NO_DIGITS = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE_DIGITS = "BHD IQD JOD KWD LYD OMR TND"
_FOUR_DIGITS = "CLF UYW"
_EXPONENTS = {
    code: digits for digits, codes in ((0, _NO_DIGITS), (3, _THREE_DIGITS), (4, _FOUR_DIGITS)) for code in codes.split()
}


@cache
def _known_currencies() -> frozenset[str]:
    return frozenset(get_global("all_currencies"))


def _check_currency(code: str) -> str:
    if code not in _known_currencies():
        raise ValueError(f"{code!r} is not an ISO 4217 currency code")
    return code


Currency = Annotated[str, Field(pattern="^[A-Z]{3}$", strict=True), AfterValidator(_check_currency)]


def exponent(currency: str) -> int:
    """How many decimal digits the currency has by ISO 4217: JPY 0, EUR 2, KWD 3."""
    return _EXPONENTS.get(currency, 2)


class Money(BaseModel):
    """An amount in minor units (cents, fen, yen). Hashable; arithmetic only within one currency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    minor: StrictInt = Field(ge=-(2**53) + 1, le=2**53 - 1)
    currency: Currency

    @classmethod
    def of(cls, minor: int, currency: str) -> Self:
        return cls(minor=minor, currency=currency)

    @classmethod
    def from_major(cls, amount: Decimal | str | int, currency: str) -> Self:
        """From major units, exactly: `from_major("6.50", "EUR")` is 650 cents. More digits than the currency has, a
        float or a non-number is a ValueError: nothing is rounded silently."""
        if isinstance(amount, bool | float):
            raise ValueError("an amount must not be a float: give a string, a Decimal or an integer")
        try:
            # The usual context keeps 28 digits and silently drops what lies beyond; this one refuses to.
            scaled = Decimal(amount).scaleb(exponent(currency), Context(traps=[Inexact]))
            minor = int(scaled)
        except (ArithmeticError, ValueError) as error:
            raise ValueError(f"{amount!r} is not an amount") from error
        if minor != scaled:
            raise ValueError(f"{amount} has more decimal digits than {currency} has")
        return cls(minor=minor, currency=currency)

    @property
    def major(self) -> Decimal:
        """The amount in major units, exactly."""
        return Decimal(self.minor).scaleb(-exponent(self.currency))

    def __add__(self, other: "Money") -> "Money":
        return Money(minor=self.minor + self._same_currency(other).minor, currency=self.currency)

    def __sub__(self, other: "Money") -> "Money":
        return Money(minor=self.minor - self._same_currency(other).minor, currency=self.currency)

    def __mul__(self, quantity: int) -> "Money":
        if not isinstance(quantity, int) or isinstance(quantity, bool):
            raise TypeError("money is multiplied by whole numbers only")
        return Money(minor=self.minor * quantity, currency=self.currency)

    def __lt__(self, other: "Money") -> bool:
        return self.minor < self._same_currency(other).minor

    def __le__(self, other: "Money") -> bool:
        return self.minor <= self._same_currency(other).minor

    def __str__(self) -> str:
        return f"{self.major} {self.currency}"

    def _same_currency(self, other: "Money") -> "Money":
        if self.currency != other.currency:
            raise ValueError(f"{self.currency} and {other.currency} cannot be combined without an exchange rate")
        return other


def _check_positive(money: Money) -> Money:
    if money.minor <= 0:
        raise ValueError("the amount must be above zero")
    return money


PositiveMoney = Annotated[Money, AfterValidator(_check_positive)]


def _check_amount(money: Money) -> Money:
    if money.minor < 0:
        raise ValueError("the amount must not be below zero")
    return money


Amount = Annotated[Money, AfterValidator(_check_amount)]
