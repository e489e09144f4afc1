"""EMVCo's merchant-presented codes: published examples are read, and whatever is off is refused with its reason."""

import pytest

from schemas.money import Money, exponent
from streams.sightings.currencies import BY_NUMBER
from streams.sightings.emvco import NotEmvco, checksum, parse
from tests.support.payee_codes import ACCOUNT, emvco, sealed, tlv

# The example of EMVCo's specification (Merchant-Presented Mode 1.0, July 2017, annex A), which open implementations have as
# their test: mvallim/emv-qrcode, mercari/go-emv-code, juanroman/EMVQR.
SPECIFICATION = (
    "00020101021229300012D156000000000510A93FO3230Q31280012D15600000001030812345678520441115802CN5914BEST TRANSPORT6007BEIJING"
    "64200002ZH0104最佳运输0202北京540523.7253031565502016233030412340603***0708A60086670902ME"
    "91320016A0112233449988770708123456786304A13A"
)
# Banco Central do Brasil, Manual do BR Code, version 2 (May 2020).
BR_CODE = (
    "00020104141234567890123426580014BR.GOV.BCB.PIX0136123e4567-e12b-12d1-a456-42665544000027300012BR.COM.OUTRO011001234567895204"
    "000053039865406123.455802BR5917NOME DO RECEBEDOR6008BRASILIA61087007490062190515RP12345678-2019"
    "80390012BR.COM.OUTRO01190123.ABCD.3456.WXYZ6304AD38"
)
# The same bank, Manual de Padrões para Iniciação do Pix.
PIX = (
    "00020126580014br.gov.bcb.pix0136123e4567-e12b-12d1-a456-4266554400005204000053039865802BR5913Fulano de Tal6008BRASILIA"
    "62070503***63041D3D"
)
# PayNow, as SGQR has it.
PAYNOW = "00020101021126380009SG.PAYNOW010100211+6591234567030115204000053037025802SG5902NA6009Singapore6304B5DB"
# Maya's developer guide: a bill of an electricity company.
MERALCO = (
    "00020101021226150011com.paymaya5204490053036085405390.85802PH5907Meralco6005Pasig62530110046649980150350020com.paymaya.billspay"
    "0107meralco80870015com.bayadcenter0105000010205MECOA0316046649980181013604260466499801812101361210260363041DB5"
)
# PromptPay without merchant's name, city and category, which EMVCo demands (dtinth/promptpay-qr).
PROMPTPAY = "00020101021229370016A000000677010111011300668999999995802TH53037645406420.006304CF9E"


def test_the_checksum_is_crc_16_ccitt_false() -> None:
    assert checksum("123456789") == "29B1"


def test_the_specifications_own_example() -> None:
    code = parse(SPECIFICATION)
    assert code.accounts == (("29", "0012D156000000000510A93FO3230Q"), ("31", "0012D15600000001030812345678"))
    assert (code.dynamic, code.category, code.country, code.city) == (True, "4111", "CN", "BEIJING")
    assert (code.name, dict(code.names)) == ("BEST TRANSPORT", {"zh": "最佳运输"})
    assert (code.amount, code.currency) == (Money.of(2372, "CNY"), "CNY")
    assert code.tip, "it asks for a tip"


def test_a_code_with_several_accounts_an_amount_and_a_reference() -> None:
    code = parse(BR_CODE)
    assert [id for id, _ in code.accounts] == ["04", "26", "27"]
    assert (code.amount, code.dynamic, code.tip) == (Money.of(12345, "BRL"), False, False)
    assert (code.reference_label, code.bill_number) == ("RP12345678-2019", None)


def test_what_the_wallet_is_to_ask_for_is_left_out() -> None:
    code = parse(PIX)
    assert (code.reference_label, code.amount, code.currency) == (None, None, "BRL")


def test_a_static_code_and_a_bill() -> None:
    assert not parse(PAYNOW).dynamic
    bill = parse(MERALCO)
    assert (bill.dynamic, bill.amount, bill.bill_number) == (True, Money.of(39080, "PHP"), "0466499801")
    assert not bill.distinct, "its account is the network's alone"


def test_what_lacks_what_emvco_demands_is_refused() -> None:
    with pytest.raises(NotEmvco, match="52 is missing"):
        parse(PROMPTPAY)


AMOUNTS = [
    ("392", "100", Money.of(100, "JPY")),
    ("392", "100.", Money.of(100, "JPY")),
    ("156", "98.73", Money.of(9873, "CNY")),
    ("156", "98.7", Money.of(9870, "CNY")),
    ("156", "98", Money.of(9800, "CNY")),
    ("414", "0.001", Money.of(1, "KWD")),
    ("156", "9999999999.99", Money.of(999_999_999_999, "CNY")),
]


@pytest.mark.parametrize(("currency", "amount", "money"), AMOUNTS)
def test_amounts_are_exact(currency: str, amount: str, money: Money) -> None:
    assert parse(emvco({"53": currency, "54": amount})).amount == money


@pytest.mark.parametrize(
    ("currency", "amount"),
    [
        ("392", "1.0"),
        ("156", "1.001"),
        ("156", "1.000"),
        ("156", "0"),
        ("156", "0.00"),
        ("156", ".5"),
        ("156", "."),
        ("156", "-1"),
        ("156", "+1"),
        ("156", "1e3"),
        ("156", "98,73"),
        ("156", "3 705"),
        ("156", "1.2.3"),
        ("156", "１２"),
        ("156", "NaN"),
        ("156", "99999999999.99"),
    ],
)
def test_an_amount_that_is_none_is_refused(currency: str, amount: str) -> None:
    with pytest.raises(NotEmvco, match=r"amount|54"):
        parse(emvco({"53": currency, "54": amount}))


WRONG: dict[str, tuple[str, str]] = {
    "nothing": ("", "empty"),
    "an address": ("https://example.com/000201", "payload format"),
    "another format": (emvco({"00": "02"}), "payload format"),
    "format not first": (sealed(tlv("01", "11") + "000201" + emvco()[12:-8]), "payload format"),
    "no checksum": (emvco()[:-8], "checksum"),
    "a wrong checksum": (emvco()[:-4] + "0000", "checksum"),
    "a checksum in lower case": (PIX[:-4] + PIX[-4:].lower(), "checksum"),
    "something after the checksum": (emvco() + " ", "checksum"),
    "a second code after the first": (sealed(emvco() + emvco()[6:-8]), "comes twice"),
    "an object after the checksum": (sealed(emvco() + tlv("80", ACCOUNT)), "comes twice"),
    "the checksum inside another object": (
        sealed(emvco()[:-8] + "6516" + tlv("00", "AAAA")),
        "last data object",
    ),
    "an object twice": (sealed(emvco()[:-8] + tlv("59", "ANOTHER")), "59 comes twice"),
    "an account twice": (sealed(emvco()[:-8] + tlv("26", ACCOUNT)), "26 comes twice"),
    "an object twice in a template": (emvco({"26": ACCOUNT + tlv("03", "87654321")}), "03 comes twice"),
    "a length of nought": (sealed(emvco()[:-8] + "6100"), "61 is not as long"),
    "a length that is none": (sealed(emvco()[:-8] + "61AB1234"), "two digits"),
    "a length in other digits": (sealed(emvco()[:-8] + "61０４1234"), "two digits"),
    "a length beyond the end": (sealed(emvco()[:-8] + "6199A"), "61 is not as long"),
    "a template that ends early": (emvco({"26": "0012D15600"}), "00 is not as long"),
    "a template without its owner": (emvco({"26": tlv("03", "12345678")}), "26 does not say whose"),
    "no account": (emvco({"26": None}), "names no account"),
    "no currency": (emvco({"53": None}), "53 is missing"),
    "no country": (emvco({"58": None}), "58 is missing"),
    "no name": (emvco({"59": None}), "59 is missing"),
    "no city": (emvco({"60": None}), "60 is missing"),
    "no category": (emvco({"52": None}), "52 is missing"),
    "a currency that is none": (emvco({"53": "000"}), "ISO 4217"),
    "a currency by letters": (emvco({"53": "CNY"}), "53 has not the form"),
    "gold": (emvco({"53": "959"}), "ISO 4217"),
    "a country in lower case": (emvco({"58": "cn"}), "58 has not the form"),
    "another initiation": (emvco({"01": "13"}), "01 has not the form"),
    "a name that is too long": (emvco({"59": "A" * 26}), "59 has not the form"),
    "a name beyond ASCII": (emvco({"59": "最佳运输"}), "59 has not the form"),
    "an account beyond ASCII": (emvco({"02": "４１１１"}), "02 has not the form"),
    "a control character": (emvco({"59": "A\x00B"}), "cannot be shown"),
    "half of a character": (emvco().replace("BOOKS", "BOOK\ud800"), "cannot be shown"),
    "a fee without its indicator": (emvco({"56": "1.00"}), "does not fit"),
    "an indicator without its fee": (emvco({"55": "02"}), "does not fit"),
    "a percentage for a fixed fee": (emvco({"55": "02", "57": "5"}), "does not fit"),
    "an unknown indicator": (emvco({"55": "04"}), "55 has not the form"),
    "a language without a name": (emvco({"64": tlv("00", "ZH")}), "64"),
    "a bill number that is too long": (emvco({"62": tlv("01", "9" * 26)}), "62.01"),
    "too long": (emvco({**{f"{id}": tlv("00", "A" * 32) + tlv("01", "B" * 40) for id in range(30, 40)}}), "512"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_off_is_refused_with_its_reason(name: str) -> None:
    text, reason = WRONG[name]
    with pytest.raises(NotEmvco, match=reason) as refused:
        parse(text)
    assert "BOOKS" not in str(refused.value), "the reason does not repeat the code"


def test_the_order_of_the_accounts_means_nothing() -> None:
    one, other = tlv("26", ACCOUNT), tlv("30", ACCOUNT)
    rest = emvco({"26": None})[12:-8]
    codes = [parse(sealed("000201" + accounts + "010211" + rest)) for accounts in (one + other, other + one)]
    assert codes[0].accounts == codes[1].accounts


def test_a_length_counts_characters_and_not_bytes() -> None:
    code = parse(emvco({"64": tlv("00", "JA") + tlv("01", "市場の本屋") + tlv("02", "杭州")}))
    assert dict(code.names) == {"ja": "市場の本屋"}


def test_without_an_initiation_method_a_code_is_static() -> None:
    assert not parse(emvco({"01": None})).dynamic
    assert parse(emvco({"01": "12"})).dynamic


def test_currencies_are_known_to_the_rest() -> None:
    assert {BY_NUMBER[number] for number in ("156", "392", "978", "840", "826", "752", "702", "764")} == {
        *("CNY", "JPY", "EUR", "USD", "GBP", "SEK", "SGD", "THB")
    }
    assert len(set(BY_NUMBER.values())) == len(BY_NUMBER) > 140
    assert all(Money.of(1, currency).major.as_tuple().exponent == -exponent(currency) for currency in BY_NUMBER.values())
