"""Calls to Stripe. One payment is one PaymentIntent: `open` makes it, `submit` confirms that one and no other.

A confirmed PaymentIntent refuses to be confirmed again, so nothing is paid twice even where an idempotency key is forgotten.
Captures, cancellations and refunds look first, and act only where what they want has not been done.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import stripe

from connectors.http import direct_client, nothing_was_sent
from connectors.payments.stripe import mapping
from connectors.ports import PaymentCapabilities
from schemas.errors import Misconfigured, Rejected, Retryable
from schemas.payments import (
    Authorise,
    Cancel,
    Capture,
    Command,
    Declined,
    NotSubmitted,
    Opened,
    Outcome,
    ProviderEvent,
    Refund,
    RefusedByProvider,
    Unknown,
)

WEBHOOK_TOLERANCE_S = 300

_API_KEY = re.compile(r"(sk|rk)_\w{3,}", re.ASCII)
_KEY_HELP = "Set AUGENBLICK_STRIPE_API_KEY to the account's secret key (sk_… or rk_…, from the Stripe dashboard)."


class _StripeObject(Protocol):
    @property
    def last_response(self) -> Any: ...

    def to_dict(self) -> dict[str, Any]: ...


class _StandInClient(stripe.HTTPXClient):
    """The SDK's client for a server that stands in for Stripe, usually on this machine."""

    def __init__(self, timeout: float) -> None:
        super().__init__(timeout=timeout)
        self._client_async = direct_client()


class _Lost(Exception):
    """No answer that says what happened. `sent` is false where the request surely never left."""

    def __init__(self, reason: str, *, sent: bool = True, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.sent = sent
        self.retry_after_s = retry_after_s


class _Refused(Exception):
    """Stripe's no, which still has to be checked against the PaymentIntent itself."""

    def __init__(self, code: str, message: str, *, by_card: bool = False) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.by_card = by_card

    def outcome(self, reference: str | None) -> Declined | RefusedByProvider:
        kind = Declined if self.by_card else RefusedByProvider
        return kind(reference=reference, code=self.code, message=self.message)


class StripeConnector:
    """`return_url` is where a payer comes back to after authenticating with the bank; Stripe wants to know it beforehand.
    `address` is that of a server that stands in for Stripe, which need not know of such things. `timeout_s` bounds each call."""

    name = mapping.NAME
    capabilities = PaymentCapabilities(
        commands=frozenset({"authorise", "capture", "cancel", "refund"}),
        key_memory=timedelta(hours=24),
        partial_capture=True,
        partial_refund=True,
    )

    def __init__(
        self,
        api_key: str | None,
        *,
        webhook_secret: str | None = None,
        address: str | None = None,
        return_url: str | None = None,
        timeout_s: float = 20.0,
    ) -> None:
        """Raises Misconfigured where the key is missing or cannot be one, or the return address is missing."""
        if not api_key:
            raise Misconfigured(f"Stripe's API key is not set. {_KEY_HELP}")
        if not _API_KEY.fullmatch(api_key):
            raise Misconfigured(f"Stripe's API key does not look like a secret key. {_KEY_HELP}")
        if address is None and not return_url:
            raise Misconfigured(
                "Stripe's return address is not set. Set AUGENBLICK_STRIPE_RETURN_URL to the page a payer sees after "
                "authenticating with the bank, https://…"
            )
        # The SDK logs requests, answers and error messages, which name customers and means of payment.
        logging.getLogger("stripe").setLevel(logging.WARNING)
        self._http = _StandInClient(timeout=timeout_s) if address else stripe.HTTPXClient(timeout=timeout_s)
        self._stripe = stripe.StripeClient(
            api_key,
            base_addresses={"api": address.rstrip("/")} if address else {},
            http_client=self._http,
            max_network_retries=0,
        ).v1
        self._webhook_secret = webhook_secret
        self._return_url = return_url
        self._timeout_s = timeout_s

    async def close(self) -> None:
        await self._http.close_async()  # type: ignore[no-untyped-call] # the SDK forgot its annotation

    async def open(self, command: Authorise, key: str) -> Opened | RefusedByProvider:
        try:
            amount, currency = mapping.to_stripe(command.total)
        except mapping.NotRepresentable as error:
            return RefusedByProvider(reference=None, code="amount_not_representable", message=str(error))
        try:
            intent, _ = await self._call(
                self._stripe.payment_intents.create_async(
                    {
                        "amount": amount,
                        "currency": currency,
                        "customer": command.payer.customer,
                        "payment_method": command.payer.payment_method,
                        "capture_method": "automatic_async" if command.capture else "manual",
                        "metadata": mapping.metadata(command),
                    },
                    # Stripe ties a key to one endpoint and its parameters, so that each step needs its own.
                    {"idempotency_key": f"{key}-open"},
                )
            )
        except _Refused as refused:
            return RefusedByProvider(reference=None, code=refused.code, message=refused.message)
        except _Lost as lost:
            raise Retryable(f"Stripe: {lost}.", retry_after_s=lost.retry_after_s) from None
        reference = intent.get("id")
        if not isinstance(reference, str) or not reference:
            raise Retryable("Stripe: the answer has no reference.")
        seen = mapping.read_intent(intent, command.model_copy(update={"reference": reference}))
        if isinstance(seen, Unknown):
            return RefusedByProvider(reference=reference, code="answer_does_not_fit", message=seen.reason)
        return Opened(reference=reference)

    async def submit(self, command: Command, key: str) -> Outcome:
        reference = command.reference
        if reference is None:
            raise ValueError("submit needs the reference that open returned")
        # Confirming is safe by itself and the wearer is waiting; the others can afford to look first.
        if not isinstance(command, Authorise):
            before = await self.fetch(reference, command)
            if not isinstance(before, NotSubmitted):
                return before
        try:
            outcome, replayed = await self._act(command, reference, key)
        except _Lost as lost:
            return Unknown(reference=reference, reason=str(lost))
        except _Refused as refused:
            # It may be refused because it was done before; the PaymentIntent knows.
            after = await self.fetch(reference, command)
            return refused.outcome(reference) if isinstance(after, NotSubmitted) else after
        # What Stripe repeats for a known idempotency key is as old as the first time it was said.
        return await self.fetch(reference, command) if replayed else outcome

    async def fetch(self, reference: str, expected: Command) -> Outcome:
        command = expected.model_copy(update={"reference": reference})
        try:
            intent, _ = await self._call(self._stripe.payment_intents.retrieve_async(reference))
            if not isinstance(command, Refund):
                return mapping.read_intent(intent, command)
            return mapping.refundable(intent, command) or mapping.read_refunds(await self._refunds(reference), command)
        except _Lost as lost:
            return Unknown(reference=reference, reason=str(lost))
        except _Refused as refused:
            # No proof that nothing happened: the key may be another account's.
            return Unknown(reference=reference, reason=f"Stripe does not show it ({refused.code})")

    def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> Sequence[ProviderEvent]:
        if not self._webhook_secret or not self._webhook_secret.strip():
            # An empty secret is one that everybody knows.
            raise Rejected("credentials-invalid", "No secret is configured for Stripe's webhooks.")
        signature = next((value for name, value in headers.items() if name.lower() == "stripe-signature"), None)
        try:
            event = stripe.Webhook.construct_event(body, signature, self._webhook_secret, WEBHOOK_TOLERANCE_S).to_dict()
            reference = mapping.event_reference(event)
            if reference is None:
                return []
            occurred_at = datetime.fromtimestamp(event["created"], UTC)
            return [ProviderEvent(provider=self.name, event_id=event["id"], reference=reference, occurred_at=occurred_at)]
        except stripe.SignatureVerificationError:
            raise Rejected("credentials-invalid", "The signature of the Stripe webhook is missing, wrong or too old.") from None
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            raise Rejected("message-malformed", "The Stripe webhook cannot be read.") from None

    async def _act(self, command: Command, reference: str, key: str) -> tuple[Outcome, bool]:
        options: stripe.RequestOptions = {"idempotency_key": f"{key}-{command.kind}"}
        intents = self._stripe.payment_intents
        try:
            match command:
                case Authorise():
                    back: stripe.params.PaymentIntentConfirmParams = {"return_url": self._return_url} if self._return_url else {}
                    answer, replayed = await self._call(intents.confirm_async(reference, back, options))
                case Capture():
                    amount, _ = mapping.to_stripe(command.amount)
                    answer, replayed = await self._call(intents.capture_async(reference, {"amount_to_capture": amount}, options))
                case Cancel():
                    answer, replayed = await self._call(intents.cancel_async(reference, {}, options))
                case Refund():
                    amount, _ = mapping.to_stripe(command.amount)
                    answer, replayed = await self._call(
                        self._stripe.refunds.create_async(
                            {"payment_intent": reference, "amount": amount, "metadata": mapping.metadata(command)}, options
                        )
                    )
                    return mapping.read_refund(answer, command), replayed
        except mapping.NotRepresentable as error:
            return RefusedByProvider(reference=reference, code="amount_not_representable", message=str(error)), False
        return mapping.read_intent(answer, command), replayed

    async def _refunds(self, reference: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        params: stripe.params.RefundListParams = {"payment_intent": reference, "limit": 100}
        while True:
            page, _ = await self._call(self._stripe.refunds.list_async(params))
            if not isinstance(page.get("data"), list) or not all(isinstance(refund, dict) for refund in page["data"]):
                raise _Lost("the list of refunds cannot be read")
            found += page["data"]
            if not page.get("has_more") or not page["data"]:
                return found
            params["starting_after"] = str(page["data"][-1].get("id"))

    async def _call(self, call: Awaitable[_StripeObject]) -> tuple[dict[str, Any], bool]:
        """The answer as plain values, and whether it is a repetition. Raises _Lost, _Refused or Misconfigured, without the
        SDK's error as their cause: its text may name customers and means of payment."""
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await call
            headers = answer.last_response.headers if answer.last_response else {}
            return answer.to_dict(), headers.get("idempotent-replayed") == "true"
        except (stripe.AuthenticationError, stripe.PermissionError) as error:
            raise Misconfigured(f"Stripe does not accept the API key (status {error.http_status}). {_KEY_HELP}") from None
        except stripe.CardError as error:
            no = mapping.declined(None, _error_object(error))
            raise _Refused(no.code, no.message, by_card=True) from None
        except (stripe.InvalidRequestError, stripe.IdempotencyError) as error:
            # The message may name anything; code and parameter are from closed lists.
            about = getattr(error, "param", None)
            message = f"Stripe refused the request{f' because of {about}' if about else ''}."
            raise _Refused(mapping.without_secrets(error.code or "invalid_request"), mapping.without_secrets(message)) from None
        except stripe.RateLimitError as error:
            raise _Lost("too many requests at once", sent=False, retry_after_s=_seconds(error)) from None
        except stripe.APIConnectionError as error:
            if nothing_was_sent(error.__cause__):
                raise _Lost("no connection", sent=False) from None
            raise _Lost(f"the connection was lost ({type(error.__cause__).__name__})") from None
        except stripe.StripeError as error:
            raise _Lost(f"no usable answer (status {error.http_status})") from None
        except TimeoutError:
            raise _Lost("no answer in time") from None
        except (AttributeError, KeyError, TypeError, ValueError):
            # What the SDK runs into when an answer is JSON, but not one of Stripe's objects.
            raise _Lost("the answer cannot be read") from None


def _error_object(error: stripe.StripeError) -> dict[str, Any]:
    body = error.json_body
    found = body.get("error") if isinstance(body, dict) else None
    return found if isinstance(found, dict) else {}


def _seconds(error: stripe.StripeError) -> float | None:
    text = str((error.headers or {}).get("retry-after", ""))
    return float(text) if text.isascii() and text.isdigit() else None
