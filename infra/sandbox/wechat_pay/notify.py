"""Notifications to the merchant: encrypted, signed, sent again until they are acknowledged."""

import asyncio
import base64
import json
import secrets
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from connectors.http import Deadlines, HttpClient
from infra.sandbox.faults import Fault
from infra.sandbox.wechat_pay import signing
from infra.sandbox.wechat_pay.keys import Keys
from infra.sandbox.wechat_pay.ledger import ZONE
from schemas.errors import OutcomeUnknown, Rejected, Retryable

RETRIES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""WeChat Pay's own are 15 s to 6 h, fifteen of them."""

LATE_S = (1.0, 3.0)
"""How late a disordered notification comes: those of later events overtake it."""


class Notifier:
    """Sends in the background; what is not sent at the end is dropped, as merchants have to ask anyway."""

    def __init__(self) -> None:
        self._client = HttpClient(allow_private=True, deadlines=Deadlines(total=5))
        self._running: set[asyncio.Task[None]] = set()
        self.acknowledged = 0

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._client.close()

    def send(self, url: str, keys: Keys, kind: str, resource: dict[str, Any], fault: Fault | None) -> None:
        body = notification(keys, kind, resource)
        late = LATE_S[0] + secrets.randbelow(100) / 100 * (LATE_S[1] - LATE_S[0]) if fault is Fault.DISORDERED_NOTIFICATION else 0
        for _ in range(3 if fault is Fault.REPEATED_NOTIFICATION else 1):
            task = asyncio.create_task(self._deliver(url, keys, body, late))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _deliver(self, url: str, keys: Keys, body: bytes, late: float) -> None:
        for wait in (late, *RETRIES_S):
            await asyncio.sleep(wait)
            try:
                answer = await self._client.post(url, body, headers=signing.headers(keys.signing, body))
            except (Retryable, OutcomeUnknown, Rejected):
                continue
            if answer.status in {200, 204}:
                self.acknowledged += 1
                return


def notification(keys: Keys, kind: str, resource: dict[str, Any]) -> bytes:
    """The same in every repetition, but for the signature."""
    about = "refund" if kind.startswith("REFUND") else "transaction"
    message = {
        "id": str(uuid4()),
        "create_time": datetime.now(UTC).astimezone(ZONE).isoformat(timespec="seconds"),
        "resource_type": "encrypt-resource",
        "event_type": kind,
        "summary": "退款成功" if about == "refund" else "支付成功",
        "resource": {"original_type": about, **sealed(keys, json.dumps(resource, ensure_ascii=False).encode(), about)},
    }
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def sealed(keys: Keys, text: bytes, about: str) -> dict[str, str]:
    nonce = secrets.token_urlsafe(9)
    return {
        "algorithm": "AEAD_AES_256_GCM",
        "ciphertext": base64.b64encode(keys.cipher.encrypt(nonce.encode(), text, about.encode())).decode(),
        "associated_data": about,
        "nonce": nonce,
    }
