"""Pictures that people give, as files or by address: opened within bounds, turned upright, made smaller, written as JPEG. What
else is in such a file (where it was taken, by whom, comments) is left behind."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageOps, UnidentifiedImageError

ORIENTATION = 0x0112
"""The EXIF tag."""

_FORMATS = ("JPEG", "PNG", "WEBP")
_UPRIGHT = {None, 1}


class UnusablePicture(Exception):
    """It cannot be had, or is no picture that can be used. The message says why, without its name: “is damaged or truncated”."""


@contextmanager
def opened(data: bytes, *, most_pixels: int) -> Iterator[Image.Image]:
    """Pillow reads a picture's header here, and the rest when it is asked for: within the block, where all that goes wrong with
    it becomes UnusablePicture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, which is left behind, and of sizes that are bounded here
            with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
                if picture.width * picture.height > most_pixels:
                    raise Image.DecompressionBombError
                yield picture
    except UnidentifiedImageError:
        raise UnusablePicture("is no JPEG, PNG or WebP") from None
    except Image.DecompressionBombError:
        raise UnusablePicture(f"has more than {most_pixels // 1_000_000} million pixels") from None
    except (OSError, ValueError, SyntaxError):
        raise UnusablePicture("is damaged or truncated") from None


def is_plain(picture: Image.Image, side: int) -> bool:
    """Whether it is an upright JPEG of at most `side` pixels a side: a model is given its bytes as they are, for each time that a
    picture is written again costs points by which it is recognised. Of a picture that is `opened`."""
    return (
        picture.format == "JPEG"
        and picture.mode == "RGB"
        and max(picture.size) <= side
        and picture.getexif().get(ORIENTATION) in _UPRIGHT
    )


def upright(picture: Image.Image, side: int) -> Image.Image:
    """In RGB, with at most `side` pixels a side, without metadata. What shows through a product that was cut out is white, as on
    a page. Of a picture that is `opened`, and not read before: a JPEG is decoded at the smallest scale that suffices."""
    picture.draft("RGB", (side, side))
    turned = ImageOps.exif_transpose(picture)
    turned.thumbnail((side, side), Image.Resampling.LANCZOS)
    if turned.has_transparency_data:
        whole = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole)
    made = turned.convert("RGB")
    made.info.clear()  # or comments would be written again
    return made


def jpeg(picture: Image.Image, quality: int) -> bytes:
    """With colours as fine as light and dark: by them siblings are told apart."""
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=quality, subsampling=0)
    return written.getvalue()
