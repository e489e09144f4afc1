"""What leaves the real recogniser: products' codes, and nothing of anybody else's."""

import io

import pytest
import zxingcpp
from PIL import Image

from schemas.money import Money
from schemas.recognition import Code, PayeeScheme
from streams.sightings.payee_codes import PayersCode, read
from streams.sightings.triton import TritonRecogniser, Unreadable
from tests.support.frames import barcode_jpeg, blank_jpeg, gtin13
from tests.support.payee_codes import emvco, frame, tlv

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


async def recognised(triton_url: str, picture: bytes) -> tuple[Code, ...]:
    recogniser = TritonRecogniser(triton_url)
    try:
        return await recogniser.codes(picture, 5.0)
    finally:
        await recogniser.close()


async def test_payees_codes_in_view_are_told_without_their_text(triton_url: str) -> None:
    bill = emvco({"01": "12", "54": "12.50", "64": tlv("00", "ZH") + tlv("01", "市场书店"), "62": tlv("01", "B-17")})
    wallet = "https://qr.alipay.com/fkx01234abcdefghijk5678"
    codes = await recognised(triton_url, frame(bill, wallet))
    payees = {code.payee.scheme: code.payee for code in codes if code.payee}
    assert payees == {PayeeScheme.EMVCO: read(bill), PayeeScheme.ALIPAY: read(wallet)}
    assert payees[PayeeScheme.EMVCO].amount == Money.of(1250, "CNY"), "its checksum holds over the UTF-8 that was printed"
    assert all(code.text == "" for code in codes) and "fkx01234" not in repr(codes)


@pytest.mark.parametrize("symbology", [zxingcpp.BarcodeFormat.QRCode, zxingcpp.BarcodeFormat.Code128])
async def test_a_payment_code_is_known_in_either_symbology(triton_url: str, symbology: zxingcpp.BarcodeFormat) -> None:
    [code] = await recognised(triton_url, frame(SOMEBODYS_PAYMENT_CODE, format=symbology))
    assert isinstance(code, PayersCode)
    assert SOMEBODYS_PAYMENT_CODE not in repr(code) + code.model_dump_json()
