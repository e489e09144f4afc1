"""Devices' keys: Ed25519, the names its signatures go by, and what a device signs with them. The default answer is no."""

import base64
import json
import warnings
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

# RFC 9864 names the algorithm Ed25519; devices in the field still write EdDSA. Both mean the same with our keys.
ALGORITHMS = ["Ed25519", "EdDSA"]

# The library warns at each use of the older name.
warnings.filterwarnings("ignore", message="EdDSA is deprecated", module="joserfc")

_PRIME = 2**255 - 19
_ORDER_8_Y = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
# Under the keys of edwards25519's eight points of small order anybody can sign: these are all their y, with either sign of x.
_SMALL_ORDER_Y = frozenset({0, 1, _PRIME - 1, _ORDER_8_Y, _PRIME - _ORDER_8_Y})


def check_public_key(public_key: bytes) -> None:
    """Raises ValueError for what is no Ed25519 key that a device may be paired with: not 32 bytes, not the one way of writing
    its point (RFC 8032, 5.1.3), or of a small order, so that signatures under it prove nothing."""
    if len(public_key) != 32:
        raise ValueError(f"an Ed25519 public key has 32 bytes; this one has {len(public_key)}")
    y = int.from_bytes(public_key, "little") & (2**255 - 1)
    if y >= _PRIME or y in _SMALL_ORDER_Y:
        raise ValueError("this Ed25519 public key is none of a device: signatures under it would prove nothing")


def verification_key(public_key: bytes) -> OKPKey:
    """From the 32 bytes a device was paired with."""
    return OKPKey.import_key(Ed25519PublicKey.from_public_bytes(public_key))


def signed_payload(compact: str, public_key: bytes, header: Mapping[str, str]) -> bytes:
    """The payload of a compact JWS by this key: one JSON value, no name in it twice. Its header is `header` and the algorithm,
    and nothing else: what a header might demand besides (`crit`) or offer (`jwk`) is not listened to. Raises ValueError with the
    reason, fit to be shown.

    There is one way only of writing a signed text: base64url whose spare bits are not zero is refused, so that no second text
    counts as much as the first.
    """
    parts = compact.split(".")
    if len(parts) != 3:
        raise ValueError("it is not a compact JWS")
    raw_header, payload, _ = (_decoded(part) for part in parts)
    written = _json(raw_header, "header")
    if not isinstance(written, dict) or written.pop("alg", None) not in ALGORITHMS:
        raise ValueError(f"its algorithm is none of {' and '.join(ALGORITHMS)}")
    if written != dict(header):
        raise ValueError(f"its header is not alg, {', '.join(header)} as they are to be")
    try:
        jws.deserialize_compact(compact, verification_key(public_key), algorithms=ALGORITHMS)
    except (JoseError, ValueError, TypeError) as error:
        raise ValueError("its signature is not by the key") from error
    _json(payload, "payload")
    return payload


def _decoded(part: str) -> bytes:
    try:
        decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError as error:
        raise ValueError("it is not written in base64url") from error
    if base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() != part:
        raise ValueError("it is not written in base64url as it should be")
    return decoded


def _json(text: bytes, what: str) -> Any:
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its {what} is not plain JSON") from error


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands there twice")
    return members
