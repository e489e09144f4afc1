"""A merchant's product list, in whichever form: the platform's own CSV (table.py), or Google's product feed as XML or as
tab-separated text (feed.py). What it is shows in its beginning, and so does UTF-16, as spreadsheets write it."""

from collections.abc import Iterator
from dataclasses import dataclass

from connectors.shops.catalogue import feed, table
from connectors.shops.catalogue.fields import BrokenFile, CatalogueRow, Sale, Unusable, normalise_gtin
from schemas.errors import FieldError, Rejected

__all__ = [
    "MAX_BYTES",
    "MAX_FEED_BYTES",
    "CatalogueFile",
    "CatalogueRow",
    "Sale",
    "normalise_gtin",
    "parse_catalogue",
    "read_catalogue",
]

MAX_BYTES = 20_000_000
MAX_FEED_BYTES = 200_000_000
"""XML has ten bytes of markup for one of content."""
_BEGINNING = 1000


@dataclass(frozen=True)
class CatalogueFile:
    """The rows that can be used, and what is wrong with the others: pointers are `/lines/<number>/<field>`. `whole` is False
    where the file could not be read to its end."""

    rows: tuple[CatalogueRow, ...]
    problems: tuple[FieldError, ...]
    whole: bool = True


def read_catalogue(data: bytes, *, language: str | None = None) -> CatalogueFile:
    """`language` is that of titles whose language the file does not tell. Raises Rejected("too-large") above MAX_BYTES, or
    MAX_FEED_BYTES for XML."""
    is_xml = data[:_BEGINNING].decode(table.encoding_of(data), "ignore").lstrip()[:1] == "<"
    most = MAX_FEED_BYTES if is_xml else MAX_BYTES
    if len(data) > most:
        raise Rejected("too-large", f"The file has {len(data)} bytes; at most {most} are taken at a time.")
    problems: list[FieldError] = []
    rows: list[CatalogueRow] = []
    lines: dict[tuple[str, str], int] = {}

    def report(line: int, unusable: Unusable) -> None:
        field = f"/{unusable.field}" if unusable.field else ""
        problems.append(FieldError(pointer=f"/lines/{line}{field}", detail=unusable.reason))

    whole = True
    try:
        for row in _rows(data, is_xml, language, report):
            names = {"gtin": row.product.gtin, "product_id": row.product_id}
            same = [(field, lines[field, name]) for field, name in names.items() if name and (field, name) in lines]
            if same:
                report(row.line, Unusable(same[0][0], f"is the same product as in line {same[0][1]}"))
                continue
            lines |= {(field, name): row.line for field, name in names.items() if name}
            rows.append(row)
    except BrokenFile as broken:
        report(broken.line, Unusable("", str(broken)))
        whole = False
    if not rows and not problems:
        report(1, Unusable("", "is the only line: there are no products in this file"))
        whole = False
    return CatalogueFile(tuple(rows), tuple(problems), whole)


def parse_catalogue(data: bytes, *, language: str | None = None) -> list[CatalogueRow]:
    """All rows of the file. Raises Rejected("request-invalid") with one entry for every line that cannot be used."""
    file = read_catalogue(data, language=language)
    if file.problems:
        raise refusal(file)
    return list(file.rows)


def refusal(file: CatalogueFile) -> Rejected:
    count = len({problem.pointer.split("/")[2] for problem in file.problems})
    plural = "" if count == 1 else "s"
    return Rejected(
        "request-invalid",
        f"Nothing was imported: {count} line{plural} of the file cannot be used.",
        errors=file.problems,
    )


def _rows(data: bytes, is_xml: bool, language: str | None, report: table.Report) -> Iterator[CatalogueRow]:
    if is_xml:
        yield from feed.rows_of_xml(data, language, report)
        return
    text = table.text_of(data)
    is_feed = "\t" in text.partition("\n")[0]
    yield from (feed.rows_of_text if is_feed else table.rows)(text, language, report)
