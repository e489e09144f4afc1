import json
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.digests import canonical_json, sha256_hex

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(values)
def test_it_is_json_of_the_same_value(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(), st.integers(0, 9), min_size=2))
def test_the_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


def test_the_bytes_are_those_of_rfc_8785() -> None:
    # The example of section 3.2.3, which is about sorting by UTF-16 code units.
    value = {"€": 1, "\r": 2, "\ufb33": 3, "1": 4, "😂": 5, "\x80": 6, "ö": 7}
    assert canonical_json(value) == '{"\\r":2,"1":4,"\x80":6,"ö":7,"€":1,"😂":5,"\ufb33":3}'.encode()
    assert canonical_json('€$\x0f\nA\'B"\\\\"/') == b'"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'


class Colour(StrEnum):
    RED = "red"


def test_what_is_text_or_a_sequence_in_python_is_so_in_json() -> None:
    assert canonical_json({"a": (1, 2), "b": Colour.RED}) == b'{"a":[1,2],"b":"red"}'


@pytest.mark.parametrize("value", [1.0, float("nan"), 2**53, -(2**53), b"bytes", {1: "a"}, {"a"}, "\ud800", {"\ud800": 1}])
def test_what_other_languages_write_differently_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        canonical_json({"nested": [value]})


def test_the_digest_of_nothing() -> None:
    assert sha256_hex(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
