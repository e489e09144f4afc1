"""The gateway's doors: /v1/glasses (WebSocket), /v1/events (makers' clouds) and the merchants' API."""

from contextlib import suppress
from datetime import timedelta

from fastapi import FastAPI, WebSocket
from starlette.websockets import WebSocketDisconnect

from schemas.errors import Problem
from schemas.gateway import SUBPROTOCOL, Refused
from streams.core.bootstrap import Parts
from streams.core.settings import version
from streams.gateway import credentials, problems
from streams.gateway.answers import Answers
from streams.gateway.events import EventsEndpoint
from streams.gateway.merchants import describe_webhooks
from streams.gateway.merchants import router as merchants_api
from streams.gateway.publish import Publisher
from streams.gateway.socket import GlassesSession

DESCRIPTION = "Events of glasses in, answers out; and the merchants' API. Every refusal is problem details (RFC 9457)."


_TRY_AGAIN_LATER = 1013  # WebSocket close code


async def _end(socket: WebSocket, problem: Problem) -> None:
    """Say why, and hang up."""
    with suppress(RuntimeError, OSError, WebSocketDisconnect):
        await socket.send_json(Refused(id=None, problem=problem).model_dump(mode="json", exclude_none=True))
        await socket.close(_TRY_AGAIN_LATER, problem.code)


def build_app(parts: Parts, publisher: Publisher, answers: Answers) -> FastAPI:
    app = FastAPI(title="Augenblick gateway", version=version(), description=DESCRIPTION, docs_url=None, redoc_url=None)
    problems.install(app)
    budget = timedelta(milliseconds=parts.settings.glance_budget_ms)
    database = parts.database()

    @app.websocket("/v1/glasses")
    async def glasses(socket: WebSocket) -> None:
        try:
            device = await credentials.device(database, socket.headers.get("authorization"), parts.settings.gateway_audience)
        except Exception as error:
            await socket.send_denial_response(problems.response(problems.problem_of(error)))
            return
        offered = socket.scope.get("subprotocols", [])
        await socket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
        try:
            await GlassesSession(socket, device, publisher, answers, budget).run()
        except WebSocketDisconnect:
            return
        except Exception as error:
            await _end(socket, problems.problem_of(error))

    @app.get("/healthz", include_in_schema=False)
    async def health() -> dict[str, str]:
        await database.ping()
        return {"status": "ok"}

    app.include_router(EventsEndpoint(database, publisher, answers, budget).router())
    app.include_router(merchants_api(parts))
    describe_webhooks(app)
    return app
