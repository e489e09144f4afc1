"""Tells the merchant what happened: signed, and again until the merchant says `success`, a few times."""

import asyncio
import json
from datetime import datetime
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

from connectors.http import Deadlines, HttpClient
from connectors.payments.alipay import signing
from infra.sandbox.alipay.keys import APP_ID, SELLER_ID, Keys
from infra.sandbox.alipay.ledger import ZONE, Refund, Trade, clock, yuan
from infra.sandbox.faults import Fault
from schemas.errors import OutcomeUnknown, Rejected, Retryable

# Alipay repeats after 4, 10 and 10 minutes, 1, 2, 6 and 15 hours.
REPEATED_AFTER_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
DISORDERED_BY_S = 1.5
_AT_ONCE = 20
_FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class Notifier:
    """Sends to this machine only, whatever a trade's address is."""

    def __init__(self, keys: Keys, *, repeated_after_s: tuple[float, ...] = REPEATED_AFTER_S) -> None:
        self._keys = keys
        self._repeated_after_s = repeated_after_s
        self._client = HttpClient(allow_private=True, deadlines=Deadlines(total=5), max_connections=_AT_ONCE)
        self._running: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._client.close()

    def tell(self, trade: Trade, refund: Refund | None, fault: Fault | None) -> None:
        """`fault` says what may go wrong with it: sent thrice, or so late that later ones overtake it."""
        if not trade.notify_url or urlsplit(trade.notify_url).hostname not in _LOOPBACK:
            return
        fields = self.fields(trade, refund)
        times = 3 if fault is Fault.REPEATED_NOTIFICATION else 1
        delay_s = DISORDERED_BY_S if fault is Fault.DISORDERED_NOTIFICATION else 0.0
        for _ in range(times):
            task = asyncio.get_running_loop().create_task(self._send(trade.notify_url, fields, delay_s))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def fields(self, trade: Trade, refund: Refund | None) -> dict[str, str]:
        """As of now; without the time of sending and the signature."""
        amount = yuan(trade.total)
        fields = {
            "notify_type": "trade_status_sync",
            "notify_id": f"{datetime.now(ZONE):%Y%m%d}00222{uuid4().int % 10**21:021d}",
            "charset": "utf-8",
            "version": "1.0",
            "app_id": APP_ID,
            "auth_app_id": APP_ID,
            "seller_id": SELLER_ID,
            "buyer_logon_id": "san***@sandbox.example",
            "trade_no": trade.trade_no,
            "out_trade_no": trade.out_trade_no,
            "trade_status": trade.status,
            "total_amount": amount,
            "subject": trade.subject,
            "body": trade.body,
            "gmt_create": clock(trade.created_at),
        }
        if trade.paid_at:
            paid = dict.fromkeys(("receipt_amount", "buyer_pay_amount", "invoice_amount"), amount)
            channels = json.dumps([{"amount": amount, "fundChannel": "ALIPAYACCOUNT"}], separators=(",", ":"))
            fields |= {**paid, "point_amount": "0.00", "gmt_payment": clock(trade.paid_at), "fund_bill_list": channels}
        if trade.closed_at:
            fields["gmt_close"] = clock(trade.closed_at)
        if refund:
            # What was given back in all, as Alipay documents it, not this time.
            fields |= {
                "refund_fee": yuan(trade.refunded),
                "out_biz_no": refund.request_no,
                "gmt_refund": f"{clock(refund.at)}.{refund.at.microsecond // 1000:03d}",
            }
        return fields

    def signed(self, fields: dict[str, str], now: datetime | None = None) -> bytes:
        """The body of one sending."""
        sent = fields | {"notify_time": clock(now or datetime.now(ZONE))}
        content, _ = signing.notification_contents(sent)
        return urlencode(sent | {"sign": signing.sign(self._keys.alipay, content), "sign_type": "RSA2"}).encode()

    async def _send(self, url: str, fields: dict[str, str], delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        for wait_s in (*self._repeated_after_s, None):
            try:
                answer = await self._client.post(url, self.signed(fields), headers=_FORM)
                if answer.body.strip() == b"success":
                    return
            except (Retryable, OutcomeUnknown, Rejected):
                pass
            if wait_s is not None:
                await asyncio.sleep(wait_s)
