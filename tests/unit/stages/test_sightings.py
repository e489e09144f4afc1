"""What a frame's codes mean, and when nothing is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum import ean

from schemas.recognition import Code, Intent, Recognition, Unclear, UnclearReason
from streams.sightings.service import decide, gtin_of

CORNERS = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
DIGEST = "0" * 64


def code(text: str, format: str = "EAN13") -> Code:
    return Code(text=text, format=format, corners=CORNERS, gtin=gtin_of(text, format))


@pytest.mark.parametrize(
    ("text", "format", "gtin"),
    [
        ("9520000010010", "EAN13", "09520000010010"),
        ("96385074", "EAN8", "00000096385074"),
        ("036000291452", "UPCA", "00036000291452"),
        ("00012345600012", "ITF14", "00012345600012"),
        ("9520000010011", "EAN13", None),  # wrong check digit
        ("2012345678900", "EAN13", None),  # a number of one shop
        ("0212345678909", "EAN13", None),
        ("9520000010010", "QRCode", None),  # digits alone make no product code
        ("95200000１0010", "EAN13", None),  # a full-width digit
        ("", "EAN13", None),
    ],
)
def test_gtin_of(text: str, format: str, gtin: str | None) -> None:
    assert gtin_of(text, format) == gtin


@given(st.integers(0, 10**12 - 1), st.integers(0, 12), st.integers(1, 9))
def test_one_wrong_digit_is_never_taken_for_a_product(number: int, place: int, off_by: int) -> None:
    digits = f"{number:012d}"
    right = digits + ean.calc_check_digit(digits)
    wrong = right[:place] + str((int(right[place]) + off_by) % 10) + right[place + 1 :]
    assert gtin_of(wrong, "EAN13") is None


def test_one_product_is_said_surely() -> None:
    result = decide("s", DIGEST, Intent.PRICE, (code("9520000010010"), code("https://example.com", "QRCode")), "codes:1")
    assert isinstance(result, Recognition)
    assert (result.gtin, result.confidence) == ("09520000010010", 1.0)


def test_the_same_product_twice_is_one_product() -> None:
    assert isinstance(decide("s", DIGEST, Intent.PRICE, (code("9520000010010"),) * 2, "codes:1"), Recognition)


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        ((), UnclearReason.NO_CODE),
        ((code("9520000010010"), code("9520000010027")), UnclearReason.SEVERAL_PRODUCTS),
        ((code("https://example.com", "QRCode"),), UnclearReason.NOT_A_PRODUCT_CODE),
        ((code("2012345678900"),), UnclearReason.NOT_A_PRODUCT_CODE),
    ],
)
def test_otherwise_nothing_is_guessed(codes: tuple[Code, ...], reason: UnclearReason) -> None:
    result = decide("s", DIGEST, Intent.PRICE, codes, "codes:1")
    assert isinstance(result, Unclear)
    assert result.reason is reason
