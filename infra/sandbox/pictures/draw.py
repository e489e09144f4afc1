"""Draws the sandbox's frames: `python -m infra.sandbox.pictures.draw PHOTOS` (PHOTOS: `train` of the Grocery Store dataset;
without it, only the frames that need no photo).

Each frame is what a camera in glasses gives: 640×480, a real photo from a shop; on some a label with a generated EAN-13, turned
a little, in perspective, with noise. Or a payee's code on a card at the till, twice, as a head that does not quite keep still
sees it. The frames are checked in; this is how they were made, and how more are.
"""

import io
import random
import sys
from dataclasses import dataclass
from pathlib import Path

import zxingcpp
from PIL import Image, ImageFilter

SIZE = (640, 480)
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Frame:
    """`code`: a GTIN-13 of GS1's prefix for examples (952), or where `payee` a payee's code. `at`: the label's corners in the
    frame, clockwise from its top left. `photo` None: a counter's plain grey."""

    name: str
    photo: str | None
    code: str | None = None
    at: tuple[tuple[int, int], ...] = ()
    blur: float = 0.0
    payee: bool = False


# EMVCo codes of a payment network that does not exist: one takes any amount in EUR, the other is a bill of EUR 4.20.
PAYEE = (
    "00020101021126400011example.net0121BUCHHANDLUNG-AM-MARKT5204594253039785802DE5921BUCHHANDLUNG AM MARKT6008AUGSBURG6304A42D"
)
BILL = (
    "00020101021226400011example.net0121BUCHHANDLUNG-AM-MARKT52045942530397854044.20"
    "5802DE5921BUCHHANDLUNG AM MARKT6008AUGSBURG62100106B-20266304A1F8"
)
_CARD = ((176, 92), (470, 104), (462, 398), (168, 384))


FRAMES = (
    Frame(
        "milk",
        "Garant-Ecological-Standard-Milk/Garant-Ecological-Standard-Milk_002.jpg",
        "9520000010010",
        ((330, 230), (600, 250), (592, 408), (324, 384)),
    ),
    Frame(
        "juice",
        "God-Morgon-Orange-Juice/God-Morgon-Orange-Juice_005.jpg",
        "9520000010027",
        ((60, 250), (322, 228), (330, 380), (66, 404)),
    ),
    Frame(
        "oat-drink",
        "Oatly-Oat-Milk/Oatly-Oat-Milk_003.jpg",
        "9520000010034",
        ((350, 60), (598, 84), (588, 226), (342, 204)),
    ),
    Frame("shelf", "Arla-Standard-Milk/Arla-Standard-Milk_004.jpg", blur=2.2),
    Frame("payee-1", None, PAYEE, _CARD, payee=True),
    Frame("payee-2", None, PAYEE, tuple((x + 17, y - 9) for x, y in _CARD), payee=True),
    Frame("bill-1", None, BILL, _CARD, payee=True),
    Frame("bill-2", None, BILL, tuple((x - 12, y + 14) for x, y in _CARD), payee=True),
)


def draw(frame: Frame, photos: Path) -> bytes:
    """The frame as JPEG bytes; the same bytes every time."""
    noise = random.Random(frame.name)  # noqa: S311 (a picture's grain, no secret)
    if frame.photo:
        picture = Image.open(photos / frame.photo).convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)
    else:
        picture = Image.new("RGB", SIZE, (148, 140, 129))
    if frame.code:
        symbology = zxingcpp.BarcodeFormat.QRCode if frame.payee else zxingcpp.BarcodeFormat.EAN13
        barcode = zxingcpp.create_barcode(frame.code, symbology)
        label = Image.fromarray(barcode.to_image(scale=8 if frame.payee else 4)).convert("RGB")
        _paste(picture, label, frame.at)
    picture = picture.filter(ImageFilter.GaussianBlur(frame.blur or 0.6))
    grain = Image.frombytes("L", SIZE, bytes(int(min(255, max(0, noise.gauss(128, 9)))) for _ in range(SIZE[0] * SIZE[1])))
    picture = Image.blend(picture, Image.merge("RGB", [grain] * 3), 0.06)
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=82)
    return encoded.getvalue()


def _paste(picture: Image.Image, label: Image.Image, corners: tuple[tuple[int, int], ...]) -> None:
    """Put the label where the corners say, in perspective."""
    width, height = label.size
    coefficients = _perspective(corners, ((0, 0), (width, 0), (width, height), (0, height)))
    placed = label.transform(SIZE, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC)
    mask = Image.new("L", label.size, 255).transform(SIZE, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC)
    picture.paste(placed, (0, 0), mask)


def _perspective(to: tuple[tuple[int, int], ...], source: tuple[tuple[int, int], ...]) -> list[float]:
    """The eight coefficients that Pillow's PERSPECTIVE wants, from four pairs of points."""
    import numpy

    rows, values = [], []
    for (x, y), (u, v) in zip(to, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return [float(value) for value in numpy.linalg.solve(numpy.array(rows, float), numpy.array(values, float))]


def main() -> None:
    photos = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    for frame in FRAMES:
        if photos is not None or frame.photo is None:
            (HERE / f"{frame.name}.jpg").write_bytes(draw(frame, photos or HERE))


if __name__ == "__main__":
    main()
