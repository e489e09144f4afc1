"""Signing by Standard Webhooks (https://www.standardwebhooks.com): HMAC-SHA256 over `id.timestamp.body`."""

import base64
import secrets
from datetime import datetime

from standardwebhooks import Webhook

from schemas.ids import MessageId

_SECRET_BYTES = 32
_PREFIX = "whsec_"


def new_secret() -> str:
    """A `whsec_` secret of 32 random bytes, as the specification recommends."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signed_headers(secret: str, message_id: MessageId, at: datetime, body: bytes) -> dict[str, str]:
    """The headers to send `body` with. `at` is the time of this attempt, in UTC: a repetition is signed anew, or its receiver
    would refuse it as too old. The id stays, so that the receiver recognises the repetition."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, at, body.decode()),
        "content-type": "application/json",
    }
