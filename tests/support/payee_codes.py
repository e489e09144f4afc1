"""Payees' codes for tests, built object by object; nothing here is taken from the code that reads them."""

import io
from collections.abc import Mapping
from uuid import uuid4

import zxingcpp
from PIL import Image

ACCOUNT = "0012D15600000001030812345678"
"""A template of a payment network: whose it is, and the merchant's number there."""


def tlv(id: str, value: str) -> str:
    return f"{id}{len(value):02}{value}"


def crc(content: str) -> str:
    """CRC-16/CCITT-FALSE, bit by bit."""
    register = 0xFFFF
    for byte in content.encode():
        register ^= byte << 8
        for _ in range(8):
            register = ((register << 1) ^ 0x1021 if register & 0x8000 else register << 1) & 0xFFFF
    return f"{register:04X}"


def sealed(objects: str) -> str:
    """With its checksum."""
    return objects + "6304" + crc(objects + "6304")


def emvco(changes: Mapping[str, str | None] | None = None) -> str:
    """A static code of a bookshop for CNY without an amount. `changes` are by id; None leaves the object out."""
    objects: dict[str, str | None] = {
        "00": "01",
        "01": "11",
        "26": ACCOUNT,
        "52": "5942",
        "53": "156",
        "58": "CN",
        "59": "BOOKS AT THE MARKET",
        "60": "HANGZHOU",
        **(changes or {}),
    }
    return sealed("".join(tlv(id, value) for id, value in objects.items() if value is not None))


def merchants_account() -> str:
    """An account that no other test has."""
    return tlv("00", "D15600000001") + tlv("03", uuid4().hex[:20].upper())


def frame(*texts: str, shift: int = 0, format: zxingcpp.BarcodeFormat = zxingcpp.BarcodeFormat.QRCode) -> bytes:
    """A JPEG of 1280×960 with the codes side by side. `shift` moves them: another frame of the same view."""
    canvas = Image.new("L", (1280, 960), 210)
    for place, text in enumerate(texts):
        code = Image.fromarray(zxingcpp.create_barcode(text, format).to_image(scale=6))
        canvas.paste(code, (40 + shift + 620 * place, 120 + shift))
    return _jpeg(canvas)


def _jpeg(picture: Image.Image) -> bytes:
    written = io.BytesIO()
    picture.convert("RGB").save(written, "JPEG", quality=88)
    return written.getvalue()
