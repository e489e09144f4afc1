"""Is this a frame worth looking at? Its form is checked here, before it costs anything; its pixels are decoded in Triton only."""

import io
import warnings

from PIL import Image, UnidentifiedImageError

from schemas.errors import Rejected

MAX_BYTES = 2 * 1024 * 1024
MAX_PIXELS = 12_000_000
_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
_PADDING = 64  # some encoders pad after the end marker


def check_length(length: int) -> None:
    """Raises Rejected("frame-too-large")."""
    if length > MAX_BYTES:
        raise Rejected("frame-too-large", f"the frame has {length:,} bytes; {MAX_BYTES:,} are the limit")


def check(frame: bytes) -> None:
    """A whole JPEG of bearable size. Raises Rejected with a code that begins with `frame-`."""
    check_length(len(frame))
    if not frame.startswith(_START):
        raise Rejected("frame-not-jpeg", "the frame does not begin like a JPEG")
    if _END not in frame[-_PADDING:]:
        raise Rejected("frame-truncated", "the frame does not end with its end marker: it is cut off, or something follows it")
    with warnings.catch_warnings():
        # Pillow's own guard against bombs warns; ours below refuses, and at a lower limit.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(frame), formats=("JPEG",)) as picture:  # reads the header only
                width, height = picture.size
        except Image.DecompressionBombError as error:
            raise Rejected("frame-dimensions", f"the frame has more than {MAX_PIXELS:,} pixels") from error
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise Rejected("frame-not-jpeg", "the frame's header is not that of a JPEG") from error
    if width * height > MAX_PIXELS:
        raise Rejected("frame-dimensions", f"the frame has {width}×{height} pixels; {MAX_PIXELS:,} are the limit")
