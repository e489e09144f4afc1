"""What is sealed opens with the right key, at its place, unaltered; and with no other."""

import base64
import os

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.errors import Misconfigured
from streams.core.sealing import Sealer


def a_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def test_only_its_place_opens_it() -> None:
    sealer = Sealer(a_key())
    sealed = sealer.seal(b"a secret", "account:1")
    assert b"a secret" not in sealed
    assert sealer.open(sealed, "account:1") == b"a secret"
    with pytest.raises(Misconfigured, match="account:2 does not open"):
        sealer.open(sealed, "account:2")


def test_the_same_secret_never_looks_the_same() -> None:
    sealer = Sealer(a_key())
    assert sealer.seal(b"a secret", "x") != sealer.seal(b"a secret", "x")


@pytest.mark.parametrize("position", [0, 1, 4, 5, 16, 17, 20, -1])
def test_nothing_altered_opens(position: int) -> None:
    sealer = Sealer(a_key())
    sealed = bytearray(sealer.seal(b"a secret", "x"))
    sealed[position] ^= 1
    with pytest.raises(Misconfigured):
        sealer.open(bytes(sealed), "x")


@pytest.mark.parametrize("sealed", [b"", b"\x00", b"\x01", b"\x02", b"\x02abcd", b"\x01" + bytes(11), b"\x02" + bytes(40)])
def test_what_was_never_sealed_does_not_open(sealed: bytes) -> None:
    with pytest.raises(Misconfigured):
        Sealer(a_key()).open(sealed, "x")


def test_a_new_key_opens_what_the_old_one_sealed_as_long_as_that_stands_behind_it() -> None:
    old, new = a_key(), a_key()
    sealed = Sealer(old).seal(b"a secret", "x")
    both = Sealer(f"{new},{old}")
    assert both.open(sealed, "x") == b"a secret"
    assert not both.is_current(sealed)
    anew = both.seal(b"a secret", "x")
    assert both.is_current(anew)
    assert Sealer(new).open(anew, "x") == b"a secret"
    for sealer, value in ((Sealer(new), sealed), (Sealer(old), anew)):
        with pytest.raises(Misconfigured, match="does not hold the key it was sealed with"):
            sealer.open(value, "x")


def test_what_was_sealed_before_keys_had_names_opens_with_any() -> None:
    old, new = a_key(), a_key()
    nonce = os.urandom(12)
    sealed = b"\x01" + nonce + AESGCM(base64.b64decode(old)).encrypt(nonce, b"a secret", b"x")
    both = Sealer(f"{new}\n{old}\n")
    assert both.open(sealed, "x") == b"a secret"
    assert not both.is_current(sealed)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ("", "is empty"),
        (" ,\n", "is empty"),
        ("not base64!", "Key 1 .* is not base64"),
        (base64.b64encode(bytes(16)).decode(), "Key 1 .* has 16 bytes instead of 32"),
        (base64.b64encode(bytes(33)).decode(), "Key 1 .* has 33 bytes"),
        (f"{base64.b64encode(bytes(32)).decode()},c2hvcnQ=", "Key 2 .* has 5 bytes"),
    ],
)
def test_keys_that_are_none_are_refused_without_being_shown(keys: str, reason: str) -> None:
    with pytest.raises(Misconfigured, match=reason) as refused:
        Sealer(keys)
    assert not any(part and part in str(refused.value) for part in keys.replace("\n", ",").split(",") if part.strip())
