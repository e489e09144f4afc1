"""The console's pages: routes, rendering, and the headers that keep them what they are."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from ipaddress import ip_address
from time import monotonic
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.exceptions import HTTPException as StarletteHTTPException

from schemas.errors import Problem, Rejected
from schemas.ids import DeadLetterId, Id, JourneyId
from streams.console import service, store
from streams.core.database import Database, is_unavailable
from streams.core.settings import Settings
from streams.core.telemetry.tracing import trace_id

log = logging.getLogger(__name__)

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_FLOW_KEPT_S = 5.0
_LONGEST_SEARCH = 100


class Console:
    """Answers the requests. The flow's last hour is counted at most every few seconds, however many pages are open."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        self._trace_page = settings.trace_page if (settings.trace_page or "").startswith(("http://", "https://")) else None
        self._templates = _templates()
        self._flow: tuple[float, list[service.StageNow], bool] | None = None

    async def page(self, search: str = "", before: str = "", opened: str = "") -> Response:
        now = datetime.now(UTC)
        async with self._reading() as connection:
            listed = await self._listed(connection, search, before)
            flow = await self._last_hour(connection, now)
            detail = await self._detail(connection, opened, now) if opened else {}
        return self._html("journeys.html", now=now, **listed, **flow, **detail)

    async def listed(self, search: str = "", before: str = "") -> Response:
        async with self._reading() as connection:
            listed = await self._listed(connection, search, before)
        return self._html("_list.html", now=datetime.now(UTC), **listed)

    async def flow(self) -> Response:
        now = datetime.now(UTC)
        async with self._reading() as connection:
            return self._html("_flow.html", **await self._last_hour(connection, now))

    async def opened(self, journey_id: str) -> Response:
        now = datetime.now(UTC)
        async with self._reading() as connection:
            return self._html("_journey.html", now=now, **await self._detail(connection, journey_id, now))

    async def dead_letters(self, before: str = "") -> Response:
        if before:
            _checked(DeadLetterId, before, "before")
        async with self._reading() as connection:
            letters, older = await store.dead_letter_page(connection, before=before or None)
        return self._html("dead_letters.html", letters=letters, older=older, before=before)

    async def healthy(self) -> Response:
        await self._database.ping()
        return JSONResponse({"status": "ok"})

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        async with self._database.transaction() as connection:
            await store.read_only(connection)
            yield connection

    async def _listed(self, connection: AsyncConnection, text: str, before: str) -> dict[str, Any]:
        if before:
            _checked(JourneyId, before, "before")
        search = service.parse_search(text[:_LONGEST_SEARCH]) if text.strip() else None
        understood = search is not None or not text.strip()
        page = store.Page([], None)
        if understood:
            page = await store.journeys(connection, search=search, before=before or None)
        return {
            "journeys": page.journeys,
            "older": page.older,
            "search": text[:_LONGEST_SEARCH],
            "understood": understood,
            "before": before,
        }

    async def _detail(self, connection: AsyncConnection, text: str, now: datetime) -> dict[str, Any]:
        journey_id = _checked(JourneyId, text, "journey")
        journey = await store.journey(connection, journey_id)
        if journey is None:
            raise Rejected("not-found", "Nothing is known of this journey: it never was, or it is forgotten.", instance=text)
        records = await store.records(connection, journey_id)
        return {
            "journey": journey,
            "records": records,
            "moving": journey.moving(now),
            "bars": service.waterfall(journey.began_at, journey.hops),
            "histories": [(payment, service.history(payment, records)) for payment in records.payments],
            "trace_id": trace_id(journey_id),
            "trace_page": self._trace_page.replace("{trace_id}", trace_id(journey_id)) if self._trace_page else None,
        }

    async def _last_hour(self, connection: AsyncConnection, now: datetime) -> dict[str, Any]:
        if self._flow is None or monotonic() - self._flow[0] > _FLOW_KEPT_S:
            counted = await store.counted(connection, now)
            self._flow = (monotonic(), service.flow(counted), counted.complete)
        _, stages, complete = self._flow
        return {"stages": stages, "complete": complete, "attention": await store.attention(connection, now)}

    def _html(self, template: str, status: int = 200, **values: Any) -> Response:
        return HTMLResponse(
            self._templates.get_template(template).render(values), status_code=status, headers={"Cache-Control": "no-store"}
        )

    def problem(self, request: Request, problem: Problem) -> Response:
        """A page for a browser, problem details for everything else."""
        headers = {"Allow": "GET"} if problem.status == 405 else {}
        if "text/html" in request.headers.get("accept", ""):
            response = self._html("problem.html", status=problem.status, problem=problem)
        else:
            response = JSONResponse(problem.body(), status_code=problem.status, media_type="application/problem+json")
        response.headers.update({**headers, "Cache-Control": "no-store"})
        return response


def _checked(type: type[Id], text: str, what: str) -> Any:
    try:
        return type(text)
    except ValueError as error:
        raise Rejected("not-found" if what == "journey" else "request-invalid", f"`{what}`: {error}") from error


def make_app(settings: Settings, database: Database) -> FastAPI:
    """The console as an ASGI application that reads `database`."""
    console = Console(settings, database)
    app = FastAPI(title="Augenblick console", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(packages=[("streams.console", "static")]))
    only_names_of_this_machine = _is_loopback(settings.console_host)

    @app.middleware("http")
    async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        if only_names_of_this_machine and not _is_loopback(request.url.hostname or ""):
            # Else a web page elsewhere could have its own name resolve to this machine, and read along.
            response = console.problem(
                request, Problem.of("not-found", "This console listens on this machine only, and answers to its names only.")
            )
        else:
            try:
                response = await answer(request)
            except Exception as error:
                response = console.problem(request, _problem_of(error))
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(Rejected)
    async def rejected(request: Request, error: Rejected) -> Response:
        return console.problem(request, error.problem)

    @app.exception_handler(StarletteHTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            return console.problem(request, Problem.of("method-not-allowed", "The console only shows: GET."))
        return console.problem(request, Problem.of("not-found", "The console has no such page."))

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        return console.problem(request, Problem.of("request-invalid", "The address has a part that cannot be read."))

    @app.get("/")
    async def home(search: str = "", before: str = "") -> Response:
        return await console.page(search, before)

    @app.get("/journeys/{journey_id}")
    async def opened(journey_id: str, search: str = "", before: str = "") -> Response:
        return await console.page(search, before, opened=journey_id)

    @app.get("/dead-letters")
    async def dead_letters(before: str = "") -> Response:
        return await console.dead_letters(before)

    @app.get("/parts/journeys")
    async def list_part(search: str = "", before: str = "") -> Response:
        return await console.listed(search, before)

    @app.get("/parts/journeys/{journey_id}")
    async def journey_part(journey_id: str) -> Response:
        return await console.opened(journey_id)

    @app.get("/parts/flow")
    async def flow_part() -> Response:
        return await console.flow()

    @app.get("/healthz")
    async def healthz() -> Response:
        return await console.healthy()

    return app


def _problem_of(error: Exception) -> Problem:
    if is_unavailable(error):
        return Problem.of("unavailable", "The database does not answer.")
    log.error("the console could not answer", exc_info=error)
    return Problem.of("internal", "The console could not answer; its log says why.")


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


# Rendering.


def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("streams.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"ms": _ms, "clock": _clock, "moment": _moment, "words": _words, "tone": _tone, "number": _number}
    environment.globals |= {"address": _address, "width": service.WIDTH}
    return environment


def _ms(value: float | None) -> str:
    """A duration as a person reads it; a dash where there is none."""
    if value is None:
        return "–"
    if abs(value) < 1000:
        return f"{value:.1f} ms" if abs(value) < 10 else f"{value:.0f} ms"
    seconds = value / 1000
    return f"{seconds:.2f} s" if abs(seconds) < 120 else f"{seconds / 60:.0f} min"


def _clock(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%H:%M:%S")


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _words(code: str | None) -> str:
    return (code or "").replace("_", " ")


def _number(value: int) -> str:
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


_TONES = {
    "good": {"paid", "answered", "succeeded", "delivered", "captured", "authorised"},
    "bad": {"declined", "failed", "no answer", "refused", "rejected", "unknown"},
    "still": {"look again", "cancelled", "expired", "refunded", "partially_refunded", "held"},
}


def _tone(outcome: str | None) -> str:
    """The colour's name, beside the word that says the same."""
    return next((tone for tone, words in _TONES.items() if outcome in words), "moving")


def _address(path: str, fragment: str = "", **values: str | None) -> str:
    """An address within the console, without what is empty."""
    query = urlencode({name: value for name, value in values.items() if value})
    return path + (f"?{query}" if query else "") + (f"#{fragment}" if fragment else "")
