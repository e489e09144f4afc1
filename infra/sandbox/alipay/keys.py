"""The keys and certificates of a gateway: made when it first starts, kept beside its books."""

import base64
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from connectors.payments.alipay import signing

APP_ID = "2021000199990001"
SELLER_ID = "2088000000000016"


@dataclass(frozen=True)
class Keys:
    """The app's and Alipay's, each with a certificate that `root` issued."""

    app: rsa.RSAPrivateKey
    alipay: rsa.RSAPrivateKey
    app_certificate: x509.Certificate
    alipay_certificate: x509.Certificate
    root: x509.Certificate

    def __post_init__(self) -> None:
        object.__setattr__(self, "app_serial", signing.certificate_serial(self.app_certificate))
        object.__setattr__(self, "alipay_serial", signing.certificate_serial(self.alipay_certificate))
        object.__setattr__(self, "root_serial", signing.root_serial([self.root]))

    app_serial: str = ""
    alipay_serial: str = ""
    root_serial: str = ""

    def credentials(self, protocol: str) -> dict[str, str]:
        """For `connectors add`, without the address."""
        common = {"app_id": APP_ID, "seller_id": SELLER_ID, "protocol": protocol, "private_key": _private(self.app)}
        if not protocol.endswith("_certificates"):
            return {**common, "alipay_public_key": _public(self.alipay)}
        return {
            **common,
            "app_certificate": _certificate(self.app_certificate),
            "alipay_certificate": _certificate(self.alipay_certificate),
            "alipay_root_certificate": _certificate(self.root),
        }


def make(now: datetime | None = None) -> Keys:
    now = now or datetime.now(UTC)
    root_key, app, alipay = (rsa.generate_private_key(65537, 2048) for _ in range(3))
    root = certify(root_key, "Augenblick Sandbox Root", root_key, None, now, is_authority=True)
    return Keys(
        app,
        alipay,
        certify(app, APP_ID, root_key, root, now),
        certify(alipay, "Augenblick Sandbox Alipay", root_key, root, now),
        root,
    )


def certify(
    key: rsa.RSAPrivateKey,
    name: str,
    issuer_key: rsa.RSAPrivateKey,
    issuer: x509.Certificate | None,
    now: datetime,
    *,
    is_authority: bool = False,
    days: int = 365,
) -> x509.Certificate:
    """A certificate for `key`, valid from a day before `now`; self-signed without `issuer`."""
    subject = _name(name)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


def load_or_make(path: Path | None) -> Keys:
    """From the file, or made and written there, for nobody else to read."""
    if path is None:
        return make()
    if path.exists():
        kept = json.loads(path.read_text())
        ours, theirs, root = (
            x509.load_pem_x509_certificate(kept[name].encode()) for name in ("app_certificate", "alipay_certificate", "root")
        )
        return Keys(signing.private_key(kept["app"]), signing.private_key(kept["alipay"]), ours, theirs, root)
    keys = make()
    text = json.dumps(
        {
            "app": _private(keys.app),
            "alipay": _private(keys.alipay),
            "app_certificate": _certificate(keys.app_certificate),
            "alipay_certificate": _certificate(keys.alipay_certificate),
            "root": _certificate(keys.root),
        }
    )
    draft = path.with_suffix(".draft")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)
    return keys


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "CN"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Augenblick Sandbox"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Payments"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _private(key: rsa.RSAPrivateKey) -> str:
    """PKCS #8 in bare base64, as Alipay's key tool shows it."""
    return base64.b64encode(
        key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    ).decode()


def _public(key: rsa.RSAPrivateKey) -> str:
    return base64.b64encode(
        key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    ).decode()


def _certificate(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
