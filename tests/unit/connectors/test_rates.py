"""The European Central Bank's rates."""

import subprocess
import sys
import time
from datetime import date
from decimal import Decimal

import pytest

from connectors.rates.ecb import EcbRates


def test_from_euro_as_published() -> None:
    found = EcbRates().rate("EUR", "USD")
    assert found is not None
    assert (found.source, found.target) == ("EUR", "USD")
    assert isinstance(found.rate, Decimal)
    assert Decimal("0.5") < found.rate < Decimal(2)
    assert len(str(found.rate)) <= 8
    assert found.published_on > date(2024, 1, 1)


@pytest.mark.parametrize(("source", "target"), [("SEK", "JPY"), ("CNY", "USD"), ("USD", "EUR")])
def test_there_and_back(source: str, target: str) -> None:
    there, back = EcbRates().rate(source, target), EcbRates().rate(target, source)
    assert there is not None and back is not None
    assert abs(there.rate * back.rate - 1) < Decimal("1e-12")
    assert there.published_on == back.published_on


@pytest.mark.parametrize("currency", ["EUR", "JPY"])
def test_a_currency_is_worth_itself(currency: str) -> None:
    found = EcbRates().rate(currency, currency)
    assert found is not None and found.rate == 1


@pytest.mark.parametrize(
    ("source", "target"), [("EUR", "KWD"), ("XXX", "EUR"), ("RUB", "EUR"), ("XXX", "XXX"), ("eur", "usd"), ("", "")]
)
def test_no_rate_where_none_is_published(source: str, target: str) -> None:
    assert EcbRates().rate(source, target) is None


def test_looking_up_is_quick() -> None:
    rates = EcbRates()
    rates.rate("EUR", "USD")
    began = time.perf_counter()
    for _ in range(1000):
        rates.rate("SEK", "JPY")
    assert time.perf_counter() - began < 5


def test_nothing_is_read_before_the_first_use() -> None:
    program = "import sys; from connectors.rates.ecb import EcbRates; EcbRates(); assert 'currency_converter' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
