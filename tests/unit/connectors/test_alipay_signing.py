"""Signatures and certificates, against what Alipay published with its Node SDK (data/alipay/README.md), and against forgeries."""

import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from connectors.payments.alipay import signing
from infra.sandbox.alipay import keys

DATA = Path(__file__).parent / "data" / "alipay"

TRADE_KEY = (
    "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAqObrdC7hrgAVM98tK0nv3hSQRGGKT4lBsQjHiGjeYZjOPIPHR5knm2jnnz/YGIXIofVHkA/tAlBAd5DrY7"
    "YpvI4tP5EONLtZKC2ghBMx7McI2wRD0xiqzxOQr1FuhZGJ8/AUokBzJrzY+aGX2xcOrxFYRlFilvVLTXg4LWjR1tdPkO6+i7wQZAIVMClPkwVRZEbaERRHlKqTzv2g"
    "Gv5rDU8gRoe1LeaN+6BlbTqHWkQcNCUNrA8C6l17XAXGKDsm/9TFWwO8EPHHHCaQdjtV5/FdcWIt+L8SR1ss7EXTjYDFtxcKVv9rEoY1lX8T4mX+GbXfZHraG5NCF1"
    "+XioL5JwIDAQAB"
)
TRADE_NOTIFICATION = {
    "gmt_create": "2019-08-15 15:56:22",
    "charset": "utf-8",
    "seller_email": "z97-yuquerevenue@service.aliyun.com",
    "subject": "语雀空间 500人规模",
    "sign": (
        "QfTb8tqE1BMhS5qAnXtvsF3/jBkEvu9q9en0pdbBUDDjvKycZhQb7h8GDs4FKfi049PynaNuatxSgLb/nLWZpXyyh0LEWdK2S6Ri7nPwrVgOs08zugLO20vOQz44"
        "y3ti2Ncm8/wZts1Fr2gZ7pShnVX3d1B50hbsXnObT1r/U8ONNQjWXd0HIul4TG+Q3fm3svmSvFEy0WnzuhcyHPX5Gm4ELNctL6Qd5YniGJFNcc7kopHYtI/XD9YC"
        "KCH6Ct02rzUs9i11C9CsadtZn+WhxF26Dqt9sGEFajkJ8cxUTLi8+VCpLHsgPE8P0y095uQcDdK0YjCh4x7wVSov+lrmOQ=="
    ),
    "buyer_id": "2088102534368455",
    "invoice_amount": "0.10",
    "notify_id": "2019081500222155624068450559358070",
    "fund_bill_list": '[{"amount":"0.10","fundChannel":"ALIPAYACCOUNT"}]',
    "notify_type": "trade_status_sync",
    "trade_status": "TRADE_SUCCESS",
    "receipt_amount": "0.10",
    "buyer_pay_amount": "0.10",
    "sign_type": "RSA2",
    "app_id": "2019073166072302",
    "seller_id": "2088531891668739",
    "gmt_payment": "2019-08-15 15:56:24",
    "notify_time": "2019-08-15 15:56:25",
    "version": "1.0",
    "out_trade_no": "20190815155618536-564-57",
    "total_amount": "0.10",
    "trade_no": "2019081522001468450512505578",
    "auth_app_id": "2019073166072302",
    "buyer_logon_id": "xud***@126.com",
    "point_amount": "0.00",
}
SERVICE_NOTIFICATION = {
    "app_id": "2017122801303261",
    "charset": "UTF-8",
    "commodity_order_id": "2019030800000018079639",
    "contactor": "技术支持测试的公司",
    "merchant_pid": "2088721996721370",
    "method": "alipay.open.servicemarket.order.notify",
    "name": "技术支持测试的公司",
    "notify_id": "2019030800222102023008121054923345",
    "notify_time": "2019-03-08 10:20:23",
    "notify_type": "servicemarket_order_notify",
    "order_item_num": "1",
    "order_ticket": "29b1c37d99ab48c5bd5bdaeaeaefbB37",
    "order_time": "2019-03-08 10:20:08",
    "phone": "17826894615",
    "service_code": "58621634",
    "sign": (
        "MsK5SCw8oqLw4f0hiNSd5OVGXxBY3wnQeT8vn5PklJSZFWSZbK4hQbNvkp4ZezeXQH514cEv0ul6Qow8yh6e6yM06LfEL+EZjcpZ0nxzFGRNQ5qq2AUc1OaXQdk9"
        "2AGvxh+Iq4NGpPQFBd4D8EBJa3NJd8+czMfQskceosOQFqUtLQMYa5DPs+VpN7VM5BdXjaVIuKn5d9Wm2B9dI9ObIM+YRySDkZZPv14DVmUvcrcqJfOR8aHvtSd7"
        "B4l92wUQPQgQKNcOQho7xOHS/Bk+Y74AZL2y7TkNmdDoq9OGsThuF5tDW9rI9nVwXxOtsuB+bstra+W7aw9x9DvkKgdSRw=="
    ),
    "sign_type": "RSA2",
    "timestamp": "2019-03-08 10:20:23",
    "title": "麦禾商城模版",
    "total_price": "0.00",
    "version": "1.0",
}
ANSWER = (
    '{"alipay_open_file_upload_response":{"code":"10000","msg":"Success","file_id":"CAxAToWB1JsAAAAAAAAAAAAADgSLAQBr"},"sign":"'
    "F+LDzpTNiavn7xVZPGuPCSSVRSmWzJGgtuji6tVELGEaqMaNj0jRKXUEr5nloZJBBmwEnddOyCjjepMmrTKTvoOqQ0Efxpr/R1iEeHTHVbb/Q8TTh6Up5gHJDkILdaWS"
    "2q1cWeQ6VT+HQY9P3WRXS7uhILHuDODIhpAyCu5KhWGt0rMCIG+Im6NODJP2oohtSCtmTFXg58HH587Z2y2bdbjzOxLvzD9IrU1imghXQ2S/Q+wMIvRk9on6cWnBLkrN"
    'vJKapA2ReNGWOwyuASvB9zDVzhMPbR+3mfRGkVDxsq5HYLjBKGskJMXHw0HuugZij6ScRuaLPODhmHwr/pJ9yw=="}'
)


def read(name: str) -> str:
    return (DATA / name).read_text()


def believed(key: rsa.RSAPublicKey, body: bytes) -> bool:
    fields = signing.notification(body)
    return any(signing.verify(key, content, fields.get("sign")) for content in signing.notification_contents(fields))


# What Alipay published.


def test_the_published_certificates_have_the_published_serials() -> None:
    (app,) = signing.certificates(read("appCertPublicKey_2021001161683774.crt"))
    (alipay,) = signing.certificates(read("alipayCertPublicKey_RSA2.crt"))
    roots = signing.certificates(read("alipayRootCert.crt"), all_of_them=False)
    assert signing.certificate_serial(app) == "866efef280dec9137a87d047ac446315"
    assert signing.certificate_serial(alipay) == "7513daaaa48aa3ba2e4018d84402479c"
    assert signing.root_serial(roots) == "687b59193f3f462dd5336e5abf83c5d8_02941eef3187dddf3d3b83462e1dfcf6"


def test_the_published_notification_of_a_trade_is_believed() -> None:
    assert believed(signing.public_key(TRADE_KEY), urlencode(TRADE_NOTIFICATION).encode())


def test_the_published_notification_of_a_service_is_believed() -> None:
    key = signing.public_key(read("alipay-notify-sign-public-key-v2.pem"))
    assert believed(key, urlencode(SERVICE_NOTIFICATION).encode())
    assert not believed(key, urlencode({**SERVICE_NOTIFICATION, "service_code": "58621634111"}).encode())


@pytest.mark.parametrize("name", [name for name in TRADE_NOTIFICATION if name not in {"sign", "sign_type"}])
def test_no_field_of_a_notification_may_differ(name: str) -> None:
    altered = {**TRADE_NOTIFICATION, name: TRADE_NOTIFICATION[name] + "0"}
    assert not believed(signing.public_key(TRADE_KEY), urlencode(altered).encode())


def test_the_published_answer_is_believed() -> None:
    key = signing.public_key(read("alipay-public-key.pem"))
    answer = signing.v1_answer(ANSWER.encode(), "alipay.open.file.upload")
    assert signing.verify(key, answer.raw, answer.signature)
    assert signing.read_object(answer.raw)["file_id"] == "CAxAToWB1JsAAAAAAAAAAAAADgSLAQBr"
    altered = signing.v1_answer(ANSWER.replace("10000", "10001").encode(), "alipay.open.file.upload")
    assert not signing.verify(key, altered.raw, altered.signature)


# Taking v1 answers apart.


@pytest.mark.parametrize(
    ("text", "raw"),
    [
        ('{"alipay_a_response":{"code":"1"},"sign":"s"}', '{"code":"1"}'),
        ('{"alipay_a_response"\r\n : \t{"code":"1"},\n "sign" : "s"}\n', '{"code":"1"}'),
        ('{"sign":"s","alipay_a_response":{"code":"1"}}', '{"code":"1"}'),
        (
            '{"alipay_a_response":{"sign":"x","url":"http:\\/\\/a\\"sign\\":1"},"sign":"s"}',
            '{"sign":"x","url":"http:\\/\\/a\\"sign\\":1"}',
        ),
        ('{"alipay_a_response":{"a":{"sign":{"sign":"}"}}},"sign":"s"}', '{"a":{"sign":{"sign":"}"}}}'),
        ('{"error_response":{"code":"40002"},"sign":"s"}', '{"code":"40002"}'),
        ('{"alipay_a_response":{"a":"有"},"alipay_cert_sn":"c","sign":"s"}', '{"a":"有"}'),
    ],
)  # fmt: skip
def test_the_signed_part_is_what_stands_there(text: str, raw: str) -> None:
    answer = signing.v1_answer(text.encode(), "alipay.a")
    assert answer.raw == raw.encode()
    assert answer.signature == "s"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "7",
        '{"alipay_a_response":{}',
        '{"alipay_a_response":{},}',
        '{"alipay_a_response":{},"sign":"s"}}',
        '{"alipay_a_response":{},"sign":"s"} {}',
        '{"alipay_b_response":{},"sign":"s"}',
        '{"alipay_a_response":{},"alipay_a_response":{},"sign":"s"}',
        '{"alipay_a_response":{},"error_response":{},"sign":"s"}',
        '{"alipay_a_response":{},"sign":"s","sign":"t"}',
        '{"alipay_a_response":{},"sign":7}',
        '{"alipay_a_response":{},"extra":1,"sign":"s"}',
        '{"alipay_a_response":"encrypted","sign":"s"}',
        '{"alipay_a_response":{"a":1,"a":2},"sign":"s"}',
        '{"alipay_a_response":{"a":NaN},"sign":"s"}',
        '{alipay_a_response:{},"sign":"s"}',
        '{"alipay_a_response":' + "[" * 5000 + "]" * 5000 + ',"sign":"s"}',
    ],
)
def test_what_alipay_never_writes_is_unreadable(text: str) -> None:
    with pytest.raises(signing.Unreadable):
        signing.v1_answer(text.encode(), "alipay.a")


def test_bytes_that_are_no_text_are_unreadable() -> None:
    with pytest.raises(signing.Unreadable):
        signing.v1_answer(b'{"alipay_a_response":{"a":"\xff"},"sign":"s"}', "alipay.a")


# Notifications that could be read in two ways.


def test_fields_cannot_be_moved_into_each_other() -> None:
    made = keys.make()
    fields = {"app_id": "1", "body": "salt & pepper", "subject": "milk", "total_amount": "6.50"}
    content, _ = signing.notification_contents(fields)
    signature = {"sign": signing.sign(made.alipay, content), "sign_type": "RSA2"}
    key = made.alipay.public_key()
    assert believed(key, urlencode({**fields, **signature}).encode())
    # The signed text is the same each time; what it would be taken for is not.
    for moved in (
        {"app_id": "1", "body": "salt & pepper", "subject": "milk&total_amount=6.50"},
        {"app_id": "1&body=salt & pepper", "subject": "milk", "total_amount": "6.50"},
        {"app_id": "1", "body": "salt & pepper&subject=milk", "total_amount": "6.50"},
        {"app_id": "1", "body": "salt & pepper", "subject=milk&total_amount": "6.50"},
    ):
        assert signing.notification_contents(moved)[0] == content
        with pytest.raises(signing.Unreadable):
            signing.notification(urlencode({**moved, **signature}).encode())


@pytest.mark.parametrize(
    "body", [b"a=1&a=1", b"a=1&a=2", b"a", b"=1", b"a=1&", b"a=%ff", b"a=\xff", b"A=1", b"a-b=1", b"&", b"a;b=1"]
)
def test_what_is_not_one_of_alipays_forms_is_unreadable(body: bytes) -> None:
    with pytest.raises(signing.Unreadable):
        signing.notification(body)


# Signatures that are none.


def test_only_sha256_is_believed() -> None:
    key = rsa.generate_private_key(65537, 2048)
    content = b"a=1"
    assert signing.verify(key.public_key(), content, signing.sign(key, content))
    for algorithm in (hashes.SHA1(), hashes.MD5(), hashes.SHA512()):
        other = base64.b64encode(key.sign(content, padding.PKCS1v15(), algorithm)).decode()
        assert not signing.verify(key.public_key(), content, other)
    salted = key.sign(content, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    assert not signing.verify(key.public_key(), content, base64.b64encode(salted).decode())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: None,
        lambda text: "none",
        lambda text: "A" * 344,
        lambda text: text[:-2],
        lambda text: text + "\n",
        lambda text: " " + text,
        lambda text: text.replace("=", ""),
        lambda text: text + "AAAA",
        lambda text: text[:-3] + ("B" if text[-3] != "B" else "C") + "==",
    ],
)
def test_no_other_spelling_of_a_signature_is_believed(spoil: Callable[[str], str | None]) -> None:
    key = rsa.generate_private_key(65537, 2048)
    signature = signing.sign(key, b"a=1")
    spoilt = spoil(signature)
    assert spoilt != signature
    assert not signing.verify(key.public_key(), b"a=1", spoilt)


# Certificates.


def test_a_chain_of_three_is_followed() -> None:
    now = datetime.now(UTC)
    root_key, middle_key, leaf_key = (rsa.generate_private_key(65537, 2048) for _ in range(3))
    root = keys.certify(root_key, "root", root_key, None, now, is_authority=True)
    middle = keys.certify(middle_key, "middle", root_key, root, now, is_authority=True)
    leaf = keys.certify(leaf_key, "leaf", middle_key, middle, now)
    signing.check_chain([leaf, middle], [root], now)
    signing.check_chain([leaf, root, middle], [root], now)
    with pytest.raises(signing.Unusable, match="does not lead"):
        signing.check_chain([leaf], [root], now)
    other_key = rsa.generate_private_key(65537, 2048)
    other_root = keys.certify(other_key, "root", other_key, None, now, is_authority=True)
    forged = keys.certify(leaf_key, "leaf", leaf_key, root, now)
    for chain, roots in (([leaf, middle], []), ([forged], [root]), ([leaf, middle, root], [other_root])):
        with pytest.raises(signing.Unusable):
            signing.check_chain(chain, roots, now)


def test_a_certificate_that_is_no_authority_certifies_nobody() -> None:
    now = datetime.now(UTC)
    root_key, app_key = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    root = keys.certify(root_key, "root", root_key, None, now, is_authority=True)
    app = keys.certify(app_key, "app", root_key, root, now)
    forged = keys.certify(app_key, "alipay", app_key, app, now)
    with pytest.raises(signing.Unusable, match="does not lead"):
        signing.check_chain([forged, app], [root], now)


@pytest.mark.parametrize(("days", "why"), [(-2, "not valid before"), (400, "expired")])
def test_dates_of_every_certificate_on_the_way_count(days: int, why: str) -> None:
    made = keys.make()
    at = datetime.now(UTC) + timedelta(days=days)
    with pytest.raises(signing.Unusable, match=why):
        signing.check_chain([made.alipay_certificate], [made.root], at)


def test_sha1_certificates_are_refused() -> None:
    now = datetime.now(UTC)
    sha1 = next(root for root in signing.certificates(read("alipayRootCert.crt"), all_of_them=False)
                if isinstance(root.signature_hash_algorithm, hashes.SHA1))  # fmt: skip
    with pytest.raises(signing.Unusable, match="no longer safe"):
        signing.check_certificate(sha1, now)


def test_a_file_without_certificates_is_refused() -> None:
    for text in ("", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"):
        with pytest.raises(signing.Unusable):
            signing.certificates(text)
    with pytest.raises(signing.Unusable, match="signed with RSA"):
        signing.root_serial([])


def test_names_are_not_escaped_in_serials() -> None:
    # `O=a, b` is written as it is: Alipay does not quote as RFC 4514 does.
    parts = ((x509.NameOID.COUNTRY_NAME, "CN"), (x509.NameOID.ORGANIZATION_NAME, "a, b"))
    name = x509.Name([x509.NameAttribute(kind, value) for kind, value in parts])
    key = rsa.generate_private_key(65537, 2048)
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(17)
        .not_valid_before(now).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    assert signing.certificate_serial(certificate) == hashlib.md5(b"O=a, b,C=CN17").hexdigest()
