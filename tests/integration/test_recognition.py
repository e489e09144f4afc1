"""What leaves the real recogniser: products' codes, and nothing of anybody else's."""

import io

import pytest
import zxingcpp
from PIL import Image

from streams.sightings.triton import TritonRecogniser, Unreadable
from tests.support.frames import barcode_jpeg, blank_jpeg, gtin13

SOMEBODYS_PAYMENT_CODE = "281234567890123456"
PRODUCT = gtin13(4713)


def both_in_view() -> bytes:
    """A product beside a phone that shows a payment code."""
    picture = Image.open(io.BytesIO(barcode_jpeg(PRODUCT))).convert("L")
    code = zxingcpp.create_barcode(SOMEBODYS_PAYMENT_CODE, zxingcpp.BarcodeFormat.QRCode)
    picture.paste(Image.fromarray(code.to_image(scale=5)), (460, 300))
    written = io.BytesIO()
    picture.convert("RGB").save(written, "JPEG", quality=90)
    return written.getvalue()


async def test_a_payment_code_in_view_is_seen_and_not_told(triton_url: str) -> None:
    recogniser = TritonRecogniser(triton_url)
    try:
        codes = await recogniser.codes(both_in_view(), 5.0)
        assert await recogniser.codes(blank_jpeg(), 5.0) == ()
        with pytest.raises(Unreadable):
            await recogniser.codes(b"no picture", 5.0)
    finally:
        await recogniser.close()
    assert {code.format for code in codes} == {"EAN13", "QRCode"}
    assert [code.text for code in codes if code.gtin] == [PRODUCT]
    assert SOMEBODYS_PAYMENT_CODE not in repr(codes)
