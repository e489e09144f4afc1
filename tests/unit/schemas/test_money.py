"""Money: exact, in one currency, and never a float."""

from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas.money import Money, PositiveMoney, exponent

LARGEST = 2**53 - 1
CURRENCIES = ("EUR", "SEK", "USD", "CNY", "JPY", "KRW", "KWD", "CLF")

currencies = st.sampled_from(CURRENCIES)
amounts = st.integers(-LARGEST, LARGEST)
small = st.integers(-(2**40), 2**40)
monies = st.builds(Money.of, amounts, currencies)


@given(monies)
def test_major_units_and_back_is_the_same(money: Money) -> None:
    assert Money.from_major(money.major, money.currency) == money
    assert Money.from_major(str(money.major), money.currency) == money


@given(monies)
def test_json_and_back_is_the_same_and_holds_no_fraction(money: Money) -> None:
    text = money.model_dump_json()
    assert Money.model_validate_json(text) == money
    assert text == f'{{"minor":{money.minor},"currency":"{money.currency}"}}'


@given(small, small, small, currencies)
def test_sums_are_those_of_integers(a: int, b: int, c: int, currency: str) -> None:
    first, second, third = (Money.of(minor, currency) for minor in (a, b, c))
    assert first + second == second + first
    assert (first + second) + third == first + (second + third)
    assert first + second - second == first
    assert (first + second).minor == a + b


@given(small, st.integers(0, 99), currencies)
def test_a_multiple_is_the_sum_of_its_parts(minor: int, quantity: int, currency: str) -> None:
    assert Money.of(minor, currency) * quantity == sum((Money.of(minor, currency),) * quantity, Money.of(0, currency))


@given(amounts, amounts, currencies)
def test_order_is_that_of_the_amounts(a: int, b: int, currency: str) -> None:
    assert (Money.of(a, currency) < Money.of(b, currency)) == (a < b)
    assert (Money.of(a, currency) <= Money.of(b, currency)) == (a <= b)


@given(monies, monies)
def test_currencies_do_not_mix(one: Money, other: Money) -> None:
    assume(one.currency != other.currency)
    for combine in (Money.__add__, Money.__sub__, Money.__lt__, Money.__le__):
        with pytest.raises(ValueError, match="exchange rate"):
            combine(one, other)
    assert one != other


@given(st.floats(), currencies)
def test_floats_are_refused_everywhere(number: float, currency: str) -> None:
    with pytest.raises(ValueError, match="float"):
        Money.from_major(number, currency)  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        Money.of(number, currency)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Money.of(1, currency) * number  # type: ignore[operator]


@given(currencies, st.integers(1, 40), st.integers(1, 9), st.integers(-1000, 1000))
def test_more_digits_than_the_currency_has_are_refused_however_far_behind(
    currency: str, beyond: int, digit: int, minor: int
) -> None:
    """Also where the fraction is so small that decimal arithmetic would drop it without a word."""
    whole = Money.of(minor, currency).major
    fraction = Decimal(digit).scaleb(-exponent(currency) - beyond)
    text = f"{whole:f}{'' if exponent(currency) else '.'}{'0' * (beyond - 1)}{digit}"
    assert fraction
    with pytest.raises(ValueError, match=r"digits|not an amount"):
        Money.from_major(text, currency)


@pytest.mark.parametrize("amount", ["", "abc", "1,50", "NaN", "Infinity", "-Infinity", "1e400", "sNaN", True, False, "0x10"])
def test_what_is_no_amount_is_refused(amount: object) -> None:
    with pytest.raises(ValueError, match=r"amount|less than|greater than"):
        Money.from_major(amount, "EUR")  # type: ignore[arg-type]


@pytest.mark.parametrize("minor", [LARGEST + 1, -LARGEST - 1, True, "650", 6.5, None])
def test_what_json_cannot_hold_exactly_is_refused(minor: object) -> None:
    with pytest.raises(ValidationError):
        Money.of(minor, "EUR")  # type: ignore[arg-type]


@pytest.mark.parametrize("code", ["eur", "EURO", "", "XXQ", "E R", "€"])
def test_what_is_no_currency_is_refused(code: str) -> None:
    with pytest.raises(ValidationError):
        Money.of(1, code)


@pytest.mark.parametrize(("currency", "digits"), [("JPY", 0), ("KRW", 0), ("EUR", 2), ("CNY", 2), ("KWD", 3), ("CLF", 4)])
def test_digits_are_those_of_the_currency(currency: str, digits: int) -> None:
    assert exponent(currency) == digits
    assert Money.from_major(1, currency).minor == 10**digits


@given(amounts)
def test_what_must_be_above_zero_is(minor: int) -> None:
    positive = TypeAdapter(PositiveMoney)
    if minor > 0:
        assert positive.validate_python(Money.of(minor, "EUR")).minor == minor
    else:
        with pytest.raises(ValidationError, match="above zero"):
            positive.validate_python(Money.of(minor, "EUR"))


@given(monies)
def test_equal_amounts_are_one_key(money: Money) -> None:
    assert {money: 1}[Money.of(money.minor, money.currency)] == 1
