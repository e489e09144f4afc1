"""What an operator gives for an account with WeChat Pay, read once and refused where it cannot be right."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from pydantic import Field, SecretStr

from connectors.credentials import Credentials, parse
from connectors.payments.wechat_pay.signing import PlatformKey, PlatformKeys
from schemas.errors import Misconfigured

NAME = "wechat_pay"
ADDRESS = "https://api.mch.weixin.qq.com"
MIN_KEY_BITS = 2048
MAX_CERTIFICATES = 20

_Pem = Annotated[str, Field(min_length=1, max_length=100_000)]
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class WechatPayCredentials(Credentials):
    """The fields, as README.md explains them."""

    mchid: str = Field(pattern=r"^[0-9]{6,32}$")
    appid: str = Field(pattern=r"^[A-Za-z0-9_]{1,32}$")
    serial_no: str = Field(pattern=r"^[0-9A-Fa-f]{8,40}$")
    private_key: SecretStr
    api_v3_key: SecretStr
    platform_certificates: _Pem | None = None
    platform_public_key: _Pem | None = None
    platform_public_key_id: str | None = Field(default=None, pattern=r"^PUB_KEY_ID_[0-9A-Za-z]{1,100}$")
    certificate: _Pem | None = None
    store_id: str = Field(default="0001", pattern=r"^[A-Za-z0-9_-]{1,32}$")
    jsapi_page: str | None = Field(default=None, pattern=r"^https://[^\s?#]{1,500}$")
    address: str | None = None


@dataclass(frozen=True)
class Account:
    """The credentials, ready for use. `certificates` says whether WeChat Pay's keys are certificates, which it replaces."""

    mchid: str
    appid: str
    serial_no: str
    address: str
    store_id: str
    jsapi_page: str | None
    stands_in: bool
    certificates: bool
    public_key_id: str | None
    private_key: RSAPrivateKey = field(repr=False)
    cipher: AESGCM = field(repr=False)
    platform_keys: PlatformKeys = field(repr=False)


def load(given: Mapping[str, str], now: datetime | None = None, *, strict: bool = True) -> Account:
    """Raises Misconfigured, naming the field and never its value. Without `strict`, for an account that is in use, it is no fault
    that certificates have expired; they are no keys, then, either."""
    now = now or datetime.now(UTC)
    read = parse(WechatPayCredentials, NAME, given)
    private_key = _private_key(read.private_key.get_secret_value())
    serial_no = read.serial_no.upper()
    if read.certificate is not None and strict:
        _check_own_certificate(read.certificate, private_key, serial_no, now)
    api_v3_key = read.api_v3_key.get_secret_value().encode()
    if len(api_v3_key) != 32:
        raise _wrong("api_v3_key", "it must have exactly 32 bytes")
    keys = _platform_keys(read, now, strict=strict)
    return Account(
        mchid=read.mchid,
        appid=read.appid,
        serial_no=serial_no,
        address=_address(read.address),
        store_id=read.store_id,
        jsapi_page=read.jsapi_page,
        stands_in=read.address is not None,
        certificates=read.platform_certificates is not None,
        public_key_id=read.platform_public_key_id,
        private_key=private_key,
        cipher=AESGCM(api_v3_key),
        platform_keys=keys,
    )


def usable_certificate(pem: bytes, now: datetime) -> tuple[tuple[str, ...], PlatformKey]:
    """The serials a certificate may be named with, and its key. Raises ValueError, with the reason, where it must not be used."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = certificate.public_key()
        algorithm = certificate.signature_hash_algorithm
    except Exception as error:  # the library has many ways to say that it cannot be read
        raise ValueError("it is not an X.509 certificate in PEM") from error
    if not isinstance(algorithm, SHA256 | SHA384 | SHA512):
        raise ValueError("it is signed with SHA-1 or another hash that is not safe")
    if not isinstance(key, RSAPublicKey) or key.key_size < MIN_KEY_BITS:
        raise ValueError(f"its key must be RSA with {MIN_KEY_BITS} bits or more")
    if certificate.not_valid_after_utc <= now:
        raise ValueError("it has expired")
    if certificate.not_valid_before_utc > now:
        raise ValueError("it is not valid yet")
    serials = tuple({f"{certificate.serial_number:X}": None, f"{certificate.serial_number:040X}": None})
    return serials, PlatformKey(key, certificate.not_valid_after_utc)


def _platform_keys(read: WechatPayCredentials, now: datetime, *, strict: bool) -> PlatformKeys:
    if (read.platform_public_key is None) != (read.platform_public_key_id is None):
        raise _wrong("platform_public_key", "give both it and platform_public_key_id, or neither")
    if read.platform_public_key is None and read.platform_certificates is None:
        raise _wrong("platform_certificates", "give them, or platform_public_key with its id: no answer could be verified")
    keys: dict[str, PlatformKey] = {}
    if read.platform_public_key is not None and read.platform_public_key_id is not None:
        keys[read.platform_public_key_id] = PlatformKey(_public_key(read.platform_public_key))
    if read.platform_certificates is not None:
        keys |= _certificates(read.platform_certificates, now, strict=strict)
    return keys


def _certificates(pem: str, now: datetime, *, strict: bool) -> dict[str, PlatformKey]:
    """Those that are valid now; while WeChat Pay changes its certificate the old one may have expired already. With `strict`
    there must be one."""
    found = _CERTIFICATE.findall(pem)
    if not found or len(found) > MAX_CERTIFICATES:
        raise _wrong("platform_certificates", f"it must be 1 to {MAX_CERTIFICATES} certificates in PEM")
    keys: dict[str, PlatformKey] = {}
    reasons = []
    for text in found:
        try:
            serials, key = usable_certificate(text.encode(), now)
        except ValueError as error:
            if str(error) not in {"it has expired", "it is not valid yet"}:
                raise _wrong("platform_certificates", str(error)) from None
            reasons.append(str(error))
        else:
            keys |= dict.fromkeys(serials, key)
    if not keys and strict:
        raise _wrong("platform_certificates", f"{reasons[0]}. Download the current one from the merchant platform")
    return keys


def _private_key(pem: str) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except Exception:  # the library has many ways to say that it cannot be read, some of which repeat it
        raise _wrong("private_key", "it is not an unencrypted private key in PEM") from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < MIN_KEY_BITS:
        raise _wrong("private_key", f"it must be RSA with {MIN_KEY_BITS} bits or more")
    return key


def _public_key(pem: str) -> RSAPublicKey:
    try:
        key = load_pem_public_key(pem.encode())
    except Exception:
        raise _wrong("platform_public_key", "it is not a public key in PEM") from None
    if not isinstance(key, RSAPublicKey) or key.key_size < MIN_KEY_BITS:
        raise _wrong("platform_public_key", f"it must be RSA with {MIN_KEY_BITS} bits or more")
    return key


def _check_own_certificate(pem: str, private_key: RSAPrivateKey, serial_no: str, now: datetime) -> None:
    try:
        serials, own = usable_certificate(pem.encode(), now)
    except ValueError as error:
        raise _wrong("certificate", str(error)) from None
    if serial_no not in serials:
        raise _wrong("serial_no", "it is not the certificate's")
    if own.key.public_numbers() != private_key.public_key().public_numbers():
        raise _wrong("private_key", "it is not the certificate's")


def _address(given: str | None) -> str:
    if given is None:
        return ADDRESS
    try:
        url = urlsplit(given)
        good = url.scheme in {"http", "https"} and url.hostname and url.port != 0 and url.path in {"", "/"}
    except ValueError:
        good = False
    if not good or "@" in url.netloc or url.query or url.fragment:
        raise _wrong("address", "it must be http:// or https:// with a host and nothing behind it")
    return given.rstrip("/")


def _wrong(name: str, reason: str) -> Misconfigured:
    return Misconfigured(f"The credentials for {NAME} cannot be used: {name}: {reason}.")
