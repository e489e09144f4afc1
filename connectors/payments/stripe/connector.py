"""Calls to Stripe. One payment is one PaymentIntent: `open` makes it, `submit` confirms that one and no other.

A confirmed PaymentIntent refuses to be confirmed again, so nothing is paid twice even where an idempotency key is forgotten.
Captures, cancellations and refunds look first, and act only where what they want has not been done.
"""

import asyncio
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol

import stripe

from connectors.http import direct_client, nothing_was_sent
from connectors.payments.stripe import codes, mapping, signing
from connectors.ports import PaymentCapabilities
from schemas.errors import Misconfigured, Rejected, Retryable
from schemas.payments import (
    Authorise,
    Cancel,
    Capture,
    Command,
    Declined,
    Mismatched,
    NotSubmitted,
    Opened,
    Outcome,
    ProviderEvent,
    Refund,
    RefusedByProvider,
    StatementLine,
    Unknown,
)

# Stripe's own are far longer; localstripe's is not.
_API_KEY = re.compile(r"(?:sk|rk)_(test|live)_\w{10,}", re.ASCII)
_WEBHOOK_SECRET = re.compile(r"whsec_[\w+/=-]{16,}", re.ASCII)
_ACCOUNT = re.compile(r"acct_\w{1,200}", re.ASCII)

_UNREADABLE = (AttributeError, KeyError, TypeError, ValueError, OverflowError, OSError, RecursionError)
"""What reading JSON of any other shape than Stripe's raises."""


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
    """No answer that says what happened."""

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class _Refused(Exception):
    """Stripe's no, which still has to be checked against the PaymentIntent itself."""

    def __init__(self, error: mapping.Json) -> None:
        super().__init__()
        self.verdict = codes.verdict(error)
        self._error = error

    def outcome(self, reference: str | None) -> Declined | RefusedByProvider | Unknown:
        return mapping.read_error(reference, self._error)


class StripeConnector:
    """`account`: the Stripe account's id (acct_…), where it shall be checked. `return_url` is where a payer comes back to after
    authenticating with the bank; Stripe wants to know it beforehand. `address` is that of a server that stands in for Stripe:
    without a `return_url` it is spared what only Stripe knows of, payers who are away and dates to search by. `timeout_s` bounds
    each call."""

    name = mapping.NAME
    capabilities = PaymentCapabilities(
        commands=frozenset({"authorise", "capture", "cancel", "refund"}),
        key_memory=timedelta(hours=24),
        partial_capture=True,
        partial_refund=True,
        statement_zone="UTC",
    )

    def __init__(
        self,
        api_key: str,
        *,
        webhook_secret: str | None = None,
        account: str | None = None,
        return_url: str | None = None,
        address: str | None = None,
        timeout_s: float = 20.0,
    ) -> None:
        """Raises Misconfigured, naming what is missing or cannot be right, never its value."""
        key = _API_KEY.fullmatch(api_key)
        if key is None:
            raise Misconfigured("Stripe's `api_key` is not one: give the account's secret key, sk_… or rk_…, from the dashboard.")
        if webhook_secret is not None and not _WEBHOOK_SECRET.fullmatch(webhook_secret):
            raise Misconfigured(
                "Stripe's `webhook_secret` is not one: give the endpoint's signing secret, whsec_…, or leave it out to get no "
                "webhooks."
            )
        if account is not None and not _ACCOUNT.fullmatch(account):
            raise Misconfigured("Stripe's `account` is not one: give the account's id, acct_…")
        if return_url is None and address is None:
            raise Misconfigured(
                "Stripe's `return_url` is missing: give the page a payer sees after authenticating with the bank, https://…"
            )
        if return_url is not None and not return_url.startswith("https://"):
            raise Misconfigured("Stripe's `return_url` must begin with https://.")
        # The SDK logs requests, answers and error messages, which name customers and means of payment.
        logging.getLogger("stripe").setLevel(logging.WARNING)
        self._http = _StandInClient(timeout=timeout_s) if address else stripe.HTTPXClient(timeout=timeout_s)
        self._stripe = stripe.StripeClient(
            api_key,
            base_addresses={"api": address.rstrip("/")} if address else {},
            http_client=self._http,
            max_network_retries=0,
        ).v1
        self._live = key[1] == "live"
        self._webhook_secret = webhook_secret
        self._account = account
        self._return_url = return_url
        self._timeout_s = timeout_s

    @property
    def account(self) -> str:
        return self._account or "default"

    async def check(self) -> None:
        try:
            page, _ = await self._call(self._stripe.payment_intents.list_async({"limit": 1}))
            if not isinstance(page.get("data"), list):
                raise _Lost("the answer cannot be read")
            if self._account is None:
                return
            seen, _ = await self._call(self._stripe.accounts.retrieve_current_async())
        except _Lost as lost:
            raise Retryable(f"Stripe: {lost}.", retry_after_s=lost.retry_after_s) from None
        except _Refused:
            raise Misconfigured("Stripe refuses to list this account's payments.") from None
        if seen.get("id") != self._account:
            raise Misconfigured(f"Stripe's `api_key` belongs to another account than {self._account}.")

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
            match refused.outcome(None):
                case Unknown(reason=reason) if refused.verdict is codes.Verdict.NOT_NOW:
                    raise Retryable(f"Stripe: {reason}.") from None
                case Unknown(reason=reason):
                    return RefusedByProvider(reference=None, code="undocumented", message=reason)
                case no:
                    return RefusedByProvider(reference=None, code=no.code, message=no.message)
        except _Lost as lost:
            raise Retryable(f"Stripe: {lost}.", retry_after_s=lost.retry_after_s) from None
        reference = intent.get("id")
        if not isinstance(reference, str) or not reference:
            raise Retryable("Stripe: the answer has no reference.")
        seen = mapping.read_intent(intent, command.model_copy(update={"reference": reference}), live=self._live)
        if isinstance(seen, Unknown | Mismatched):
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
        if not replayed:
            return outcome
        # What Stripe repeats for a known idempotency key is as old as the first time it was said.
        now = await self.fetch(reference, command)
        if isinstance(now, NotSubmitted):
            return Unknown(reference=reference, reason="Stripe repeats an answer about what it does not show")
        return now

    async def fetch(self, reference: str, expected: Command) -> Outcome:
        command = expected.model_copy(update={"reference": reference})
        try:
            intent, _ = await self._call(self._stripe.payment_intents.retrieve_async(reference))
            if not isinstance(command, Refund):
                return mapping.read_intent(intent, command, live=self._live)
            if (no := mapping.refundable(intent, command, live=self._live)) is not None:
                return no
            refunds = await self._pages(self._stripe.refunds.list_async, {"payment_intent": reference})
            return mapping.read_refunds(refunds, command)
        except _Lost as lost:
            return Unknown(reference=reference, reason=str(lost))
        except _Refused:
            # No proof that nothing happened: the key may be another account's.
            return Unknown(reference=reference, reason="Stripe does not show it")

    def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> Sequence[ProviderEvent]:
        signing.verify(headers, body, self._webhook_secret, time.time())
        try:
            event = mapping.read_event(json.loads(body), live=self._live, account=self._account)
        except mapping.Foreign as foreign:
            raise Rejected("credentials-invalid", f"The Stripe webhook is not for this account: {foreign}.") from None
        except _UNREADABLE:
            raise Rejected("message-malformed", "The Stripe webhook cannot be read.") from None
        return [] if event is None else [event]

    async def refresh(self) -> bool:
        """The webhook's secret changes with the credentials only."""
        return False

    def acknowledgement(self) -> tuple[int, str, bytes]:
        return 200, "application/json", b'{"received":true}'

    async def statement(self, day: date) -> Sequence[StatementLine]:
        """By the moment the payer's yes reached the bank: a reservation taken later stands under the day it was made on."""
        begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
        end = begin + timedelta(days=1)
        within = {"created": {"gte": int(begin.timestamp()), "lt": int(end.timestamp())}} if self._return_url else {}
        try:
            found = await self._pages(self._stripe.charges.list_async, within)
            charges = {charge["id"]: charge for charge in found}
            refunds = await self._pages(self._stripe.refunds.list_async, within)
            for refund in refunds:
                # Whether it gave anything back, the Charge tells, which may be of another day.
                if mapping.attempt_of(refund) is None and refund["charge"] not in charges:
                    charges[refund["charge"]], _ = await self._call(self._stripe.charges.retrieve_async(refund["charge"]))
            lines = [mapping.charge_line(charge, live=self._live) for charge in charges.values()]
            lines += [mapping.refund_line(refund, charges.get(refund["charge"])) for refund in refunds]
        except _Lost as lost:
            raise Retryable(f"Stripe: {lost}.", retry_after_s=lost.retry_after_s) from None
        except _Refused:
            raise Retryable("Stripe refuses to list this account's charges and refunds.") from None
        except _UNREADABLE:
            raise Retryable("Stripe: the list of charges and refunds cannot be read.") from None
        return [line for line in lines if line is not None and begin <= line.occurred_at < end]

    async def _act(self, command: Command, reference: str, key: str) -> tuple[Outcome, bool]:
        options: stripe.RequestOptions = {"idempotency_key": f"{key}-{command.kind}"}
        intents = self._stripe.payment_intents
        try:
            match command:
                case Authorise():
                    answer, replayed = await self._confirm(command, reference, options)
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
        return mapping.read_intent(answer, command, live=self._live), replayed

    async def _confirm(self, command: Authorise, reference: str, options: stripe.RequestOptions) -> tuple[dict[str, Any], bool]:
        """Off-session: the card was saved for this, and the payer is at no page. Where the bank insists on hearing from them,
        once more with them: that answer has the bank's page. Stripe has let go of the means of payment by then."""
        confirm = self._stripe.payment_intents.confirm_async
        if self._return_url is None:
            return await self._call(confirm(reference, {}, options))
        try:
            return await self._call(confirm(reference, {"off_session": True, "return_url": self._return_url}, options))
        except _Refused as refused:
            if refused.verdict is not codes.Verdict.PAYER_MUST_ACT:
                raise
        with_payer: stripe.params.PaymentIntentConfirmParams = {
            "payment_method": command.payer.payment_method,
            "return_url": self._return_url,
        }
        return await self._call(confirm(reference, with_payer, {"idempotency_key": f"{options['idempotency_key']}-with-payer"}))

    async def _pages(
        self, listing: Callable[[Any], Awaitable[_StripeObject]], filters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """All objects of a list, page by page."""
        found: dict[str, dict[str, Any]] = {}
        params: dict[str, Any] = {**filters, "limit": 100}
        while True:
            page, _ = await self._call(listing(params))
            data = page.get("data")
            if not isinstance(data, list) or not all(isinstance(each, dict) and isinstance(each.get("id"), str) for each in data):
                raise _Lost("the list cannot be read")
            before = len(found)
            found |= {each["id"]: each for each in data}
            if not page.get("has_more"):
                return list(found.values())
            if len(found) == before:
                raise _Lost("the list does not end")
            params["starting_after"] = data[-1]["id"]

    async def _call(self, call: Awaitable[_StripeObject]) -> tuple[dict[str, Any], bool]:
        """The answer as plain values, and whether it is a repetition. Raises _Lost, _Refused or Misconfigured, without the
        SDK's error as their cause: its text may name customers and means of payment."""
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await call
            headers = answer.last_response.headers if answer.last_response else {}
            return answer.to_dict(), headers.get("idempotent-replayed") == "true"
        except (stripe.AuthenticationError, stripe.PermissionError) as error:
            raise Misconfigured(
                f"Stripe does not accept the account's `api_key` for this (status {error.http_status}). Give a valid one."
            ) from None
        except (stripe.CardError, stripe.InvalidRequestError, stripe.IdempotencyError) as error:
            raise _Refused(_error_object(error)) from None
        except stripe.RateLimitError as error:
            raise _Lost("too many requests at once", retry_after_s=_seconds(error)) from None
        except stripe.APIConnectionError as error:
            if nothing_was_sent(error.__cause__):
                raise _Lost("no connection") from None
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
