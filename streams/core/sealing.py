"""Secrets at rest: AES-256-GCM with the key from the settings. What is sealed is bound to its place (`context`), so that a
sealed value copied into another row does not open."""

import base64
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.errors import Misconfigured

_VERSION = b"\x01"


class Sealer:
    def __init__(self, key_base64: str) -> None:
        try:
            key = base64.b64decode(key_base64, validate=True)
        except ValueError as error:
            raise Misconfigured("AUGENBLICK_SECRET_KEY is not base64: make one with `openssl rand -base64 32`.") from error
        if len(key) != 32:
            raise Misconfigured(f"AUGENBLICK_SECRET_KEY has {len(key)} bytes instead of 32: `openssl rand -base64 32`.")
        self._cipher = AESGCM(key)

    def seal(self, secret: bytes, context: str) -> bytes:
        nonce = os.urandom(12)
        return _VERSION + nonce + self._cipher.encrypt(nonce, secret, context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """Raises Misconfigured where the key is another one, the place is, or the value was altered."""
        if sealed[:1] != _VERSION:
            raise Misconfigured(f"The sealed secret of {context} has a version this program does not know.")
        try:
            return self._cipher.decrypt(sealed[1:13], sealed[13:], context.encode())
        except InvalidTag as error:
            raise Misconfigured(
                f"The sealed secret of {context} does not open: AUGENBLICK_SECRET_KEY is not the key it was sealed with."
            ) from error
