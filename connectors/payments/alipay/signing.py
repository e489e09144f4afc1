"""Alipay's signatures: gateway v1 (RSA2), certificates, v3. Pure: plain values in, plain values out.

RSA2 is RSASSA-PKCS1-v1_5 with SHA-256, in base64; nothing else is accepted, whatever a message says of itself. Sources:
opendocs.alipay.com/common/02kf5q, /open-v3/054q58 and /open-v3/054d0z, as the official Node SDK 4.14 implements them, against
which all of it is tested.

What is verified is what was received, byte for byte; what is read afterwards is read from exactly those bytes.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

SHORTEST_KEY_BITS = 2048
SIGN_TYPE = "RSA2"
V3_SCHEME = "ALIPAY-SHA256withRSA"

_BEGIN = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_RSA_SIGNATURES = "1.2.840.113549.1.1."
_WEAK_HASHES = (hashes.SHA1, hashes.MD5)
# What a notification's field may be called, and what in a value would look like the beginning of another field.
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_LOOKS_LIKE_A_FIELD = re.compile(r"&[a-z][a-z0-9_]{0,63}=", re.ASCII)
_MOST_FIELDS = 200


class Unreadable(ValueError):
    """What was received is not of the form that Alipay documents."""


class Unusable(ValueError):
    """A key or certificate that cannot be used; the message says why, in words without the key."""


# Keys.


def private_key(text: str) -> RSAPrivateKey:
    """From PEM (PKCS #1 or #8), or the same in bare base64 as Alipay's key tool shows it. Raises Unusable."""
    try:
        if "-----BEGIN" in text:
            key = serialization.load_pem_private_key(text.strip().encode(), password=None)
        else:
            key = serialization.load_der_private_key(_bare(text), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Unusable("it is not an unencrypted private key in PEM or base64") from None
    if not isinstance(key, RSAPrivateKey):
        raise Unusable("it is not an RSA key")
    _long_enough(key.key_size)
    return key


def public_key(text: str) -> RSAPublicKey:
    """From PEM, or bare base64 as Alipay shows it. Raises Unusable."""
    try:
        if "-----BEGIN" in text:
            key = serialization.load_pem_public_key(text.strip().encode())
        else:
            key = serialization.load_der_public_key(_bare(text))
    except (ValueError, UnsupportedAlgorithm):
        raise Unusable("it is not a public key in PEM or base64") from None
    if not isinstance(key, RSAPublicKey):
        raise Unusable("it is not an RSA key")
    _long_enough(key.key_size)
    return key


def same_key(one: RSAPublicKey, other: RSAPublicKey) -> bool:
    return one.public_numbers() == other.public_numbers()


def _bare(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64") from None


def _long_enough(bits: int) -> None:
    if bits < SHORTEST_KEY_BITS:
        raise Unusable(f"it has {bits} bits; at least {SHORTEST_KEY_BITS} are needed")


def sign(key: RSAPrivateKey, content: bytes) -> str:
    return base64.b64encode(key.sign(content, padding.PKCS1v15(), hashes.SHA256())).decode()


def verify(key: RSAPublicKey, content: bytes, signature: str | None) -> bool:
    """False for whatever is not a signature over exactly `content`, in base64 as it is written normally: no other spelling of the
    same signature, and no empty one."""
    if not signature:
        return False
    try:
        raw = base64.b64decode(signature, validate=True)
        if base64.b64encode(raw) != signature.encode("ascii"):
            return False
        key.verify(raw, content, padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError):
        return False
    return True


# Certificates.


def certificates(pem: str, *, all_of_them: bool = True) -> list[x509.Certificate]:
    """In the order of the file. Alipay's root file also has certificates of kinds that cannot be read here; they are skipped
    where `all_of_them` is false. Raises Unusable."""
    found = []
    for block in _BEGIN.findall(pem):
        try:
            certificate = x509.load_pem_x509_certificate(block.encode())
            certificate.public_key()
        except (ValueError, UnsupportedAlgorithm):
            if all_of_them:
                raise Unusable("it holds a certificate that cannot be read") from None
            continue
        found.append(certificate)
    if not found:
        raise Unusable("there is no certificate in it")
    return found


def certificate_key(certificate: x509.Certificate) -> RSAPublicKey:
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey):
        raise Unusable("its key is not an RSA key")
    _long_enough(key.key_size)
    return key


def certificate_serial(certificate: x509.Certificate) -> str:
    """Alipay's name for a certificate: MD5 over the issuer, its parts reversed, and the serial number in decimal."""
    issuer = ",".join(f"{part.rfc4514_attribute_name}={_text(part.value)}" for part in reversed(list(certificate.issuer)))
    return hashlib.md5(f"{issuer}{certificate.serial_number}".encode(), usedforsecurity=False).hexdigest()


def root_serial(roots: Iterable[x509.Certificate]) -> str:
    """The names of the roots that are signed with RSA, joined. Raises Unusable where there is none."""
    names = [certificate_serial(root) for root in roots if root.signature_algorithm_oid.dotted_string.startswith(_RSA_SIGNATURES)]
    if not names:
        raise Unusable("none of its certificates is signed with RSA")
    return "_".join(names)


def check_chain(chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], now: datetime) -> None:
    """Whether the first of `chain` leads, through the others, to one of `roots`, all being valid now. Raises Unusable."""
    current = chain[0]
    check_certificate(current, now)
    others = list(chain[1:])
    while True:
        for root in roots:
            # A root that is itself in the chain is trusted because it is one, not because it says so.
            if current == root:
                return
            if _issued_by(current, root):
                _check_dates(root, now)
                return
        issuer = next((other for other in others if _issued_by(current, other)), None)
        if issuer is None:
            raise Unusable("it does not lead to Alipay's root certificate; the ones in between belong into its file")
        others.remove(issuer)
        check_certificate(issuer, now)
        current = issuer


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        if not constraints.ca:
            return False
    except x509.ExtensionNotFound:
        # Version 1 roots say nothing of it; for them it is enough that an operator calls them roots.
        if issuer.version is not x509.Version.v1:
            return False
    except ValueError:
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def check_certificate(certificate: x509.Certificate, now: datetime) -> None:
    """Its key, the hash it is signed with, its dates. Raises Unusable."""
    certificate_key(certificate)
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        algorithm = None
    if algorithm is None or isinstance(algorithm, _WEAK_HASHES):
        raise Unusable("it is signed with a hash that is no longer safe")
    _check_dates(certificate, now)


def _check_dates(certificate: x509.Certificate, now: datetime) -> None:
    if now < certificate.not_valid_before_utc:
        raise Unusable(f"it is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}")
    if now > certificate.not_valid_after_utc:
        raise Unusable(f"it expired on {certificate.not_valid_after_utc:%Y-%m-%d}")


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


# Gateway v1.


def v1_content(parameters: Mapping[str, str]) -> bytes:
    """What a request's signature is over: all but `sign` and what is empty, sorted, unencoded."""
    kept = sorted((name, value) for name, value in parameters.items() if value and name != "sign")
    return "&".join(f"{name}={value}" for name, value in kept).encode()


@dataclass(frozen=True)
class V1Answer:
    """An answer taken apart, not yet verified. `raw` is the part that is signed."""

    raw: bytes
    signature: str | None
    certificate: str | None


def v1_answer(body: bytes, method: str) -> V1Answer:
    """Takes `{"alipay_trade_query_response":{…},"alipay_cert_sn":"…","sign":"…"}` apart along its JSON structure, so that nothing
    inside the signed part, nor anything repeated or added, can pass for something else. Raises Unreadable."""
    text = _utf8(body)
    expected = f"{method.replace('.', '_')}_response"
    parts: dict[str, str] = {}
    for name, raw in _members(text):
        if name in parts or name not in {expected, "error_response", "sign", "alipay_cert_sn"}:
            raise Unreadable("the answer has a part that does not belong there")
        parts[name] = raw
    if (expected in parts) == ("error_response" in parts):
        raise Unreadable("the answer is to another question")
    raw = parts.get(expected) or parts["error_response"]
    if not raw.startswith("{"):
        raise Unreadable("the answer is not an object")
    return V1Answer(raw.encode(), _string(parts.get("sign")), _string(parts.get("alipay_cert_sn")))


def _members(text: str) -> Iterable[tuple[str, str]]:
    """The names of the outermost object, each with its value as it was written."""
    decoder = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_no_repetition)
    position = _skip(text, 0)
    if text[position : position + 1] != "{":
        raise Unreadable("the answer is not an object")
    position = _skip(text, position + 1)
    while True:
        try:
            name, position = decoder.raw_decode(text, position)
            position = _skip(text, position)
            if not isinstance(name, str) or text[position : position + 1] != ":":
                raise Unreadable("the answer is not JSON")
            start = _skip(text, position + 1)
            _, position = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            raise Unreadable("the answer is not JSON") from None
        yield name, text[start:position]
        position = _skip(text, position)
        following = text[position : position + 1]
        if following == "}":
            break
        if following != ",":
            raise Unreadable("the answer is not JSON")
        position = _skip(text, position + 1)
    if _skip(text, position + 1) != len(text):
        raise Unreadable("there is something after the answer")


def _skip(text: str, position: int) -> int:
    while text[position : position + 1] in {" ", "\t", "\r", "\n"}:
        position += 1
    return position


def _string(raw: str | None) -> str | None:
    if raw is None:
        return None
    value = json.loads(raw)
    if not isinstance(value, str):
        raise Unreadable("the signature is not a text")
    return value


def read_object(raw: bytes) -> dict[str, Any]:
    """JSON's object, without repeated names; numbers with a point are Decimal. Raises Unreadable."""
    try:
        value = json.loads(_utf8(raw), parse_constant=_no_constant, parse_float=Decimal, object_pairs_hook=_no_repetition)
    except (ValueError, RecursionError, ArithmeticError):
        raise Unreadable("the answer is not JSON") from None
    if not isinstance(value, dict):
        raise Unreadable("the answer is not an object")
    return value


def _utf8(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise Unreadable("the answer is not UTF-8") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _no_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unreadable("a name is repeated")
    return found


# v3.


def v3_authorization(
    key: RSAPrivateKey,
    app_id: str,
    *,
    method: str,
    target: str,
    body: bytes,
    nonce: str,
    timestamp_ms: int,
    certificate: str | None,
) -> str:
    """The Authorization header. `target` is path and query as they are sent."""
    about = f"app_id={app_id},{f'app_cert_sn={certificate},' if certificate else ''}nonce={nonce},timestamp={timestamp_ms}"
    return f"{V3_SCHEME} {about},sign={sign(key, v3_request_content(about, method, target, body))}"


def v3_request_content(about: str, method: str, target: str, body: bytes) -> bytes:
    return f"{about}\n{method}\n{target}\n".encode() + body + b"\n"


def v3_answer_content(timestamp: str, nonce: str, body: bytes) -> bytes:
    return f"{timestamp}\n{nonce}\n".encode() + body + b"\n"


# Notifications.


def notification(body: bytes) -> dict[str, str]:
    """The fields of a notification's form. Refuses what could be read in two ways: the signature is over `name=value` joined by
    `&`, so a value that holds `&name=` could have been two fields. Raises Unreadable."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError:
        raise Unreadable("the notification is not a form in UTF-8") from None
    fields: dict[str, str] = {}
    for name, value in pairs:
        if name in fields or not _FIELD.fullmatch(name) or _LOOKS_LIKE_A_FIELD.search(value):
            raise Unreadable("the notification has a field that is repeated or could be two")
        fields[name] = value
    return fields


def notification_contents(fields: Mapping[str, str]) -> tuple[bytes, bytes]:
    """What a notification's signature may be over: without `sign_type`, as trades have it, and with it, as services have it."""
    pairs = sorted((name, value) for name, value in fields.items() if name != "sign")
    without = "&".join(f"{name}={value}" for name, value in pairs if name != "sign_type")
    return without.encode(), "&".join(f"{name}={value}" for name, value in pairs).encode()
