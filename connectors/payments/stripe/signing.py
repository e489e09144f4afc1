"""The signature of Stripe's webhooks: `t=<seconds since 1970>,v1=<HMAC-SHA256 of "t.body" in hex>`, with several v1 while a
secret is being replaced. The SDK checks it; what it would let pass is refused here first.
"""

import re
from collections.abc import Mapping

import stripe

from schemas.errors import Rejected

TOLERANCE_S = 300
"""How old a webhook may be, and how far in the future: Stripe's own figure."""

# Ten digits last until 2286. The SDK would also read "+1_0", other scripts' digits, and the first of several timestamps.
_TIME = re.compile(r"t=([1-9]\d{0,9})", re.ASCII)


def verify(headers: Mapping[str, str], body: bytes, secret: str | None, now: float) -> None:
    """`now` in seconds since 1970. Raises Rejected("credentials-invalid")."""
    if not secret or not secret.strip():
        # An empty secret is one that everybody knows.
        raise Rejected("credentials-invalid", "No secret is configured for Stripe's webhooks.")
    given = [value for name, value in headers.items() if name.lower() == "stripe-signature"]
    times = [part for value in given for part in value.split(",") if part.strip().startswith("t=")]
    moment = _TIME.fullmatch(times[0]) if len(given) == len(times) == 1 else None
    try:
        # Comparing signatures, the SDK stumbles over what is not ASCII.
        if moment is None or abs(now - int(moment[1])) > TOLERANCE_S or not given[0].isascii():
            raise ValueError
        stripe.WebhookSignature.verify_header(body, given[0], secret)
    # A body that is no UTF-8 is a ValueError, too.
    except (stripe.SignatureVerificationError, ValueError):
        raise Rejected("credentials-invalid", "The signature of the Stripe webhook is missing, wrong or too old.") from None
