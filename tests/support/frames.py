"""Camera frames that show a code."""

import io

import zxingcpp
from PIL import Image
from stdnum import ean


def gtin13(number: int) -> str:
    """A valid GTIN-13 within the range GS1 keeps for demonstrations."""
    digits = f"952{number:09d}"
    return digits + ean.calc_check_digit(digits)


def barcode_jpeg(gtin: str) -> bytes:
    """A baseline JPEG of 640×480 with the EAN-13 in it."""
    return _with_code(gtin, zxingcpp.BarcodeFormat.EAN13)


def qr_jpeg(text: str) -> bytes:
    return _with_code(text, zxingcpp.BarcodeFormat.QRCode)


def _with_code(text: str, symbology: zxingcpp.BarcodeFormat) -> bytes:
    symbol = Image.fromarray(zxingcpp.create_barcode(text, symbology).to_image(scale=3))
    canvas = Image.new("L", (640, 480), 200)
    canvas.paste(symbol, (120, 100))
    return _jpeg(canvas)


def blank_jpeg() -> bytes:
    """The same with nothing in it."""
    return _jpeg(Image.new("L", (640, 480), 200))


def _jpeg(picture: Image.Image) -> bytes:
    written = io.BytesIO()
    picture.convert("RGB").save(written, "JPEG", quality=85)
    return written.getvalue()
