"""What an operator gives for an Alipay account, and what is made of it once: keys, checked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, TypeVar

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from pydantic import Field, SecretStr

from connectors import credentials
from connectors.payments.alipay import signing
from schemas.errors import Misconfigured

Protocol = Literal["v1", "v1_certificates", "v3", "v3_certificates"]
Made = TypeVar("Made")


class AlipayCredentials(credentials.Credentials):
    """As `augenblick connectors add` takes them. Keys and certificates are PEM, keys also bare base64."""

    app_id: str = Field(pattern=r"^[0-9]{10,32}$")
    seller_id: str = Field(pattern=r"^2088[0-9]{12}$")
    protocol: Protocol = "v3"
    private_key: SecretStr = Field(min_length=1)
    alipay_public_key: str | None = Field(default=None, min_length=1)
    app_certificate: str | None = Field(default=None, min_length=1)
    alipay_certificate: str | None = Field(default=None, min_length=1)
    alipay_root_certificate: str | None = Field(default=None, min_length=1)
    agreement_product: Literal["GENERAL_WITHHOLDING", "CYCLE_PAY_AUTH"] = "GENERAL_WITHHOLDING"
    address: str | None = Field(default=None, pattern=r"^https?://[A-Za-z0-9.:\[\]-]+/?$")


@dataclass(frozen=True)
class Account:
    """Ready for use. In certificate mode the three serials are set. `address` is None for Alipay itself."""

    app_id: str
    seller_id: str
    is_v3: bool
    agreement_product: str
    address: str | None
    private_key: RSAPrivateKey = field(repr=False)
    alipay_key: RSAPublicKey = field(repr=False)
    app_serial: str | None = None
    root_serial: str | None = None
    alipay_serial: str | None = None


def read(given: Mapping[str, str], *, now: datetime | None = None) -> Account:
    """Raises Misconfigured, naming the field and what is wrong with it."""
    parsed = credentials.parse(AlipayCredentials, "Alipay", given)
    key = _usable("private_key", signing.private_key, parsed.private_key.get_secret_value())
    certified = parsed.protocol.endswith("_certificates")
    needed = ("app_certificate", "alipay_certificate", "alipay_root_certificate") if certified else ("alipay_public_key",)
    for name in ("alipay_public_key", "app_certificate", "alipay_certificate", "alipay_root_certificate"):
        if (getattr(parsed, name) is not None) != (name in needed):
            raise _wrong(name, f"protocol {parsed.protocol} {'needs it' if name in needed else 'has no use for it'}")
    if certified:
        return _certified(parsed, key, now or datetime.now(UTC))
    alipay_key = _usable("alipay_public_key", signing.public_key, parsed.alipay_public_key or "")
    return _account(parsed, key, alipay_key)


def _certified(parsed: AlipayCredentials, key: RSAPrivateKey, now: datetime) -> Account:
    roots = _usable(
        "alipay_root_certificate",
        lambda text: signing.certificates(text, all_of_them=False),
        parsed.alipay_root_certificate or "",
    )
    ours, *_ = _usable("app_certificate", signing.certificates, parsed.app_certificate or "")
    # Whether Alipay issued ours is for Alipay to check; whether theirs is Alipay's, for us.
    _usable("app_certificate", lambda certificate: signing.check_certificate(certificate, now), ours)
    chain = _usable("alipay_certificate", signing.certificates, parsed.alipay_certificate or "")
    _usable("alipay_certificate", lambda given: signing.check_chain(given, roots, now), chain)
    theirs = chain[0]
    if not signing.same_key(_usable("app_certificate", signing.certificate_key, ours), key.public_key()):
        raise _wrong("app_certificate", "it is for another private key")
    return _account(
        parsed,
        key,
        _usable("alipay_certificate", signing.certificate_key, theirs),
        app_serial=signing.certificate_serial(ours),
        root_serial=_usable("alipay_root_certificate", signing.root_serial, roots),
        alipay_serial=signing.certificate_serial(theirs),
    )


def _account(
    parsed: AlipayCredentials,
    key: RSAPrivateKey,
    alipay_key: RSAPublicKey,
    *,
    app_serial: str | None = None,
    root_serial: str | None = None,
    alipay_serial: str | None = None,
) -> Account:
    if signing.same_key(alipay_key, key.public_key()):
        # A frequent mistake: then no answer of Alipay's would verify, and whoever has our key could write them.
        raise _wrong("alipay_certificate" if alipay_serial else "alipay_public_key", "it is the app's own key, not Alipay's")
    return Account(
        app_id=parsed.app_id,
        seller_id=parsed.seller_id,
        is_v3=parsed.protocol.startswith("v3"),
        agreement_product=parsed.agreement_product,
        address=parsed.address.rstrip("/") if parsed.address else None,
        private_key=key,
        alipay_key=alipay_key,
        app_serial=app_serial,
        root_serial=root_serial,
        alipay_serial=alipay_serial,
    )


Given = TypeVar("Given")


def _usable(name: str, make: Callable[[Given], Made], given: Given) -> Made:
    try:
        return make(given)
    except signing.Unusable as error:
        raise _wrong(name, str(error)) from None


def _wrong(name: str, why: str) -> Misconfigured:
    return Misconfigured(f"The credentials for Alipay cannot be used: {name}: {why}. See connectors/payments/alipay/README.md.")
