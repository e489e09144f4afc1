"""Reading Google's product feed."""

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.shops.catalogue.importer import CatalogueRow, Sale, parse_catalogue
from schemas.errors import Rejected
from schemas.money import Money

ITEM = """
    <item>
      <g:id>milk-1</g:id>
      <g:title>Organic whole milk 1 l</g:title>
      <g:description>White &amp; cold.</g:description>
      <g:link>https://shop.example/milk</g:link>
      <g:image_link>https://shop.example/milk.jpg</g:image_link>
      <g:additional_image_link>https://shop.example/milk-2.jpg</g:additional_image_link>
      <g:additional_image_link>https://shop.example/milk-3.jpg</g:additional_image_link>
      <g:availability>in_stock</g:availability>
      <g:price>1.49 EUR</g:price>
      <g:sale_price>0.99 EUR</g:sale_price>
      <g:sale_price_effective_date>2026-11-23T08:00+0100/2026-11-28T20:00+0100</g:sale_price_effective_date>
      <g:gtin>4006381333931</g:gtin>
      <g:brand>Hofgut</g:brand>
      <g:item_group_id>milk</g:item_group_id>
      <g:shipping><g:country>DE</g:country><g:price>4.95 EUR</g:price></g:shipping>
    </item>"""
RSS = f"""<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0">
  <channel>
    <title>Kvarteret</title>
    <link>https://shop.example</link>
    <language>en-gb</language>{ITEM}
  </channel>
</rss>
"""
ATOM = """<?xml version="1.0"?>
<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0" xml:lang="de">
  <title>Kvarteret</title>
  <entry>
    <g:id>milk-1</g:id><title>Vollmilch</title><link rel="self" href="https://shop.example/feed/1"/>
    <link href="https://shop.example/milch"/><g:price>1.49 EUR</g:price><g:availability>out of stock</g:availability>
  </entry>
</feed>
"""
TSV = (
    "id\ttitle\tprice\tgtin\tbrand\tlink\timage link\tadditional image link\tavailability\tdescription\n"
    'milk-1\tMilk 12" bottle\t1.49 EUR\t4006381333931\tHofgut\thttps://shop.example/milk\thttps://shop.example/1.jpg\t'
    "https://shop.example/2.jpg,https://shop.example/3.jpg\tin stock\tWhite\n"
)


def problems(text: str, language: str | None = None) -> dict[str, str]:
    with pytest.raises(Rejected) as raised:
        parse_catalogue(text.encode(), language=language)
    return {error.pointer: error.detail for error in raised.value.problem.errors}


def test_an_item_of_an_rss_feed() -> None:
    (row,) = parse_catalogue(RSS.encode())
    assert row.line == 7
    assert (row.product_id, row.product.gtin, row.product.title) == ("milk-1", "04006381333931", "Organic whole milk 1 l")
    assert (row.product.language, row.product.brand, row.item_group) == ("en-GB", "Hofgut", "milk")
    assert (row.price, row.available, row.url) == (Money.of(149, "EUR"), True, "https://shop.example/milk")
    assert row.pictures == tuple(f"https://shop.example/{name}.jpg" for name in ("milk", "milk-2", "milk-3"))
    assert row.sale == Sale(Money.of(99, "EUR"), datetime(2026, 11, 23, 7, tzinfo=UTC), datetime(2026, 11, 28, 19, tzinfo=UTC))


def test_an_entry_of_an_atom_feed() -> None:
    (row,) = parse_catalogue(ATOM.encode())
    assert (row.product.title, row.product.language, row.product.gtin) == ("Vollmilch", "de", None)
    assert (row.url, row.available, row.pictures) == ("https://shop.example/milch", False, ())


def test_a_line_of_a_tab_separated_feed() -> None:
    (row,) = parse_catalogue(TSV.encode(), language="en")
    assert (row.line, row.product_id, row.product.title) == (2, "milk-1", 'Milk 12" bottle')
    assert row.pictures == tuple(f"https://shop.example/{number}.jpg" for number in (1, 2, 3))
    assert (row.price, row.available) == (Money.of(149, "EUR"), True)


def test_empty_fields_of_a_tab_separated_feed() -> None:
    (row,) = parse_catalogue(b"id\ttitle\tprice\tgtin\timage link\navailability\tMilk\t\t\t\n", language="en")
    assert (row.product_id, row.price, row.product.gtin, row.pictures) == ("availability", None, None, ())


def test_the_language_given_wins() -> None:
    (row,) = parse_catalogue(RSS.encode(), language="sv")
    assert row.product.language == "sv"


@pytest.mark.parametrize("availability", ["out_of_stock", "out of stock", "preorder", "backorder"])
def test_what_is_not_at_hand(availability: str) -> None:
    (row,) = parse_catalogue(RSS.replace("in_stock", availability).encode())
    assert not row.available


def test_a_sale_without_dates_and_one_that_is_none() -> None:
    lines = [line for line in RSS.splitlines() if "effective_date" not in line]
    (row,) = parse_catalogue("\n".join(lines).encode())
    assert row.sale == Sale(Money.of(99, "EUR"))
    (row,) = parse_catalogue("\n".join(lines).replace("0.99", "1.49").encode())
    assert row.sale is None


@pytest.mark.parametrize(
    ("before", "after", "pointer", "detail"),
    [
        ("<g:id>milk-1</g:id>", "", "/lines/7/id", "missing"),
        ("milk-1</g:id>", f"{'x' * 101}</g:id>", "/lines/7/id", "1 to 100"),
        ("<g:title>Organic whole milk 1 l</g:title>", "", "/lines/7/title", "missing"),
        ("1.49 EUR", "1.49", "/lines/7/price", "currency"),
        ("1.49 EUR", "EUR 1.49 EUR", "/lines/7/price", "number and a currency such as 12.99 EUR"),
        ("1.49 EUR", "€1.49", "/lines/7/price", "number and a currency such as 12.99 EUR"),
        ("1.49 EUR", "-1.49 EUR", "/lines/7/price", "number and a currency"),
        ("1.49 EUR", "1,499 EUR", "/lines/7/price", "thousands or for decimals: write it as 1299.00 EUR"),
        ("1.49 EUR", "EUR 1,499", "/lines/7/price", "thousands or for decimals"),
        ("1.49 EUR", "1.499,00 EUR", "/lines/7/price", "without thousands separators"),
        ("1.49 EUR", "1 499 EUR", "/lines/7/price", "without thousands separators"),
        ("1.49 EUR", "1,4999 EUR", "/lines/7/price", "more decimal digits"),
        ("1.49 EUR", "1.499 EUR", "/lines/7/price", "more decimal digits"),
        ("1.49 EUR", "1.49 EURO", "/lines/7/price", "ISO 4217"),
        ("1.49 EUR", "0 EUR", "/lines/7/price", "above zero"),
        ("0.99 EUR", "0.99 SEK", "/lines/7/sale_price", "currency of price"),
        ("0.99 EUR", "2.99 EUR", "/lines/7/sale_price", "not be above"),
        ("2026-11-28T20:00+0100", "tomorrow", "/lines/7/sale_price_effective_date", "two moments"),
        ("2026-11-28T20", "2026-11-22T20", "/lines/7/sale_price_effective_date", "two moments"),
        ("4006381333931", "4006381333932", "/lines/7/gtin", "check digit"),
        ("in_stock", "plenty", "/lines/7/availability", "in_stock"),
        ("https://shop.example/milk<", "ftp://shop.example<", "/lines/7/link", "https"),
        ("https://shop.example/milk.jpg", "../../etc/passwd", "/lines/7/image_link", "beside the list"),
        ("https://shop.example/milk-2.jpg", "file:///etc/passwd", "/lines/7/additional_image_link", "https"),
        ("<language>en-gb</language>", "", "/lines/1", "--language"),
        ("<language>en-gb</language>", "<language>?</language>", "/lines/1", "--language"),
    ],
)
def test_items_that_cannot_be_used(before: str, after: str, pointer: str, detail: str) -> None:
    assert before in RSS
    found = problems(RSS.replace(before, after))
    assert list(found) == [pointer]
    assert detail in found[pointer]


def test_every_bad_item_is_reported_with_its_line() -> None:
    bad = ITEM.replace("1.49 EUR", "free")
    twice = RSS.replace(ITEM, bad + bad.replace("milk-1", "milk-2"))
    assert list(problems(twice)) == ["/lines/7/price", "/lines/24/price"]
    assert problems(RSS.replace(ITEM, ITEM + ITEM)) == {"/lines/24/gtin": "is the same product as in line 7"}


BOMB = """<?xml version="1.0"?>
<!DOCTYPE rss [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c SYSTEM "file:///etc/passwd">]>
<rss><channel><item><title>&b;&c;</title></item></channel></rss>
"""


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (BOMB, "document type"),
        ('<!DOCTYPE rss SYSTEM "https://evil.example/a.dtd"><rss/>', "document type"),
        ("<rss><channel>", "is not XML"),
        ("<rss><channel><item><g:id>1</g:id></item></channel></rss>", "is not XML: unbound prefix"),
        ("<html><body/></html>", "must begin a feed"),
        ("<rss><channel/></rss>", "no products"),
        ("<rss>" + "<a>" * 40 + "</a>" * 40 + "</rss>", "deep"),
        ('<?xml version="1.0" encoding="klingon"?><rss/>', "encoding"),
    ],
)
def test_feeds_that_cannot_be_used(text: str, detail: str) -> None:
    (found,) = problems(text, language="en").values()
    assert detail in found


def test_text_feeds_that_cannot_be_used() -> None:
    assert "missing: title" in problems("id\tprice\n1\t2 EUR\n")["/lines/1"]
    assert "--language" in problems(TSV)["/lines/1"]
    assert problems(TSV + "a\t" * 11 + "\n", "en") == {"/lines/3": "has 12 fields instead of 10"}


@pytest.mark.parametrize(
    "price", ["1.49 EUR", "EUR 1.49", "1,49 EUR", "EUR 1,49", "1.49EUR", "EUR1,49", "1,49\N{NO-BREAK SPACE}EUR", "001.4900 EUR"]
)
def test_prices_as_merchants_write_them(price: str) -> None:
    (row,) = parse_catalogue(RSS.replace("1.49 EUR", price).encode())
    assert row.price == Money.of(149, "EUR")
    (row,) = parse_catalogue(TSV.replace("1.49 EUR", price).encode(), language="en")
    assert row.price == Money.of(149, "EUR")


def test_three_decimals_are_unambiguous_with_a_point() -> None:
    (row,) = parse_catalogue(RSS.replace("1.49 EUR", "KWD 1.499").replace("0.99 EUR", "0,99 KWD").encode())
    assert row.price == Money.of(1499, "KWD") and row.sale is not None and row.sale.price == Money.of(990, "KWD")


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize(("text", "language"), [(RSS.replace("UTF-8", "UTF-16"), None), (ATOM, None), (TSV, "en")])
def test_utf_16_with_a_byte_order_mark(text: str, language: str | None, order: str) -> None:
    assert parse_catalogue(f"\ufeff{text}".encode(f"utf-16-{order}"), language=language) == parse_catalogue(
        text.replace("UTF-16", "UTF-8").encode(), language=language
    )


def test_xml_that_says_another_encoding_than_it_has() -> None:
    with pytest.raises(Rejected) as raised:
        parse_catalogue(f"\ufeff{RSS}".encode("utf-16-le"))
    (problem,) = raised.value.problem.errors
    assert problem.detail == "is not XML: encoding specified in XML declaration is incorrect"


def test_other_encodings_than_utf_8() -> None:
    text = RSS.replace("UTF-8", "ISO-8859-1").replace("Organic whole milk", "Bio-Vollmilch für Große")
    (row,) = parse_catalogue(text.encode("latin-1"))
    assert row.product.title == "Bio-Vollmilch für Große 1 l"


@given(st.binary(max_size=200), st.integers(0, len(RSS)), st.booleans())
def test_any_feed_is_read_or_rejected(noise: bytes, place: int, replace: bool) -> None:
    feed = RSS.encode()
    for data in (feed[:place] + noise + feed[place + (len(noise) if replace else 0) :], TSV.encode()[:place] + noise):
        with contextlib.suppress(Rejected):
            assert all(isinstance(row, CatalogueRow) for row in parse_catalogue(data, language="en"))
