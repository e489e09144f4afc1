"""What cannot be right is refused when a connector is made, and no secret is shown."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from connectors.payments.alipay import connect
from connectors.payments.alipay.credentials import read
from connectors.registry import payments
from infra.sandbox.alipay import keys
from schemas.errors import Misconfigured

MADE = keys.make()
STRANGERS = keys.make()
NOW = datetime.now(UTC)


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, *, old: bool = False, password: bytes | None = None) -> str:
    how = serialization.PrivateFormat.TraditionalOpenSSL if old else serialization.PrivateFormat.PKCS8
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, how, lock).decode()


def public(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def certificate(key: rsa.RSAPrivateKey, issuer: keys.Keys = MADE, days: int = 365, begun: datetime = NOW) -> str:
    """As if `issuer`'s Alipay had certified it, though not by the root: whose key nobody has."""
    made = keys.certify(key, "x", issuer.alipay, issuer.alipay_certificate, begun, days=days)
    return made.public_bytes(serialization.Encoding.PEM).decode()


def test_every_form_of_a_key_is_read() -> None:
    given = MADE.credentials("v1")
    bare_old = base64.b64encode(
        MADE.app.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    ).decode()
    wrapped = "\n".join(given["private_key"][at : at + 64] for at in range(0, len(given["private_key"]), 64))
    for text in (given["private_key"], wrapped, pem(MADE.app), pem(MADE.app, old=True), bare_old):
        account = read({**given, "private_key": text})
        assert account.private_key.private_numbers() == MADE.app.private_numbers()
    assert read({**given, "alipay_public_key": public(MADE.alipay)}).alipay_key == MADE.alipay.public_key()


@pytest.mark.parametrize("protocol", ["v1", "v1_certificates", "v3", "v3_certificates"])
async def test_what_is_right_is_taken(protocol: str) -> None:
    connector = payments("alipay", MADE.credentials(protocol), notify_url="https://pay.example/alipay")
    assert connector.account == f"{keys.APP_ID}/{keys.SELLER_ID}"
    account = read(MADE.credentials(protocol))
    assert (account.app_serial is not None) == protocol.endswith("certificates")
    await connector.close()


SHORT = rsa.generate_private_key(65537, 1024)
CURVE = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("app_id", ""),
        ("app_id", "app"),
        ("seller_id", "2088"),
        ("protocol", "v2"),
        ("sign_type", "RSA"),
        ("private_key", ""),
        ("private_key", "   "),
        ("private_key", "none"),
        ("private_key", "AAAA"),
        ("private_key", pem(SHORT)),
        ("private_key", pem(CURVE)),
        ("private_key", pem(MADE.app, password=b"secret")),
        ("private_key", public(MADE.app)),
        ("alipay_public_key", ""),
        ("alipay_public_key", "none"),
        ("alipay_public_key", public(SHORT)),
        ("alipay_public_key", public(CURVE)),
        ("alipay_public_key", public(MADE.app)),
        ("alipay_public_key", pem(MADE.alipay)),
        ("app_certificate", "x"),
        ("address", "ftp://a"),
        ("address", "https://user:word@a"),
    ],
)
def test_what_cannot_be_right_is_misconfigured(field: str, value: str) -> None:
    with pytest.raises(Misconfigured, match=field) as raised:
        connect({**MADE.credentials("v1"), field: value}, notify_url=None)
    if len(value) > 20:
        assert value.strip().splitlines()[-2 if "-----" in value else 0] not in str(raised.value)


@pytest.mark.parametrize("field", ["app_id", "seller_id", "private_key", "alipay_public_key"])
def test_what_is_missing_is_misconfigured(field: str) -> None:
    given = MADE.credentials("v3")
    del given[field]
    with pytest.raises(Misconfigured, match=field):
        read(given)


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("app_certificate", "", "app_certificate"),
        ("app_certificate", STRANGERS.credentials("v1_certificates")["app_certificate"], "another private key"),
        ("app_certificate", certificate(MADE.app, days=-1, begun=NOW - timedelta(days=5)), "expired"),
        ("app_certificate", certificate(MADE.app, begun=NOW + timedelta(days=5)), "not valid before"),
        ("alipay_certificate", STRANGERS.credentials("v1_certificates")["alipay_certificate"], "does not lead"),
        ("alipay_certificate", certificate(MADE.alipay), "does not lead"),
        ("alipay_certificate", MADE.credentials("v1_certificates")["app_certificate"], "app's own key"),
        ("alipay_root_certificate", STRANGERS.credentials("v1_certificates")["alipay_root_certificate"], "does not lead"),
        ("alipay_root_certificate", "none", "no certificate"),
        ("alipay_public_key", public(MADE.alipay), "has no use for it"),
    ],
)
@pytest.mark.parametrize("protocol", ["v1_certificates", "v3_certificates"])
def test_certificates_that_cannot_be_right_are_misconfigured(protocol: str, field: str, value: str, why: str) -> None:
    with pytest.raises(Misconfigured, match=why):
        read({**MADE.credentials(protocol), field: value})


def test_expired_ones_are_misconfigured_wherever_they_stand() -> None:
    for days in (-2, 400):
        with pytest.raises(Misconfigured, match=r"expired|not valid before"):
            read(MADE.credentials("v3_certificates"), now=NOW + timedelta(days=days))


async def test_no_secret_is_shown() -> None:
    given = MADE.credentials("v3_certificates")
    connector = connect(given, notify_url=None)
    for shown in (repr(connector), repr(vars(connector)), repr(read(given))):
        assert given["private_key"][100:140] not in shown
    await connector.close()
