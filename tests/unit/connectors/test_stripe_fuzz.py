"""Webhooks as somebody without the secret might send them: nothing that was altered is accepted, and nothing crashes."""

import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
import stripe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.payments.stripe import StripeConnector, signing
from infra.sandbox import localstripe
from schemas.errors import Rejected

CONNECTOR = StripeConnector(
    localstripe.API_KEY, webhook_secret=localstripe.WEBHOOK_SECRET, address="http://127.0.0.1:1", account="acct_1"
)
EVENT = {
    "id": "evt_1",
    "object": "event",
    "type": "payment_intent.succeeded",
    "livemode": False,
    "created": 1_790_000_000,
    "data": {"object": {"id": "pi_1", "object": "payment_intent", "amount_received": 650, "currency": "eur"}},
}
BODY = json.dumps(EVENT).encode()
FUZZ = settings(max_examples=3_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def mac(moment: int | str, body: bytes, secret: str = localstripe.WEBHOOK_SECRET) -> str:
    return hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()


def header(moment: int, body: bytes = BODY, secret: str = localstripe.WEBHOOK_SECRET) -> str:
    return f"t={moment},v1={mac(moment, body, secret)}"


def refused(headers: Mapping[str, str], body: bytes) -> bool:
    """Anything but a Rejected is a crash."""
    try:
        CONNECTOR.parse_webhook(headers, body)
    except Rejected as rejected:
        assert rejected.problem.code in {"credentials-invalid", "message-malformed"}
        return True
    return False


def changes(size: int) -> st.SearchStrategy[list[tuple[str, int, bytes]]]:
    """What to do where: replace, insert or delete bytes."""
    one = st.tuples(st.sampled_from(["replace", "insert", "delete"]), st.integers(0, size), st.binary(min_size=1, max_size=4))
    return st.lists(one, min_size=1, max_size=4)


def changed(text: bytes, wanted: list[tuple[str, int, bytes]]) -> bytes:
    for what, at, piece in wanted:
        after = at if what == "insert" else at + len(piece)
        text = text[:at] + (b"" if what == "delete" else piece) + text[after:]
    return text


def test_the_untouched_one_is_accepted() -> None:
    assert not refused({"Stripe-Signature": header(int(time.time()))}, BODY)


@FUZZ
@given(changes(len(BODY)))
def test_an_altered_body_is_refused(wanted: list[tuple[str, int, bytes]]) -> None:
    body = changed(BODY, wanted)
    assert refused({"Stripe-Signature": header(int(time.time()))}, body) or body == BODY


@FUZZ
@given(changes(80))
def test_an_altered_header_is_refused_or_says_the_same(wanted: list[tuple[str, int, bytes]]) -> None:
    """A header may gain parts that mean nothing; its time and one signature over that time and the body must stay."""
    now = int(time.time())
    given = changed(header(now).encode(), wanted).decode("latin-1")
    parts = given.split(",")
    same = [part for part in parts if part.strip().startswith("t=")] == [f"t={now}"] and f"v1={mac(now, BODY)}" in parts
    assert refused({"Stripe-Signature": given}, BODY) or same


@FUZZ
@given(
    st.dictionaries(st.sampled_from(["Stripe-Signature", "stripe-signature", "X"]), st.text(max_size=120)),
    st.binary(max_size=200),
)
def test_anything_at_all_is_refused(headers: dict[str, str], body: bytes) -> None:
    assert refused(headers, body)


_NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30).map(str),
    st.sampled_from(["", " ", "NaN", "1e9", "0x7", "9" * 5000, "-1", "+1", "1_0", "٣", "１７９", "1790000000.5", "\x00"]),
    st.text(max_size=20),
)


@FUZZ
@given(st.lists(_NUMBERS, max_size=3), st.lists(st.sampled_from(["v0", "v1", "v2", "V1", " v1", ""]), max_size=4), st.booleans())
def test_times_and_schemes(times: list[str], schemes: list[str], ours: bool) -> None:
    """Every signature here is right for its time, where `ours`. What is not fresh, not one time or not v1 is refused anyway."""
    now = int(time.time())
    moment = times[0] if times else str(now)
    try:
        right = mac(moment, BODY) if ours else mac(moment, BODY, "another secret")
    except UnicodeEncodeError:
        return
    parts = [f"t={each}" for each in times] + [f"{scheme}={right}" for scheme in schemes]
    fresh = len(times) == 1 and moment.isascii() and moment.isdigit() and abs(int(moment[:12]) - now) <= signing.TOLERANCE_S
    assert refused({"Stripe-Signature": ",".join(parts)}, BODY) or (fresh and ours and "v1" in schemes)


@pytest.mark.parametrize("scheme", ["v0", "v2", "V1", "", " v1"])
def test_other_schemes_than_v1_are_no_signature(scheme: str) -> None:
    now = int(time.time())
    assert refused({"Stripe-Signature": f"t={now},{scheme}={mac(now, BODY)}"}, BODY)


def test_one_of_several_signatures_is_enough() -> None:
    now = int(time.time())
    other = mac(now, BODY, "the old secret")
    for signatures in ((mac(now, BODY), other), (other, mac(now, BODY))):
        assert not refused({"Stripe-Signature": ",".join([f"t={now}", *(f"v1={each}" for each in signatures)])}, BODY)
    assert refused({"Stripe-Signature": f"t={now},v1={other},v1={other},v0={mac(now, BODY)}"}, BODY)


def test_one_of_several_times_is_not_enough() -> None:
    """The SDK would take the first and check the signature over that one."""
    now = int(time.time())
    for times in ((now, now), (now, now - 10_000), (now - 10_000, now)):
        parts = [f"t={each}" for each in times] + [f"v1={mac(each, BODY)}" for each in times]
        assert refused({"Stripe-Signature": ",".join(parts)}, BODY)


def test_several_headers_are_not_enough() -> None:
    right = header(int(time.time()))
    assert refused({"Stripe-Signature": right, "stripe-signature": right}, BODY)
    assert not refused({"STRIPE-SIGNATURE": right}, BODY)


@pytest.mark.parametrize("offset", [-301, 301, -86_400, 10**9, 10**11])
def test_a_right_signature_of_another_time_is_refused(offset: int) -> None:
    assert refused({"Stripe-Signature": header(int(time.time()) + offset)}, BODY)


@pytest.mark.parametrize("written", ["0{now}", "+{now}", " {now}", "{now} ", "{digits}"])
def test_a_time_in_any_other_writing_is_refused(written: str) -> None:
    """The SDK reads it as a number and signs that: what it checks is not what was written."""
    now = int(time.time())
    digits = "".join(chr(0xFF10 + int(digit)) for digit in str(now))
    stamp = written.format(now=now, digits=digits)
    given = f"t={stamp},v1={mac(now, BODY)}"
    assert stripe.WebhookSignature.verify_header(BODY, given, localstripe.WEBHOOK_SECRET, 300)
    assert refused({"Stripe-Signature": given}, BODY)


@pytest.mark.parametrize("secret", [None, "", " ", "\t\n", "\u2003"])
def test_an_empty_secret_verifies_nothing(secret: str | None) -> None:
    now = int(time.time())
    for key in ("", secret or ""):
        with pytest.raises(Rejected) as rejected:
            signing.verify({"Stripe-Signature": header(now, secret=key)}, BODY, secret, now)
        assert rejected.value.problem.code == "credentials-invalid"


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["pi_1", "eur", "refund"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(FUZZ, max_examples=1_000)
@given(
    st.dictionaries(st.sampled_from(["id", "object", "type", "livemode", "created", "data", "account"]), _ANYTHING),
    st.dictionaries(
        st.sampled_from(["id", "object", "payment_intent", "amount", "amount_received", "currency", "status"]), _ANYTHING
    ),
)
def test_an_authentic_event_of_any_shape_is_read_or_refused(event: dict[str, Any], about: dict[str, Any]) -> None:
    data = {"object": {**EVENT["data"]["object"], **about}}  # type: ignore[index]
    body = json.dumps({**EVENT, "data": data, **event}).encode()
    headers = {"Stripe-Signature": header(int(time.time()), body)}
    if not refused(headers, body):
        for seen in CONNECTOR.parse_webhook(headers, body):
            assert seen.reference.startswith("pi_")
            assert event.get("livemode", False) is False
            assert event.get("account") in (None, "acct_1")
