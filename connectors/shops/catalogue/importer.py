"""A merchant's product list: from CSV to the table, all of it or nothing.

The file is UTF-8 (with or without a byte order mark), its fields separated by `,` or `;`, its first line the header:

    gtin,title,language,brand,price,currency,url
    4006381333931,Organic whole milk 1 l,en,Hofgut,1.49,EUR,https://shop.example/milk

in any order; `brand` and `url` may be missing or empty. `price` is in major units with a decimal point; where `;` separates
the fields, as spreadsheets do in countries that write 1,49, a decimal comma is understood too.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from pydantic import ValidationError
from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection
from stdnum import ean
from stdnum.exceptions import InvalidChecksum, InvalidFormat, InvalidLength

from schemas.commerce import Product
from schemas.errors import FieldError, Rejected
from schemas.ids import MerchantId
from schemas.money import Money
from schemas.tables import catalogue_products

MAX_BYTES = 20_000_000
REQUIRED = ("gtin", "title", "language", "price", "currency")
OPTIONAL = ("brand", "url")

_ROWS_PER_STATEMENT = 1000
_PRICE = re.compile(r"[0-9]{1,11}(\.[0-9]{1,4})?")


@dataclass(frozen=True)
class CatalogueRow:
    """One product as it will be offered. `line` is where it begins in the file, counted from 1."""

    line: int
    product: Product
    price: Money
    url: str | None


class _Unusable(Exception):
    """One field that cannot be used, and why; never with its value."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason


def parse_catalogue(data: bytes) -> list[CatalogueRow]:
    """The rows of the file. Raises Rejected("request-invalid") with one entry for every line that cannot be used: its pointer
    is `/lines/<number>/<field>`. Raises Rejected("too-large") above 20 MB."""
    if len(data) > MAX_BYTES:
        raise Rejected("too-large", f"The file has {len(data)} bytes; at most {MAX_BYTES} are taken at a time.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _rejected([(line, "", "is not UTF-8: save the file as “CSV UTF-8”")]) from None
    rows: list[CatalogueRow] = []
    problems: list[tuple[int, str, str]] = []
    lines: dict[str, int] = {}
    try:
        delimiter, names, records = _read(text)
        for line, values in records:
            try:
                row = _row(line, names, values, delimiter)
                if (first := lines.setdefault(row.product.gtin, line)) != line:
                    raise _Unusable("gtin", f"is the same product as in line {first}")
                rows.append(row)
            except _Unusable as unusable:
                problems.append((line, unusable.field, unusable.reason))
    except _BrokenFile as broken:
        problems.append((broken.line, "", str(broken)))
    if not rows and not problems:
        problems.append((1, "", "is the only line: there are no products in this file"))
    if problems:
        raise _rejected(problems)
    return rows


async def import_catalogue(
    connection: AsyncConnection, merchant_id: MerchantId, rows: Sequence[CatalogueRow], observed_at: datetime
) -> int:
    """Adds the products or replaces what is known of them, and returns how many there were. Products that the list does not
    name stay. The caller's transaction makes it all or nothing; doing it again changes nothing but `observed_at`."""
    # In one order everywhere, so that two imports at once wait for each other instead of locking each other out.
    ordered = sorted(rows, key=lambda row: row.product.gtin)
    for start in range(0, len(ordered), _ROWS_PER_STATEMENT):
        statement = insert(catalogue_products).values(
            [
                {
                    "merchant_id": merchant_id,
                    "gtin": row.product.gtin,
                    "title": row.product.title,
                    "language": row.product.language,
                    "brand": row.product.brand,
                    "price_minor": row.price.minor,
                    "price_currency": row.price.currency,
                    "url": row.url,
                    "observed_at": observed_at,
                }
                for row in ordered[start : start + _ROWS_PER_STATEMENT]
            ]
        )
        new = statement.excluded
        await connection.execute(
            statement.on_conflict_do_update(
                index_elements=["gtin", "merchant_id"],
                set_={
                    "title": new.title,
                    "language": new.language,
                    "brand": new.brand,
                    "price_minor": new.price_minor,
                    "price_currency": new.price_currency,
                    "url": new.url,
                    # Of two imports at once the later observation stays the later one.
                    "observed_at": func.greatest(new.observed_at, catalogue_products.c.observed_at),
                },
            )
        )
    return len(ordered)


def normalise_gtin(text: str) -> str:
    """GTIN-8, -12, -13 or -14 as 14 digits. Raises ValueError with the reason."""
    try:
        return str(ean.validate(text)).zfill(14)
    except InvalidLength:
        raise ValueError("must have 8, 12, 13 or 14 digits") from None
    except InvalidChecksum:
        raise ValueError("has a wrong check digit") from None
    except InvalidFormat:
        raise ValueError("must consist of digits") from None


class _BrokenFile(Exception):
    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


def _read(text: str) -> tuple[str, list[str], Iterator[tuple[int, list[str]]]]:
    """Delimiter, column names, and the records with the line each begins in."""
    header = text.partition("\n")[0]
    delimiter = ";" if header.count(";") > header.count(",") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip().lower() for name in next(reader, [])]
    except csv.Error as error:
        raise _BrokenFile(1, f"is not CSV: {error}") from None
    if missing := [name for name in REQUIRED if name not in names]:
        raise _BrokenFile(1, f"must be the header; missing: {', '.join(missing)}")
    if len(set(names)) < len(names) or set(names) - {*REQUIRED, *OPTIONAL}:
        raise _BrokenFile(1, f"must name each of these columns once, and no other: {', '.join((*REQUIRED, *OPTIONAL))}")

    def records() -> Iterator[tuple[int, list[str]]]:
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader, None)
            except csv.Error as error:
                raise _BrokenFile(line, f"is not CSV, and nothing after it was read: {error}") from None
            if values is None:
                return
            if values:
                yield line, values

    return delimiter, names, records()


def _row(line: int, names: list[str], values: list[str], delimiter: str) -> CatalogueRow:
    if len(values) != len(names):
        raise _Unusable("", f"has {len(values)} fields instead of {len(names)}")
    fields = {name: value.strip() for name, value in zip(names, values, strict=True)}
    try:
        gtin = normalise_gtin(fields["gtin"])
    except ValueError as error:
        raise _Unusable("gtin", str(error)) from None
    try:
        product = Product(gtin=gtin, title=fields["title"], language=fields["language"], brand=fields.get("brand") or None)
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_url=False)[0]
        reason = "must be a language tag such as de or zh-Hans" if wrong["loc"][0] == "language" else str(wrong["msg"]).lower()
        raise _Unusable(str(wrong["loc"][0]), reason) from None
    if "\x00" in product.title or "\x00" in (product.brand or ""):
        raise _Unusable("title", "contains a NUL character")
    return CatalogueRow(line, product, _price(fields["price"], fields["currency"], delimiter), _url(fields.get("url", "")))


def _price(text: str, currency: str, delimiter: str) -> Money:
    if delimiter == ";":
        text = text.replace(",", ".")
    if not _PRICE.fullmatch(text):
        raise _Unusable("price", "must be a number such as 1.49, without a currency sign or thousands separators")
    try:
        nothing = Money(minor=0, currency=currency)
    except ValidationError:
        raise _Unusable("currency", "must be an ISO 4217 code such as EUR") from None
    try:
        price = Money.from_major(text, currency)
    except ValueError:
        raise _Unusable("price", "has more decimal digits than the currency has") from None
    if not nothing < price:
        raise _Unusable("price", "must be above zero")
    return price


def _url(text: str) -> str | None:
    if not text:
        return None
    try:
        parts = urlsplit(text)
    except ValueError:
        raise _Unusable("url", "is not a URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or len(text) > 2000 or not text.isprintable() or " " in text:
        raise _Unusable("url", "must begin with https:// or http:// and have at most 2000 characters")
    return text


def _rejected(problems: Sequence[tuple[int, str, str]]) -> Rejected:
    return Rejected(
        "request-invalid",
        f"Nothing was imported: {len(problems)} line{'' if len(problems) == 1 else 's'} of the file cannot be used.",
        errors=tuple(
            FieldError(pointer=f"/lines/{line}" + (f"/{field}" if field else ""), detail=reason)
            for line, field, reason in problems
        ),
    )
