"""Whatever is made of what Alipay signed: it is read as it was signed, or not at all, and nothing breaks."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.payments.alipay import AlipayConnector, connector, signing
from connectors.payments.alipay.credentials import read
from infra.sandbox.alipay import keys
from schemas.errors import Rejected

MADE = keys.make()
ACCOUNT = read(MADE.credentials("v1"))
CONNECTOR = AlipayConnector(ACCOUNT)
METHOD = "alipay.trade.query"
CASES = settings(max_examples=3000, deadline=None)
FEWER_CASES = settings(max_examples=2000, deadline=None)

SIGNED = (
    '{"code":"10000","out_trade_no":"t1","total_amount":"6.50","sign":"no","url":"https:\\/\\/a\\"sign\\":1","list":[{"a":"}"}]}'
)
ANSWER = (
    f'{{"alipay_trade_query_response":{SIGNED},"sign":"{signing.sign(MADE.alipay, SIGNED.encode())}"}}'.encode()
)  # fmt: skip

FIELDS = {
    "notify_type": "trade_status_sync",
    "notify_id": "n1",
    "notify_time": f"{datetime.now(ZoneInfo('Asia/Shanghai')):%Y-%m-%d %H:%M:%S}",
    "app_id": ACCOUNT.app_id,
    "seller_id": ACCOUNT.seller_id,
    "out_trade_no": "t1",
    "trade_status": "TRADE_SUCCESS",
    "total_amount": "6.50",
    "subject": "salt & pepper = 有机",
    "body": "",
}


def signed_form() -> dict[str, str]:
    content, _ = signing.notification_contents(FIELDS)
    return {**FIELDS, "sign": signing.sign(MADE.alipay, content), "sign_type": "RSA2"}


FORM = signed_form()
NOTIFICATION = urlencode(FORM).encode()


@st.composite
def mangled(draw: st.DrawFn, original: bytes) -> bytes:
    """Flipped, inserted, doubled, moved, cut: up to four times."""
    body = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(body)))
        end = draw(st.integers(start, min(len(body), start + 60)))
        match draw(st.sampled_from(["flip", "insert", "double", "move", "cut", "drop", "grammar"])):
            case "flip" if start < len(body):
                body[start] ^= 1 << draw(st.integers(0, 7))
            case "insert":
                body[start:start] = draw(st.binary(min_size=1, max_size=8))
            case "double":
                body[end:end] = body[start:end]
            case "move":
                piece = body[start:end]
                del body[start:end]
                at = draw(st.integers(0, len(body)))
                body[at:at] = piece
            case "cut":
                del body[start:]
            case "drop":
                del body[start:end]
            case _:
                body[start:start] = draw(
                    st.sampled_from([b'"sign":', b'"', b"&", b"=", b"&sign=", b"{", b"}", b",", b"\\", b"%26", b"+", b" "])
                )
    return bytes(body)


def accepted_answer(body: bytes) -> dict[str, Any] | None:
    """What the connector would go on with."""
    try:
        answer = signing.v1_answer(body, METHOD)
        content = signing.read_object(answer.raw)
    except signing.Unreadable:
        return None
    return content if answer.certificate is None and signing.verify(ACCOUNT.alipay_key, answer.raw, answer.signature) else None


def accepted_notification(body: bytes) -> dict[str, str] | None:
    try:
        (event,) = CONNECTOR.parse_webhook({}, body)
    except Rejected as refused:
        assert refused.problem.code in {"credentials-invalid", "message-malformed"}
        return None
    assert (event.reference, event.event_id) == ("t1", "n1")
    return signing.notification(body)


@pytest.fixture(scope="module", autouse=True)
def _no_hurry() -> Iterator[None]:
    """What was signed when this file was read has to be fresh until the last case has run."""
    kept = connector.NOTIFICATION_TOLERANCE
    connector.NOTIFICATION_TOLERANCE = timedelta(days=1)
    yield
    connector.NOTIFICATION_TOLERANCE = kept


def test_the_originals_are_accepted() -> None:
    assert accepted_answer(ANSWER) == json.loads(SIGNED)
    assert accepted_notification(NOTIFICATION) == FORM


@CASES
@given(mangled(ANSWER))
def test_an_answer_is_read_as_it_was_signed(body: bytes) -> None:
    assert accepted_answer(body) in (None, json.loads(SIGNED))


@CASES
@given(mangled(NOTIFICATION))
def test_a_notification_is_read_as_it_was_signed(body: bytes) -> None:
    assert accepted_notification(body) in (None, FORM)


@CASES
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_what_nobody_signed_is_never_accepted(body: bytes) -> None:
    assert accepted_answer(body) is None
    assert accepted_notification(body) is None


Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=10,
)


@FEWER_CASES
@given(st.dictionaries(st.sampled_from(["alipay_trade_query_response", "error_response", "sign", "alipay_cert_sn", "x"]), Json))
def test_any_json_is_read_or_unreadable(content: dict[str, Any]) -> None:
    assert accepted_answer(json.dumps(content).encode()) is None


def _reordered(pairs: list[tuple[str, str]]) -> bytes:
    return urlencode(pairs).encode()


def _without_one(pairs: list[tuple[str, str]]) -> bytes:
    return urlencode(pairs[1:]).encode()


def _one_twice(pairs: list[tuple[str, str]]) -> bytes:
    return urlencode([*pairs, pairs[0]]).encode()


def _two_as_one(pairs: list[tuple[str, str]]) -> bytes:
    (first, value), (second, other), *rest = pairs
    return urlencode([(first, f"{value}&{second}={other}"), *rest]).encode()


@CASES
@given(st.permutations(list(FORM.items())), st.sampled_from([_reordered, _without_one, _one_twice, _two_as_one]))
def test_fields_may_only_be_reordered(pairs: list[tuple[str, str]], rearrange: Callable[[list[tuple[str, str]]], bytes]) -> None:
    body = rearrange(pairs)
    found = accepted_notification(body)
    if rearrange is _reordered:
        assert found == FORM
    elif rearrange is _without_one and pairs[0] == ("body", ""):
        # A field that is empty is signed, too.
        assert found is None
    else:
        assert found is None or dict(parse_qsl(body.decode(), keep_blank_values=True)) == FORM


@FEWER_CASES
@given(st.dictionaries(st.sampled_from(sorted(FORM)), st.text(max_size=40)))
def test_whatever_a_signed_notification_says_is_read_or_malformed(changed: dict[str, str]) -> None:
    """Signed by Alipay, and yet nothing that makes sense: it must not break anything."""
    fields = {**FIELDS, **changed, "sign_type": "RSA2"}
    content, _ = signing.notification_contents(fields)
    try:
        CONNECTOR.parse_webhook({}, urlencode({**fields, "sign": signing.sign(MADE.alipay, content)}).encode())
    except Rejected as refused:
        assert refused.problem.code in {"credentials-invalid", "message-malformed"}
