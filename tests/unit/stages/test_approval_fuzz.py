"""Thousands of approvals that are not the wearer's yes: none counts, and every one ends in a refusal and nothing else."""

import base64
import json
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import Rejected
from streams.intents import approval
from tests.support.approvals import DEVICE, DIGEST, KEY, NOW, TERMS, signed, verify

AT = int(NOW.timestamp())
TRUE = signed()
PARTS = TRUE.split(".")
HEADER = {"alg": "EdDSA", "kid": DEVICE.id, "typ": approval.TYPE}
CLAIMS = {
    "proposal_id": TERMS.proposal_id,
    "digest": DIGEST,
    "presence": "press",
    "nonce": TERMS.nonce,
    "iat": AT,
    "exp": AT + 30,
}
BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
ORDER = 2**252 + 27742317777372353535851937790883648493
STRANGER = Ed25519PrivateKey.generate()
RSA_KEY = rsa.generate_private_key(65537, 2048)

many = settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def compact(header: bytes, payload: bytes, sign: Callable[[bytes], bytes]) -> str:
    signing = f"{text(header)}.{text(payload)}"
    return f"{signing}.{text(sign(signing.encode()))}"


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def refused(candidate: str) -> None:
    try:
        claims = verify(candidate)
    except Rejected as refusal:
        assert refusal.problem.code in {"approval-invalid", "approval-expired"}
        assert TERMS.nonce not in refusal.problem.model_dump_json()
    else:
        raise AssertionError(f"accepted: {claims!r}")


def test_the_true_one_counts() -> None:
    """Else the rest would prove nothing."""
    assert verify(TRUE).digest == DIGEST
    assert verify(compact(dumped(HEADER), dumped(CLAIMS), KEY.private.sign)).digest == DIGEST


# What somebody in between can do to a true one.

EDITS = st.lists(
    st.tuples(
        st.sampled_from(["replace", "insert", "delete", "cut", "repeat"]),
        st.integers(0, len(TRUE) - 1),
        st.sampled_from(BASE64URL + ".=+/ \n\x00é"),
    ),
    min_size=1,
    max_size=4,
)


@many
@given(EDITS)
def test_edited(edits: list[tuple[str, int, str]]) -> None:
    edited = TRUE
    for what, at, character in edits:
        match what:
            case "replace":
                edited = edited[:at] + character + edited[at + 1 :]
            case "insert":
                edited = edited[:at] + character + edited[at:]
            case "delete":
                edited = edited[:at] + edited[at + 1 :]
            case "cut":
                edited = edited[:at]
            case "repeat":
                edited = edited[:at] + edited[at : at + 40] + edited[at:]
    if edited != TRUE:
        refused(edited)


@many
@given(st.integers(0, 2), st.integers(0, 10_000), st.integers(0, 7))
def test_a_bit_of_what_is_written_flipped(part: int, byte: int, bit: int) -> None:
    raw = bytearray(base64.urlsafe_b64decode(PARTS[part] + "=="))
    raw[byte % len(raw)] ^= 1 << bit
    refused(".".join([*PARTS[:part], text(bytes(raw)), *PARTS[part + 1 :]]))


OTHERS = [signed("nod"), signed(iat=AT - 1), signed(nonce="A" * 32), signed(digest="0" * 64)]


@many
@given(st.lists(st.sampled_from([*PARTS, *(part for other in OTHERS for part in other.split(".")), ""]), max_size=5))
def test_parts_of_several_put_together(parts: list[str]) -> None:
    candidate = ".".join(parts)
    if candidate not in {TRUE, OTHERS[0]} and candidate != OTHERS[1]:  # these are the wearer's yes, too
        refused(candidate)


# What somebody can sign who has other keys.

ALGORITHMS = [
    "none",
    "None",
    "",
    "HS256",
    "HS512",
    "RS256",
    "PS256",
    "ES256",
    "EdDSA",
    "Ed25519",
    "Ed448",
    "eddsa",
    None,
    1,
    ["EdDSA"],
]


def _hmac(secret: bytes) -> Callable[[bytes], bytes]:
    def sign(content: bytes) -> bytes:
        mac = HMAC(secret, SHA256())
        mac.update(content)
        return mac.finalize()

    return sign


SIGNERS: dict[str, Callable[[bytes], bytes]] = {
    "nobody": lambda _: b"",
    "zeros": lambda _: bytes(64),
    "a stranger": STRANGER.sign,
    "RSA": lambda content: RSA_KEY.sign(content, padding.PKCS1v15(), SHA256()),
    "HMAC by the public key": _hmac(KEY.public),
    "HMAC by nothing": _hmac(b""),
    "a doubled order": lambda content: _shifted(KEY.private.sign(content)),
    "another text": lambda content: KEY.private.sign(content + b"."),
}

_JWK = {"kty": "OKP", "crv": "Ed25519", "x": text(STRANGER.public_key().public_bytes_raw())}
EXTRAS = st.dictionaries(
    st.sampled_from(["crit", "b64", "jwk", "jku", "x5c", "x5u", "kid", "typ", "alg", "cty", "zip", "enc", "", "é"]),
    st.sampled_from([["exp"], ["b64"], False, True, None, 0, "", "JWT", _JWK, "https://keys.example/", DEVICE.id, {}, []]),
    max_size=3,
)


def _shifted(signature: bytes) -> bytes:
    scalar = int.from_bytes(signature[32:], "little") + ORDER
    return signature[:32] + scalar.to_bytes(32, "little")


@many
@given(st.sampled_from(ALGORITHMS), EXTRAS, st.sampled_from(sorted(SIGNERS)))
def test_signed_otherwise(algorithm: Any, extras: dict[str, Any], signer: str) -> None:
    refused(compact(dumped({**HEADER, "alg": algorithm, **extras}), dumped(CLAIMS), SIGNERS[signer]))


# What the device's own key must not say.


@many
@given(EXTRAS.filter(bool), st.booleans())
def test_headers_that_say_more_or_else(extras: dict[str, Any], twice: bool) -> None:
    header = {**HEADER, **extras}
    written = dumped(header)
    if twice:
        written = b'{"alg":"none",' + dumped(HEADER)[1:]
    elif header in ({**HEADER}, {**HEADER, "alg": "Ed25519"}):
        return
    refused(compact(written, dumped(CLAIMS), KEY.private.sign))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@many
@given(
    st.dictionaries(st.sampled_from([*CLAIMS, "amount", "sub", ""]), ANYTHING, min_size=1, max_size=3),
    st.sets(st.sampled_from(sorted(CLAIMS)), max_size=2),
)
def test_claims_altered_left_out_or_added(changes: dict[str, Any], without: set[str]) -> None:
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if name not in without}
    if claims == CLAIMS or (set(claims) == set(CLAIMS) and _still_true(claims)):
        return
    refused(compact(dumped(HEADER), dumped(claims), KEY.private.sign))


def _still_true(claims: dict[str, Any]) -> bool:
    """Other times within what is allowed, or another way of saying yes, are the wearer's to choose."""
    same = all(claims[name] == CLAIMS[name] for name in ("proposal_id", "digest", "nonce"))
    times = type(claims["iat"]) is int and type(claims["exp"]) is int
    return same and claims["presence"] in TERMS.presence and times and 0 < claims["exp"] - claims["iat"] <= 60


@many
@given(st.sampled_from(sorted(CLAIMS)), st.sampled_from(sorted(CLAIMS)), ANYTHING, st.booleans(), st.integers(0, 3))
def test_payloads_that_can_be_read_in_two_ways(first: str, second: str, other: Any, before: bool, broken: int) -> None:
    again = dumped(other)
    repeated = b"%s:%s" % (dumped(first), again)
    members = [dumped(CLAIMS)[1:-1], repeated]
    payload = b"{" + b",".join(reversed(members) if before else members) + b"}"
    match broken:
        case 1:
            payload = payload[:-1]
        case 2:
            payload = payload.decode().encode("utf-16")
        case 3:
            payload = payload + b" " + dumped({second: other})
    refused(compact(dumped(HEADER), payload, KEY.private.sign))


@many
@given(st.binary(max_size=200), st.binary(max_size=400))
def test_bytes_that_the_key_has_signed(header: bytes, payload: bytes) -> None:
    refused(compact(header, payload, KEY.private.sign))
    refused(compact(dumped(HEADER), payload, KEY.private.sign))
