"""Signatures and encryption: published vectors, and everything that must be refused."""

import base64
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from wechatpayv3 import utils as theirs

from connectors.payments.wechat_pay import signing
from connectors.payments.wechat_pay.credentials import usable_certificate
from connectors.payments.wechat_pay.signing import NotAuthentic, PlatformKey, UnknownSerial
from infra.sandbox.wechat_pay import signing as gateways
from infra.sandbox.wechat_pay.keys import Keys
from tests.unit.connectors import wechat_pay_vectors as vectors

NOTIFIED = datetime.fromtimestamp(vectors.NOTIFY_AT, UTC)


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    found = load_pem_private_key(vectors.PRIVATE_KEY.encode(), password=None)
    assert isinstance(found, RSAPrivateKey)
    return found


@pytest.fixture(scope="module")
def notify_keys() -> Mapping[str, PlatformKey]:
    serials, platform_key = usable_certificate(vectors.NOTIFY_CERTIFICATE.encode(), NOTIFIED)
    return dict.fromkeys(serials, platform_key)


def signed(key: RSAPrivateKey, body: bytes, now: datetime, serial: str = "S") -> dict[str, str]:
    timestamp = str(int(now.timestamp()))
    return {
        "Wechatpay-Timestamp": timestamp,
        "Wechatpay-Nonce": "n",
        "Wechatpay-Serial": serial,
        "Wechatpay-Signature": signing.sign(key, f"{timestamp}\nn\n{body.decode()}\n"),
    }


# Vectors.


def test_the_published_signature_is_made(key: RSAPrivateKey) -> None:
    assert signing.sign(key, vectors.MESSAGE) == vectors.SIGNATURE


@pytest.mark.parametrize("source", ["certificate", "public key"])
def test_the_published_signature_verifies(source: str) -> None:
    if source == "certificate":
        serials, found = usable_certificate(vectors.CERTIFICATE.encode(), NOTIFIED)
        assert vectors.SERIAL in serials
        public_key = found.key
    else:
        loaded = load_pem_public_key(vectors.PUBLIC_KEY.encode())
        assert isinstance(loaded, RSAPublicKey)
        public_key = loaded
    public_key.verify(base64.b64decode(vectors.SIGNATURE), vectors.MESSAGE.encode(), PKCS1v15(), SHA256())


def test_the_published_secret_is_opened() -> None:
    assert signing.open_sealed(AESGCM(vectors.SEALED_KEY), vectors.SEALED) == vectors.OPENED


def test_the_published_notification_is_verified_and_opened(notify_keys: Mapping[str, PlatformKey]) -> None:
    body = vectors.NOTIFY_BODY.encode()
    signing.verify(vectors.NOTIFY_HEADERS, body, notify_keys, NOTIFIED)
    resource = json.loads(body)["resource"]
    assert json.loads(signing.open_sealed(AESGCM(vectors.NOTIFY_KEY), resource)) == vectors.NOTIFY_CONTENT


def test_the_published_certificate_is_opened() -> None:
    pem = signing.open_sealed(AESGCM(vectors.CERTIFICATES_KEY), vectors.CERTIFICATES_SEALED)
    assert f"{x509.load_pem_x509_certificate(pem).serial_number:X}" == vectors.NOTIFY_HEADERS["Wechatpay-Serial"]


# Against the SDK that is not ours, and the gateway.


def test_the_authorization_is_the_sdks_own(key: RSAPrivateKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    body = {"amount": {"total": 1}, "description": "x"}
    expected = theirs.build_authorization("/v3/a?b=c", "POST", "1900000109", "5A5A", key, data=body, nonce_str="N" * 32)
    ours = signing.authorization(
        key,
        "1900000109",
        "5A5A",
        method="POST",
        target="/v3/a?b=c",
        body=json.dumps(body).encode(),
        nonce="N" * 32,
        timestamp=1_700_000_000,
    )
    assert ours == expected


def test_the_sdk_verifies_and_opens_likewise(key: RSAPrivateKey) -> None:
    signature = signing.sign(key, "1\nn\nbody\n")
    assert theirs.rsa_verify("1", "n", "body", signature, key.public_key())
    cipher = AESGCM(b"k" * 32)
    text = base64.b64encode(cipher.encrypt(b"n" * 12, "牛奶".encode(), b"about")).decode()
    sealed = {"algorithm": signing.ENCRYPTION, "ciphertext": text, "nonce": "n" * 12, "associated_data": "about"}
    assert signing.open_sealed(cipher, sealed).decode() == theirs.aes_decrypt("n" * 12, text, "about", "k" * 32) == "牛奶"


def test_the_gateway_lets_a_request_in_once() -> None:
    keys = Keys.new()
    door = gateways.Doorkeeper()

    def admitted(target: str = "/v3/a?b=c", body: bytes = b"{}", *, timestamp: int = int(time.time()), nonce: str = "n") -> bool:
        given = signing.authorization(
            keys.merchant.key,
            keys.mchid,
            keys.merchant.serial,
            method="POST",
            target="/v3/a?b=c",
            body=b"{}",
            nonce=nonce,
            timestamp=timestamp,
        )
        return door.admits(given, "POST", target, body, keys)

    assert not admitted(target="/v3/a?b=d")
    assert not admitted(body=b"{ }")
    assert not admitted(timestamp=int(time.time()) - 301)
    assert admitted()
    assert not admitted()
    assert admitted(nonce="m")


# What is refused.


@pytest.mark.parametrize("off_by_s", [0, 299, -299])
def test_a_signature_of_now_holds(key: RSAPrivateKey, off_by_s: int) -> None:
    now = datetime.now(UTC)
    headers = signed(key, b"{}", now + timedelta(seconds=off_by_s))
    signing.verify({name.upper(): value for name, value in headers.items()}, b"{}", known(key), now)


@pytest.mark.parametrize("off_by_s", [302, -302, 10**6])
def test_one_of_another_time_does_not(key: RSAPrivateKey, off_by_s: int) -> None:
    now = datetime.now(UTC)
    with pytest.raises(NotAuthentic, match="old"):
        signing.verify(signed(key, b"{}", now + timedelta(seconds=off_by_s)), b"{}", known(key), now)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Wechatpay-Signature", ""),
        ("Wechatpay-Signature", None),
        ("Wechatpay-Signature", "AAAA"),
        ("Wechatpay-Signature", "no base64!"),
        ("Wechatpay-Signature", "ä"),
        ("Wechatpay-Signature", "WECHATPAY/SIGNTEST/AAAA"),
        ("Wechatpay-Signature-Type", "WECHATPAY2-SM2-WITH-SM3"),
        ("Wechatpay-Signature-Type", "WECHATPAY2-SHA1-RSA2048"),
        ("Wechatpay-Signature-Type", "none"),
        ("Wechatpay-Signature-Type", ""),
        ("Wechatpay-Timestamp", ""),
        ("Wechatpay-Timestamp", "now"),
        ("Wechatpay-Timestamp", "-1"),
        ("Wechatpay-Timestamp", "1e9"),
        ("Wechatpay-Timestamp", "9" * 400),
        ("Wechatpay-Timestamp", "१७"),
        ("Wechatpay-Nonce", None),
        ("Wechatpay-Nonce", "other"),
        ("Wechatpay-Serial", None),
        ("Wechatpay-Serial", "other"),
        ("Wechatpay-Serial", "s"),
    ],
)
def test_any_other_header_does_not_hold(key: RSAPrivateKey, header: str, value: str | None) -> None:
    now = datetime.now(UTC)
    headers = {name: text for name, text in {**signed(key, b"{}", now), header: value}.items() if text is not None}
    with pytest.raises(NotAuthentic):
        signing.verify(headers, b"{}", known(key), now)


def test_no_header_at_all_does_not_hold(key: RSAPrivateKey) -> None:
    with pytest.raises(NotAuthentic, match="not signed"):
        signing.verify({}, b"{}", known(key), datetime.now(UTC))


def test_another_hash_or_padding_does_not_hold(key: RSAPrivateKey) -> None:
    now = datetime.now(UTC)
    headers = signed(key, b"{}", now)
    message = f"{headers['Wechatpay-Timestamp']}\nn\n{{}}\n".encode()
    for padding, algorithm in ((PKCS1v15(), SHA1()), (PSS(MGF1(SHA256()), 32), SHA256())):
        headers["Wechatpay-Signature"] = base64.b64encode(key.sign(message, padding, algorithm)).decode()
        with pytest.raises(NotAuthentic, match="does not hold"):
            signing.verify(headers, b"{}", known(key), now)


def test_the_same_signature_written_differently_does_not_hold(key: RSAPrivateKey) -> None:
    """256 bytes leave four bits of the last letter unused."""
    now = datetime.now(UTC)
    headers = signed(key, b"{}", now)
    text = headers["Wechatpay-Signature"]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = text[:-3] + letters[letters.index(text[-3]) ^ 1] + "=="
    assert base64.b64decode(other) == base64.b64decode(text)
    for written in (other, text + "\n", text[:-1], f" {text}"):
        with pytest.raises(NotAuthentic):
            signing.verify({**headers, "Wechatpay-Signature": written}, b"{}", known(key), now)


def test_a_key_whose_certificate_has_expired_does_not_count(key: RSAPrivateKey) -> None:
    now = datetime.now(UTC)
    expired = {"S": PlatformKey(key.public_key(), now - timedelta(seconds=1))}
    with pytest.raises(UnknownSerial, match="expired"):
        signing.verify(signed(key, b"{}", now), b"{}", expired, now)


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": "AEAD_SM4_GCM"},
        {"algorithm": None},
        {"nonce": "short"},
        {"nonce": None},
        {"nonce": "\ud800" * 4},
        {"nonce": "wCq51qZv4Yfh"},
        {"associated_data": "other"},
        {"associated_data": None},
        {"associated_data": 7},
        {"ciphertext": "AAAA"},
        {"ciphertext": ""},
        {"ciphertext": 7},
        {"ciphertext": "FsdXzxryWfKwvLJKf8LG/ToRPTRh8RN9wROD"},
    ],
)
def test_what_is_sealed_differently_stays_closed(change: dict[str, object]) -> None:
    with pytest.raises(NotAuthentic):
        signing.open_sealed(AESGCM(vectors.SEALED_KEY), {**vectors.SEALED, **change})


def known(key: RSAPrivateKey) -> dict[str, PlatformKey]:
    return {"S": PlatformKey(key.public_key())}
