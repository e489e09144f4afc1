"""What cannot be right is refused when an account is set up, naming the field and never its value."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from connectors.payments.wechat_pay import connect
from connectors.payments.wechat_pay.credentials import load
from infra.sandbox.wechat_pay.keys import Keys
from schemas.errors import Misconfigured

NOW = datetime.now(UTC)

# Made by `openssl req -x509 -newkey rsa:2048 -sha1 -days 36500`: what makes certificates here refuses to.
SHA1_CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIDCTCCAfGgAwIBAgIUY5doBqpNsRzH7syVAFE/U4f1rp4wDQYJKoZIhvcNAQEF
BQAwEzERMA8GA1UEAwwIUGxhdGZvcm0wIBcNMjYxMTIyMjAxNzUxWhgPMjEyNjEw
MjkyMDE3NTFaMBMxETAPBgNVBAMMCFBsYXRmb3JtMIIBIjANBgkqhkiG9w0BAQEF
AAOCAQ8AMIIBCgKCAQEA3l86YQv6Iw05n4Il5d6V1y6/JwG2h5acRH1/pN2IuIj6
ry9ugysGKTF7BZDqFJldysjM9r2Pbt9kNX+t1ff6Hb6Lv4aLG617Ne4ymW72/Ap1
HSGN/GTpkJ3MPpU+Ye1RuJLqgEy2LdPLAJ5ROfuPjCQhOfzYLHNn1s6PpMuopBrL
m1miknzGZO7+oY0sfmXLSpsKW+xOIt00vin/kpTjJQfyFtI+YmC0yQc7ao/xFufw
PL86zKchQYmeD7XcQmw9kpyu4OTB1LwF5J69H47guKe9JA/FtgHGFJDdB7mGKWHL
nMzi3MQTFSs4w26IXxnZZmh/xjZDEw0NtYN9NEcZBQIDAQABo1MwUTAdBgNVHQ4E
FgQU4OdJHdE742W8zr/qtgxWrnzVTRYwHwYDVR0jBBgwFoAU4OdJHdE742W8zr/q
tgxWrnzVTRYwDwYDVR0TAQH/BAUwAwEB/zANBgkqhkiG9w0BAQUFAAOCAQEAuBjX
6u09+y/42W4Xm6vUuSFHNWnJoeme1UHlAw2s94lYcSalDwECR9BkmueL8rBkUa54
IgjsudtzHhyfLnpZqxodtVOOKI71dIPlYKZI0TdWqrL6nMApW27IEu+FpQ2Zgrtq
GE+7bEIx4LUyEevObv98h4vi6SJLLkWesVsazLfR31yv0FhsbEY9/49323YC5xZA
xcmChc7iFmAI1kTFK0Hs1PaagGP1QHZv5MTkesHIp5KuoENqiG5RsivVRLShhIRA
kLwvshybbWqsSGwaAS8xi1DbjuyrY5gezsaZC6zNMeAOw08IdGbBkG0z3pfSh9Yf
E3QEuzqTzX0yXdALPA==
-----END CERTIFICATE-----
"""


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys.new()


@pytest.fixture(scope="module")
def good(keys: Keys) -> dict[str, str]:
    return keys.credentials()


@pytest.fixture(scope="module")
def small() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=1024)


@pytest.fixture(scope="module")
def curve() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def certificate(key: CertificateIssuerPrivateKeyTypes, *, begins: datetime = NOW, ends: datetime | None = None) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Platform")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins - timedelta(days=1))
        .not_valid_after(ends or NOW + timedelta(days=1))
        .sign(key, SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode()


def private_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, *, password: bytes | None = None) -> str:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()


def public_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def refused(given: Mapping[str, str], field: str) -> str:
    with pytest.raises(Misconfigured) as raised:
        connect(given, notify_url=None)
    text = str(raised.value)
    assert field in text
    for value in given.values():
        assert not value.strip() or len(value) < 12 or value not in text
    return text


async def test_good_credentials_are_taken(good: Mapping[str, str]) -> None:
    connector = connect(good, notify_url=None)
    assert connector.account == f"{good['mchid']}/{good['appid']}"
    await connector.close()


@pytest.mark.parametrize("field", ["mchid", "appid", "serial_no", "private_key", "api_v3_key", "platform_certificates"])
@pytest.mark.parametrize("value", [None, "", " "])
def test_nothing_may_be_missing_or_empty(good: Mapping[str, str], field: str, value: str | None) -> None:
    given = {name: text for name, text in {**good, field: value}.items() if text is not None}
    refused(given, field)


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_the_api_v3_key_has_32_bytes(good: Mapping[str, str], length: int) -> None:
    assert "32 bytes" in refused({**good, "api_v3_key": "k" * length}, "api_v3_key")


def test_bytes_are_counted_not_letters(good: Mapping[str, str]) -> None:
    refused({**good, "api_v3_key": "ä" * 32}, "api_v3_key")
    assert load({**good, "api_v3_key": "ä" * 16})


def test_a_private_key_of_another_kind_or_length_is_refused(
    good: Mapping[str, str], small: rsa.RSAPrivateKey, curve: ec.EllipticCurvePrivateKey, keys: Keys
) -> None:
    for wrong in (
        private_pem(small),
        private_pem(curve),
        private_pem(keys.merchant.key, password=b"secret"),
        keys.merchant.certificate_pem,
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
    ):
        refused({**good, "private_key": wrong}, "private_key")


def test_a_platform_key_of_another_kind_or_length_is_refused(
    good: Mapping[str, str], small: rsa.RSAPrivateKey, curve: ec.EllipticCurvePrivateKey
) -> None:
    for key in (small, curve):
        refused({**good, "platform_certificates": certificate(key)}, "platform_certificates")
        by_key = {name: text for name, text in good.items() if name != "platform_certificates"}
        refused(
            {**by_key, "platform_public_key": public_pem(key), "platform_public_key_id": "PUB_KEY_ID_01"}, "platform_public_key"
        )


def test_expired_and_future_certificates_are_refused_where_no_other_is_valid(good: Mapping[str, str], keys: Keys) -> None:
    old = certificate(keys.signing.key, begins=NOW - timedelta(days=9), ends=NOW - timedelta(seconds=1))
    early = certificate(keys.signing.key, begins=NOW + timedelta(days=2), ends=NOW + timedelta(days=3))
    assert "expired" in refused({**good, "platform_certificates": old}, "platform_certificates")
    assert "expired" in refused({**good, "platform_certificates": old + old}, "platform_certificates")
    assert "not valid yet" in refused({**good, "platform_certificates": early}, "platform_certificates")
    assert set(load({**good, "platform_certificates": old + good["platform_certificates"]}).platform_keys) == {
        keys.signing.serial
    }
    assert "expired" in refused({**good, "certificate": old}, "certificate")


def test_an_account_in_use_is_taken_though_certificates_have_expired(good: Mapping[str, str], keys: Keys) -> None:
    old = certificate(keys.signing.key, begins=NOW - timedelta(days=9), ends=NOW - timedelta(seconds=1))
    account = load({**good, "platform_certificates": old, "certificate": old}, strict=False)
    # They verify nothing; but new ones may be fetched.
    assert account.platform_keys == {} and account.certificates
    for wrong in (
        {"platform_certificates": SHA1_CERTIFICATE},
        {"platform_certificates": "hello"},
        {"platform_certificates": ""},
        {"api_v3_key": ""},
        {"api_v3_key": "k" * 31},
        {"private_key": ""},
    ):
        with pytest.raises(Misconfigured):
            connect({**good, **wrong}, notify_url=None, strict=False)


def test_a_certificate_signed_with_sha1_is_refused(good: Mapping[str, str]) -> None:
    assert "SHA-1" in refused({**good, "platform_certificates": SHA1_CERTIFICATE}, "platform_certificates")
    # Not even beside a good one.
    refused({**good, "platform_certificates": good["platform_certificates"] + SHA1_CERTIFICATE}, "platform_certificates")


def test_what_is_no_certificate_is_refused(good: Mapping[str, str]) -> None:
    broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    for text in ("hello", broken, good["platform_certificates"] * 21):
        refused({**good, "platform_certificates": text}, "platform_certificates")


def test_the_merchants_certificate_must_be_the_keys(good: Mapping[str, str]) -> None:
    other = Keys.new()
    refused({**good, "serial_no": other.merchant.serial}, "serial_no")
    refused({**good, "private_key": other.merchant.private_pem}, "private_key")
    # Without the certificate nobody can tell, before WeChat Pay does.
    assert load({name: text for name, text in {**good, "serial_no": "44" * 20}.items() if name != "certificate"})


def test_one_half_of_a_public_key_is_refused(good: Mapping[str, str], keys: Keys) -> None:
    refused({**good, "platform_public_key": keys.signing.public_pem}, "platform_public_key")
    refused({**good, "platform_public_key_id": "PUB_KEY_ID_01"}, "platform_public_key")
    refused(
        {**good, "platform_public_key": keys.signing.public_pem, "platform_public_key_id": keys.signing.serial},
        "platform_public_key_id",
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mchid", "mch"),
        ("serial_no", "not hexadecimal"),
        ("appid", "wx 1"),
        ("address", "ftp://127.0.0.1"),
        ("address", "http://"),
        ("address", "http://user:pass@127.0.0.1"),
        ("address", "http://127.0.0.1/path"),
        ("address", "http://127.0.0.1:99999"),
        ("jsapi_page", "http://shop.example/"),
        ("jsapi_page", "https://shop.example/?a=b"),
        ("store_id", "a b"),
        ("sandbox", "true"),
    ],
)
def test_anything_else_that_cannot_be_right_is_refused(good: Mapping[str, str], field: str, value: str) -> None:
    refused({**good, field: value}, field)


def test_no_secret_in_a_representation(good: Mapping[str, str]) -> None:
    account = load(good)
    for shown in (repr(account), str(account)):
        assert good["api_v3_key"] not in shown
        assert "PRIVATE" not in shown and "rsa" not in shown.lower()
