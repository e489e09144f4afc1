"""Anything may come as a notification or an answer: nothing crashes, and nothing counts but what WeChat Pay has signed."""

import asyncio
import base64
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.http import Answer
from connectors.payments.wechat_pay import WechatPayConnector, mapping, signing
from connectors.payments.wechat_pay.credentials import load
from connectors.payments.wechat_pay.mapping import Unreadable
from connectors.payments.wechat_pay.signing import NotAuthentic, PlatformKey
from infra.sandbox.wechat_pay import signing as theirs
from infra.sandbox.wechat_pay.bill import bill
from infra.sandbox.wechat_pay.keys import KeyPair, Keys
from infra.sandbox.wechat_pay.ledger import Order
from infra.sandbox.wechat_pay.notify import notification
from schemas.errors import Rejected
from schemas.ids import AttemptId, JourneyId, OrderId, PaymentId
from schemas.money import Money
from schemas.payments import Authorise, Cancel, Command, Mismatched, Payer, ProviderEvent, Refund, Succeeded, Unknown

KEYS = Keys.new()
STRANGER = KeyPair.new("Stranger")
ACCOUNT = load(KEYS.credentials())
CONNECTOR = WechatPayConnector(ACCOUNT, notify_url=None)
TRUSTED = {KEYS.signing.serial: PlatformKey(KEYS.signing.public_key)}

IDS: dict[str, Any] = {
    "payment_id": PaymentId.new(),
    "attempt_id": AttemptId.new(),
    "journey_id": JourneyId.new(),
    "total": Money(minor=650, currency="CNY"),
}
REFERENCE = str(IDS["attempt_id"])
AUTHORISE = Authorise(
    **IDS,
    order_id=OrderId.new(),
    payee="Hofgut",
    description="Milk",
    payer=Payer(provider="wechat_pay", customer="o1", payment_method="native"),
    reference=REFERENCE,
)
CANCEL = Cancel(**IDS, reference=REFERENCE)
REFUND = Refund(**IDS, reference=REFERENCE, amount=Money(minor=200, currency="CNY"))
PAID = {
    "mchid": KEYS.mchid,
    "appid": KEYS.appid,
    "out_trade_no": REFERENCE,
    "attach": IDS["payment_id"],
    "trade_state": "SUCCESS",
    "amount": {"total": 650, "payer_total": 650, "currency": "CNY", "payer_currency": "CNY"},
}
GIVEN_BACK = {
    "out_trade_no": REFERENCE,
    "out_refund_no": REFERENCE,
    "status": "SUCCESS",
    "amount": {"refund": 200, "total": 650, "currency": "CNY"},
}

BODY = notification(KEYS, "TRANSACTION.SUCCESS", PAID)
SIGNED_AT = datetime.now(UTC)
HEADERS = theirs.headers(KEYS.signing, BODY)

many = settings(max_examples=1_000, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=10,
)
header_values = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=60)
NAMES = [name for name in HEADERS if name.startswith("Wechatpay-")]


def parsed(headers: Mapping[str, str], body: bytes) -> list[ProviderEvent] | str:
    """The events, or the code of the refusal. Anything else is a crash."""
    try:
        return list(CONNECTOR.parse_webhook(headers, body))
    except Rejected as refused:
        return refused.problem.code


def resigned(body: bytes) -> dict[str, str]:
    return theirs.headers(KEYS.signing, body)


@pytest.fixture(autouse=True, scope="module")
def the_signature_is_young_enough() -> None:
    """Signed while the tests were collected, which may be long ago."""
    global HEADERS  # noqa: PLW0603
    HEADERS = resigned(BODY)


def test_it_holds_as_it_is() -> None:
    (event,) = parsed(HEADERS, BODY)
    assert isinstance(event, ProviderEvent)
    assert (event.reference, event.amount) == (REFERENCE, IDS["total"])


# Notifications: nothing altered is accepted.


@many
@given(position=st.integers(0, len(BODY) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_of_the_body_is_refused(position: int, byte: int) -> None:
    altered = BODY[:position] + bytes([byte]) + BODY[position + 1 :]
    if altered != BODY:
        assert parsed(HEADERS, altered) == "credentials-invalid"


@many
@given(cut=st.slices(len(BODY)), more=st.binary(max_size=20))
def test_a_cut_or_longer_body_is_refused(cut: slice, more: bytes) -> None:
    altered = BODY[cut] + more
    if altered != BODY:
        assert parsed(HEADERS, altered) == "credentials-invalid"


@many
@given(name=st.sampled_from(NAMES), value=header_values)
def test_a_changed_header_is_refused(name: str, value: str) -> None:
    if value != HEADERS[name]:
        assert parsed({**HEADERS, name: value}, BODY) == "credentials-invalid"


@many
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_a_header_with_a_changed_letter_is_refused(data: st.DataObject, name: str) -> None:
    value = HEADERS[name]
    position = data.draw(st.integers(0, len(value) - 1))
    letter = data.draw(st.sampled_from("ABCDEFabcdef0123456789+/=-_ \t"))
    altered = value[:position] + letter + value[position + 1 :]
    if altered != value:
        assert parsed({**HEADERS, name: altered}, BODY) == "credentials-invalid"


@many
@given(
    headers=st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=20), header_values, max_size=8),
    body=st.binary(max_size=300),
)
def test_anything_at_all_is_refused(headers: dict[str, str], body: bytes) -> None:
    assert parsed(headers, body) == "credentials-invalid"


@settings(many, max_examples=300)
@given(body=st.binary(max_size=200), at=st.integers(-(10**6), 10**6))
def test_a_strangers_signature_is_refused(body: bytes, at: int) -> None:
    forged = {**theirs.headers(STRANGER, body), "Wechatpay-Serial": KEYS.signing.serial}
    assert parsed(forged, body) == "credentials-invalid"
    assert parsed({**forged, "Wechatpay-Timestamp": str(int(time.time()) + at)}, body) == "credentials-invalid"


# Notifications: WeChat Pay itself may send anything.


@settings(many, max_examples=700)
@given(body=st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_what_is_signed_and_makes_no_sense_is_malformed(body: bytes) -> None:
    assert parsed(resigned(body), body) in ("message-malformed", "credentials-invalid")


@settings(many, max_examples=1_500)
@given(
    where=st.sampled_from(["id", "create_time", "event_type", "resource", "resource_type"]),
    inside=st.sampled_from([None, "algorithm", "ciphertext", "nonce", "associated_data"]),
    value=json_values,
)
def test_a_notification_with_another_field_is_read_or_refused(where: str, inside: str | None, value: object) -> None:
    message = json.loads(BODY)
    if inside is None:
        message[where] = value
    else:
        message["resource"][inside] = value
    body = json.dumps(message).encode()
    seen = parsed(resigned(body), body)
    assert seen in ("message-malformed", "credentials-invalid", []) or all(
        event.reference == REFERENCE and event.amount == IDS["total"] for event in seen if isinstance(event, ProviderEvent)
    )


@settings(many, max_examples=1_500)
@given(
    kind=st.sampled_from(["TRANSACTION.SUCCESS", "REFUND.SUCCESS", "REFUND.ABNORMAL"]),
    field=st.sampled_from([*PAID, "amount.total", "amount.refund", "amount.currency"]),
    value=json_values,
)
def test_a_resource_with_another_field_is_read_or_refused(kind: str, field: str, value: Any) -> None:
    resource: dict[str, Any] = {**PAID, "amount": {**PAID["amount"], "refund": 200}}  # type: ignore[dict-item]
    outer, _, inner = field.partition(".")
    if inner:
        resource[outer][inner] = value
    else:
        resource[outer] = value
    body = notification(KEYS, kind, resource)
    seen = parsed(resigned(body), body)
    if isinstance(seen, str):
        assert seen in {"message-malformed", "credentials-invalid"}
    elif field in {"mchid", "appid"}:
        assert value == PAID[field]
    else:
        assert all(isinstance(event, ProviderEvent) for event in seen)


@settings(many, max_examples=700)
@given(nonce=st.text(max_size=16), text=st.text(max_size=60) | st.binary(max_size=60).map(lambda b: base64.b64encode(b).decode()))
def test_nothing_is_opened_that_was_not_sealed(nonce: str, text: str) -> None:
    sealed = {"algorithm": signing.ENCRYPTION, "nonce": nonce, "ciphertext": text, "associated_data": "transaction"}
    with pytest.raises(NotAuthentic):
        signing.open_sealed(AESGCM(b"k" * 32), sealed)


# Answers.


def answered(status: int, headers: Mapping[str, str], body: bytes, command: Command) -> Any:
    """What the connector makes of an answer to a query."""

    async def send(*_: object) -> Answer:
        return Answer(status, headers, body, truncated=False)

    connector = WechatPayConnector(ACCOUNT, notify_url=None)
    connector._send = send  # type: ignore[method-assign]

    async def ask() -> Any:
        outcome = await connector.fetch(REFERENCE, command)
        await connector.close()
        return outcome

    return asyncio.run(ask())


ANSWER = json.dumps(PAID).encode()
ANSWER_SIGNED = theirs.headers(KEYS.signing, ANSWER)


def test_an_answer_holds_as_it_is() -> None:
    assert answered(200, resigned(ANSWER), ANSWER, AUTHORISE) == Succeeded(reference=REFERENCE, total=IDS["total"], captured=True)


@many
@given(position=st.integers(0, len(ANSWER) - 1), byte=st.integers(0, 255), drop=st.booleans())
def test_an_altered_answer_is_not_authentic(position: int, byte: int, drop: bool) -> None:
    altered = ANSWER[:position] + (b"" if drop else bytes([byte])) + ANSWER[position + 1 :]
    if altered != ANSWER:
        with pytest.raises(NotAuthentic):
            signing.verify(ANSWER_SIGNED, altered, TRUSTED, SIGNED_AT)


@many
@given(name=st.sampled_from(NAMES), value=header_values, off_by_s=st.integers(-250, 250))
def test_an_answer_with_another_header_is_not_authentic(name: str, value: str, off_by_s: int) -> None:
    now = SIGNED_AT + timedelta(seconds=off_by_s)
    signing.verify(ANSWER_SIGNED, ANSWER, TRUSTED, now)
    if value != ANSWER_SIGNED[name]:
        with pytest.raises(NotAuthentic):
            signing.verify({**ANSWER_SIGNED, name: value}, ANSWER, TRUSTED, now)


@settings(many, max_examples=300)
@given(status=st.integers(100, 599), headers=st.dictionaries(st.sampled_from(NAMES), header_values), body=st.binary(max_size=200))
def test_an_answer_that_nobody_signed_is_unknown(status: int, headers: dict[str, str], body: bytes) -> None:
    assert isinstance(answered(status, headers, body, AUTHORISE), Unknown)


@settings(many, max_examples=300)
@given(status=st.integers(100, 599), value=json_values | st.dictionaries(st.sampled_from([*PAID, "code"]), json_values))
def test_a_signed_answer_that_makes_no_sense_is_not_a_success(status: int, value: object) -> None:
    body = json.dumps(value).encode()
    for command in (AUTHORISE, CANCEL, REFUND):
        assert not isinstance(answered(status, resigned(body), body, command), Succeeded)


@many
@given(
    field=st.sampled_from([*PAID, "amount.total", "amount.currency"]),
    value=json_values,
    command=st.sampled_from([AUTHORISE, CANCEL]),
)
def test_an_order_with_another_field_does_not_fit(field: str, value: object, command: Authorise | Cancel) -> None:
    answer: dict[str, Any] = {**PAID, "amount": dict(PAID["amount"])}  # type: ignore[call-overload]
    outer, _, inner = field.partition(".")
    before = answer[outer][inner] if inner else answer[outer]
    if inner:
        answer[outer][inner] = value
    else:
        answer[outer] = value
    if value == before:
        return
    assert isinstance(mapping.read_order(answer, command, KEYS.mchid, KEYS.appid), Unknown | Mismatched)


@many
@given(field=st.sampled_from([*GIVEN_BACK, "amount.total", "amount.refund", "amount.currency"]), value=json_values)
def test_a_refund_with_another_field_does_not_fit(field: str, value: object) -> None:
    answer: dict[str, Any] = {**GIVEN_BACK, "amount": dict(GIVEN_BACK["amount"])}  # type: ignore[call-overload]
    outer, _, inner = field.partition(".")
    before = answer[outer][inner] if inner else answer[outer]
    if inner:
        answer[outer][inner] = value
    else:
        answer[outer] = value
    if value == before:
        return
    assert isinstance(mapping.read_refund(answer, REFUND), Unknown | Mismatched)


# Bills.

ORDER = Order(
    REFERENCE, "codepay", 650, "Milk", "pay_1", "o1", None, "SUCCESS", transaction_id="42", paid_at="2026-11-22T09:00:00+08:00"
)
BILL = bill([(ORDER, None)], KEYS.mchid, KEYS.appid).decode()


@many
@given(position=st.integers(0, len(BILL) - 1), text=st.text(max_size=3), drop=st.integers(0, 5))
def test_a_bill_is_read_or_refused(position: int, text: str, drop: int) -> None:
    try:
        lines = mapping.read_bill(BILL[:position] + text + BILL[position + drop :], KEYS.mchid)
    except Unreadable:
        return
    assert len(lines) == 1


@settings(many, max_examples=500)
@given(text=st.text(max_size=300))
def test_any_text_is_no_bill(text: str) -> None:
    with pytest.raises(Unreadable):
        mapping.read_bill(text, KEYS.mchid)
