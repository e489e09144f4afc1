"""WeChat Pay as the payment provider: a gateway with books of its own that checks every signature, and faults on demand.

`python -m infra.sandbox.wechat_pay --port N [--books FILE]` runs it; this module is how to deal with it. What it does not do like
WeChat Pay stands in `gateway.py`. Its secrets are made when it first begins and are worth nothing elsewhere.
"""

import secrets
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import httpx

from infra.sandbox import faults as faults_on_demand
from infra.sandbox.wechat_pay.ledger import ACCEPTED, ASKED, DECLINED
from schemas.money import Money
from schemas.payments import Payer, StatementLine

TITLE = "WeChat Pay sandbox"
CURRENCY = "CNY"
HAS_FAULTS = True

_CODES = {"ok": ACCEPTED, "declined": DECLINED, "asked": ASKED, "expired": "10"}


def argv(port: int, host: str = "127.0.0.1", books: Path | None = None) -> list[str]:
    """The command that runs it. It is ready when `is_ready` says so, and ends on SIGTERM. With `books` the next one goes on where
    it ended, however it ended; without, it forgets everything."""
    kept = [] if books is None else ["--books", str(books)]
    return [sys.executable, "-m", "infra.sandbox.wechat_pay", "--host", host, "--port", str(port), *kept]


def address(port: int, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{port}"


async def is_ready(address: str) -> bool:
    try:
        async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
            return (await client.get(f"{address}/_sandbox/ready")).status_code == 200
    except httpx.TransportError:
        return False


def credentials(address: str, *, public_key: bool = False) -> dict[str, str]:
    """Of the one merchant it has, for the connector: with WeChat Pay's certificates, or with its public key instead."""
    query = "?public_key" if public_key else ""
    answer = httpx.get(f"{address}/_sandbox/credentials{query}", timeout=30, trust_env=False).raise_for_status()
    found: dict[str, str] = answer.json()
    if public_key:
        del found["platform_certificates"]
    return {**found, "address": address}


async def seed_payer(address: str, kind: Literal["ok", "declined", "needs_action"] = "ok") -> Payer:
    """A payer who shows a payment code: `ok` pays whatever is asked, any number of times, as if the phone showed ever new codes;
    `declined` never has enough money. `needs_action` scans a code that is shown, and then has to `confirm`."""
    if kind == "needs_action":
        return Payer(provider="wechat_pay", customer=_openid(), payment_method="native")
    return by_code(kind)


def by_code(kind: Literal["ok", "declined", "asked", "expired"]) -> Payer:
    """A payer who shows a payment code. After one that is `asked` the phone wants a password: that is to `confirm`."""
    code = _CODES[kind] + f"{secrets.randbelow(10**16):016}"
    return Payer(provider="wechat_pay", customer=_openid(), payment_method=f"auth_code:{code}")


async def confirm(address: str, reference: str, success: bool = True) -> None:
    """The payer acts on the phone. Where it succeeds the merchant is notified."""
    await _post(address, "/_sandbox/confirm", {"out_trade_no": reference, "success": success})


async def books(address: str) -> list[dict[str, Any]]:
    """Every order it ever took, whatever became of it, with its refunds; `attach` is the payment's id, `total` in fen. An order
    was paid where it has a `paid_at`."""
    async with httpx.AsyncClient(timeout=120, trust_env=False) as client:
        found: list[dict[str, Any]] = (await client.get(f"{address}/_sandbox/books")).raise_for_status().json()
    return found


async def moved(address: str) -> list[StatementLine]:
    """All that ever moved by its own books, first to last."""
    lines = []
    for order in await books(address):
        about: dict[str, Any] = {"reference": order["out_trade_no"]}
        if order["paid_at"]:
            lines.append(_line("payment", order["total"], order["paid_at"], **about, attempt_id=order["out_trade_no"]))
        for refund in order["refunds"]:
            number = None if refund["out_refund_no"] == "0" else refund["out_refund_no"]
            lines.append(_line("refund", refund["refund"], refund["at"], **about, attempt_id=number))
    return sorted(lines, key=lambda line: line.occurred_at)


async def listen(address: str, urls: Sequence[str]) -> None:
    """Nothing to do: each order says where its notifications go; of payments by code there are none (see `notify_also`)."""


async def set_faults(address: str, **faults: Any) -> None:
    """See infra/sandbox/faults.py."""
    await _post(address, faults_on_demand.PATH, faults)


async def notify_also(address: str, url: str | None) -> None:
    """From now on `url` also hears of payments by code, for which WeChat Pay itself sends no notification, and of refunds that
    named no address."""
    await _post(address, "/_sandbox/notify", {"url": url})


async def rotate(address: str) -> None:
    """A new platform certificate: from now on everything is signed with it."""
    await _post(address, "/_sandbox/rotate", {})


def _line(kind: Literal["payment", "refund"], fen: int, at: str, *, reference: str, attempt_id: str | None) -> StatementLine:
    amount = Money(minor=fen, currency=CURRENCY)
    moment = datetime.fromisoformat(at)
    return StatementLine(kind=kind, reference=reference, attempt_id=attempt_id, amount=amount, occurred_at=moment)


def _openid() -> str:
    return f"o{secrets.token_hex(13)}"


async def _post(address: str, path: str, what: dict[str, Any]) -> None:
    async with httpx.AsyncClient(timeout=120, trust_env=False) as client:
        (await client.post(f"{address}{path}", json=what)).raise_for_status()
