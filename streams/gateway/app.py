"""The gateway's doors: /v1/glasses (WebSocket), /v1/pictures (what choices show), /v1/events and /v1/devices (makers' clouds),
/v1/notifications (providers) and the merchants' API."""

from contextlib import suppress
from datetime import timedelta

from fastapi import FastAPI, WebSocket
from starlette.websockets import WebSocketDisconnect

from schemas.errors import Problem
from schemas.gateway import SUBPROTOCOL, CloseCode, Refused
from streams.core.bootstrap import Parts
from streams.core.settings import version
from streams.gateway import credentials, limits, problems
from streams.gateway.answers import Answers
from streams.gateway.devices import DevicesApi
from streams.gateway.events import PATH as EVENTS_PATH
from streams.gateway.events import EventsEndpoint
from streams.gateway.links import Ending, Links
from streams.gateway.merchants import describe_webhooks
from streams.gateway.merchants import router as merchants_api
from streams.gateway.notifications import Notifications
from streams.gateway.pictures import PicturesApi
from streams.gateway.publish import Publisher
from streams.gateway.socket import GlassesSession
from streams.payments.accounts import Accounts

DESCRIPTION = "Events of glasses in, answers out; and the merchants' API. Every refusal is problem details (RFC 9457)."


_ENDINGS = {
    Ending.REPLACED: (CloseCode.REPLACED, "replaced by a newer connection of the device"),
    Ending.REVOKED: (CloseCode.REVOKED, "the device was revoked"),
    Ending.KEY_CHANGED: (CloseCode.KEY_CHANGED, "the device has another key by now"),
}


async def _end(socket: WebSocket, problem: Problem) -> None:
    """Say why, and hang up."""
    with suppress(RuntimeError, OSError, WebSocketDisconnect):
        await socket.send_json(Refused(id=None, problem=problem).model_dump(mode="json", exclude_none=True))
        await socket.close(CloseCode.TRY_AGAIN_LATER, problem.code)


def build_app(parts: Parts, publisher: Publisher, answers: Answers, links: Links) -> FastAPI:
    """`links.watch` is for the caller to run beside."""
    app = FastAPI(title="Augenblick gateway", version=version(), description=DESCRIPTION, docs_url=None, redoc_url=None)
    problems.install(app)
    limits.install(app, apart=frozenset({EVENTS_PATH}))
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
            session = GlassesSession(socket, device, database=database, publisher=publisher, answers=answers, budget=budget)
            ending = await links.keep_newest(device.id, session)
            if ending is not None:
                with suppress(RuntimeError, OSError):
                    await socket.close(*_ENDINGS[ending])
        except WebSocketDisconnect:
            return
        except Exception as error:
            await _end(socket, problems.problem_of(error))

    @app.websocket("/{path:path}")
    async def nothing_here(socket: WebSocket, path: str) -> None:
        await socket.send_denial_response(problems.response(Problem.of("not-found", "glasses connect to /v1/glasses")))

    @app.get("/healthz", include_in_schema=False)
    async def health() -> dict[str, str]:
        await database.ping()
        return {"status": "ok"}

    app.include_router(EventsEndpoint(database, publisher, answers, budget).router())
    app.include_router(PicturesApi(database, parts.settings.gateway_audience).router())
    app.include_router(DevicesApi(database, parts.sealer()).router())
    accounts = Accounts(parts.sealer(), parts.settings.public_url)
    parts.closing.push_async_callback(accounts.close)
    app.include_router(Notifications(database, accounts).router())
    app.include_router(merchants_api(parts, accounts))
    describe_webhooks(app)
    return app
