"""The Alipay sandbox gateway, which also notes when each request came and when its answer left: `python -m
benchmarks.timed_gateway --port N --log FILE`. Times are CLOCK_MONOTONIC's, which all processes of a machine share."""

import argparse
import time
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.sandbox.alipay.gateway import Gateway
from infra.sandbox.alipay.keys import load_or_make
from infra.sandbox.alipay.ledger import Books
from infra.sandbox.alipay.notifications import Notifier
from infra.sandbox.faults import Faults


class Timed:
    """One line for each call: came, left (seconds)."""

    def __init__(self, app: ASGIApp, log: Path) -> None:
        self._app = app
        self._log = log.open("w", buffering=1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/_sandbox"):
            await self._app(scope, receive, send)
            return
        came = time.monotonic()

        async def timed(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.body":
                self._log.write(f"{came} {time.monotonic()}\n")

        await self._app(scope, receive, timed)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    given = parser.parse_args()
    keys = load_or_make(None)
    gateway: Any = Gateway(Books(None), keys, Faults(), Notifier(keys)).application()
    uvicorn.run(Timed(gateway, given.log), host="127.0.0.1", port=given.port, log_level="critical", access_log=False)


if __name__ == "__main__":
    main()
