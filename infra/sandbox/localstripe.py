"""localstripe as the payment provider: a server of its own with its own books, which knows nothing of us.

What it does not do like Stripe: it forgets idempotency keys, accepts refunds above what was paid, does not say how much was
received or captured, has no 3-D Secure page, no payers who are away and no search by date, and answers 400 to parameters it does
not know. It has no faults of its own: infra/sandbox/proxy.py goes before it.
"""

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import httpx

from infra.sandbox import proxy
from schemas.money import Money
from schemas.payments import Payer, StatementLine

TITLE = "localstripe, a stand-in for Stripe"
CURRENCY = None
HAS_FAULTS = False
API_KEY = "sk_test_localstripe"
WEBHOOK_SECRET = "whsec_localstripe0123456789"  # noqa: S105 -- a sandbox's

_PROGRAM = """
import sys
from aiohttp import web
from localstripe.resources import Store
from localstripe.server import app
# It would write all it knows to one file in /tmp after every change, shared by all instances on the machine.
Store.dump_to_disk = lambda self: None
web.run_app(app, host=sys.argv[1], port=int(sys.argv[2]), print=None)
"""

# Test card numbers as Stripe documents them: what they do when they are charged.
_CARDS = {"ok": "4242424242424242", "declined": "4000000000000341", "needs_action": "4000002500003155"}


def argv(port: int, host: str = "127.0.0.1", books: Path | None = None) -> list[str]:
    """The command that runs it. It is ready when `is_ready` says so, forgets everything at its end (`books` or not), and ends on
    SIGTERM."""
    return [sys.executable, "-c", _PROGRAM, host, str(port)]


def address(port: int, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{port}"


def credentials(address: str, webhook_secret: str = WEBHOOK_SECRET) -> dict[str, str]:
    """For `augenblick connectors add stripe`."""
    return {"api_key": API_KEY, "webhook_secret": webhook_secret, "address": address}


async def is_ready(address: str) -> bool:
    try:
        async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
            return (await client.get(f"{address}/js.stripe.com/v3/")).status_code == 200
    except httpx.TransportError:
        return False


async def seed_payer(address: str, api_key: str = API_KEY, kind: Literal["ok", "declined", "needs_action"] = "ok") -> Payer:
    """A new customer with a saved card that is accepted, declined when charged, or asks for 3-D Secure."""
    card = {"number": _CARDS[kind], "exp_month": "12", "exp_year": "2035", "cvc": "123"}
    async with _client(address, api_key) as client:
        customer = await _post(client, "/v1/customers", {"name": f"Wearer ({kind})"})
        method = await _post(
            client, "/v1/payment_methods", {"type": "card", **{f"card[{name}]": value for name, value in card.items()}}
        )
        await _post(client, f"/v1/payment_methods/{method['id']}/attach", {"customer": customer["id"]})
    return Payer(provider="stripe", customer=customer["id"], payment_method=method["id"])


async def moved(address: str) -> list[StatementLine]:
    """All money it ever took or gave back, first to last, in Stripe's units. As slow as `payment_intents`."""
    by_charge: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for refund in await refunds(address):
        by_charge[refund["charge"]].append(refund)
    found: list[StatementLine] = []
    for intent in await payment_intents(address):
        charge = intent["latest_charge"]
        if charge is None or charge["status"] != "succeeded" or not charge["captured"]:
            continue
        back = by_charge[charge["id"]]
        # Capturing a part is to it a capture of all, whose rest it refunds at once, in nobody's name.
        rest = sum(refund["amount"] for refund in back if not refund["metadata"])
        found.append(_line("payment", intent["id"], intent, charge["amount"] - rest, charge["created"]))
        found += [_line("refund", intent["id"], each, each["amount"], each["created"]) for each in back if each["metadata"]]
    return sorted(found, key=lambda line: line.occurred_at)


def _line(
    kind: Literal["payment", "refund"], reference: str, movement: Mapping[str, Any], amount: int, created: int
) -> StatementLine:
    return StatementLine(
        kind=kind,
        reference=reference,
        attempt_id=movement["metadata"].get("attempt_id"),
        amount=Money(minor=amount, currency=movement["currency"].upper()),
        occurred_at=datetime.fromtimestamp(created, UTC),
    )


async def set_faults(address: str, **faults: Any) -> None:
    """Where `address` is that of a proxy before it; see infra/sandbox/proxy.py."""
    await proxy.set_faults(address, **faults)


async def payment_intents(address: str, api_key: str = API_KEY) -> list[dict[str, Any]]:
    """Its books: every PaymentIntent it ever made, whatever has become of it, as Stripe's JSON. It searches everything for each:
    300 take it 3 s, in which it answers nobody else."""
    return await _all(address, api_key, "/v1/payment_intents")


async def refunds(address: str, api_key: str = API_KEY) -> list[dict[str, Any]]:
    """Every refund it ever made; those of a partial capture's remainder have no metadata."""
    return await _all(address, api_key, "/v1/refunds")


async def authenticate(address: str, reference: str, *, success: bool = True, api_key: str = API_KEY) -> None:
    """The payer's answer to 3-D Secure, which localstripe takes without a page."""
    async with _client(address, api_key) as client:
        intent = (await client.get(f"/v1/payment_intents/{reference}")).raise_for_status().json()
        answer = {"client_secret": intent["client_secret"], "success": str(success).lower()}
        await _post(client, f"/v1/payment_intents/{reference}/_authenticate", answer)


async def confirm(address: str, reference: str, success: bool = True) -> None:
    """The payer acts on the phone, or does not want to."""
    await authenticate(address, reference, success=success)


async def listen(address: str, urls: Sequence[str]) -> None:
    """Every event goes to all of them: what is about another account's payment is unknown there."""
    for number, url in enumerate(urls):
        await register_webhook(address, url, WEBHOOK_SECRET, name=f"account-{number}")


async def register_webhook(address: str, url: str, secret: str, name: str = "augenblick") -> None:
    """From now on every event is posted to `url`, signed with `secret`, a second after it happened. The last of a `name`
    counts."""
    async with _client(address, API_KEY) as client:
        (await client.post(f"/_config/webhooks/{name}", json={"url": url, "secret": secret})).raise_for_status()


def _client(address: str, api_key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=address, headers={"Authorization": f"Bearer {api_key}"}, timeout=120, trust_env=False)


async def _post(client: httpx.AsyncClient, path: str, form: dict[str, str]) -> dict[str, Any]:
    answer: dict[str, Any] = (await client.post(path, data=form)).raise_for_status().json()
    return answer


async def _all(address: str, api_key: str, path: str) -> list[dict[str, Any]]:
    # One page: paging would walk its whole list for every page.
    async with _client(address, api_key) as client:
        page = (await client.get(path, params={"limit": 1_000_000})).raise_for_status().json()
    found: list[dict[str, Any]] = page["data"]
    return found
