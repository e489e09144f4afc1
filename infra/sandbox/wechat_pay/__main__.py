"""`python -m infra.sandbox.wechat_pay --port N [--books FILE]`"""

import argparse
from pathlib import Path

import uvicorn

from infra.sandbox.wechat_pay.gateway import Gateway
from infra.sandbox.wechat_pay.ledger import Ledger


def main() -> None:
    parser = argparse.ArgumentParser(prog="infra.sandbox.wechat_pay", description="WeChat Pay, as far as a sandbox needs it.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--books", type=Path, help="its journal, which a restart goes on with; without it nothing is kept")
    given = parser.parse_args()
    app = Gateway(Ledger(given.books)).app()
    uvicorn.run(app, host=given.host, port=given.port, log_level="warning", access_log=False, timeout_graceful_shutdown=2)


if __name__ == "__main__":
    main()
