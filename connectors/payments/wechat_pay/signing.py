"""WeChat Pay's signatures and encryption (API v3). Pure: the time is given, nothing is sent.

There is one algorithm of each kind and no choice between them: RSA with PKCS #1 v1.5 and SHA-256 over keys of 2048 bits or
more, and AES-256-GCM. What a message says of its own algorithm can only lead to a refusal.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256

SIGNATURE = "WECHATPAY2-SHA256-RSA2048"
ENCRYPTION = "AEAD_AES_256_GCM"
TOLERANCE_S = 300
"""How far a message's time may be from ours, either way: what WeChat Pay demands of us and its own SDKs of it."""

PROBE = "WECHATPAY/SIGNTEST/"
"""What the signatures of WeChat Pay's probes begin with: they are wrong on purpose, and have to be refused."""


class NotAuthentic(Exception):
    """A message that is not proven to come from WeChat Pay. Its text has no part of the message."""


class UnknownSerial(NotAuthentic):
    """It names a key that is not known here: WeChat Pay may have a new one."""


@dataclass(frozen=True)
class PlatformKey:
    """One of WeChat Pay's keys. `expires_at` is its certificate's, None for a key without one."""

    key: RSAPublicKey
    expires_at: datetime | None = None


PlatformKeys = Mapping[str, PlatformKey]
"""By the text that `Wechatpay-Serial` names them with."""


def sign(key: RSAPrivateKey, message: str) -> str:
    return base64.b64encode(key.sign(message.encode(), PKCS1v15(), SHA256())).decode()


def authorization(
    key: RSAPrivateKey, mchid: str, serial_no: str, *, method: str, target: str, body: bytes, nonce: str, timestamp: int
) -> str:
    """The Authorization header. `target` is path and query as they are sent, and `body` likewise, empty where there is none."""
    signature = sign(key, f"{method}\n{target}\n{timestamp}\n{nonce}\n{body.decode()}\n")
    return (
        f'{SIGNATURE} mchid="{mchid}",nonce_str="{nonce}",signature="{signature}",timestamp="{timestamp}",serial_no="{serial_no}"'
    )


def verify(headers: Mapping[str, str], body: bytes, keys: PlatformKeys, now: datetime) -> None:
    """Whether WeChat Pay signed `body`, just now. Header names may be in any case. Raises NotAuthentic, and UnknownSerial where
    another key would be needed."""
    given = {name.lower(): value for name, value in headers.items()}
    # WeChat Pay does not always name the algorithm; where it does, there is one right answer.
    if given.get("wechatpay-signature-type", SIGNATURE) != SIGNATURE:
        raise NotAuthentic("its signature is of another kind")
    timestamp, nonce = given.get("wechatpay-timestamp", ""), given.get("wechatpay-nonce", "")
    text, serial = given.get("wechatpay-signature", ""), given.get("wechatpay-serial", "")
    if not (timestamp and nonce and text and serial):
        raise NotAuthentic("it is not signed")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise NotAuthentic("its time cannot be read")
    if abs(now.timestamp() - int(timestamp)) > TOLERANCE_S:
        raise NotAuthentic("it is too old, or from the future")
    if text.startswith(PROBE):
        raise NotAuthentic("its signature is a probe")
    signature = _decoded(text)
    known = keys.get(serial)
    if known is None:
        raise UnknownSerial("the key that it names is not known")
    if known.expires_at is not None and known.expires_at <= now:
        raise UnknownSerial("the key that it names has expired")
    try:
        known.key.verify(signature, f"{timestamp}\n{nonce}\n".encode() + body + b"\n", PKCS1v15(), SHA256())
    except InvalidSignature:
        raise NotAuthentic("its signature does not hold") from None


def open_sealed(cipher: AESGCM, sealed: Mapping[str, Any]) -> bytes:
    """What is in a `resource` or an `encrypt_certificate`. Raises NotAuthentic where it is not sealed in the one way there is,
    with the key of `cipher`."""
    if sealed.get("algorithm") != ENCRYPTION:
        raise NotAuthentic("it is encrypted in another way")
    nonce, text, about = sealed.get("nonce"), sealed.get("ciphertext"), sealed.get("associated_data") or ""
    if not (isinstance(nonce, str) and isinstance(text, str) and isinstance(about, str)):
        raise NotAuthentic("its encrypted part cannot be read")
    try:
        if len(nonce.encode()) != 12:
            raise NotAuthentic("its encrypted part cannot be read")
        return cipher.decrypt(nonce.encode(), _decoded(text), about.encode())
    except (InvalidTag, UnicodeEncodeError):
        raise NotAuthentic("it cannot be decrypted with the API v3 key") from None


def _decoded(text: str) -> bytes:
    """From base64 in its one canonical form: what could be written differently could be altered unseen."""
    try:
        decoded = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        raise NotAuthentic("it is not base64") from None
    if base64.b64encode(decoded).decode() != text:
        raise NotAuthentic("it is not base64")
    return decoded
