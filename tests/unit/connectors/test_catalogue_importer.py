"""Reading a merchant's product list."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.shops.catalogue.importer import MAX_BYTES, CatalogueRow, normalise_gtin, parse_catalogue, read_catalogue
from schemas.commerce import Product
from schemas.errors import Rejected
from schemas.money import Money

HEADER = "gtin,title,language,brand,price,currency,url\n"
MILK = "4006381333931,Organic whole milk 1 l,en,Hofgut,1.49,EUR,https://shop.example/milk\n"


def problems(text: str | bytes) -> dict[str, str]:
    with pytest.raises(Rejected) as raised:
        parse_catalogue(text.encode() if isinstance(text, str) else text)
    assert raised.value.problem.code == "request-invalid"
    return {error.pointer: error.detail for error in raised.value.problem.errors}


def test_a_row() -> None:
    assert parse_catalogue((HEADER + MILK).encode()) == [
        CatalogueRow(
            line=2,
            product=Product(
                gtin="04006381333931",
                product_id="04006381333931",
                title="Organic whole milk 1 l",
                language="en",
                brand="Hofgut",
            ),
            price=Money(minor=149, currency="EUR"),
            url="https://shop.example/milk",
        )
    ]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + HEADER + MILK,
        (HEADER + MILK).replace("\n", "\r\n"),
        (HEADER + MILK).replace(",", ";"),
        (HEADER + MILK).replace(",", ";").replace("1.49", "1,49"),
        HEADER.upper() + MILK,
        HEADER + "\n" + MILK.rstrip("\n"),
        HEADER + ' 4006381333931 ,"Organic whole milk 1 l",en, Hofgut ,1.490,EUR,https://shop.example/milk\n',
    ],
)
def test_dialects(text: str) -> None:
    (row,) = parse_catalogue(text.encode())
    assert (row.product.gtin, row.product.title, row.product.brand) == ("04006381333931", "Organic whole milk 1 l", "Hofgut")
    assert row.price == Money(minor=149, currency="EUR")


def test_optional_columns_and_another_order() -> None:
    (row,) = parse_catalogue("currency,price,language,title,gtin\nJPY,250,ja,牛乳,4006381333931\n".encode())
    assert (row.product.brand, row.url, row.price) == (None, None, Money(minor=250, currency="JPY"))


def test_a_product_needs_no_gtin_and_no_price() -> None:
    text = "product_id,title,language,price,currency,picture\nbread-7,Bread,en,,,\nbread-8,Bread,en,2.50,EUR,a.jpg|https://b.example/c\n"
    bread, other = parse_catalogue(text.encode())
    assert (bread.product_id, bread.product.gtin, bread.price, bread.pictures) == ("bread-7", None, None, ())
    assert (other.price, other.pictures) == (Money(minor=250, currency="EUR"), ("a.jpg", "https://b.example/c"))


def test_a_file_that_does_not_speak_of_pictures() -> None:
    (row,) = parse_catalogue((HEADER + MILK).encode())
    assert row.pictures is None


@pytest.mark.parametrize(
    "picture",
    ["/etc/passwd", "../a.jpg", "a/../../b.jpg", "..\\a.jpg", "file:///a", "ftp://a/b", "https://", "a|b|c|d|e|f", "a\x00"],
)
def test_pictures_that_are_not_taken(picture: str) -> None:
    assert list(problems(f"gtin,title,language,picture\n4006381333931,Milk,en,{picture}\n")) == ["/lines/2/picture"]


def test_the_language_may_be_said_beside_the_file() -> None:
    (row,) = parse_catalogue(b"gtin,title\n4006381333931,Milch\n", language="de")
    assert row.product.language == "de"


def test_the_usable_lines_of_a_file_with_others() -> None:
    file = read_catalogue((HEADER + MILK.replace("1.49", "free") + MILK).encode())
    assert [row.line for row in file.rows] == [3]
    assert [problem.pointer for problem in file.problems] == ["/lines/2/price"]
    assert file.whole
    assert not read_catalogue((HEADER + MILK + '4006381333931,"open').encode()).whole


@pytest.mark.parametrize(
    ("before", "after", "pointer", "detail"),
    [
        ("4006381333931", "4006381333932", "/lines/2/gtin", "check digit"),
        ("4006381333931", "40063813339", "/lines/2/gtin", "8, 12, 13 or 14"),
        ("4006381333931", "", "/lines/2/product_id", "no gtin either"),
        ("4006381333931", "40063813339ab", "/lines/2/gtin", "digits"),
        ("Organic whole milk 1 l", "", "/lines/2/title", "at least 1"),
        ("Organic whole milk 1 l", "x" * 301, "/lines/2/title", "at most 300"),
        ("Organic whole milk 1 l", "x\x00", "/lines/2/title", "NUL"),
        (",en,", ",english,", "/lines/2/language", "language tag"),
        ("Hofgut", "x" * 101, "/lines/2/brand", "at most 100"),
        ("1.49", "1.499", "/lines/2/price", "more decimal digits"),
        ("1.49", "-1.49", "/lines/2/price", "number"),
        ("1.49", "0.00", "/lines/2/price", "above zero"),
        ("1.49", "1e3", "/lines/2/price", "number"),
        ("1.49", "NaN", "/lines/2/price", "number"),
        ("1.49", "€1.49", "/lines/2/price", "number"),
        ("1.49", "１.49", "/lines/2/price", "number"),
        ("EUR", "eur", "/lines/2/currency", "ISO 4217"),
        ("EUR", "EURO", "/lines/2/currency", "ISO 4217"),
        ("https://shop.example/milk", "javascript:alert(1)", "/lines/2/url", "https"),
        ("https://shop.example/milk", "https://", "/lines/2/url", "https"),
        ("https://shop.example/milk", "https://[", "/lines/2/url", "not a URL"),
        (",https://shop.example/milk", "", "/lines/2", "6 fields instead of 7"),
        ("Hofgut", "Hofgut,extra", "/lines/2", "8 fields instead of 7"),
    ],
)
def test_rows_that_cannot_be_used(before: str, after: str, pointer: str, detail: str) -> None:
    found = problems(HEADER + MILK.replace(before, after))
    assert list(found) == [pointer]
    assert any(words in found[pointer] for words in detail.split("|"))
    assert len(after) < 9 or after.startswith("https") or after not in found[pointer]


def test_every_bad_row_is_reported_with_its_line() -> None:
    bad = MILK.replace("1.49", "free")
    text = HEADER + bad + '73513537,"Two\nlines",en,,1,EUR,\n' + bad + MILK
    assert list(problems(text)) == ["/lines/2/price", "/lines/5/price"]


def test_a_product_twice() -> None:
    found = problems(HEADER + MILK + MILK.replace("4006381333931", "04006381333931"))
    assert found == {"/lines/3/gtin": "is the same product as in line 2"}
    assert problems("product_id,title,language\na,A,en\na,B,en\n") == {"/lines/3/product_id": "is the same product as in line 2"}


@pytest.mark.parametrize(
    ("text", "pointer", "detail"),
    [
        ("", "/lines/1", "missing: gtin or product_id, title, language"),
        (HEADER, "/lines/1", "no products"),
        ("gtin,title\n1,2\n", "/lines/1", "missing: language"),
        ("gtin,title,language,price\n", "/lines/1", "missing: currency"),
        ("gtin,title,language,currency\n", "/lines/1", "missing: price"),
        (HEADER.replace("brand", "colour") + MILK, "/lines/1", "no other"),
        (HEADER.replace("brand", "gtin") + MILK, "/lines/1", "once"),
        (HEADER + MILK + '4006381333931,"open', "/lines/3", "not CSV"),
        (b"gtin,title\n\xff", "/lines/2", "UTF-8"),
        ("gtin,title\n".encode("utf-16") + b"\n", "/lines/2", "not UTF-16, as which the file begins: save the file as UTF-8"),
        (b"PK\x03\x04 a spreadsheet", "/lines/1", "missing"),
    ],
)
def test_files_that_cannot_be_used(text: str | bytes, pointer: str, detail: str) -> None:
    found = problems(text)
    assert detail in found[pointer]


def test_a_file_that_is_too_large() -> None:
    with pytest.raises(Rejected) as raised:
        parse_catalogue(b" " * (MAX_BYTES + 1))
    assert raised.value.problem.code == "too-large"


@given(st.binary(max_size=300))
def test_any_file_is_read_or_rejected(data: bytes) -> None:
    for content in (data, HEADER.encode() + data):
        with contextlib.suppress(Rejected):
            assert parse_catalogue(content)


@pytest.mark.parametrize(
    ("text", "gtin"),
    [
        ("73513537", "00000073513537"),
        ("012345678905", "00012345678905"),
        ("4006381333931", "04006381333931"),
        ("04006381333931", "04006381333931"),
    ],
)
def test_gtins_become_fourteen_digits(text: str, gtin: str) -> None:
    assert normalise_gtin(text) == gtin
