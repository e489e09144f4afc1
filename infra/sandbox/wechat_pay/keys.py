"""The gateway's secrets: made when it first begins, kept in its journal, worth nothing anywhere else."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

VALID_FOR = timedelta(days=5 * 365)


@dataclass(frozen=True)
class KeyPair:
    """A private key with its self-signed certificate, both in PEM."""

    private_pem: str
    certificate_pem: str

    @classmethod
    def new(cls, name: str) -> "KeyPair":
        key = generate_private_key(public_exponent=65537, key_size=2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            # WeChat Pay's serials have 40 hexadecimal digits.
            .serial_number(int.from_bytes(bytes([0x44]) + secrets.token_bytes(19)))
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + VALID_FOR)
            .sign(key, SHA256())
        )
        private_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return cls(private_pem, certificate.public_bytes(Encoding.PEM).decode())

    @cached_property
    def key(self) -> RSAPrivateKey:
        key = load_pem_private_key(self.private_pem.encode(), password=None)
        assert isinstance(key, RSAPrivateKey)
        return key

    @cached_property
    def public_key(self) -> RSAPublicKey:
        return self.key.public_key()

    @property
    def public_pem(self) -> str:
        return self.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @cached_property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate_pem.encode())

    @property
    def serial(self) -> str:
        return f"{self.certificate.serial_number:X}"


@dataclass(frozen=True)
class Keys:
    """The merchant's, and WeChat Pay's: the last of `platform` signs, those before it may still be known to somebody."""

    mchid: str
    appid: str
    api_v3_key: str
    merchant: KeyPair
    platform: tuple[KeyPair, ...]

    @classmethod
    def new(cls) -> "Keys":
        return cls(
            mchid=f"19{secrets.randbelow(10**8):08}",
            appid=f"wx{secrets.token_hex(8)}",
            api_v3_key=secrets.token_hex(16),
            merchant=KeyPair.new("Sandbox merchant"),
            platform=(KeyPair.new("Sandbox platform"),),
        )

    @property
    def signing(self) -> KeyPair:
        return self.platform[-1]

    @cached_property
    def cipher(self) -> AESGCM:
        return AESGCM(self.api_v3_key.encode())

    @property
    def public_key_id(self) -> str:
        """The name of the same key where a merchant has it without a certificate."""
        return f"PUB_KEY_ID_0{self.mchid}2026112200000000"

    def rotated(self) -> "Keys":
        return Keys(self.mchid, self.appid, self.api_v3_key, self.merchant, (*self.platform, KeyPair.new("Sandbox platform")))

    def credentials(self) -> dict[str, str]:
        """What the merchant has."""
        return {
            "mchid": self.mchid,
            "appid": self.appid,
            "serial_no": self.merchant.serial,
            "private_key": self.merchant.private_pem,
            "api_v3_key": self.api_v3_key,
            "platform_certificates": "".join(pair.certificate_pem for pair in self.platform),
            "certificate": self.merchant.certificate_pem,
        }

    def dump(self) -> dict[str, Any]:
        return {
            "mchid": self.mchid,
            "appid": self.appid,
            "api_v3_key": self.api_v3_key,
            "merchant": vars_of(self.merchant),
            "platform": [vars_of(pair) for pair in self.platform],
        }

    @classmethod
    def load(cls, saved: dict[str, Any]) -> "Keys":
        platform = tuple(KeyPair(**pair) for pair in saved["platform"])
        return cls(saved["mchid"], saved["appid"], saved["api_v3_key"], KeyPair(**saved["merchant"]), platform)


def vars_of(pair: KeyPair) -> dict[str, str]:
    return {"private_pem": pair.private_pem, "certificate_pem": pair.certificate_pem}
