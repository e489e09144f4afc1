"""Which codes ask to pay somebody, and which are somebody's means of paying. Plain functions; no text of a code leaves here."""

import re

from schemas.digests import sha256_hex
from schemas.recognition import Code, PayeeCode, PayeeScheme
from streams.sightings import emvco

# Whole texts only, so that no other host, port, user or path can hide in them. A code is printed either in lower case or, for a
# smaller symbol, all in upper case. Patterns by the codes in circulation (2026): `fkx` is an account that takes any amount, `ba…`
# is one bill, as alipay.trade.precreate answers it. What follows a `?` is not known, and not guessed.
_ALIPAY_ACCOUNT = re.compile("https://qr[.]alipay[.]com/(fkx[0-9a-z]{10,40})")
_ALIPAY_BILL = re.compile("https://qr[.]alipay[.]com/(ba[a-z][0-9a-z]{8,40})")
# `f2f` is an account that takes any amount; the other is one order's `code_url` (WeChat Pay API v3, Native payment).
_WECHAT_ACCOUNT = re.compile("wxp://(f2f[0-9A-Za-z_-]{10,100}={0,2})")
_WECHAT_BILL = re.compile("weixin://wxpay/bizpayurl(?:/up)?[?]pr=([0-9A-Za-z_-]{4,64})(?:&groupid=[0-9]{2})?")

# Payment codes of consumers: alipay.trade.pay (auth_code: 25 to 30, 16 to 24 digits), WeChat Pay's code payment (10 to 15, 18
# digits), and EMVCo's consumer-presented codes (base64 of tag 85, length 5, "CPV0…").
_PAYERS = re.compile("(?:2[5-9]|30)[0-9]{14,22}|1[0-5][0-9]{16}|hQVDUFYw[0-9A-Za-z+/=_-]+")


class NotAPayeesCode(ValueError):
    """The text does not ask to pay anybody, or asks for what is not supported. The message says why, without the text."""


class PayersCode(Code):
    """A code that is somebody's money: that it is there is all that is told of it."""


def read(text: str) -> PayeeCode:
    """Whom a QR code asks to pay. Raises NotAPayeesCode."""
    folded = text.lower() if text.isascii() and text == text.upper() else text
    if match := _ALIPAY_ACCOUNT.fullmatch(folded):
        return PayeeCode(scheme=PayeeScheme.ALIPAY, key=_key(PayeeScheme.ALIPAY, match[1]))
    if match := _ALIPAY_BILL.fullmatch(folded):
        return PayeeCode(scheme=PayeeScheme.ALIPAY, key=_key(PayeeScheme.ALIPAY, match[1]), dynamic=True)
    if match := _WECHAT_ACCOUNT.fullmatch(text):
        return PayeeCode(scheme=PayeeScheme.WECHAT_PAY, key=_key(PayeeScheme.WECHAT_PAY, match[1]))
    if match := _WECHAT_BILL.fullmatch(text):
        return PayeeCode(scheme=PayeeScheme.WECHAT_PAY, key=_key(PayeeScheme.WECHAT_PAY, match[1]), dynamic=True)
    return _emvco(text)


def is_payers_code(text: str) -> bool:
    """Whether it is a consumer's payment code. Such a code pays whoever has it: it must go nowhere."""
    return _PAYERS.fullmatch(text) is not None


def _emvco(text: str) -> PayeeCode:
    """The key covers every account the code names, so that none can be put beside a registered one. A code whose accounts change
    from bill to bill can therefore not be registered."""
    try:
        code = emvco.parse(text)
    except emvco.NotEmvco as error:
        raise NotAPayeesCode(str(error)) from error
    if not code.distinct:
        raise NotAPayeesCode("its accounts name payment networks, and no merchant")
    if code.tip:
        raise NotAPayeesCode("it asks for a tip or adds a fee, which is not supported")
    accounts = "".join(f"{id}{len(value):02}{value}" for id, value in code.accounts)
    return PayeeCode(
        scheme=PayeeScheme.EMVCO,
        key=_key(PayeeScheme.EMVCO, accounts),
        name=code.name,
        amount=code.amount,
        currency=code.currency,
        dynamic=code.dynamic,
        reference=code.bill_number or code.reference_label,
    )


def _key(scheme: PayeeScheme, identity: str) -> str:
    return sha256_hex(f"{scheme}\n{identity}".encode())
