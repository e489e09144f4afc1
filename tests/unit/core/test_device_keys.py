"""Keys that prove something, and signatures that are written in one way only."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from infra.sandbox.glasses import DeviceKey
from streams.core.device_keys import check_public_key, signed_payload

PRIME = 2**255 - 19
D = -121665 * pow(121666, -1, PRIME) % PRIME
ORDER = 2**252 + 27742317777372353535851937790883648493

Point = tuple[int, int]


def added(one: Point, other: Point) -> Point:
    """On edwards25519 (RFC 8032, 5.1)."""
    (x1, y1), (x2, y2) = one, other
    both = D * x1 * x2 * y1 * y2 % PRIME
    x = (x1 * y2 + x2 * y1) * pow(1 + both, -1, PRIME)
    y = (y1 * y2 + x1 * x2) * pow(1 - both, -1, PRIME)
    return x % PRIME, y % PRIME


def times(number: int, point: Point) -> Point:
    result = (0, 1)
    while number:
        if number & 1:
            result = added(result, point)
        point, number = added(point, point), number >> 1
    return result


def root(square: int) -> int | None:
    x = pow(square, (PRIME + 3) // 8, PRIME)
    if x * x % PRIME != square % PRIME:
        x = x * pow(2, (PRIME - 1) // 4, PRIME) % PRIME
    return x if x * x % PRIME == square % PRIME else None


def at(y: int) -> Point | None:
    """A point of the curve with this y."""
    x = root((y * y - 1) * pow(D * y * y + 1, -1, PRIME))
    return None if x is None else (x, y)


def encoded(y: int, sign: int = 0) -> bytes:
    return (y | sign << 255).to_bytes(32, "little")


def small_order_points() -> set[Point]:
    """All eight, found by taking points of the curve times the large prime order of its main group."""
    found: set[Point] = set()
    y = 2
    while len(found) < 8:
        if (point := at(y)) is not None:
            torsion = times(ORDER, point)
            found |= {times(multiple, torsion) for multiple in range(8)}
        y += 1
    return found


def test_keys_of_small_order_are_refused() -> None:
    points = small_order_points()
    assert len(points) == 8
    assert all(times(8, point) == (0, 1) for point in points)
    for x, y in points:
        for sign in {x & 1, 0, 1}:
            with pytest.raises(ValueError, match="prove nothing"):
                check_public_key(encoded(y, sign))


@pytest.mark.parametrize("y", [PRIME, PRIME + 1, PRIME + 2, 2**255 - 1])
def test_keys_that_are_not_written_in_the_one_way_are_refused(y: int) -> None:
    for sign in (0, 1):
        with pytest.raises(ValueError, match="prove nothing"):
            check_public_key(encoded(y, sign))


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_keys_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        check_public_key(b"k" * length)


def test_usual_keys_are_taken() -> None:
    for _ in range(200):
        check_public_key(DeviceKey().public)
    # RFC 8032, 7.1, test 1.
    check_public_key(bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"))


HEADER = {"kid": "dev", "typ": "augenblick-approval+jws"}


def text(value: object) -> str:
    return base64.urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).rstrip(b"=").decode()


def signed(key: Ed25519PrivateKey, header: Any, payload: Any) -> str:
    """Without a library that would refuse what is wrong with it."""
    signing = f"{text(header)}.{text(payload)}"
    return f"{signing}.{text(key.sign(signing.encode()))}"


@pytest.fixture(scope="module")
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def opened(key: Ed25519PrivateKey, compact: str) -> bytes:
    return signed_payload(compact, key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw), HEADER)


@pytest.mark.parametrize("algorithm", ["EdDSA", "Ed25519"])
def test_what_the_key_signed_is_opened(key: Ed25519PrivateKey, algorithm: str) -> None:
    compact = signed(key, {"alg": algorithm, **HEADER}, {"a": 1})
    assert json.loads(opened(key, compact)) == {"a": 1}


@pytest.mark.parametrize(
    "header",
    [
        HEADER,
        {"alg": "none", **HEADER},
        {"alg": ["EdDSA"], **HEADER},
        {"alg": "EdDSA"},
        {"alg": "EdDSA", **HEADER, "kid": "other"},
        {"alg": "EdDSA", **HEADER, "typ": "JWT"},
        {"alg": "EdDSA", **HEADER, "crit": ["exp"]},
        {"alg": "EdDSA", **HEADER, "b64": False, "crit": ["b64"]},
        {"alg": "EdDSA", **HEADER, "jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}},
        {"alg": "EdDSA", **HEADER, "jku": "https://keys.example/"},
        ["EdDSA"],
        b'{"alg":"EdDSA","alg":"EdDSA","kid":"dev","typ":"augenblick-approval+jws"}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_headers_that_are_not_exactly_what_is_expected(key: Ed25519PrivateKey, header: Any) -> None:
    with pytest.raises(ValueError, match=r"its (header|algorithm) is"):
        opened(key, signed(key, header, {"a": 1}))


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b'{"a":1,"a":1}', b'{"a":{"b":1,"b":2}}', b"{" * 3000, b"[" * 3000, b"1" * 5000]
)
def test_payloads_that_could_be_read_in_two_ways(key: Ed25519PrivateKey, payload: bytes) -> None:
    with pytest.raises(ValueError, match="payload"):
        opened(key, signed(key, {"alg": "EdDSA", **HEADER}, payload))


def test_a_signature_has_one_way_of_being_written(key: Ed25519PrivateKey) -> None:
    """64 bytes are 86 characters, of which the last has four bits to spare; and S plus the order is the same S."""
    compact = signed(key, {"alg": "EdDSA", **HEADER}, {"a": 1})
    head, payload, signature = compact.split(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    raw = base64.urlsafe_b64decode(signature + "==")
    others = [signature[:-1] + other for other in alphabet if other != signature[-1]]
    same_bytes = [other for other in others if base64.urlsafe_b64decode(other + "==") == raw]
    assert len(same_bytes) == 15
    shifted = raw[:32] + (int.from_bytes(raw[32:], "little") + ORDER).to_bytes(32, "little")
    padded = [signature + "==", signature[:40] + "\n" + signature[40:], signature[:40] + "=" + signature[40:]]
    for other in [*others, text(shifted), *padded, ""]:
        with pytest.raises(ValueError, match=r"signature|base64url"):
            opened(key, f"{head}.{payload}.{other}")
