"""A proxy that spoils what lies between us and a provider that has no faults of its own. To run it:
`python -m infra.sandbox.proxy --port 8422 --target http://127.0.0.1:8421`.

It does to any HTTP server what infra/sandbox/faults.py does to a gateway: answers get lost after the target acted, lines are cut
before it heard of anything, answers are slow, 5xx, or hang. What only a provider itself can do wrong it cannot: see `KINDS`. Who
sets the target up or reads its books asks the target, not the proxy.
"""

import argparse
import sys
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infra.sandbox import faults
from infra.sandbox.faults import Fault, Faults, FaultyGateway

# Not LATE_EFFECT unless asked for: localstripe forgets idempotency keys, by which Stripe itself knows a late repetition.
KINDS = (Fault.ANSWER_LOST, Fault.CUT, Fault.SLOW, Fault.SERVER_ERROR)

# What is between two neighbours on the line only (RFC 9110, 7.6.1), and what each of them writes anew.
_HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
_HOP_BY_HOP |= {"proxy-authenticate", "proxy-authorization", "host", "content-length", "date", "server"}


def argv(port: int, target: str, host: str = "127.0.0.1") -> list[str]:
    """The command that runs it before `target` (http://…). It is ready when `is_ready` says so, and ends on SIGTERM."""
    return [sys.executable, "-m", "infra.sandbox.proxy", "--host", host, "--port", str(port), "--target", target]


def address(port: int, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{port}"


async def is_ready(address: str) -> bool:
    try:
        await read_faults(address)
    except httpx.HTTPError:
        return False
    return True


async def read_faults(address: str) -> dict[str, Any]:
    """The faults as they are set, and under `done` how often each was done."""
    async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
        answer: dict[str, Any] = (await client.get(address + faults.PATH)).raise_for_status().json()
    return answer


async def set_faults(address: str, **wanted: Any) -> None:
    """From now on; what is not named stays. `rate=0, hang=False` ends them. See `Faults` for the names."""
    async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
        (await client.post(address + faults.PATH, json=wanted)).raise_for_status()


def application(target: str) -> FaultyGateway:
    client = httpx.AsyncClient(base_url=target, timeout=None, follow_redirects=False, trust_env=False)  # noqa: S113 -- the caller's

    async def forward(request: Request) -> Response:
        path = request.scope["raw_path"].decode() + (f"?{request.url.query}" if request.url.query else "")
        headers = {"accept-encoding": "identity", **_end_to_end(request.headers.items())}
        onward = client.build_request(request.method, path, headers=headers, content=await request.body())
        try:
            answer = await client.send(onward, stream=True)
            # As it came: httpx would unpack what the caller asked to be packed.
            body = b"".join([piece async for piece in answer.aiter_raw()])
            await answer.aclose()
        except httpx.TransportError:
            return Response("the target does not answer", 502)
        return Response(body, answer.status_code, _end_to_end(answer.headers.items()))

    chosen = Faults(kinds=KINDS)
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
    routes = [faults.control(chosen), Route("/{path:path}", forward, methods=methods)]
    return FaultyGateway(Starlette(routes=routes), chosen)


def _end_to_end(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers if name.lower() not in _HOP_BY_HOP}


def main() -> None:
    parser = argparse.ArgumentParser(description="A proxy that loses, cuts, delays and spoils answers on demand.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--target", required=True, help="http://…")
    given = parser.parse_args()
    # An answer that is cut off is an error to the server, which would write a traceback for each.
    uvicorn.run(application(given.target), host=given.host, port=given.port, log_level="critical", access_log=False)


if __name__ == "__main__":
    main()
