"""Our signatures against the official library's verification."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from schemas.ids import MessageId
from streams.webhooks.signing import new_secret, signed_headers


def test_a_secret_holds_256_random_bits() -> None:
    secrets = {new_secret() for _ in range(10)}
    assert len(secrets) == 10
    assert all(len(base64.b64decode(secret.removeprefix("whsec_"))) == 32 for secret in secrets)


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=50), max_size=5))
def test_the_official_library_verifies_what_we_sign(content: dict[str, str]) -> None:
    secret, body = new_secret(), json.dumps(content, ensure_ascii=True).encode()
    headers = signed_headers(secret, MessageId.new(), datetime.now(UTC), body)
    assert Webhook(secret).verify(body, headers) == content


def test_a_published_example() -> None:
    # The test vector that Standard Webhooks' libraries share.
    message_id = cast(MessageId, "msg_p5jXN8AQM9LWM0D4loKWxJek")
    at = datetime.fromtimestamp(1614265330, UTC)
    assert signed_headers("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", message_id, at, b'{"test": 2432232314}') == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        "content-type": "application/json",
    }


@pytest.mark.parametrize("changed", ["webhook-id", "webhook-timestamp", "webhook-signature", "body", "secret"])
def test_whatever_is_changed_breaks_the_signature(changed: str) -> None:
    secret, body = new_secret(), b'{"amount":1299}'
    headers = signed_headers(secret, MessageId.new(), datetime.now(UTC), body)
    if changed == "body":
        body = b'{"amount":1298}'
    elif changed == "secret":
        secret = new_secret()
    elif changed == "webhook-timestamp":
        headers[changed] = str(int(headers[changed]) + 1)
    elif changed == "webhook-id":
        headers[changed] = MessageId.new()
    else:
        headers[changed] = signed_headers(secret, MessageId.new(), datetime.now(UTC), body)[changed]
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, headers)


def test_each_attempt_is_signed_for_its_own_time() -> None:
    secret, body, message_id = new_secret(), b"{}", MessageId.new()
    old = signed_headers(secret, message_id, datetime.now(UTC) - timedelta(hours=5), body)
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(secret).verify(body, old)
    Webhook(secret).verify(body, signed_headers(secret, message_id, datetime.now(UTC), body))
