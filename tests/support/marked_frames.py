"""Frames that nobody may keep: each shows and says what can be searched for afterwards."""

import io
import random
from dataclasses import dataclass
from functools import cached_property

import numpy
import zxingcpp
from PIL import Image, ImageDraw, ImageFont

from infra.triton.vision.frames import decode

_SIZE = (960, 720)
_NOISE_AT, _NOISE_CELLS, _CELL = (660, 440), (24, 12), 10
_SYLLABLES = ("BA", "DO", "KA", "MO", "NA", "RA", "TA", "ZE", "QUA", "TZ")


def new_word() -> str:
    """Nobody has written it before, and OCR reads it."""
    return "".join(random.choices(_SYLLABLES, k=6))


def new_payers_code() -> str:
    """A consumer's payment code (Alipay's, 18 digits)."""
    return "28" + "".join(random.choices("0123456789", k=16))


@dataclass(frozen=True)
class MarkedFrame:
    """A JPEG of 960×720. Everywhere, in its comment and in its EXIF: `comment`; in its pixels: `word`, a price, coloured noise,
    and as QR code a consumer's payment code, where `payers_code` is one."""

    jpeg: bytes
    comment: str
    word: str
    payers_code: str | None

    @cached_property
    def pixels(self) -> list[bytes]:
        """32 pixels of one row of the noise, as the models decode them: BGR, RGB and grey."""
        left, top = _NOISE_AT[0] + 2 * _CELL, _NOISE_AT[1] + _NOISE_CELLS[1] * _CELL // 2 + 3
        colour = decode(self.jpeg)[top, left : left + 32]
        grey = decode(self.jpeg, grey=True)[top, left : left + 32]
        return [numpy.ascontiguousarray(row).tobytes() for row in (colour, colour[:, ::-1], grey)]

    @property
    def secrets(self) -> list[bytes]:
        """What must not be found: what it says, and bytes of it from one and two thirds of its length."""
        third = len(self.jpeg) // 3
        pieces = [self.jpeg[at : at + 32] for at in (third, 2 * third)]
        said = [text.encode() for text in (self.comment, self.word, self.payers_code) if text]
        return [*said, *pieces, *self.pixels]


def marked(
    comment: str, *, word: str, product: bytes | None = None, gtin: str | None = None, payers_code: str | None = None
) -> MarkedFrame:
    """`product` is a photograph (JPEG, 640×480) to be shown in it, `gtin` of 13 digits a barcode."""
    picture = Image.new("RGB", _SIZE, "white")
    draw = ImageDraw.Draw(picture)
    if product is not None:
        picture.paste(Image.open(io.BytesIO(product)))
    draw.text((20, 500), word, fill="black", font=ImageFont.load_default(52))
    draw.text((20, 600), "3,99 €", fill="black", font=ImageFont.load_default(72))
    if gtin is not None:
        bars = zxingcpp.create_barcode(gtin, zxingcpp.BarcodeFormat.EAN13)
        picture.paste(Image.fromarray(bars.to_image(scale=2)), (680, 40))
    if payers_code is not None:
        code = zxingcpp.create_barcode(payers_code, zxingcpp.BarcodeFormat.QRCode)
        picture.paste(Image.fromarray(code.to_image(scale=6)), (680, 220))
    noise = numpy.frombuffer(random.randbytes(3 * _NOISE_CELLS[0] * _NOISE_CELLS[1]), numpy.uint8)
    cells = Image.fromarray(noise.reshape(_NOISE_CELLS[1], _NOISE_CELLS[0], 3))
    picture.paste(cells.resize((_NOISE_CELLS[0] * _CELL, _NOISE_CELLS[1] * _CELL), Image.Resampling.BICUBIC), _NOISE_AT)
    exif = Image.Exif()
    exif[0x010E] = comment  # ImageDescription
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=90, comment=comment.encode(), exif=exif)
    assert written.getvalue().count(comment.encode()) == 2
    return MarkedFrame(written.getvalue(), comment, word, payers_code)


def hurt(frame: bytes) -> bytes:
    """Its form is that of a JPEG, as far as the gateway looks; but half of its pixels are missing."""
    return frame[: len(frame) // 2] + b"\xff\xd9"
