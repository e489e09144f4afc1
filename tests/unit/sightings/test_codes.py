"""What codes mean, and what they do not."""

import string
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from stdnum import ean

from schemas.money import Money
from schemas.recognition import Code, Elements, InStore, Intent, Measure
from streams.sightings import gs1, in_store
from streams.sightings.codes import Read, expand_upc_e, meaning, shown_link
from streams.sightings.payee_codes import PayersCode

CORNERS = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
MILK = "09506000134352"
FORMATS = (
    "EAN13", "EAN8", "UPCA", "UPCE", "ITF", "Code128", "QRCode", "MicroQRCode", "DataMatrix", "DataBarOmni", "DataBarExp",
    "Aztec",
)  # fmt: skip


def read(text: str, format: str = "QRCode", symbology: str | None = None, region: str | None = "DE") -> Code:
    seen = Read(text=text, format=format, corners=CORNERS, valid=True, symbology_identifier=symbology)
    return meaning(seen, Intent.READ, region)


def gtin_of(text: str, format: str) -> str | None:
    return read(text, format).gtin


def with_check_digit(digits: str) -> str:
    return digits + ean.calc_check_digit(digits)


@pytest.mark.parametrize(
    ("text", "format", "gtin"),
    [
        ("9520000010010", "EAN13", "09520000010010"),
        ("96385074", "EAN8", "00000096385074"),
        ("036000291452", "UPCA", "00036000291452"),
        ("0036000291452", "UPCA", "00036000291452"),
        ("00012345600012", "ITF", "00012345600012"),
        ("10012345600019", "ITF", "10012345600019"),
        ("9520000010011", "EAN13", None),  # wrong check digit
        ("2012345678900", "EAN13", None),  # a number of one shop
        ("0212345678909", "EAN13", None),
        ("20000011", "EAN8", None),
        ("9790260000438", "EAN13", "09790260000438"),  # printed music
        ("9520000010010", "QRCode", None),  # digits alone make no product code
        ("95200000１0010", "EAN13", None),  # a full-width digit
        ("96385074", "EAN13", None),  # an EAN-8 is not read as something else
        ("", "EAN13", None),
    ],
)
def test_gtin_of(text: str, format: str, gtin: str | None) -> None:
    assert gtin_of(text, format) == gtin


@given(st.integers(0, 10**12 - 1), st.integers(0, 12), st.integers(1, 9))
def test_one_wrong_digit_is_never_taken_for_a_product(number: int, place: int, off_by: int) -> None:
    right = with_check_digit(f"{number:012d}")
    wrong = right[:place] + str((int(right[place]) + off_by) % 10) + right[place + 1 :]
    assert gtin_of(wrong, "EAN13") is None


TEXTS = st.text(max_size=40) | st.text(string.digits + "()\x1d", max_size=40)


@given(TEXTS, st.sampled_from(FORMATS), st.none() | st.just("]C1"))
@example("(01)", "QRCode", None)
@example("https://a/01/" + "9" * 14, "QRCode", None)
@example("http://[", "QRCode", None)
@example("https://\u0130.com", "QRCode", None)
def test_any_text_is_survived_and_never_makes_a_product_without_its_check_digit(
    text: str, format: str, symbology: str | None
) -> None:
    code = read(text, format, symbology)
    if code.gtin is not None:
        assert len(code.gtin) == 14 and ean.is_valid(code.gtin)
    assert code.text in ("", code.gtin, text)
    if code.text:
        assert code.gtin is not None, "the text of anything else is nobody's business"


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("04252614", "042100005264"),
        ("01234505", "012000003455"),
        ("01234531", "012300000451"),
        ("01234543", "012340000053"),
        ("01234558", "012345000058"),
        ("11234562", "112345000062"),
        ("21234567", None),  # number systems 0 and 1 only
        ("0425261", None),
    ],
)
def test_upc_e_is_expanded(short: str, long: str | None) -> None:
    assert expand_upc_e(short) == long


@given(st.integers(0, 10**7 - 1))
def test_a_upc_e_with_a_wrong_check_digit_is_no_product(number: int) -> None:
    digits = f"{number:07d}"
    assume(digits[0] in "01")
    valid = {check for check in string.digits if gtin_of(digits + check, "UPCE")}
    assert len(valid) <= 1


@pytest.mark.parametrize(
    ("text", "publication", "gtin"),
    [
        ("9780306406157", "ISBN 9780306406157", True),
        ("9791090636071", "ISBN 9791090636071", True),
        ("9770317847001", "ISSN 03178471", True),
        ("9772434561006", "ISSN 2434561X", True),
        ("9790260000438", None, True),  # ISMN
        ("1920095016005", None, False),  # the price below a Japanese book's ISBN
        ("9520000010010", None, True),
        ("9912345678909", None, False),  # a coupon
        ("9801234567896", None, False),  # a refund
    ],
)
def test_publications(text: str, publication: str | None, gtin: bool) -> None:
    code = read(text, "EAN13")
    assert code.publication == publication
    assert (code.gtin is not None) is gtin


@pytest.mark.parametrize(
    ("number", "add_on", "issue", "price"),
    [
        ("9780201379624", "52250", None, Money.of(2250, "USD")),
        ("9780201379624", "90000", None, None),
        ("9780201379624", "59999", None, None),  # a hundred dollars or more, or none
        ("9780201379624", "50000", None, None),
        ("9780201379624", "01295", None, None),
        ("9780201379624", "12", None, None),
        ("9771234567003", "07", 7, None),
        ("9771234567003", "52250", None, None),
        ("9520000010010", "52250", None, None),
    ],
)
def test_what_an_add_on_means(number: str, add_on: str, issue: int | None, price: Money | None) -> None:
    seen = Read(text=number, format="EAN13", corners=CORNERS, valid=True, add_on=add_on)
    code = meaning(seen, Intent.PRICE, "US")
    assert (code.text, code.add_on, code.issue, code.printed_price) == (number, add_on, issue, price)


@pytest.mark.parametrize("add_on", [None, "", "123", "1a", "１２"])
def test_what_is_no_add_on_is_not_told(add_on: str | None) -> None:
    code = meaning(Read(text="9771234567003", format="EAN13", corners=CORNERS, valid=True, add_on=add_on), Intent.READ)
    assert code.gtin == "09771234567003" and code.add_on is None


def test_the_add_on_of_what_is_no_product_is_not_told() -> None:
    seen = Read(text=with_check_digit("201234561995"), format="EAN13", corners=CORNERS, valid=True, add_on="12")
    assert meaning(seen, Intent.READ, "SE").add_on is None


def in_store_code(body: str) -> Code:
    return read(with_check_digit(body), "EAN13")


@pytest.mark.parametrize(
    ("body", "region", "meant"),
    [
        ("201234561995", "SE", InStore(item="123456", price=Money.of(1995, "SEK"))),
        ("211234560199", "SE", InStore(item="123456", price=Money.of(1990, "SEK"))),
        ("221234560120", "SE", InStore(item="123456", price=Money.of(12000, "SEK"))),
        ("231234561234", "SE", InStore(item="123456", weight=Measure(value=Decimal("1.234"), unit="kg"))),
        ("251234560015", "SE", InStore(item="123456", weight=Measure(value=Decimal("1.5"), unit="kg"))),
        ("201234592875", "GB", InStore(item="12345", price=Money.of(2875, "GBP"))),
        ("201234582875", "GB", InStore(item="12345")),  # the price's own check digit does not hold
        ("021234592875", "US", InStore(item="12345", price=Money.of(2875, "USD"))),
        ("221234614685", "DE", InStore(item="1234", price=Money.of(14685, "EUR"))),
        ("281234614685", "DE", InStore(item="1234", weight=Measure(value=Decimal("14.685"), unit="kg"))),
        ("281234514685", "DE", InStore(item="12345")),
        ("211234561995", "CH", InStore(item="12345")),  # which prefix means what is each shop's own there
        ("201234561995", None, InStore(item="12345")),
        ("201234560000", "SE", InStore(item="12345")),  # free of charge is nothing anybody sells by weight
    ],
)
def test_numbers_of_one_shop(body: str, region: str | None, meant: InStore) -> None:
    code = read(with_check_digit(body), "EAN13", region=region)
    assert code.in_store == meant
    assert code.gtin is None and code.text == ""


def test_the_verifier_of_a_price_is_that_of_the_specification() -> None:
    assert (in_store.verifier("2875"), in_store.verifier("14685")) == (9, 6)


@given(st.sampled_from(sorted(in_store.LAYOUTS)), st.integers(0, 10**10 - 1), st.sampled_from(["02", *map(str, range(20, 30))]))
def test_any_number_of_one_shop_is_survived(region: str, number: int, prefix: str) -> None:
    code = read(with_check_digit(f"{prefix}{number:010d}"), "EAN13", region=region)
    assert code.gtin is None
    assert code.in_store is not None and code.in_store.item in f"{number:010d}"


SOON = Elements(expires_on=date(2027, 3, 31), batch="12AB")


@pytest.mark.parametrize(
    ("text", "elements"),
    [
        ("01" + MILK, None),
        ("\x1d01" + MILK, None),
        (f"01{MILK}1727030010" + "12AB\x1d21x-9", SOON),
        (f"01{MILK}172703001012AB\x1d21x-9\x1d", SOON),
        (f"(01){MILK}(17)270331(10)12AB(21)x-9", SOON),
        (f"1012AB\x1d01{MILK}1727033121x-9", SOON),
        (f"01{MILK}15280131172703" + "00" + "1012AB\x1d21x-9", SOON),  # the earlier of best before and use by
        (f"(01){MILK}(10)A(1)", Elements(batch="A(1)")),
        (f"01{MILK}3103001750", Elements(weight=Measure(value=Decimal("1.750"), unit="kg"))),
        (f"01{MILK}3202000100", Elements(weight=Measure(value=Decimal("0.454"), unit="kg"))),
        (f"01{MILK}39221299", Elements(price=Money.of(1299, "EUR"))),
        (f"01{MILK}39329781299", Elements(price=Money.of(1299, "EUR"))),
        (f"01{MILK}39307521299", Elements(price=Money.of(129900, "SEK"))),
        (f"01{MILK}39330361299", None),  # more decimals than the currency has
    ],
)
def test_element_strings(text: str, elements: Elements | None) -> None:
    said = gs1.element_string(text, "EUR")
    assert (said.gtin, said.elements) == (MILK, elements)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(01)",
        "01" + MILK[:-1] + "3",  # the check digit
        "01" + MILK[:-1],
        f"01{MILK}17271301",  # the thirteenth month
        f"01{MILK}17270230",  # the thirtieth of February
        f"01{MILK}1727",
        f"01{MILK}10" + "A" * 21,
        f"01{MILK}10",
        f"01{MILK}10Ä",
        f"01{MILK}9999999999" * 20,
        f"01{MILK}01{MILK[:-2]}69",  # two products
        f"(01){MILK}(10)A)(17)27",
        "hello",
        "(hello)",
        "0512345678",  # no such identifier
    ],
)
def test_what_does_not_follow_the_specification_is_no_element_string(text: str) -> None:
    with pytest.raises(gs1.NotGs1):
        gs1.element_string(text)


def test_every_identifier_of_the_table_has_a_form() -> None:
    prefixes = ["00", "01", "10", "253", "3103", "3922", "3932", "4330", "7003", "7007", "7040", "8001", "8008", "8110", "98"]
    for ai in prefixes:
        assert gs1._form(ai).pattern


@pytest.mark.parametrize(
    ("text", "elements"),
    [
        (f"https://id.gs1.org/01/{MILK}", None),
        (f"https://example.com/01/{MILK}/", None),
        (f"https://example.com/some/where/01/{MILK}/10/12AB/21/x-9?17=270300&linkType=all", SOON),
        (f"HTTPS://example.com:8443/gtin/{MILK}/lot/12AB/ser/x-9?17=270331", SOON),
        (f"https://example.com/01/{MILK[1:]}", None),
        (f"https://example.com/01/{MILK}/10/A%2FB", Elements(batch="A/B")),
        (f"http://example.com/01/{MILK}?3103=001750", Elements(weight=Measure(value=Decimal("1.750"), unit="kg"))),
    ],
)
def test_digital_links(text: str, elements: Elements | None) -> None:
    said = gs1.digital_link(text)
    assert (said.gtin, said.elements) == (MILK, elements)
    assert read(text).gtin == MILK


@pytest.mark.parametrize(("digits", "gtin"), [("96385074", "00000096385074"), ("036000291452", "00036000291452")])
def test_shorter_numbers_in_digital_links(digits: str, gtin: str) -> None:
    assert gs1.digital_link(f"https://example.com/01/{digits}").gtin == gtin


@pytest.mark.parametrize(
    "text",
    [
        f"https://example.com/01/{MILK[:-1]}3",
        f"https://example.com/01/{MILK}/about/us",
        f"https://example.com/02/{MILK}",
        f"https://example.com/?01={MILK}",
        f"https://example.com/01/{MILK}?17=270230",
        f"ftp://example.com/01/{MILK}",
        f"/01/{MILK}",
        "https://example.com/01/123",
        "https://[::1/01/" + MILK,
    ],
)
def test_what_is_no_digital_link(text: str) -> None:
    with pytest.raises(gs1.NotGs1):
        gs1.digital_link(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://example.com/a?b=c#d", "https://example.com/a?b=c#d"),
        ("HTTP://Example.COM/A", "http://example.com/A"),
        ("https://exämple.com/", "https://xn--exmple-cua.com/"),
        ("https://аpple.com/", "https://xn--pple-43d.com/"),  # a Cyrillic а
        ("https://example.com:8443/", "https://example.com:8443/"),
        ("https://user:secret@example.com/", None),
        ("https://user@example.com/", None),
        ("https://example.com\\@evil.example/", None),
        ("javascript:alert(1)", None),
        ("data:text/html,x", None),
        ("ftp://example.com/", None),
        ("https://example.com/\u202egpj.exe", None),  # turns what follows around
        ("https://example.com/\x00", None),
        ("https://example.com/a b", None),
        ("https://127.0.0.1/", None),
        ("https://localhost/", None),
        ("https:///nowhere", None),
        ("https://example.com:99999/", None),
        ("https://" + "a" * 64 + ".com/", None),
        ("https://example.com/" + "a" * 2048, None),
        ("anything", None),
    ],
)
def test_addresses_are_shown_only_where_they_are_what_they_seem(text: str, shown: str | None) -> None:
    assert shown_link(text) == shown


@pytest.mark.parametrize("intent", [Intent.IDENTIFY, Intent.PRICE, Intent.PAY])
def test_addresses_are_shown_to_who_wants_to_read_and_to_nobody_else(intent: Intent) -> None:
    address = Read(text="https://example.com/", format="QRCode", corners=CORNERS, valid=True)
    assert meaning(address, Intent.READ).link == "https://example.com/"
    code = meaning(address, intent)
    assert code.link is None and "example" not in code.model_dump_json()


def test_a_serial_number_is_not_told() -> None:
    """It names one piece, and so perhaps its owner."""
    code = read(f"01{MILK}21SECRET", "DataMatrix", "]d2")
    assert code.text == MILK and "SECRET" not in code.model_dump_json()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("symbology", [None, "]C1", "]d2"])
def test_somebodys_payment_code_is_one_in_every_symbology(format: str, symbology: str | None) -> None:
    code = read("281234567890123456", format, symbology)
    assert isinstance(code, PayersCode) and "28123456" not in repr(code)
