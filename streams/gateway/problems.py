"""Every refusal of the gateway is problem details (RFC 9457); never a stack trace."""

import logging
from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from schemas.errors import Problem, Rejected, field_errors
from streams.core.database import is_unavailable
from streams.core.telemetry import metrics

log = logging.getLogger(__name__)

_BY_STATUS = {401: "credentials-missing", 404: "not-found", 405: "method-not-allowed", 413: "too-large"}


def response(problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer, counted."""
    metrics.count("augenblick.refusals", code=problem.code)
    extra = dict(headers or {})
    if problem.status == 401:
        extra["WWW-Authenticate"] = "Bearer"
    if problem.status == 503:
        extra.setdefault("Retry-After", "1")
    return JSONResponse(problem.body(), problem.status, headers=extra, media_type="application/problem+json")


def problem_of(error: Exception) -> Problem:
    """What the sender is told of an error. Of an unexpected one only a number to quote."""
    if isinstance(error, Rejected):
        return error.problem
    if is_unavailable(error) or _is_broker_error(error):
        return Problem.of("unavailable", "a part that is needed does not answer at the moment")
    reference = f"urn:uuid:{uuid4()}"
    log.error("unexpected error %s", reference, exc_info=error)
    return Problem.of("internal", "an unexpected error; it has been recorded", instance=reference)


def _is_broker_error(error: Exception) -> bool:
    from aiokafka.errors import KafkaError

    return isinstance(error, KafkaError)


def install(app: FastAPI) -> None:
    """Exception handlers for everything that can go wrong in a request."""

    async def rejected(request: Request, error: Exception) -> JSONResponse:
        return response(problem_of(error))

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        errors = field_errors([dict(item) for item in error.errors()])
        return response(Problem.of("request-invalid", "the request does not fit its schema", errors=errors))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code = _BY_STATUS.get(error.status_code)
        if code is None:
            code = "message-malformed" if error.status_code < 500 else "internal"
        headers: Any = error.headers
        return response(Problem.of(code, f"{request.method} {request.url.path}"), headers)

    app.add_exception_handler(Rejected, rejected)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, rejected)
