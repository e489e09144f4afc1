"""EMVCo merchant-presented codes, strictly.

Source: EMV QR Code Specification for Payment Systems, Merchant-Presented Mode, version 1.1 (EMVCo, November 2020). A code is a
row of data objects: two digits of id, two digits of length, and so many characters. The last one is a checksum over everything
before it. What is not exactly so is no such code; nothing is repaired or guessed.
"""

import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from schemas.money import Money, exponent
from streams.sightings.currencies import BY_NUMBER

_LONGEST = 512  # characters (section 3.2)
_PROMPT = "***"  # in an additional data field: the wallet is to ask its owner (section 4.8)

_ASCII = re.compile(r"[\x20-\x7e]+")  # "ans": the common character set of EMV Book 4
_TEXT = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]+")  # "S": any Unicode, but nothing that cannot be shown
_AMOUNT = re.compile(r"[0-9]+(\.[0-9]*)?")
_PERCENTAGE = re.compile(r"[0-9]{1,2}(\.[0-9]{0,2})?")
_MANDATORY = ("52", "53", "58", "59", "60")
_PRIMITIVE_ACCOUNTS = frozenset(f"{number:02}" for number in range(2, 26))
_ACCOUNT_TEMPLATES = frozenset(f"{number:02}" for number in range(26, 52))
_UNRESERVED_TEMPLATES = frozenset(f"{number:02}" for number in range(80, 100))

# Data objects of the root that have one form: id → (longest, characters).
_FORMS: Mapping[str, tuple[int, re.Pattern[str]]] = MappingProxyType(
    {
        "01": (2, re.compile("1[12]")),
        "52": (4, re.compile("[0-9]{4}")),
        "53": (3, re.compile("[0-9]{3}")),
        "54": (13, _AMOUNT),
        "55": (2, re.compile("0[123]")),
        "56": (13, _AMOUNT),
        "57": (5, _PERCENTAGE),
        "58": (2, re.compile("[A-Z]{2}")),
        "59": (25, _ASCII),
        "60": (15, _ASCII),
        "61": (10, _ASCII),
    }
)
# Of the additional data template (62).
_ADDITIONAL: Mapping[str, int] = MappingProxyType({**{f"{number:02}": 25 for number in range(1, 9)}, "09": 3, "10": 20, "11": 3})


class NotEmvco(ValueError):
    """The text is no merchant-presented code. The message says why, and repeats nothing of it."""


@dataclass(frozen=True)
class MerchantCode:
    """`accounts` are the merchant's accounts with the payment networks, by id, as the code has them. `distinct` is false where
    they name networks alone, which many merchants share. `tip` is true where the payer is to add a tip or a fee to the amount.
    `names` are the merchant's name in other languages."""

    accounts: tuple[tuple[str, str], ...]
    distinct: bool
    dynamic: bool
    category: str
    currency: str
    amount: Money | None
    tip: bool
    country: str
    name: str
    city: str
    names: Mapping[str, str]
    bill_number: str | None
    reference_label: str | None


def checksum(content: str) -> str:
    """CRC-16 of ISO/IEC 13239 with polynomial 0x1021 and initial value 0xFFFF over the UTF-8 bytes, as four upper-case digits."""
    return f"{binascii.crc_hqx(content.encode(), 0xFFFF):04X}"


def parse(text: str) -> MerchantCode:
    """Raises NotEmvco."""
    if len(text) > _LONGEST:
        raise NotEmvco(f"it is longer than {_LONGEST} characters")
    if not _TEXT.fullmatch(text):
        raise NotEmvco("it is empty, or holds characters that cannot be shown")
    if not text.startswith("000201"):
        raise NotEmvco("it does not begin with payload format 01")
    if text[-8:-4] != "6304" or text[-4:] != checksum(text[:-4]):
        raise NotEmvco("its checksum does not hold")
    root = _objects(text)
    if list(root)[-1] != "63":
        raise NotEmvco("the checksum is not the last data object")
    if missing := [id for id in _MANDATORY if id not in root]:
        raise NotEmvco(f"data object {missing[0]} is missing")
    for id, (longest, form) in _FORMS.items():
        if id in root and (len(root[id]) > longest or not form.fullmatch(root[id])):
            raise NotEmvco(f"data object {id} has not the form it must have")
    currency = BY_NUMBER.get(root["53"])
    if currency is None:
        raise NotEmvco("its currency is not one of ISO 4217")
    additional = _additional(root["62"]) if "62" in root else {}
    for id in _UNRESERVED_TEMPLATES & root.keys():
        _identified(id, root[id])
    accounts = _accounts(root)
    return MerchantCode(
        accounts=accounts,
        distinct=any(id in _PRIMITIVE_ACCOUNTS or len(_objects(value)) > 1 for id, value in accounts),
        dynamic=root.get("01") == "12",
        category=root["52"],
        currency=currency,
        amount=_amount(root["54"], currency) if "54" in root else None,
        tip=_tip(root, currency),
        country=root["58"],
        name=root["59"],
        city=root["60"],
        names=_names(root["64"]) if "64" in root else {},
        bill_number=additional.get("01"),
        reference_label=additional.get("05"),
    )


def _objects(text: str) -> dict[str, str]:
    """In the order they come. Lengths count characters, not bytes."""
    objects: dict[str, str] = {}
    at = 0
    while at < len(text):
        head = text[at : at + 4]
        if not (len(head) == 4 and head.isascii() and head.isdigit()):
            raise NotEmvco("a data object does not begin with two digits of id and two of length")
        id, length = head[:2], int(head[2:])
        value = text[at + 4 : at + 4 + length]
        if length == 0 or len(value) < length:
            raise NotEmvco(f"data object {id} is not as long as it says")
        if id in objects:
            raise NotEmvco(f"data object {id} comes twice")
        objects[id] = value
        at += 4 + length
    return objects


def _accounts(root: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Sorted by id: the order in which a code names them means nothing."""
    for id in _PRIMITIVE_ACCOUNTS & root.keys():
        if not _ASCII.fullmatch(root[id]):
            raise NotEmvco(f"data object {id} has not the form it must have")
    for id in _ACCOUNT_TEMPLATES & root.keys():
        _identified(id, root[id])
    accounts = tuple((id, root[id]) for id in sorted((_PRIMITIVE_ACCOUNTS | _ACCOUNT_TEMPLATES) & root.keys()))
    if not accounts:
        raise NotEmvco("it names no account of the merchant")
    return accounts


def _identified(id: str, template: str) -> None:
    """Whose template it is says its globally unique identifier, which it must have."""
    identifier = _objects(template).get("00", "")
    if len(identifier) > 32 or not _ASCII.fullmatch(identifier):
        raise NotEmvco(f"template {id} does not say whose it is")


def _amount(text: str, currency: str) -> Money:
    if len(text.partition(".")[2]) > exponent(currency):
        raise NotEmvco(f"the amount has more decimal digits than {currency} has")
    try:
        amount = Money.from_major(text.rstrip("."), currency)
    except ValueError as error:
        raise NotEmvco("the amount is out of bounds") from error
    if amount.minor == 0:
        raise NotEmvco("the amount is zero")
    return amount


def _tip(root: Mapping[str, str], currency: str) -> bool:
    """01 asks the payer for a tip, 02 adds the fee in 56, 03 the percentage in 57."""
    indicator = root.get("55")
    if ("56" in root) != (indicator == "02") or ("57" in root) != (indicator == "03"):
        raise NotEmvco("the fee does not fit the indicator of tip or fee")
    if "56" in root:
        _amount(root["56"], currency)
    return indicator is not None


def _names(template: str) -> Mapping[str, str]:
    objects = _objects(template)
    language, name = objects.get("00", ""), objects.get("01", "")
    if not re.fullmatch("[A-Za-z]{2}", language) or not 1 <= len(name) <= 25 or len(objects.get("02", "")) > 15:
        raise NotEmvco("template 64 does not name the merchant in another language")
    return {language.lower(): name}


def _additional(template: str) -> Mapping[str, str]:
    """Without what the wallet is asked to ask for: that is left out."""
    objects = _objects(template)
    for id, longest in _ADDITIONAL.items():
        if id in objects and (len(objects[id]) > longest or not _ASCII.fullmatch(objects[id])):
            raise NotEmvco(f"data object 62.{id} has not the form it must have")
    for id in objects:
        if id >= "50":
            _identified(f"62.{id}", objects[id])
    return {id: value for id, value in objects.items() if value != _PROMPT}
