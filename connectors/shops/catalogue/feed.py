"""Google's product feed, as merchants have it already: XML (RSS 2.0 or Atom, with the namespace g:) or tab-separated text.

The XML parser is the standard library's; a document type is refused before anything is made of it, so that no entity is ever
declared or opened. Attributes that say nothing here (shipping, tax, descriptions) are not read.
"""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from xml.parsers import expat

from connectors.shops.catalogue import fields
from connectors.shops.catalogue.fields import MOST_PICTURES, BrokenFile, CatalogueRow, Sale, Unusable
from connectors.shops.catalogue.table import Report
from schemas.money import Money

if TYPE_CHECKING:
    from _csv import Reader

_IMAGES = "additional_image_link"
_ATTRIBUTES = frozenset(
    {
        "id",
        "title",
        "price",
        "sale_price",
        "sale_price_effective_date",
        "gtin",
        "brand",
        "link",
        "image_link",
        _IMAGES,
        "availability",
        "item_group_id",
    }
)
_REQUIRED = ("id", "title")
_AVAILABLE = {"": True, "in_stock": True, "out_of_stock": False, "preorder": False, "backorder": False}
_MONEY = re.compile(
    r"(?:(?P<before>[A-Za-z]+)\s*)?(?P<amount>[0-9]+(?:\.[0-9]+|,(?P<comma>[0-9]+))?)(?:\s*(?P<after>[A-Za-z]+))?"
)
_DEPTH = 32
_TEXT = 20_000  # characters of one attribute; the longest that is used has 2000

Attributes = dict[str, list[str]]


def rows_of_xml(data: bytes, language: str | None, report: Report) -> Iterator[CatalogueRow]:
    """`language` is that of the titles; without it the feed has to say so. Raises BrokenFile."""
    reader = _Reader(data)
    spoken = language or _tag(reader.language)
    if spoken is None and reader.items:
        raise BrokenFile(1, "begins a feed that does not say in which language its titles are: name it (--language de)")
    yield from _rows(reader.items, spoken or "", report)


def rows_of_text(text: str, language: str | None, report: Report) -> Iterator[CatalogueRow]:
    """Raises BrokenFile."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t")
    try:
        names = [_name(value) for value in next(reader, [])]
        if missing := [name for name in _REQUIRED if name not in names]:
            raise BrokenFile(1, f"must be the header; missing: {', '.join(missing)}")
        if language is None:
            raise BrokenFile(1, "begins a feed that does not say in which language its titles are: name it (--language de)")
        yield from _rows(_records(reader, names, report), language, report)
    except csv.Error as error:
        raise BrokenFile(reader.line_num, f"is not tab-separated text, and nothing after it was read: {error}") from None


def _records(reader: "Reader", names: list[str], report: Report) -> Iterator[tuple[int, Attributes]]:
    line = reader.line_num + 1
    for values in reader:
        if len(values) > len(names):
            report(line, Unusable("", f"has {len(values)} fields instead of {len(names)}"))
        elif values:
            found: Attributes = {}
            for name, value in zip(names, values, strict=False):
                parts = value.split(",") if name == _IMAGES else [value]
                if filled := [part.strip() for part in parts if part.strip()]:
                    found.setdefault(name, []).extend(filled)
            yield line, found
        line = reader.line_num + 1


def _name(text: str) -> str:
    """`g:image_link`, `image link` and `Image Link` are one attribute."""
    return text.strip().lower().removeprefix("g:").replace(" ", "_")


def _tag(text: str) -> str | None:
    """A language as feeds write it (de-de, EN) the way this platform does."""
    language, _, region = text.strip().replace("_", "-").partition("-")
    if not language.isalpha() or len(language) != 2:
        return None
    return language.lower() + (f"-{region.upper() if len(region) == 2 else region.title()}" if region.isalpha() else "")


@dataclass
class _Reader:
    """All items with the lines they begin in, their known attributes only. `language` is empty where the feed names none."""

    data: bytes
    language: str = ""
    items: list[tuple[int, Attributes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._path: list[str] = []
        self._item_depth = 0  # of the item that is being read; 0 outside of any
        self._text: list[str] | None = None
        self._parser = parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._take
        try:
            parser.Parse(self.data, True)
        except expat.ExpatError as error:
            raise BrokenFile(error.lineno, f"is not XML: {expat.ErrorString(error.code)}") from None
        except (ValueError, LookupError):
            raise BrokenFile(1, "names an encoding that is not known: save the feed as UTF-8") from None
        if self._root not in {"rss", "feed"}:
            raise BrokenFile(1, "must begin a feed: RSS 2.0 (rss) or Atom (feed)")

    _root = ""

    def _refuse(self, *_: object) -> None:
        raise BrokenFile(self._parser.CurrentLineNumber, "declares a document type or an entity, which a feed does not need")

    def _begin(self, qualified: str, attributes: dict[str, str]) -> None:
        name = _name(qualified.rpartition(" ")[2])
        self._path.append(name)
        self._root = self._root or name
        if len(self._path) > _DEPTH:
            raise BrokenFile(self._parser.CurrentLineNumber, f"is nested more than {_DEPTH} deep")
        if len(self._path) == 1:
            self.language = attributes.get("http://www.w3.org/XML/1998/namespace lang", "")
        if not self._item_depth and name in {"item", "entry"}:
            self._item_depth = len(self._path)
            self.items.append((self._parser.CurrentLineNumber, {}))
        elif self._item_depth and len(self._path) == self._item_depth + 1 and name in _ATTRIBUTES:
            self._text = []
            # Atom has the address of a page in an attribute; other relations lead to other things.
            if name == "link" and attributes.get("rel", "alternate") == "alternate" and "href" in attributes:
                self._keep(name, attributes["href"])
        elif name == "language" and not self._item_depth and not self.language:
            self._text = []

    def _take(self, text: str) -> None:
        depth = self._item_depth + 1 if self._item_depth else len(self._path)
        if self._text is not None and len(self._path) == depth:
            self._text.append(text[:_TEXT])
            if len(self._text) > _TEXT:
                raise BrokenFile(self._parser.CurrentLineNumber, "is in pieces too many")

    def _end(self, _: str) -> None:
        name = self._path.pop()
        depth = len(self._path) + 1
        if self._item_depth and depth == self._item_depth:
            self._item_depth = 0
        elif self._text is not None and depth == (self._item_depth + 1 if self._item_depth else depth):
            text, self._text = "".join(self._text).strip()[:_TEXT], None
            if self._item_depth:
                self._keep(name, text)
            elif name == "language":
                self.language = text

    def _keep(self, name: str, text: str) -> None:
        if text:
            self.items[-1][1].setdefault(name, []).append(text)


def _rows(
    items: "Iterator[tuple[int, Attributes]] | list[tuple[int, Attributes]]", language: str, report: Report
) -> Iterator[CatalogueRow]:
    for line, attributes in items:
        try:
            yield _row(line, attributes, language)
        except Unusable as unusable:
            report(line, unusable)


def _row(line: int, attributes: Attributes, language: str) -> CatalogueRow:
    def first(name: str) -> str:
        return attributes.get(name, [""])[0]

    for name in _REQUIRED:
        if not first(name):
            raise Unusable(name, "is missing")
    product = fields.product(
        product_id=first("id"), gtin=first("gtin"), title=first("title"), language=language, brand=first("brand"), id_field="id"
    )
    availability = first("availability").lower().replace(" ", "_")
    if availability not in _AVAILABLE:
        raise Unusable("availability", "must be in_stock, out_of_stock, preorder or backorder")
    price = _money(first("price"), "price") if first("price") else None
    group = first("item_group_id")
    if len(group) > 100 or not (group.isprintable()):
        raise Unusable("item_group_id", "must have at most 100 printable characters")
    pictures = [fields.picture(text, field="image_link") for text in attributes.get("image_link", [])[:1]]
    pictures += [fields.picture(text, field=_IMAGES) for text in attributes.get(_IMAGES, [])]
    return CatalogueRow(
        line,
        product,
        price,
        fields.url(first("link"), field="link"),
        tuple(dict.fromkeys(pictures))[:MOST_PICTURES],
        _sale(first("sale_price"), first("sale_price_effective_date"), price),
        _AVAILABLE[availability],
        group or None,
    )


def _money(text: str, name: str) -> Money:
    """`12.99 EUR`, as Google has it; also with the currency in front, and with a decimal comma where it can be nothing else."""
    found = _MONEY.fullmatch(text)
    if found is None or (found["before"] is None) == (found["after"] is None):
        raise Unusable(name, "must be a number and a currency such as 12.99 EUR, without thousands separators")
    if found["comma"] and len(found["comma"]) == 3:
        raise Unusable(name, "has a comma that may stand for thousands or for decimals: write it as 1299.00 EUR or 12.99 EUR")
    amount = found["amount"].replace(",", ".")
    return fields.price(amount, found["before"] or found["after"], field=name, currency_field=name)


def _sale(text: str, dates: str, price: Money | None) -> Sale | None:
    if not text:
        return None
    sale = _money(text, "sale_price")
    if price is None or sale.currency != price.currency:
        raise Unusable("sale_price", "must be in the currency of price")
    if price < sale:
        raise Unusable("sale_price", "must not be above price")
    if sale == price:
        return None
    begins, ends = _period(dates) if dates else (None, None)
    return Sale(sale, begins, ends)


def _period(text: str) -> tuple[datetime, datetime]:
    try:
        begins, ends = (_moment(part) for part in text.split("/"))
        if begins < ends:
            return begins, ends
    except ValueError:
        pass
    raise Unusable("sale_price_effective_date", "must be two moments such as 2026-11-23T08:00+01:00/2026-11-28T20:00+01:00")


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text.strip())
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
