"""Runs the gateway until it is told to end."""

import argparse
import time
from pathlib import Path

import uvicorn

from infra.sandbox.alipay.gateway import Gateway
from infra.sandbox.alipay.keys import load_or_make
from infra.sandbox.alipay.ledger import Books
from infra.sandbox.alipay.notifications import Notifier
from infra.sandbox.faults import Faults


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.sandbox.alipay", description="Alipay's side of the sandbox.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--books", type=Path, help="a file that outlives the process; its keys are kept beside it")
    given = parser.parse_args()
    if given.books:
        given.books.parent.mkdir(parents=True, exist_ok=True)
    keys = load_or_make(given.books.with_name(f"{given.books.name}.keys") if given.books else None)
    gateway = Gateway(Books(given.books), keys, Faults(seed=time.time_ns()), Notifier(keys))
    # The faults that cut answers short are meant; uvicorn would report each of them.
    uvicorn.run(gateway.application(), host=given.host, port=given.port, log_level="critical", access_log=False)


if __name__ == "__main__":
    main()
