"""Manifests: which picture shows what. For evaluation and calibration."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from connectors.shops.catalogue import table
from connectors.shops.catalogue.fields import BrokenFile, normalise_gtin
from schemas.errors import Misconfigured
from streams.evaluation.picture_files import SUFFIXES

_MAX_BYTES = 100_000_000
_SHOWN_PROBLEMS = 10


@dataclass(frozen=True)
class Labelled:
    """`product` is the merchant's own name for what the picture shows; None where it shows nothing of the catalogue."""

    file: Path
    product: str | None


def read_manifest(path: Path, products: Mapping[str, str | None]) -> list[Labelled]:
    """`file,product` and whatever columns else, separated as in a merchant's product list or by tabs; files are beside the
    manifest. `products` are the catalogue's, with their GTINs; either names a product. Raises Misconfigured with the lines that
    cannot be used."""
    if path.suffix.lower() in SUFFIXES:
        raise Misconfigured(f"{path} is a picture. What pictures show is said by a CSV file with the columns file and product.")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise Misconfigured(f"{path} is larger than {_MAX_BYTES // 10**6} MB.")
        text = table.text_of(path.read_bytes())
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=table.delimiter_of(text), strict=True)
        rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or ()]
        if not {"file", "product"} <= set(rows.fieldnames):
            raise Misconfigured(f"{path} needs the columns file and product in its first line.")
        own = {gtin: product for product, gtin in products.items() if gtin}
        labelled, problems = [], []
        for row in rows:
            file, product = (row["file"] or "").strip(), (row["product"] or "").strip()
            known = product if product in products else own.get(_gtin(product))
            if not file:
                problems.append(f"line {rows.line_num}: names no file")
            elif product and known is None:
                problems.append(f"line {rows.line_num}: {product!r} is no product of this catalogue")
            else:
                labelled.append(Labelled(path.parent / file, known))
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}.") from error
    except BrokenFile as broken:
        raise Misconfigured(f"Line {broken.line} of {path} {broken}.") from broken
    except csv.Error as error:
        raise Misconfigured(f"Line {rows.reader.line_num} of {path} is not CSV: {error}.") from error
    if problems:
        more = f"\n  and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
        raise Misconfigured(f"{path} does not fit the catalogue:\n  " + "\n  ".join(problems[:_SHOWN_PROBLEMS]) + more)
    if not labelled:
        raise Misconfigured(f"{path} names no pictures.")
    return labelled


def _gtin(text: str) -> str:
    """Normalised, where it is one."""
    try:
        return normalise_gtin(text)
    except ValueError:
        return ""


def by_product(labelled: Sequence[Labelled]) -> dict[str, list[Labelled]]:
    """Those that show a product."""
    found: dict[str, list[Labelled]] = {}
    for each in labelled:
        if each.product is not None:
            found.setdefault(each.product, []).append(each)
    return found
