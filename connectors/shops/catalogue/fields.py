"""What every form of a product list has in common: products as they will be offered, and fields that cannot be used."""

import re
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from pydantic import ValidationError
from stdnum import ean
from stdnum.exceptions import InvalidChecksum, InvalidFormat, InvalidLength

from schemas.commerce import Product
from schemas.money import Money

MOST_PICTURES = 5
"""Of one product. More views help little, and every one is compared with every frame."""

_PRICE = re.compile(r"[0-9]{1,11}(\.[0-9]{1,4})?")
_URL_LENGTH = 2000
_WORDS = {"language": "must be a language tag such as de or zh-Hans", "product_id": "must have 1 to 100 printable characters"}


@dataclass(frozen=True)
class Sale:
    """A lower price for a time; an end that is None is open."""

    price: Money
    begins: datetime | None = None
    ends: datetime | None = None


@dataclass(frozen=True)
class CatalogueRow:
    """One product as it will be offered: not at all where `price` is None or it is not `available`. `line` is where it begins in
    the file, counted from 1. `pictures` are paths beside the file or addresses, the main one first; None where the file does not
    speak of pictures, so that those known before stay."""

    line: int
    product: Product
    price: Money | None
    url: str | None
    pictures: tuple[str, ...] | None = None
    sale: Sale | None = None
    available: bool = True
    item_group: str | None = None

    @property
    def product_id(self) -> str:
        assert self.product.product_id is not None
        return self.product.product_id


class Unusable(Exception):
    """One field that cannot be used, and why; never with its value."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason


class BrokenFile(Exception):
    """Nothing after this line can be read."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


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


def product(*, product_id: str, gtin: str, title: str, language: str, brand: str, id_field: str = "product_id") -> Product:
    """Its own name is its GTIN where the merchant gives it no other. Raises Unusable."""
    if not product_id and not gtin:
        raise Unusable(id_field, "is missing, and there is no gtin either")
    try:
        number = normalise_gtin(gtin) if gtin else None
    except ValueError as error:
        raise Unusable("gtin", str(error)) from None
    try:
        made = Product(gtin=number, product_id=product_id or number, title=title, language=language, brand=brand or None)
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_url=False)[0]
        field = str(wrong["loc"][0])
        raise Unusable(id_field if field == "product_id" else field, _WORDS.get(field, str(wrong["msg"]).lower())) from None
    if "\x00" in made.title or "\x00" in (made.brand or ""):
        raise Unusable("title", "contains a NUL character")
    return made


def price(text: str, currency: str, *, field: str = "price", currency_field: str = "currency") -> Money:
    """From major units with a decimal point. Raises Unusable."""
    if not _PRICE.fullmatch(text):
        raise Unusable(field, "must be a number such as 1.49, without a currency sign or thousands separators")
    try:
        nothing = Money(minor=0, currency=currency)
    except ValidationError:
        raise Unusable(currency_field, "must be an ISO 4217 code such as EUR") from None
    try:
        amount = Money.from_major(text, currency)
    except ValueError:
        raise Unusable(field, "has more decimal digits than the currency has") from None
    if not nothing < amount:
        raise Unusable(field, "must be above zero")
    return amount


def url(text: str, *, field: str = "url") -> str | None:
    if not text:
        return None
    try:
        parts = urlsplit(text)
    except ValueError:
        raise Unusable(field, "is not a URL") from None
    if (
        parts.scheme not in {"http", "https"}
        or not parts.hostname
        or len(text) > _URL_LENGTH
        or not text.isprintable()
        or " " in text
    ):
        raise Unusable(field, f"must begin with https:// or http:// and have at most {_URL_LENGTH} characters")
    return text


def is_address(picture: str) -> bool:
    """Whether the picture is fetched; otherwise it is a file beside the list."""
    return picture.lower().startswith(("https://", "http://"))


def picture(text: str, *, field: str = "picture") -> str:
    """An address, or the path of a file beside the list, which never leads elsewhere. Raises Unusable."""
    if is_address(text):
        return url(text, field=field) or ""
    if not text.isprintable() or len(text) > _URL_LENGTH or "://" in text:
        raise Unusable(field, "must be a file beside the list, or begin with https://")
    if text.startswith(("/", "\\", "~")) or ".." in re.split(r"[/\\]", text):
        raise Unusable(field, "must be a file beside the list or in a folder there")
    return text
