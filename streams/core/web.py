"""Serving an ASGI application within a role's own loop: announces readiness, and ends gracefully when cancelled."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from schemas.errors import Misconfigured
from streams.core import ready

_POLL_S = 0.02


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the role's business, not the server's."""
        yield


async def serve(app: Any, host: str, port: int, **options: Any) -> None:
    """Until cancelled. Raises Misconfigured where the address cannot be had."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        access_log=False,
        log_config=None,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=5,
        **options,
    )
    server = _Server(config)
    serving = asyncio.create_task(_serve(server, f"{host}:{port}"))
    try:
        while not server.started and not serving.done():  # uvicorn offers nothing to wait for
            await asyncio.sleep(_POLL_S)
        if server.started:
            ready.announce()
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        await asyncio.wait([serving])


async def _serve(server: uvicorn.Server, address: str) -> None:
    try:
        await server.serve()
    except SystemExit as error:  # how uvicorn says that the address is taken
        raise Misconfigured(
            f"Cannot listen on {address}: is it taken? Choose another with the *_HOST and *_PORT settings."
        ) from error
