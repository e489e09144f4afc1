"""Whom codes ask to pay, and which codes are somebody's own money."""

import json
from dataclasses import dataclass

import pytest

from schemas.events import Event, new_event
from schemas.ids import DeviceId, JourneyId
from schemas.money import Money
from schemas.recognition import Code, Intent, PayeeCode, PayeeScheme, PayeesSeen, Recognition, Unclear, UnclearReason
from streams.sightings import codes, service
from streams.sightings.agent import Sightings
from streams.sightings.codes import Read
from streams.sightings.payee_codes import NotAPayeesCode, PayersCode, is_payers_code, read
from streams.sightings.recogniser import Look
from streams.sightings.service import Frame, Result, Seen
from tests.support.payee_codes import ACCOUNT, emvco, sealed, tlv

ALIPAY = "https://qr.alipay.com/fkx01234abcdefghijk5678"
ALIPAY_BILL = "https://qr.alipay.com/bavh4wjlxf12tper3a"  # the example of alipay.trade.precreate
WECHAT = "wxp://f2f0AbCdEfGhIjKlMnOpQrStUvWxYz-_0123"
WECHAT_BILL = "weixin://wxpay/bizpayurl?pr=p4lpSuKzz"
WECHAT_ORDER = "weixin://wxpay/bizpayurl/up?pr=NwY5Mz9&groupid=00"  # the example of the API's reference
# EMVCo, Consumer-Presented Mode 1.0, annex A.
CONSUMER_PRESENTED = (
    "hQVDUFYwMWETTwegAAAAVVVVUAhQcm9kdWN0MWETTwegAAAAZmZmUAhQcm9kdWN0MmJJWggSNFZ4kBI0WF8gDkNBUkRIT0xERVIvRU1WXy0IcnVlc2RlZW5kIZ8Q"
    "BwYBCgMAAACfJghYT9OF+iNLzJ82AgABnzcEbVjvEw=="
)
CORNERS = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


@pytest.mark.parametrize(
    ("text", "scheme", "dynamic"),
    [
        (ALIPAY, PayeeScheme.ALIPAY, False),
        (ALIPAY_BILL, PayeeScheme.ALIPAY, True),
        (WECHAT, PayeeScheme.WECHAT_PAY, False),
        (WECHAT + "==", PayeeScheme.WECHAT_PAY, False),
        (WECHAT_BILL, PayeeScheme.WECHAT_PAY, True),
        (WECHAT_ORDER, PayeeScheme.WECHAT_PAY, True),
    ],
)
def test_wallets_codes(text: str, scheme: PayeeScheme, dynamic: bool) -> None:
    code = read(text)
    assert (code.scheme, code.dynamic) == (scheme, dynamic)
    assert (code.name, code.amount, code.currency, code.reference) == (None, None, None, None)
    assert text.rpartition("/")[2] not in code.model_dump_json(), "the code itself is not kept"


def test_alipays_codes_are_the_same_in_upper_case() -> None:
    assert read(ALIPAY.upper()) == read(ALIPAY)


def test_wechats_codes_differ_by_case() -> None:
    assert read(WECHAT.replace("AbC", "aBC")).key != read(WECHAT).key


def test_keys_differ_by_scheme_and_account() -> None:
    codes = [ALIPAY, ALIPAY_BILL, WECHAT, WECHAT_BILL, emvco(), emvco({"02": "4111111111111111"}), emvco({"27": ACCOUNT})]
    assert len({read(code).key for code in codes}) == len(codes)


def test_the_key_is_the_account_and_nothing_else() -> None:
    bill = read(emvco({"01": "12", "54": "12.50", "59": "ANOTHER NAME", "62": tlv("01", "B-17") + tlv("05", "R-4")}))
    assert bill.key == read(emvco()).key
    assert bill == PayeeCode(
        scheme=PayeeScheme.EMVCO,
        key=bill.key,
        name="ANOTHER NAME",
        amount=Money.of(1250, "CNY"),
        currency="CNY",
        dynamic=True,
        reference="B-17",
    )
    assert read(emvco({"62": tlv("05", "R-4")})).reference == "R-4"


@pytest.mark.parametrize("fee", [{"55": "01"}, {"55": "02", "56": "1.00"}, {"55": "03", "57": "10"}])
def test_a_code_that_wants_more_than_its_amount_is_not_supported(fee: dict[str, str]) -> None:
    with pytest.raises(NotAPayeesCode, match="tip"):
        read(emvco({"54": "10.00", **fee}))


def test_an_account_that_many_merchants_share_names_nobody() -> None:
    with pytest.raises(NotAPayeesCode, match="no merchant"):
        read(emvco({"26": tlv("00", "com.example.network")}))


FOREIGN = [
    "",
    "https://example.com/",
    "https://qr.alipay.com/",
    "https://qr.alipay.com/fkx",
    "http://qr.alipay.com/fkx01234abcdefghijk5678",
    "https://qr.alipay.com.evil.example/fkx01234abcdefghijk5678",
    "https://evil.example/qr.alipay.com/fkx01234abcdefghijk5678",
    "https://evil.example#https://qr.alipay.com/fkx01234abcdefghijk5678",
    "https://qr.alipay.com@evil.example/fkx01234abcdefghijk5678",
    "https://user@qr.alipay.com/fkx01234abcdefghijk5678",
    "https://user:secret@qr.alipay.com/fkx01234abcdefghijk5678",
    "https://qr.alipay.com:443/fkx01234abcdefghijk5678",
    "https://qr.alipay.com./fkx01234abcdefghijk5678",
    "https://qr。alipay。com/fkx01234abcdefghijk5678",
    "https://qr．alipay．com/fkx01234abcdefghijk5678",
    "https://qrxalipay.com/fkx01234abcdefghijk5678",
    "https://qr.аlipay.com/fkx01234abcdefghijk5678",  # a Cyrillic а
    "https://qr.alipay.com%2eevil.example/fkx01234abcdefghijk5678",
    "https://qr.alipay.com/%66kx01234abcdefghijk5678",
    "https://qr.alipay.com//fkx01234abcdefghijk5678",
    "https://qr.alipay.com\\fkx01234abcdefghijk5678",
    "https://qr.alipay.com/../fkx01234abcdefghijk5678",
    "https://qr.alipay.com/fkx01234abcdefghijk5678/",
    "https://qr.alipay.com/fkx01234abcdefghijk5678?t=1608010938119",
    "https://qr.alipay.com/fkx01234abcdefghijk5678#x",
    "https://qr.alipay.com/fkx01234abcdefghijk5678\n",
    "\nhttps://qr.alipay.com/fkx01234abcdefghijk5678",
    " https://qr.alipay.com/fkx01234abcdefghijk5678",
    "https://QR.alipay.com/fkx01234abcdefghijk5678",
    "HTTPS://QR.ALIPAY.COM/fkx01234abcdefghijk5678",
    "https://qr.alipay.com/fkx01234ABCdefghijk5678",
    "https://qr.alipay.com/fKx01234abcdefghijk5678",  # a Kelvin sign
    "https://qr.alipay.com/fkx" + "a" * 60,
    "https://ds.alipay.com/fkx01234abcdefghijk5678",
    "alipays://platformapi/startapp?qrcode=https://qr.alipay.com/fkx01234abcdefghijk5678",
    "wxp://F2F0AbCdEfGhIjKlMnOpQrStUvWxYz",
    "WXP://F2F0ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "wxp://f2f0",
    "wxp://f2f0AbCdEfGhIjKl/../MnOpQrStUvWxYz",
    "wxp://f2f0AbCdEfGhIjKlMnOpQrStUvWxYz?to=somebody",
    "wxp://evil.example/f2f0AbCdEfGhIjKlMnOpQrStUvWxYz",
    "weixin://wxpay/bizpayurl",
    "weixin://wxpay/bizpayurl?pr=",
    "weixin://wxpay/bizpayurl?pr=abc&sr=def",
    "weixin://wxpay/bizpayurl?sr=p4lpSuKzz",
    "weixin://wxpay.evil.example/bizpayurl?pr=p4lpSuKzz",
    "weixin://wxpay/bizpayurl?pr=p4lpSuKzz\r\n",
]


@pytest.mark.parametrize("text", FOREIGN)
def test_whatever_only_looks_like_a_wallets_code_is_refused(text: str) -> None:
    with pytest.raises(NotAPayeesCode) as refused:
        read(text)
    assert "01234" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "2512345678901234",
        "281234567890123456",
        "301234567890123456789012",
        "101234567890123456",
        "159999999999999999",
        CONSUMER_PRESENTED,
    ],
)
def test_consumers_payment_codes_are_known_as_such_and_are_nobodys_payee(text: str) -> None:
    assert is_payers_code(text)
    with pytest.raises(NotAPayeesCode):
        read(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "9520000010010",
        "251234567890123",
        "3012345678901234567890123",
        "3112345678901234",
        "161234567890123456",
        ALIPAY,
        emvco(),
    ],
)
def test_other_codes_are_not_taken_for_consumers_payment_codes(text: str) -> None:
    assert not is_payers_code(text)


# What a frame with such codes leads to.


def seen(text: str, format: str = "QRCode", intent: Intent = Intent.IDENTIFY) -> Code:
    return codes.meaning(Read(text=text, format=format, corners=CORNERS, valid=True), intent, "CN")


def decide(intent: Intent, codes: tuple[Code, ...]) -> Result:
    return service.decide(Frame("s", "0" * 64, intent), Seen(codes=codes, models=("codes:1",)))


PRODUCT = seen("9520000010010", "EAN13")


def test_the_text_of_a_code_that_is_no_products_stops_at_the_door() -> None:
    for text in (ALIPAY, WECHAT, emvco(), "281234567890123456", CONSUMER_PRESENTED, "anything"):
        assert seen(text).text == ""
        assert text[-12:] not in seen(text).model_dump_json() and text[-12:] not in repr(seen(text))


def test_payees_codes_are_qr_codes() -> None:
    assert seen(ALIPAY).payee is not None
    assert seen(ALIPAY, "DataMatrix").payee is None and seen(ALIPAY, "Code128").payee is None


def test_payees_codes_lead_to_payees_for_who_wants_to_pay() -> None:
    one, other = seen(ALIPAY), seen(emvco())
    result = decide(Intent.PAY, (one, other, one, seen("anything")))
    assert isinstance(result, PayeesSeen)
    assert result.payees == (one.payee, other.payee), "each once"


@pytest.mark.parametrize("intent", [Intent.IDENTIFY, Intent.PRICE, Intent.READ])
def test_and_for_nobody_else(intent: Intent) -> None:
    result = decide(intent, (seen(ALIPAY),))
    assert isinstance(result, Unclear) and result.reason is UnclearReason.NOT_A_PRODUCT_CODE


def test_a_product_in_view_comes_first_and_tells_nothing_of_payees() -> None:
    result = decide(Intent.PAY, (PRODUCT, seen(emvco())))
    assert isinstance(result, Recognition) and result.gtin == "09520000010010"
    assert all(code.payee is None for code in result.codes)


def test_more_payees_than_can_be_told_apart() -> None:
    codes = tuple(seen(emvco({"54": str(amount)})) for amount in range(1, 10))
    result = decide(Intent.PAY, codes)
    assert isinstance(result, Unclear) and result.reason is UnclearReason.SEVERAL_PRODUCTS


@pytest.mark.parametrize(("text", "format"), [("281234567890123456", "Code128"), ("131234567890123456", "QRCode")])
def test_a_consumers_payment_code_gets_its_own_hint(text: str, format: str) -> None:
    code = seen(text, format)
    assert isinstance(code, PayersCode)
    result = decide(Intent.PAY, (code,))
    assert isinstance(result, Unclear) and result.reason is UnclearReason.PAYERS_CODE
    beside = decide(Intent.PAY, (code, seen(ALIPAY)))
    assert isinstance(beside, PayeesSeen), "somebody's phone beside the till hides nothing"
    assert isinstance(decide(Intent.PAY, (code, PRODUCT)), Recognition)


@dataclass
class Reads:
    """A recogniser that reads these texts from every frame."""

    texts: tuple[tuple[str, str], ...]

    async def look(self, frame: bytes, what: Frame, time_s: float, *, region: str | None = None) -> Look:
        found = Seen(codes=tuple(seen(text, format, what.intent) for text, format in self.texts), models=("codes:1",))
        return Look(service.decide(what, found), found)


def sighting(intent: Intent) -> Event:
    context = {"journeyid": JourneyId.new(), "deviceid": DeviceId.new(), "intent": intent, "framedigest": "a" * 64}
    return new_event("sighting.captured", PayeeCode(scheme=PayeeScheme.ALIPAY, key="0" * 64), source="/gateway", **context)


@pytest.mark.parametrize("intent", list(Intent))
async def test_the_digits_of_a_payment_code_are_in_no_event(intent: Intent) -> None:
    digits = "281234567890123456"
    for texts in (
        ((digits, "QRCode"),),
        ((digits, "Code128"), ("9520000010010", "EAN13")),
        ((digits, "QRCode"), (ALIPAY, "QRCode"), (CONSUMER_PRESENTED, "QRCode")),
    ):
        [(_, event)] = await Sightings(Reads(texts)).handle(sighting(intent))
        told = event.model_dump_json() + event.data.decode() + repr(event)
        assert digits not in told and CONSUMER_PRESENTED[:12] not in told and "fkx" not in told


async def test_payees_are_an_event_of_their_own() -> None:
    [(_, event)] = await Sightings(Reads(((emvco({"54": "12.50"}), "QRCode"),))).handle(sighting(Intent.PAY))
    assert event.type == "payees.seen"
    assert event.decode(PayeesSeen).payees[0].amount == Money.of(1250, "CNY")
    assert set(json.loads(event.data)["payees"][0]) == {"scheme", "key", "name", "amount", "currency", "dynamic"}


def test_a_damaged_code_is_no_payees_code() -> None:
    damaged = emvco()[:-1] + ("0" if emvco()[-1] != "0" else "1")
    assert seen(damaged).payee is None
    assert seen(sealed(emvco()[:-8] + tlv("99", "x"))).payee is None
