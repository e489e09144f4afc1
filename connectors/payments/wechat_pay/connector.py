"""Calls to WeChat Pay. One payment is one order, whose number (`out_trade_no`) is ours: the attempt's id.

An order's number is used once for ever: however often an order is sent, it is paid at most once. What an answer leaves open, or
refuses, the order itself decides. An answer counts only where WeChat Pay's signature over it holds.
"""

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from connectors.http import Answer, Deadlines, HttpClient
from connectors.payments.wechat_pay import mapping, signing
from connectors.payments.wechat_pay.credentials import MAX_CERTIFICATES, Account, usable_certificate
from connectors.payments.wechat_pay.signing import NotAuthentic, PlatformKey, UnknownSerial
from connectors.ports import PaymentCapabilities
from schemas.errors import Misconfigured, OutcomeUnknown, Rejected, Retryable
from schemas.payments import (
    Actionable,
    Authorise,
    Cancel,
    Capture,
    Command,
    NotSubmitted,
    Opened,
    Outcome,
    ProviderEvent,
    Refund,
    RefusedByProvider,
    StatementLine,
    Unknown,
)

ORDERS = "/v3/pay/transactions"
REFUNDS = "/v3/refund/domestic/refunds"
CERTIFICATES = "/v3/certificates"
BILLS = "/v3/bill/tradebill"

MAX_ANSWER_BYTES = 256 * 1024
MAX_BILL_BYTES = 64 * 1024 * 1024
CERTIFICATES_EVERY_S = 60.0
"""An answer may name a key that is not known, and so may a forged one: more often than this nobody is asked for new keys."""

_CREDENTIALS_HELP = "See connectors/payments/wechat_pay/README.md for what each field has to be."


class _Lost(Exception):
    """No answer that says what happened. `unproven` is the status of one that came and cannot be trusted."""

    def __init__(self, reason: str, *, unproven: int | None = None) -> None:
        super().__init__(reason)
        self.unproven = unproven


@dataclass(frozen=True)
class _Verified:
    """An answer that WeChat Pay has signed."""

    status: int
    data: Mapping[str, Any]

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300 and "code" not in self.data


class WechatPayConnector:
    """`deadlines` bound each call, in seconds."""

    name = mapping.NAME
    capabilities = PaymentCapabilities(
        commands=frozenset({"authorise", "cancel", "refund"}),
        # An order's number stays taken, and what it was paid with is asked for by it; an unpaid order is kept for 7 days.
        key_memory=timedelta(days=1),
        partial_refund=True,
        reference_is_key=True,
        ask_every=timedelta(seconds=4),
        currencies=frozenset({mapping.CURRENCY}),
        statement_zone=mapping.ZONE.key,
    )

    def __init__(self, account: Account, *, notify_url: str | None, deadlines: Deadlines | None = None) -> None:
        self._account = account
        self._notify_url = notify_url
        self._keys: dict[str, PlatformKey] = dict(account.platform_keys)
        self._refreshing = asyncio.Lock()
        self._refreshed_at = -CERTIFICATES_EVERY_S
        self._http = HttpClient(allow_private=account.stands_in, deadlines=deadlines, max_response_bytes=MAX_BILL_BYTES)

    @property
    def account(self) -> str:
        return f"{self._account.mchid}/{self._account.appid}"

    async def close(self) -> None:
        await self._http.close()

    async def check(self) -> None:
        """Asks for an order that cannot exist, which proves the merchant's key and WeChat Pay's; and, where WeChat Pay's keys are
        certificates, for those, which proves the API v3 key."""
        try:
            answer = await self._call("GET", self._order(f"check-{secrets.token_hex(8)}"))
            if self._account.certificates:
                await self._new_keys()
        except _Lost as lost:
            if lost.unproven is not None and lost.unproven < 500 and lost.unproven != 429:
                # WeChat Pay signs what it answers to those whose signature it accepts.
                raise Misconfigured(f"WeChat Pay: {lost}. {_CREDENTIALS_HELP}") from None
            raise Retryable(f"WeChat Pay: {lost}.") from None
        code = mapping.error_code(answer.data)
        if code in mapping.WRONG_CREDENTIALS:
            raise Misconfigured(f"WeChat Pay does not accept the credentials ({code}). {_CREDENTIALS_HELP}")
        if not mapping.no_such_order(code):
            raise Retryable(f"WeChat Pay answered {code}.")

    async def open(self, command: Authorise, key: str) -> Opened | RefusedByProvider:
        impossible = mapping.not_possible(command, key) or mapping.not_now(command, self._notify_url)
        return impossible or Opened(reference=key)

    async def submit(self, command: Command, key: str) -> Outcome:
        reference = command.reference
        if reference is None:
            raise ValueError("submit needs the reference that open returned")
        try:
            match command:
                case Authorise():
                    return await self._pay(command, reference)
                case Cancel():
                    return await self._cancel(command)
                case Refund():
                    return await self._give_back(command)
        except _Lost as lost:
            return Unknown(reference=reference, reason=str(lost))
        raise _not_offered(command)

    async def fetch(self, reference: str, expected: Command) -> Outcome:
        if isinstance(expected, Capture):
            raise _not_offered(expected)
        command = expected.model_copy(update={"reference": reference})
        try:
            if isinstance(command, Refund):
                answer = await self._call("GET", f"{REFUNDS}/{quote(command.attempt_id, safe='')}")
                if answer.good:
                    return mapping.read_refund(answer.data, command)
                missing = mapping.no_such_refund(mapping.error_code(answer.data))
            else:
                answer = await self._call("GET", self._order(reference))
                if answer.good:
                    return mapping.read_order(answer.data, command, self._account.mchid, self._account.appid)
                missing = mapping.no_such_order(mapping.error_code(answer.data))
        except _Lost as lost:
            return Unknown(reference=reference, reason=str(lost))
        if missing:
            return NotSubmitted(reference=reference)
        return Unknown(reference=reference, reason=f"WeChat Pay answered {mapping.error_code(answer.data)}")

    def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> Sequence[ProviderEvent]:
        try:
            signing.verify(headers, body, self._keys, datetime.now(UTC))
        except NotAuthentic as reason:
            raise Rejected("credentials-invalid", f"The notification is not WeChat Pay's: {reason}.") from None
        try:
            notification = _object(body)
            resource = _object(signing.open_sealed(self._account.cipher, _part(notification, "resource")))
            event = mapping.read_event(notification, resource, self._account.mchid, self._account.appid)
        except NotAuthentic as reason:
            raise Rejected("credentials-invalid", f"The notification is not for this account: {reason}.") from None
        except mapping.OtherAccount:
            raise Rejected("credentials-invalid", "The notification is about another merchant or app.") from None
        except mapping.Unreadable:
            raise Rejected("message-malformed", "The notification of WeChat Pay cannot be read.") from None
        return [] if event is None else [event]

    async def refresh(self) -> bool:
        """Where WeChat Pay's keys are certificates, those that it has now. A public key is never replaced that way."""
        if not self._account.certificates:
            return False
        known = dict(self._keys)
        await self._refresh()
        return self._keys != known

    def acknowledgement(self) -> tuple[int, str, bytes]:
        return 200, "application/json", b'{"code":"SUCCESS"}'

    async def statement(self, day: date) -> Sequence[StatementLine]:
        """From the trade bill, which WeChat Pay makes by 10:00 of the day after and keeps for three months."""
        if day > datetime.now(mapping.ZONE).date():
            return []
        try:
            answer = await self._call("GET", f"{BILLS}?{urlencode({'bill_date': day.isoformat(), 'bill_type': 'ALL'})}")
            if not answer.good:
                return _no_bill(mapping.error_code(answer.data), day)
            return mapping.read_bill(await self._bill(answer.data), self._account.mchid)
        except _Lost as lost:
            raise Retryable(f"WeChat Pay: {lost}.") from None
        except mapping.Unreadable as error:
            raise Retryable(f"WeChat Pay: {error}.") from None

    # Commands.

    async def _pay(self, command: Authorise, reference: str) -> Outcome:
        if (impossible := mapping.not_possible(command, reference)) is not None:
            return impossible.model_copy(update={"reference": reference})
        if (refusal := mapping.not_now(command, self._notify_url)) is not None:
            before = await self.fetch(reference, command)
            return refusal.model_copy(update={"reference": reference}) if isinstance(before, NotSubmitted) else before
        means, account = mapping.means_of(command.payer), self._account
        assert means is not None, "not_possible looks at it first"
        body = mapping.order(
            command,
            means,
            mchid=account.mchid,
            appid=account.appid,
            store_id=account.store_id,
            notify_url=self._notify_url,
        )
        answer = await self._call("POST", f"{ORDERS}/{means.way}", body)
        if not answer.good:
            return await self._after_refusal(command, mapping.error_code(answer.data), reference)
        if means.by_code:
            return mapping.read_order(answer.data, command, account.mchid, account.appid)
        return self._to_be_confirmed(answer.data, reference)

    async def _after_refusal(self, command: Authorise | Cancel | Refund, code: str, reference: str) -> Outcome:
        """It may be refused because it was done before, or is being done, whatever the refusal says: the order, or the refund,
        knows."""
        if mapping.verdict(code) is mapping.Verdict.UNSURE:
            return Unknown(reference=reference, reason=f"WeChat Pay answered {code}")
        after = await self.fetch(reference, command)
        return mapping.refused(code, command) if isinstance(after, NotSubmitted) else after

    def _to_be_confirmed(self, answer: Mapping[str, Any], reference: str) -> Outcome:
        code_url, prepay_id = answer.get("code_url"), answer.get("prepay_id")
        if isinstance(code_url, str) and code_url.startswith(("weixin://", "https://")) and len(code_url) <= 512:
            return Actionable(reference=reference, url=code_url)
        if isinstance(prepay_id, str) and prepay_id:
            return Actionable(reference=reference, url=self._jsapi_link(prepay_id))
        return Unknown(reference=reference, reason="the answer has neither code_url nor prepay_id")

    def _jsapi_link(self, prepay_id: str) -> str | None:
        """The merchant's page inside WeChat, with what it hands to WeixinJSBridge's getBrandWCPayRequest."""
        account = self._account
        if account.jsapi_page is None:
            return None
        timestamp, nonce, package = str(int(time.time())), secrets.token_hex(16), f"prepay_id={prepay_id}"
        parameters = {
            "appId": account.appid,
            "timeStamp": timestamp,
            "nonceStr": nonce,
            "package": package,
            "signType": "RSA",
            "paySign": signing.sign(account.private_key, f"{account.appid}\n{timestamp}\n{nonce}\n{package}\n"),
        }
        return f"{account.jsapi_page}?{urlencode(parameters)}"

    async def _cancel(self, command: Cancel) -> Outcome:
        """Looks first: reversing an order that was paid would give the money back, which is another command."""
        reference = command.reference
        account = self._account
        answer = await self._call("GET", self._order(reference))
        if not answer.good:
            code = mapping.error_code(answer.data)
            if mapping.no_such_order(code):
                return NotSubmitted(reference=reference)
            return Unknown(reference=reference, reason=f"WeChat Pay answered {code}")
        before = mapping.read_order(answer.data, command, account.mchid, account.appid)
        if not isinstance(before, NotSubmitted):
            return before
        body = {"mchid": account.mchid}
        how = "close"
        if mapping.to_reverse(answer.data):
            body, how = {"mchid": account.mchid, "appid": account.appid}, "reverse"
        done = await self._call("POST", f"{ORDERS}/out-trade-no/{quote(reference, safe='')}/{how}", body)
        if not done.good:
            return await self._after_refusal(command, mapping.error_code(done.data), reference)
        after = await self.fetch(reference, command)
        # Accepted, and the order does not show it yet: it is under way.
        return Unknown(reference=reference, reason="it is not cancelled yet") if isinstance(after, NotSubmitted) else after

    async def _give_back(self, command: Refund) -> Outcome:
        """Does not look first: under the number of an attempt WeChat Pay gives back once."""
        answer = await self._call("POST", REFUNDS, mapping.refund(command, self._notify_url))
        if answer.good:
            return mapping.read_refund(answer.data, command)
        return await self._after_refusal(command, mapping.error_code(answer.data), command.reference)

    # Calls.

    def _order(self, reference: str) -> str:
        return f"{ORDERS}/out-trade-no/{quote(reference, safe='')}?mchid={self._account.mchid}"

    async def _call(self, method: str, target: str, body: Mapping[str, Any] | None = None) -> _Verified:
        """What WeChat Pay answers, verified, whatever it is. Raises _Lost."""
        answer = await self._send(method, target, body)
        if answer.truncated or len(answer.body) > MAX_ANSWER_BYTES:
            raise _Lost("the answer is too long")
        try:
            try:
                signing.verify(answer.headers, answer.body, self._keys, datetime.now(UTC))
            except UnknownSerial:
                if not self._account.certificates or not await self._refresh():
                    raise
                signing.verify(answer.headers, answer.body, self._keys, datetime.now(UTC))
        except NotAuthentic as reason:
            raise _unproven(answer, reason) from None
        try:
            return _Verified(answer.status, _object(answer.body) if answer.body else {})
        except mapping.Unreadable:
            raise _Lost("the answer cannot be read") from None

    async def _send(self, method: str, target: str, body: Mapping[str, Any] | None = None) -> Answer:
        """Once: what is repeated has to be signed anew. Raises _Lost, whose text names no address."""
        account = self._account
        content = b"" if body is None else json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {
            "Accept": "application/json",
            "Authorization": signing.authorization(
                account.private_key,
                account.mchid,
                account.serial_no,
                method=method,
                target=target,
                body=content,
                nonce=secrets.token_hex(16),
                timestamp=int(time.time()),
            ),
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        if account.public_key_id is not None:
            # Otherwise WeChat Pay may sign with a certificate that the merchant has not got.
            headers["Wechatpay-Serial"] = account.public_key_id
        try:
            return await self._http.request(method, account.address + target, headers=headers, content=content or None)
        except Retryable:
            raise _Lost("no connection") from None
        except OutcomeUnknown:
            raise _Lost("the connection was lost, or there was no answer in time") from None
        except Rejected:
            raise _Lost("its address is refused") from None

    async def _refresh(self) -> bool:
        """Whether it is worth looking again at a key that was not known."""
        seen = self._refreshed_at
        async with self._refreshing:
            if self._refreshed_at != seen:
                return True  # another call has just asked
            if time.monotonic() - self._refreshed_at < CERTIFICATES_EVERY_S:
                return False
            self._refreshed_at = time.monotonic()
            try:
                await self._new_keys()
            except _Lost:
                return False
            return True

    async def _new_keys(self) -> None:
        """Fetches WeChat Pay's certificates. Nobody else can make them: they are encrypted with the API v3 key. The answer must
        also be signed with one of them, or with one known before. Raises _Lost."""
        answer = await self._send("GET", CERTIFICATES)
        try:
            found = self._certificates(answer)
            signing.verify(answer.headers, answer.body, self._keys | found, datetime.now(UTC))
        except (NotAuthentic, mapping.Unreadable) as reason:
            raise _unproven(answer, reason) from None
        self._keys |= found

    def _certificates(self, answer: Answer) -> dict[str, PlatformKey]:
        if answer.truncated or len(answer.body) > MAX_ANSWER_BYTES:
            raise mapping.Unreadable("the certificates are too long")
        listed = _object(answer.body).get("data")
        if not isinstance(listed, list) or len(listed) > MAX_CERTIFICATES:
            raise mapping.Unreadable("the certificates cannot be read")
        found: dict[str, PlatformKey] = {}
        for each in listed:
            sealed = _part(each, "encrypt_certificate") if isinstance(each, Mapping) else {}
            pem = signing.open_sealed(self._account.cipher, sealed)
            try:
                serials, key = usable_certificate(pem, datetime.now(UTC))
            except ValueError:
                continue  # one that is not valid yet, or no longer
            found |= dict.fromkeys(serials, key)
        return found

    async def _bill(self, answer: Mapping[str, Any]) -> str:
        """The bill's file. Its own answer is not signed, but what it must hash to is."""
        url, expected = answer.get("download_url"), answer.get("hash_value")
        if not isinstance(url, str) or not isinstance(expected, str) or answer.get("hash_type") != "SHA1":
            raise mapping.Unreadable("where the bill is cannot be read")
        try:
            parts, own = urlsplit(url), urlsplit(self._account.address)
            elsewhere = (parts.scheme, parts.netloc) != (own.scheme, own.netloc) or not parts.path.startswith("/v3/")
        except ValueError:
            elsewhere = True
        if elsewhere:
            # The request carries the merchant's signature.
            raise mapping.Unreadable("the bill is not at WeChat Pay's address")
        file = await self._send("GET", parts.path + (f"?{parts.query}" if parts.query else ""))
        if file.status != 200 or file.truncated:
            raise _Lost(f"the bill cannot be had (status {file.status})")
        # SHA-1 is what WeChat Pay gives. Whom the file comes from is proven by TLS; this proves that it is whole.
        if hashlib.sha1(file.body, usedforsecurity=False).hexdigest() != expected.lower():
            raise mapping.Unreadable("the bill does not have the hash that was announced")
        try:
            return file.body.decode("utf-8")
        except UnicodeDecodeError:
            raise mapping.Unreadable("the bill is not text") from None


def _unproven(answer: Answer, reason: Exception) -> _Lost:
    return _Lost(f"no answer that is proven to be WeChat Pay's: {reason} (status {answer.status})", unproven=answer.status)


def _no_bill(code: str, day: date) -> Sequence[StatementLine]:
    """Nothing moved on that day, unless the bill is still to be made."""
    made_at = datetime(day.year, day.month, day.day, 10, tzinfo=mapping.ZONE) + timedelta(days=1)
    if code == mapping.NO_BILL and datetime.now(UTC) >= made_at:
        return []
    if code in {mapping.NO_BILL, mapping.BILL_LATER}:
        raise Retryable("WeChat Pay has not made the bill yet: it is there by 10:00 of the day after, in China.")
    raise Retryable(f"WeChat Pay answered {code}.")


def _not_offered(command: Command) -> Rejected:
    return Rejected("capability-not-offered", f"WeChat Pay does not offer {command.kind}.")


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise mapping.Unreadable("it is not JSON") from None
    if not isinstance(found, dict):
        raise mapping.Unreadable("it is not an object")
    return found


def _part(whole: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = whole.get(name)
    if not isinstance(found, Mapping):
        raise mapping.Unreadable(f"it has no {name}")
    return found
