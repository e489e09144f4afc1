"""What codes mean: products, publications, what one shop made for one piece, whom to pay, addresses. Plain functions.

The text of a code stays here unless it is a product's: it may be anybody's secret (a payment code, a ticket, a contact).
"""

import re
from functools import cache
from urllib.parse import urlsplit

import idna
from babel.numbers import get_territory_currencies
from pydantic import BaseModel, ConfigDict
from stdnum import ean, isbn, issn
from stdnum.exceptions import ValidationError

from schemas.money import Money
from schemas.recognition import Code, Intent, PayeeCode, Point
from streams.sightings import gs1, in_store, payee_codes
from streams.sightings.payee_codes import PayersCode


class Read(BaseModel):
    """One entry of the answer of the model `codes`; see infra/triton/model_repository/codes/config.pbtxt."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    text: str
    format: str
    corners: tuple[Point, Point, Point, Point]
    valid: bool
    symbology_identifier: str | None = None
    add_on: str | None = None


# Symbologies whose whole text may be a GTIN, as zxing-cpp names what it has read. DataBar and GS1-128 hold element strings.
_LENGTHS = {
    "EAN13": {13},
    "EAN8": {8},
    "UPCA": {12, 13},
    "UPCE": {8, 12, 13},
    "ITF": {14},
}
_MATRICES = frozenset({"QRCode", "MicroQRCode", "RMQRCode", "DataMatrix", "Aztec"})
_PAYEE_FORMATS = frozenset({"QRCode"})
# AIM identifiers of symbols that begin with FNC1: what they hold are GS1 element strings, by the symbol's own word.
_ELEMENTS = frozenset({"]C1", "]e0", "]d2", "]d5", "]Q3", "]Q4", "]J1"})

# GS1 prefixes that are no product's outside one shop, or no product's at all: numbers of one shop (02, 04, 20 to 29), coupons and
# refunds (05, 980 to 984, 99), and the price that stands below a Japanese book's ISBN (191 and 192, which are given to nobody).
_RESTRICTED = re.compile("02|04|2[0-9]")
_NO_PRODUCT = re.compile("05|98[0-4]|99|19[12]")
_RESTRICTED_8 = re.compile("[02]")
_ADD_ON = re.compile("[0-9]{2}|[0-9]{5}")

_LINK_AT_MOST = 2048
_HIDDEN = re.compile(r"[\s\x00-\x1f\x7f-\xa0\xad\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff0-\uffff\\]")
_HOST = re.compile(r"(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")


def meaning(read: Read, intent: Intent, region: str | None = None) -> Code:
    """`region` is where the glasses are, ISO 3166: what a shop's own numbers mean depends on it."""
    seen = Code(text="", format=read.format, corners=read.corners, symbology=_symbology(read))
    # First of all, whatever the symbology: who has this text has somebody's money.
    if payee_codes.is_payers_code(read.text):
        return PayersCode(**seen.model_dump())
    digits = _checked(read.text, read.format)
    if digits is not None:
        return _numbered(seen, read, digits, region)
    if (said := _gs1(read, region)) is not None:
        return _said(seen, said)
    if read.format in _PAYEE_FORMATS and (payee := _payee(read.text)) is not None:
        return seen.model_copy(update={"payee": payee})
    if intent is Intent.READ and read.format in _MATRICES and (link := shown_link(read.text)) is not None:
        return seen.model_copy(update={"link": link})
    return seen


def expand_upc_e(text: str) -> str | None:
    """The 12 digits of UPC-A for the 8 of UPC-E (number system, six digits, check digit); None where there are none."""
    if not re.fullmatch("[01][0-9]{7}", text):
        return None
    system, six, check = text[0], text[1:7], text[7]
    match six[5]:
        case "0" | "1" | "2":
            number = six[:2] + six[5] + "0000" + six[2:5]
        case "3":
            number = six[:3] + "00000" + six[3:5]
        case "4":
            number = six[:4] + "00000" + six[4]
        case last:
            number = six[:5] + "0000" + last
    return system + number + check


def shown_link(text: str) -> str | None:
    """An address as it may be shown: http or https, its host as the network sees it (IDNA), no user in it, nothing invisible."""
    if len(text) > _LINK_AT_MOST or _HIDDEN.search(text):
        return None
    try:
        address = urlsplit(text)
        port = address.port
        host = idna.encode((address.hostname or "").lower(), uts46=True).decode()
    except ValueError:  # of which idna.IDNAError is one
        return None
    if address.scheme.lower() not in {"http", "https"} or "@" in address.netloc or not _HOST.fullmatch(host):
        return None
    where = f"{host}:{port}" if port else host
    shown = address._replace(scheme=address.scheme.lower(), netloc=where).geturl()
    return shown if len(shown) <= _LINK_AT_MOST else None


def _symbology(read: Read) -> str | None:
    identifier = read.symbology_identifier
    return identifier if identifier and len(identifier) <= 3 and identifier.isprintable() else None


def _checked(text: str, symbology: str) -> str | None:
    """14 digits whose check digit holds, where the whole text of such a symbol is a number of that kind."""
    if len(text) not in _LENGTHS.get(symbology, ()) or not (text.isascii() and text.isdigit()):
        return None
    if symbology == "UPCE" and len(text) == 8:
        text = expand_upc_e(text) or ""
    try:
        ean.validate(text)
    except ValidationError:
        return None
    return text.zfill(14)


def _is_product(digits: str) -> bool:
    """`digits` are 14. Not the numbers that only one shop understands (GS1 General Specifications, section 1.4). A packing level
    in the first one changes nothing of whose number it is."""
    if digits.startswith("000000"):
        return not _RESTRICTED_8.match(digits[6:])
    number = digits[1:]
    return not (_RESTRICTED.match(number) or _NO_PRODUCT.match(number))


def _numbered(seen: Code, read: Read, digits: str, region: str | None) -> Code:
    if _is_product(digits):
        told = seen.model_copy(update={"text": read.text, "gtin": digits, "publication": _publication(digits[1:])})
        return _with_add_on(told, read.add_on)
    number = digits[1:]
    if digits[0] == "0" and re.match("02|2[0-9]", number):
        return seen.model_copy(update={"in_store": in_store.read(number, region)})
    return seen


def _publication(number: str) -> str | None:
    if number.startswith("977"):
        eight = number[3:10] + issn.calc_check_digit(number[3:10])
        return f"ISSN {eight}" if issn.is_valid(eight) else None
    if number.startswith(("978", "979")) and isbn.is_valid(number) and not number.startswith("9790"):
        return f"ISBN {number}"
    return None


def _with_add_on(code: Code, add_on: str | None) -> Code:
    """Two digits count a periodical's issues. Five tell a book's price, whose currency is the first: 5 is that of the United
    States, to 99.98 dollars; of the others some mean different things to different publishers, and 9 means no price."""
    if add_on is None or not _ADD_ON.fullmatch(add_on):
        return code
    said: dict[str, object] = {"add_on": add_on}
    kind = (code.publication or "").partition(" ")[0]
    if kind == "ISSN" and len(add_on) == 2:
        said["issue"] = int(add_on)
    elif kind == "ISBN" and add_on.startswith("5") and 0 < int(add_on[1:]) < 9999:
        said["printed_price"] = Money.of(int(add_on[1:]), "USD")
    return code.model_copy(update=said)


def _gs1(read: Read, region: str | None) -> gs1.Said | None:
    currency = _currency_of(region)
    try:
        if read.symbology_identifier in _ELEMENTS or read.format.startswith("DataBar") or gs1.SEPARATOR in read.text:
            return gs1.element_string(read.text, currency)
        if read.format in _MATRICES and read.text.startswith("(01)"):
            return gs1.element_string(read.text, currency)
        if read.format in _MATRICES:
            return gs1.digital_link(read.text, currency)
    except gs1.NotGs1:
        pass
    return None


def _said(seen: Code, said: gs1.Said) -> Code:
    """Only what the elements mean is told, not their text, which holds a serial number."""
    gtin = said.gtin if said.gtin and _is_product(said.gtin) else None
    if gtin is None:
        return seen
    return seen.model_copy(update={"text": gtin, "gtin": gtin, "publication": _publication(gtin[1:]), "elements": said.elements})


def _payee(text: str) -> PayeeCode | None:
    try:
        return payee_codes.read(text)
    except payee_codes.NotAPayeesCode:
        return None


@cache
def _currency_of(region: str | None) -> str | None:
    """What is paid with there, where that is one currency."""
    currencies = get_territory_currencies(region) if region else []
    return str(currencies[0]) if len(currencies) == 1 else None
