"""A merchant's webhook receiver: verifies with the official `standardwebhooks` library, keeps what it got, and fails on demand.

    python -m infra.sandbox.merchant --port 8410 --secret-file FILE --record FILE

    POST /webhooks   where messages go; any other path with a POST is taken as well
    GET  /received   everything received, first to last; the lines of the record
    POST /faults     {"fail_next": 3, "status": 500, "delay_s": 0.5, "retry_after": "30", "ignore": false}
                     for the next `fail_next` messages: record, wait, answer `status`. With "ignore" they are not recorded, as if
                     the merchant had died before it wrote them down. {"fail_next": 0} ends it.

The secret file holds one `whsec_` secret per line (several while one is being replaced) and is read anew for each message, so
it may be written after this has started. A program of the outside world: the platform never imports it.
"""

import argparse
import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

LOOPBACK = "127.0.0.1"


@dataclass
class Faults:
    """What goes wrong with the next `left` requests."""

    left: int = 0
    status: int = 500
    delay_s: float = 0.0
    retry_after: str | None = None
    ignore: bool = False


class Record:
    """An append-only file of JSON lines. What was recorded before a restart still counts as received."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
        self._seen = {line["id"] for line in self.lines if not line["refused"]}

    def add(self, message: dict[str, Any], *, answered: int) -> None:
        repeated = message["id"] in self._seen
        self._seen.add(message["id"])
        self._append({**message, "repeated": repeated, "answered": answered, "refused": False})

    def refuse(self, claimed_id: str | None, reason: str) -> None:
        self._append({"id": claimed_id, "refused": True, "reason": reason, "answered": 401})

    def _append(self, line: dict[str, Any]) -> None:
        complete = {**line, "received_at": datetime.now(UTC).isoformat()}
        with self._path.open("a") as file:
            file.write(json.dumps(complete) + "\n")
        self.lines.append(complete)


def verified(secrets: list[str], headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """The message. Raises WebhookVerificationError, also where there is no secret to verify with."""
    for secret in secrets:
        with contextlib.suppress(WebhookVerificationError, ValueError):
            message = Webhook(secret).verify(body, headers)
            if isinstance(message, dict):
                return message
    raise WebhookVerificationError("No secret of ours made this signature, or it is too old")


def build_app(secret_file: Path, record_file: Path) -> Starlette:
    record, faults = Record(record_file), Faults()

    async def receive(request: Request) -> Response:
        body = await request.body()
        secrets = await asyncio.to_thread(_read_secrets, secret_file)
        try:
            message = verified(secrets, dict(request.headers), body)
        except WebhookVerificationError as error:
            record.refuse(request.headers.get("webhook-id"), str(error))
            return JSONResponse({"error": "signature"}, status_code=401)
        failing = faults.left > 0
        faults.left -= failing
        fault = replace(faults)
        status = fault.status if failing else 200
        if not (failing and fault.ignore):
            data = message.get("data", {})
            record.add(
                {
                    "id": request.headers["webhook-id"],
                    "type": message.get("type"),
                    "order": message.get("order_id"),
                    "sequence": message.get("sequence"),
                    "state": data.get("state"),
                    "payment": data.get("payment_id"),
                    "captured": (data.get("captured") or {}).get("minor"),
                    "refunded": (data.get("refunded") or {}).get("minor"),
                    "command": (data.get("command") or {}).get("attempt_id"),
                },
                answered=status,
            )
        if failing:
            await asyncio.sleep(fault.delay_s)
        headers = {"retry-after": fault.retry_after} if failing and fault.retry_after else None
        return JSONResponse({"received": not failing}, status_code=status, headers=headers)

    async def received(request: Request) -> Response:
        return JSONResponse(record.lines)

    async def set_faults(request: Request) -> Response:
        wanted = await request.json()
        faults.left = int(wanted.get("fail_next", 0))
        faults.status = int(wanted.get("status", 500))
        faults.delay_s = float(wanted.get("delay_s", 0))
        faults.retry_after = wanted.get("retry_after")
        faults.ignore = bool(wanted.get("ignore", False))
        return JSONResponse({"fail_next": faults.left})

    return Starlette(
        routes=[
            Route("/received", received, methods=["GET"]),
            Route("/faults", set_faults, methods=["POST"]),
            Route("/{path:path}", receive, methods=["POST"]),
        ],
        lifespan=_announced,
    )


@contextlib.asynccontextmanager
async def _announced(app: Starlette) -> AsyncIterator[None]:
    print("The merchant's receiver is ready.", flush=True)
    yield


def _read_secrets(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.sandbox.merchant", description="A merchant's webhook receiver.")
    parser.add_argument("--port", type=int, required=True, help="where to listen on 127.0.0.1")
    parser.add_argument("--secret-file", type=Path, required=True, help="holds the endpoint's whsec_ secret")
    parser.add_argument("--record", type=Path, required=True, help="where to keep what is received, as JSON lines")
    arguments = parser.parse_args()
    app = build_app(arguments.secret_file, arguments.record)
    uvicorn.run(app, host=LOOPBACK, port=arguments.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
