"""No request may send more than its limit, whoever it is from: counted before anything reads the body."""

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.errors import Problem
from streams.gateway import problems

_LIMIT = 64 * 1024


class BodyLimit:
    """ASGI middleware. Paths in `apart` have limits of their own, which their handlers count."""

    def __init__(self, app: ASGIApp, apart: frozenset[str]) -> None:
        self._app = app
        self._apart = apart

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._apart:
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > _LIMIT:
            problem = Problem.of("too-large", f"a request's body has at most {_LIMIT:,} bytes here")
            await problems.response(problem, {"Connection": "close"})(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > _LIMIT:
                raise HTTPException(413)
            return message

        await self._app(scope, counted, send)


def install(app: FastAPI, apart: frozenset[str]) -> None:
    app.add_middleware(BodyLimit, apart=apart)
