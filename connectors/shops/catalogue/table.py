"""The platform's own product list: CSV.

UTF-8 (with or without a byte order mark; with one also UTF-16), fields separated by `,` or `;`, the first line the header:

    gtin,title,language,brand,price,currency,url
    4006381333931,Organic whole milk 1 l,en,Hofgut,1.49,EUR,https://shop.example/milk

in any order. A product is named by `product_id`, by `gtin`, or by both. `brand`, `url`, `picture`, and `price` with `currency`
may be missing or empty. `price` is in major units with a decimal point; where `;` separates the fields, as spreadsheets do in
countries that write 1,49, a decimal comma is understood too. Several pictures are separated by `|`.
"""

import codecs
import csv
import io
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from connectors.shops.catalogue import fields
from connectors.shops.catalogue.fields import MOST_PICTURES, BrokenFile, CatalogueRow, Unusable

if TYPE_CHECKING:
    from _csv import Reader

COLUMNS = ("product_id", "gtin", "title", "language", "brand", "price", "currency", "url", "picture")

Report = Callable[[int, Unusable], None]


def encoding_of(data: bytes) -> str:
    """By its byte order mark."""
    return "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def text_of(data: bytes) -> str:
    """Raises BrokenFile."""
    encoding = encoding_of(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        wrong = "is not UTF-16, as which the file begins" if encoding == "utf-16" else "is not UTF-8"
        raise BrokenFile(line, f"{wrong}: save the file as UTF-8 (in a spreadsheet “CSV UTF-8”)") from None


def delimiter_of(text: str) -> str:
    """The one that the header has most of: a comma, a semicolon or a tab."""
    return max(",;\t", key=text.partition("\n")[0].count)


def rows(text: str, language: str | None, report: Report) -> Iterator[CatalogueRow]:
    """What cannot be used is reported with its line. Raises BrokenFile."""
    delimiter = delimiter_of(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    for line, values in _records(reader):
        if names is None:
            names = _header([value.strip().lower() for value in values], language)
            continue
        try:
            yield _row(line, names, values, delimiter, language)
        except Unusable as unusable:
            report(line, unusable)
    if names is None:
        _header([], language)


def _records(reader: "Reader") -> Iterator[tuple[int, list[str]]]:
    """Each with the line it begins in. The header is the first line, even where it is empty."""
    first = True
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise BrokenFile(line, f"is not CSV, and nothing after it was read: {error}") from None
        if values is None:
            return
        if values or first:
            yield line, values
        first = False


def _header(names: list[str], language: str | None) -> list[str]:
    needed = [("gtin", "product_id"), ("title",), *([] if language else [("language",)])]
    missing = [" or ".join(either) for either in needed if not set(either) & set(names)]
    if ("price" in names) != ("currency" in names):
        missing.append("currency" if "price" in names else "price")
    if missing:
        raise BrokenFile(1, f"must be the header; missing: {', '.join(missing)}")
    if len(set(names)) < len(names) or set(names) - set(COLUMNS):
        raise BrokenFile(1, f"must name each of these columns once, and no other: {', '.join(COLUMNS)}")
    return names


def _row(line: int, names: list[str], values: list[str], delimiter: str, language: str | None) -> CatalogueRow:
    if len(values) != len(names):
        raise Unusable("", f"has {len(values)} fields instead of {len(names)}")
    given = {name: value.strip() for name, value in zip(names, values, strict=True)}
    product = fields.product(
        product_id=given.get("product_id", ""),
        gtin=given.get("gtin", ""),
        title=given["title"],
        language=given.get("language") or language or "",
        brand=given.get("brand", ""),
    )
    price = given.get("price", "")
    if delimiter == ";":
        price = price.replace(",", ".")
    return CatalogueRow(
        line,
        product,
        fields.price(price, given["currency"]) if price else None,
        fields.url(given.get("url", "")),
        _pictures(given["picture"]) if "picture" in given else None,
    )


def _pictures(text: str) -> tuple[str, ...]:
    found = [fields.picture(part.strip()) for part in text.split("|") if part.strip()]
    if len(found) > MOST_PICTURES:
        raise Unusable("picture", f"names {len(found)} pictures; at most {MOST_PICTURES} of one product are used")
    return tuple(dict.fromkeys(found))
