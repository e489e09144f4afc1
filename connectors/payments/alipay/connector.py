"""Calls to Alipay. One payment is one trade at Alipay, whose number (`out_trade_no`) is ours: the key given to `open`.

Alipay makes a trade of one number once, whatever is repeated; so a payment whose answer was lost is asked for by its number,
never paid again under another. Refunds have numbers of their own, the attempts' ids. Cancellations and refunds look first.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

from connectors.http import Answer as HttpAnswer
from connectors.http import Deadlines, HttpClient
from connectors.payments.alipay import bill, codes, mapping, signing
from connectors.payments.alipay.codes import Call, Verdict
from connectors.payments.alipay.credentials import Account
from connectors.ports import PaymentCapabilities
from schemas.errors import Misconfigured, OutcomeUnknown, Rejected, Retryable
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

ADDRESS = "https://openapi.alipay.com"

# How old a notification may be. Alipay documents `notify_time` as the moment it is sent; what is published of repetitions
# (which go on for 25 hours) fits that: README.md. Should one be refused all the same, nothing is lost: the trade is asked for
# anyway.
NOTIFICATION_TOLERANCE = timedelta(minutes=15)
CLOCKS_DIFFER_BY = timedelta(minutes=5)
V3_ANSWER_TOLERANCE_S = 600.0

_LARGEST_BILL = 64 * 1024 * 1024
_BILL_HOSTS = ".alipay.com"
_BILL_READY_AFTER = timedelta(days=2)
_NOBODYS_TRADE = "augenblick_check"


class _Lost(Exception):
    """No answer that can be believed."""

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class _NotVerified(_Lost):
    """There is an answer, but not surely Alipay's. `code` is what it says, for whoever only wants to know what may be wrong."""

    def __init__(self, reason: str, *, code: str = "") -> None:
        super().__init__(reason)
        self.code = code


class AlipayConnector:
    """`timeout_s` bounds each call. Alipay itself takes up to some seconds for a code that a phone shows."""

    name = mapping.NAME
    capabilities = PaymentCapabilities(
        commands=frozenset({"authorise", "cancel", "refund"}),
        # Trades can be asked for much longer; but a trade that Alipay never saw is made anew whenever its number comes.
        key_memory=timedelta(days=90),
        partial_refund=True,
        reference_is_key=True,
        ask_every=timedelta(seconds=4),
        currencies=frozenset({mapping.CURRENCY}),
        statement_zone="Asia/Shanghai",
    )

    def __init__(self, account: Account, *, notify_url: str | None = None, timeout_s: float = 15.0) -> None:
        self._account = account
        self._notify_url = notify_url
        self._address = account.address or ADDRESS
        self._gateway = f"{self._address}/gateway.do?charset=utf-8"
        self._is_stand_in = account.address is not None
        self._deadlines = Deadlines(connect=min(5.0, timeout_s), read=timeout_s, total=timeout_s)
        self._http = HttpClient(allow_private=self._is_stand_in, deadlines=self._deadlines)

    @property
    def account(self) -> str:
        return f"{self._account.app_id}/{self._account.seller_id}"

    async def close(self) -> None:
        await self._http.close()

    async def check(self) -> None:
        try:
            answer = await self._call(Call.QUERY, {"out_trade_no": _NOBODYS_TRADE})
        except _NotVerified as answered:
            if codes.is_about_credentials(answered.code):
                raise self._not_accepted(answered.code) from None
            raise Misconfigured(
                f"Alipay's answer for app {self._account.app_id} cannot be verified ({answered}). Check alipay_public_key or "
                "alipay_certificate: it is Alipay's, not the app's."
            ) from None
        except _Lost as lost:
            raise Retryable(f"Alipay: {lost}.", retry_after_s=lost.retry_after_s) from None
        if codes.is_about_credentials(answer.code):
            raise self._not_accepted(answer.code)
        if answer.code and codes.verdict(Call.QUERY, answer.code) is not Verdict.NOT_FOUND:
            raise Retryable(f"Alipay answered {answer.code}.")

    async def open(self, command: Authorise, key: str) -> Opened | RefusedByProvider:
        return mapping.refusal(command, key) or Opened(reference=key)

    async def submit(self, command: Command, key: str) -> Outcome:
        match command:
            case Authorise():
                return await self._pay(command)
            case Cancel():
                return await self._cancel(command)
            case Refund():
                return await self._refund(command)
            case Capture():
                raise _not_offered()

    async def fetch(self, reference: str, expected: Command) -> Outcome:
        if expected.reference not in {None, reference}:
            return Mismatched(reference=reference, reason="this is the reference of another payment")
        match expected:
            case Authorise() | Cancel():
                return await self._ask_for_trade(expected, reference)
            case Refund():
                return await self._ask_for_refund(expected)
            case Capture():
                raise _not_offered()

    async def _pay(self, command: Authorise) -> Outcome:
        reference = command.reference
        if reference is None:
            raise ValueError("submit needs the reference that open returned")
        refused = mapping.refusal(command, reference)
        if refused is not None:
            return refused.model_copy(update={"reference": reference})
        call, content = mapping.payment(
            command, seller_id=self._account.seller_id, agreement_product=self._account.agreement_product
        )
        if call is Call.PRECREATE:
            # Only the answer has the code that the payer is to scan: where it was lost, once more. Alipay makes one code for a
            # trade's number, however often it is asked, and no money moves before somebody scans it.
            try:
                async with asyncio.timeout(self._deadlines.total / 3):
                    first = await self._pay_once(call, content, command, reference)
                if not isinstance(first, Unknown):
                    return first
            except TimeoutError:
                pass
        return await self._pay_once(call, content, command, reference)

    async def _pay_once(self, call: Call, content: Mapping[str, Any], command: Authorise, reference: str) -> Outcome:
        try:
            answer = await self._call(call, content, notify=True)
        except _Lost as lost:
            return Unknown(reference=reference, reason=str(lost))
        if answer.code:
            outcome = mapping.error(call, answer, reference)
            if isinstance(outcome, Declined | RefusedByProvider):
                # It may be refused because it was done before: a payment code that our own first request has used up is not
                # valid any more. No refusal counts before Alipay knows no such trade.
                return await self._ask_for_trade(command, reference, missing=outcome)
        elif call is Call.PRECREATE and not answer.waiting:
            outcome = mapping.read_precreated(answer, command)
        else:
            outcome = mapping.read_payment(answer, command, seller_id=self._account.seller_id)
        if outcome is not None:
            return outcome
        # What Alipay says of a trade that is there, or that it does not say enough of, the trade itself must show.
        return await self._ask_for_trade(command, reference, missing=mapping.unclear(answer, reference))

    async def _cancel(self, command: Cancel) -> Outcome:
        before = await self._ask_for_trade(command, command.reference)
        if not isinstance(before, NotSubmitted):
            return before
        # Also where Alipay knows no trade: a payment that is still on its way there may become one in this moment.
        try:
            answer = await self._call(Call.CANCEL, {"out_trade_no": command.reference})
        except _Lost as lost:
            return Unknown(reference=command.reference, reason=str(lost))
        if not answer.code and not answer.waiting:
            return mapping.read_cancelled(answer, command)
        outcome = mapping.error(Call.CANCEL, answer, command.reference) if answer.code else None
        if outcome is not None:
            return outcome
        after = await self._ask_for_trade(command, command.reference)
        return mapping.unclear(answer, command.reference) if isinstance(after, NotSubmitted) else after

    async def _refund(self, command: Refund) -> Outcome:
        if command.amount.currency != mapping.CURRENCY:
            return RefusedByProvider(
                reference=command.reference, code="currency_not_supported", message="Alipay takes payments in CNY only."
            )
        before = await self._ask_for_refund(command)
        if not isinstance(before, NotSubmitted):
            return before
        try:
            answer = await self._call(Call.REFUND, mapping.refund(command))
        except _Lost as lost:
            return Unknown(reference=command.reference, reason=str(lost))
        outcome = mapping.error(Call.REFUND, answer, command.reference) if answer.code else None
        if isinstance(outcome, Unknown):
            return outcome
        # That a refund was accepted, or that nothing changed by it, is not that the money went back: its own record is.
        after = await self._ask_for_refund(command)
        if not isinstance(after, NotSubmitted):
            return after
        return outcome or mapping.unclear(answer, command.reference)

    async def _ask_for_trade(self, command: Authorise | Cancel, reference: str, *, missing: Outcome | None = None) -> Outcome:
        """`missing`: what it means that Alipay knows no such trade, where that is known better than from the command alone."""
        try:
            answer = await self._call(Call.QUERY, {"out_trade_no": reference})
        except _Lost as lost:
            return Unknown(reference=reference, reason=str(lost))
        if codes.verdict(Call.QUERY, answer.code) is Verdict.NOT_FOUND:
            return missing or mapping.not_found(command, reference)
        if answer.code or answer.waiting:
            return mapping.unclear(answer, reference)
        return mapping.read_trade(answer, command, reference, seller_id=self._account.seller_id)

    async def _ask_for_refund(self, command: Refund) -> Outcome:
        content = {"out_trade_no": command.reference, "out_request_no": command.attempt_id}
        try:
            answer = await self._call(Call.REFUND_QUERY, content)
        except _Lost as lost:
            return Unknown(reference=command.reference, reason=str(lost))
        if codes.verdict(Call.REFUND_QUERY, answer.code) is Verdict.NOT_FOUND:
            return NotSubmitted(reference=command.reference)
        if answer.code or answer.waiting:
            return mapping.unclear(answer, command.reference)
        return mapping.read_refund(answer, command)

    # Notifications.

    def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> Sequence[ProviderEvent]:
        try:
            fields = signing.notification(body)
        except signing.Unreadable:
            # Nothing that Alipay signed looks like this.
            raise _refused_notification("cannot be verified") from None
        self._verify_notification(fields)
        try:
            sent_at = mapping.moment(fields["notify_time"])
            event = mapping.read_notification(fields)
        except (KeyError, ValueError, OverflowError):
            raise Rejected("message-malformed", "The Alipay notification cannot be read.") from None
        now = datetime.now(UTC)
        if not now - NOTIFICATION_TOLERANCE <= sent_at <= now + CLOCKS_DIFFER_BY:
            raise _refused_notification("is too old, or from the future")
        return [] if event is None else [event]

    def _verify_notification(self, fields: Mapping[str, str]) -> None:
        if fields.get("sign_type") != signing.SIGN_TYPE:
            raise _refused_notification("is not signed with RSA2")
        if fields.get("alipay_cert_sn", self._account.alipay_serial) != self._account.alipay_serial:
            raise _refused_notification("is signed with another certificate")
        signature = fields.get("sign")
        if not any(
            signing.verify(self._account.alipay_key, content, signature) for content in signing.notification_contents(fields)
        ):
            raise _refused_notification("is not signed by Alipay")
        if fields.get("app_id") != self._account.app_id:
            raise _refused_notification("is for another app")
        if fields.get("notify_type") == "trade_status_sync" and fields.get("seller_id") != self._account.seller_id:
            raise _refused_notification("is for another seller's account")

    async def refresh(self) -> bool:
        """Alipay's key and certificate change with the credentials only."""
        return False

    def acknowledgement(self) -> tuple[int, str, bytes]:
        return 200, "text/plain", b"success"

    # The day's bill.

    async def statement(self, day: date) -> Sequence[StatementLine]:
        today = datetime.now(bill.ZONE).date()
        if day > today:
            return []
        try:
            answer = await self._call(Call.BILL, {"bill_type": "trade", "bill_date": day.isoformat()})
        except _Lost as lost:
            raise Retryable(f"Alipay's bill: {lost}.", retry_after_s=lost.retry_after_s) from None
        if codes.verdict(Call.BILL, answer.code) is Verdict.NOT_FOUND:
            # Alipay makes none for a day without trades; but until some time the next day there is none for any other, either.
            if today - day >= _BILL_READY_AFTER:
                return []
            raise Retryable("Alipay has no bill for this day yet; it comes in the course of the next morning.")
        if answer.code or answer.waiting:
            raise Retryable(f"Alipay does not give the bill ({answer.code or 'it is being made'}).")
        archive = await self._download(answer.fields.get("bill_download_url"))
        try:
            return bill.read(archive)
        except bill.NotABill as error:
            raise Retryable(f"Alipay's bill cannot be read: {error}.") from None

    async def _download(self, url: object) -> bytes:
        """Only from where Alipay keeps its bills, and never without TLS, though it may say so."""
        if not isinstance(url, str):
            raise Retryable("Alipay's answer has no address for the bill.")
        try:
            asked, own = urlsplit(url), urlsplit(self._address)
            known = asked.netloc == own.netloc if self._is_stand_in else (asked.hostname or "").endswith(_BILL_HOSTS)
        except ValueError:
            known = False
        if not known:
            raise Retryable("Alipay's answer names an address for the bill that is not Alipay's.")
        if not self._is_stand_in:
            url = asked._replace(scheme="https").geturl()
        deadlines = Deadlines(connect=self._deadlines.connect, read=30.0, total=120.0)
        async with HttpClient(allow_private=self._is_stand_in, deadlines=deadlines, max_response_bytes=_LARGEST_BILL) as http:
            try:
                answer = await http.request("GET", url, repeatable=True)
            except (OutcomeUnknown, Rejected) as error:
                raise Retryable(f"Alipay's bill cannot be downloaded: {error}") from None
        if answer.status != 200 or answer.truncated:
            raise Retryable(f"Alipay's bill cannot be downloaded (status {answer.status}).")
        return answer.body

    # The two protocols.

    async def _call(self, call: Call, content: Mapping[str, Any], *, notify: bool = False) -> mapping.Answer:
        """Alipay's verified answer. Raises _Lost where there is none."""
        url = {"notify_url": self._notify_url} if notify and self._notify_url else {}
        return await (self._call_v3(call, {**content, **url}) if self._account.is_v3 else self._call_v1(call, content, url))

    async def _call_v1(self, call: Call, content: Mapping[str, Any], extra: Mapping[str, str]) -> mapping.Answer:
        account = self._account
        parameters = {
            "app_id": account.app_id,
            "method": call.value,
            "format": "JSON",
            "charset": "utf-8",
            "sign_type": signing.SIGN_TYPE,
            "timestamp": datetime.now(mapping.ZONE).strftime("%Y-%m-%d %H:%M:%S"),
            "version": "1.0",
            "biz_content": _compact(content),
            **extra,
        }
        if account.app_serial and account.root_serial:
            parameters |= {"app_cert_sn": account.app_serial, "alipay_root_cert_sn": account.root_serial}
        parameters["sign"] = signing.sign(account.private_key, signing.v1_content(parameters))
        # All of it in the body, where no log shows it; only the character set, by which the body is read, in the address.
        answer = await self._send(
            "POST",
            self._gateway,
            urlencode(parameters).encode(),
            {"Content-Type": "application/x-www-form-urlencoded;charset=utf-8"},
        )
        if answer.status != 200:
            raise _no_use(answer)
        try:
            parts = signing.v1_answer(answer.body, call.value)
            said = signing.read_object(parts.raw)
        except signing.Unreadable as error:
            raise _Lost(str(error)) from None
        read = mapping.v1_answer(said)
        if parts.certificate != account.alipay_serial:
            raise _NotVerified("the answer is signed with another certificate", code=read.code)
        if not signing.verify(account.alipay_key, parts.raw, parts.signature):
            raise _NotVerified("the answer is not signed by Alipay", code=read.code)
        return read

    async def _call_v3(self, call: Call, content: Mapping[str, Any]) -> mapping.Answer:
        account = self._account
        path = f"/v3/{call.value.replace('.', '/')}"
        if call is Call.BILL:
            method, target, body = "GET", f"{path}?{urlencode(content)}", b""
        else:
            method, target, body = "POST", path, _compact(content).encode()
        headers = {
            "Authorization": signing.v3_authorization(
                account.private_key,
                account.app_id,
                method=method,
                target=target,
                body=body,
                nonce=uuid4().hex,
                timestamp_ms=int(time.time() * 1000),
                certificate=account.app_serial,
            ),
            "Accept": "application/json",
            "Content-Type": "application/json",
            "alipay-request-id": uuid4().hex,
        }
        if account.root_serial:
            headers["alipay-root-cert-sn"] = account.root_serial
        answer = await self._send(method, self._address + target, body or None, headers)
        try:
            read = mapping.v3_answer(answer.status, signing.read_object(answer.body))
        except signing.Unreadable as error:
            raise _Lost(str(error)) from None
        self._verify_v3(answer, read)
        return read

    def _verify_v3(self, answer: HttpAnswer, read: mapping.Answer) -> None:
        account = self._account
        timestamp, nonce = answer.headers.get("alipay-timestamp", ""), answer.headers.get("alipay-nonce", "")
        if account.alipay_serial is not None and answer.headers.get("alipay-sn") != account.alipay_serial:
            raise _NotVerified("the answer is signed with another certificate", code=read.code)
        content = signing.v3_answer_content(timestamp, nonce, answer.body)
        if not nonce or not signing.verify(account.alipay_key, content, answer.headers.get("alipay-signature")):
            raise _NotVerified("the answer is not signed by Alipay", code=read.code)
        if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 16:
            raise _NotVerified("the answer does not say when it was given", code=read.code)
        if abs(int(timestamp) / 1000 - time.time()) > V3_ANSWER_TOLERANCE_S:
            raise _NotVerified("the answer was given at another time", code=read.code)

    async def _send(self, method: str, url: str, content: bytes | None, headers: Mapping[str, str]) -> HttpAnswer:
        try:
            answer = await self._http.request(method, url, headers=headers, content=content)
        except OutcomeUnknown:
            raise _Lost("no complete answer came from Alipay") from None
        except (Retryable, Rejected):
            raise _Lost("no connection to Alipay") from None
        if answer.truncated or answer.status >= 500:
            raise _no_use(answer)
        return answer

    def _not_accepted(self, code: str) -> Misconfigured:
        return Misconfigured(
            f"Alipay does not accept the credentials of app {self._account.app_id} ({code}). Check app_id, private_key, protocol "
            "and, with certificates, app_certificate, in the open platform's console."
        )


def _compact(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _no_use(answer: HttpAnswer) -> _Lost:
    return _Lost(f"Alipay gave no usable answer (status {answer.status})", retry_after_s=answer.retry_after_s)


def _refused_notification(why: str) -> Rejected:
    return Rejected("credentials-invalid", f"The Alipay notification {why}.")


def _not_offered() -> Rejected:
    return Rejected("capability-not-offered", "With Alipay money is taken at once: there is nothing to capture.")
