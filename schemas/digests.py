"""Digests of JSON values: one value, one byte string, in every language (RFC 8785, without fractions)."""

import hashlib
import json
from typing import Any

_LARGEST_INTEGER = 2**53 - 1  # beyond it other languages' JSON numbers lose digits


def canonical_json(value: Any) -> bytes:
    """UTF-8 with sorted keys and no spaces. Takes what JSON has: dict with text keys, list or tuple, text, int, bool, None.

    Raises ValueError for anything else: a float (its text differs between languages), an integer beyond 2^53, a lone
    surrogate, a time (say how it is written first).
    """
    ordered = _ordered(value)
    try:
        return json.dumps(ordered, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("a text holds half of a character (a lone surrogate)") from error


def sha256_hex(content: bytes) -> str:
    """64 lower-case hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _ordered(value: Any) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        if abs(value) > _LARGEST_INTEGER:
            raise ValueError(f"{value} is beyond what JSON numbers hold exactly")
        return value
    if isinstance(value, list | tuple):
        return [_ordered(item) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("the keys of a JSON object are text")
        # RFC 8785 sorts by UTF-16 code units, which differs from code points beyond the first 65,536 characters.
        keys = sorted(value) if all(map(str.isascii, value)) else sorted(value, key=_utf_16)
        return {key: _ordered(value[key]) for key in keys}
    raise ValueError(f"a {type(value).__qualname__} has no canonical JSON")


def _utf_16(text: str) -> bytes:
    return text.encode("utf-16-be", "surrogatepass")
