"""Alipay's side of the sandbox: a gateway, a process with books of its own, which speaks v1 and v3, each with or without
certificates.

It checks every signature, timestamp and nonce, signs every answer and notification, and refuses what Alipay refuses with
Alipay's codes.

What it does unlike Alipay: there is one app, which may sign with its key or with its certificate; today's bill can be had
today; notifications are repeated after seconds, not minutes; there are no promotions, so that what the payer pays is what the
merchant gets.
"""

import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import httpx

from connectors.payments.alipay.credentials import Protocol
from schemas.money import Money
from schemas.payments import Payer, StatementLine

TITLE = "Alipay sandbox gateway"
CURRENCY: str | None = "CNY"
HAS_FAULTS = True

PATH = "/_sandbox"

# The gateway is on this machine and speaks plain HTTP; nobody is trusted otherwise, and no authorities have to be read.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass(frozen=True)
class BookedRefund:
    request_no: str
    amount: Money
    at: datetime


@dataclass(frozen=True)
class Trade:
    """One line of the gateway's books. `taken` is None while nothing was paid. `note` is what the merchant sent along."""

    reference: str
    status: str
    total: Money
    taken_at: datetime | None
    refunds: tuple[BookedRefund, ...]
    note: str

    @property
    def taken(self) -> Money | None:
        return self.total if self.taken_at else None


def argv(port: int, host: str = "127.0.0.1", *, books: Path | str | None = None) -> list[str]:
    """The command that runs it. It is ready when `is_ready` says so, and ends on SIGTERM. With `books`, a file, it remembers its
    trades, payers and keys when it is started again; without, it forgets them at its end."""
    kept = ["--books", str(books)] if books else []
    return [sys.executable, "-m", "infra.sandbox.alipay", "--host", host, "--port", str(port), *kept]


def address(port: int, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{port}"


async def is_ready(address: str) -> bool:
    try:
        async with _client(address) as client:
            return (await client.get(f"{PATH}/ready")).status_code == 200
    except httpx.TransportError:
        return False


def credentials(address: str, protocol: Protocol = "v1") -> dict[str, str]:
    """Of the one app it knows, as `augenblick connectors add` takes them. The private key opens nothing else."""
    with httpx.Client(base_url=address, timeout=10, trust_env=False, verify=_NO_TLS) as client:
        given: dict[str, str] = client.get(f"{PATH}/credentials", params={"protocol": protocol}).raise_for_status().json()
    return {**given, "address": address}


async def seed_payer(address: str, kind: Literal["ok", "declined", "needs_action"] = "ok") -> Payer:
    """A new payer: one who agreed to be charged, one who did but has no money, or one whose phone shows a code and asks. Such a
    code is good for one trade, as Alipay's are."""
    return await _new_payer(address, kind)


async def by_code(address: str) -> Payer:
    """A new payer whose phone shows a code that pays at once, for one trade."""
    return await _new_payer(address, "code")


async def _new_payer(address: str, kind: str) -> Payer:
    async with _client(address) as client:
        made = (await client.post(f"{PATH}/payers", json={"kind": kind})).raise_for_status().json()
    return Payer(provider="alipay", customer=made["customer"], payment_method=made["payment_method"])


async def confirm(address: str, reference: str, success: bool = True) -> None:
    """The payer pays on the phone, or (`success` false) gives up. Where a code was made for it, the phone scans it first."""
    async with _client(address) as client:
        (await client.post(f"{PATH}/confirm", json={"reference": reference, "success": success})).raise_for_status()


async def books(address: str) -> list[Trade]:
    """Every trade it ever made, straight from its memory."""
    async with _client(address) as client:
        found = (await client.get(f"{PATH}/books")).raise_for_status().json()
    return [_trade(each) for each in found]


async def moved(address: str) -> list[StatementLine]:
    """Every payment and refund that ever was, first to last."""
    lines = []
    for trade in await books(address):
        if trade.taken_at is None:
            continue
        lines.append(
            StatementLine(
                kind="payment",
                reference=trade.reference,
                attempt_id=trade.reference,
                amount=trade.total,
                occurred_at=trade.taken_at,
            )
        )
        lines += [
            StatementLine(
                kind="refund",
                reference=trade.reference,
                attempt_id=refund.request_no,
                amount=refund.amount,
                occurred_at=refund.at,
            )
            for refund in trade.refunds
        ]
    return sorted(lines, key=lambda line: line.occurred_at)


def notification(address: str, reference: str, at: datetime, **changed: str) -> bytes:
    """The body of a notification that the trade was paid, signed as of `at`, whether or not there is such a trade. Fields in
    `changed` are signed as given; an empty one is left out."""
    with httpx.Client(base_url=address, timeout=10, trust_env=False, verify=_NO_TLS) as client:
        asked = {"reference": reference, "at": at.isoformat(), "changed": changed}
        return client.post(f"{PATH}/notification", json=asked).raise_for_status().content


async def listen(address: str, urls: Sequence[str]) -> None:
    """Nothing to do: each trade says where its notifications go."""


async def set_faults(address: str, **faults: Any) -> None:
    """See infra/sandbox/faults.py."""
    async with _client(address) as client:
        (await client.post(f"{PATH}/faults", json=faults)).raise_for_status()


def _trade(found: dict[str, Any]) -> Trade:
    return Trade(
        reference=found["out_trade_no"],
        status=found["status"],
        total=Money(minor=found["total"], currency="CNY"),
        taken_at=datetime.fromisoformat(found["paid_at"]) if found["paid_at"] else None,
        refunds=tuple(
            BookedRefund(each["request_no"], Money(minor=each["amount"], currency="CNY"), datetime.fromisoformat(each["at"]))
            for each in found["refunds"]
        ),
        note=found["body"],
    )


def _client(address: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=address, timeout=30, trust_env=False, verify=_NO_TLS)
