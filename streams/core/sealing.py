"""Secrets at rest: AES-256-GCM with keys from the settings. What is sealed is bound to its place (`context`), so that a sealed
value copied into another row does not open.

Keys rotate: the first one seals, all of them open, and `augenblick secrets rotate` seals anew what another than the first has
sealed. A sealed value begins with a version and, from version 2 on, the first bytes of its key's SHA-256.
"""

import base64
import hashlib
import os
import re

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.errors import Misconfigured

_WITH_KEY_ID = b"\x02"
_KEY_ID_BYTES = 4


class Sealer:
    """`keys`: one or more of 32 bytes each, in base64, by commas or line breaks; the newest first."""

    def __init__(self, keys: str) -> None:
        texts = [text for text in re.split(r"[,\s]+", keys) if text]
        if not texts:
            raise Misconfigured("AUGENBLICK_SECRET_KEY is empty: make a key with `openssl rand -base64 32`.")
        self._ciphers: dict[bytes, AESGCM] = {}
        for number, text in enumerate(texts, start=1):
            key = _key(text, number)
            self._ciphers[hashlib.sha256(key).digest()[:_KEY_ID_BYTES]] = AESGCM(key)
        self._newest = next(iter(self._ciphers))

    def seal(self, secret: bytes, context: str) -> bytes:
        nonce = os.urandom(12)
        sealed = self._ciphers[self._newest].encrypt(nonce, secret, context.encode())
        return _WITH_KEY_ID + self._newest + nonce + sealed

    def open(self, sealed: bytes, context: str) -> bytes:
        """Raises Misconfigured where no key fits, the place is another, or the value was altered."""
        match sealed[:1]:
            case b"\x02":
                cipher = self._ciphers.get(sealed[1 : 1 + _KEY_ID_BYTES])
                ciphers, rest = [cipher] if cipher else [], sealed[1 + _KEY_ID_BYTES :]
            case b"\x01":
                ciphers, rest = list(self._ciphers.values()), sealed[1:]
            case _:
                raise Misconfigured(f"The sealed secret of {context} has a version this program does not know.")
        for cipher in ciphers:
            try:
                return cipher.decrypt(rest[:12], rest[12:], context.encode())
            except (InvalidTag, ValueError):
                continue
        raise Misconfigured(
            f"The sealed secret of {context} does not open: AUGENBLICK_SECRET_KEY does not hold the key it was sealed with."
        )

    def is_current(self, sealed: bytes) -> bool:
        """Whether the newest key has sealed it."""
        return sealed.startswith(_WITH_KEY_ID + self._newest)


def _key(text: str, number: int) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Misconfigured(
            f"Key {number} of AUGENBLICK_SECRET_KEY is not base64: make one with `openssl rand -base64 32`."
        ) from error
    if len(key) != 32:
        raise Misconfigured(
            f"Key {number} of AUGENBLICK_SECRET_KEY has {len(key)} bytes instead of 32: `openssl rand -base64 32`."
        )
    return key
