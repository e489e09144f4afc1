"""Triton's client: one per process, all models over one connection. The frame goes as it came, encoded, and every call stays
within the time it is given: what is not answered by then is cancelled there, too.

A call raises `Unreadable`, `Late` or `Failed`, and nothing else; what failed is asked again with the next frame, so that a model
or a server that comes back is used at once.
"""

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
import numpy
from opentelemetry.trace import SpanKind
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from tritonclient.grpc import aio as triton
from tritonclient.utils import InferenceServerException

from schemas.recognition import Point
from streams.core.telemetry import names, tracing
from streams.sightings.codes import Read

log = logging.getLogger(__name__)

MAXIMUM_BYTES = 16 * 1024 * 1024
"""Of an encoded picture; larger ones are not sent. Glasses' frames are stopped at 2 MiB by the gateway."""

_FOR_THE_WAY_S = 0.005  # of a call's time: the model has to end so much earlier than its caller stops waiting
_CODES_AT_MOST = 64  # of one frame; see schemas.recognition.Recognition
_LATE = {"StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED"}
_REFUSED = {"StatusCode.INVALID_ARGUMENT"}
# A server that comes back is found within a second: gRPC's own backoff grows to two minutes. Giving options replaces the client's
# own, of which the unlimited message sizes are needed.
_CHANNEL = (
    ("grpc.max_send_message_length", MAXIMUM_BYTES + 1024 * 1024),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_retries", 0),
    ("grpc.lb_policy_name", "round_robin"),  # over all addresses that the name has
)

Result = TypeVar("Result")


class Unreadable(Exception):
    """The picture is not one the model can decode."""


class Late(Exception):
    """The model did not answer in time."""


class Failed(Exception):
    """The model, or the whole server, cannot answer now. The message holds nothing of the frame."""


@dataclass(frozen=True)
class Answered(Generic[Result]):
    """`by` is the model with its version, as `codes:1`."""

    result: Result
    by: str


class _Shape(BaseModel):
    """What a model says; more than is known here does no harm."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Line(_Shape):
    """A line of text, and where it is in the frame, in pixels, clockwise from its own top left. `characters`: how certain each of
    its characters is."""

    text: str
    confidence: float
    corners: tuple[Point, Point, Point, Point]
    characters: tuple[float, ...] = ()


class Text(_Shape):
    width: int
    height: int
    lines: tuple[Line, ...]


class Quality(_Shape):
    """Of the whole frame; see infra/triton/vision/quality.py."""

    sharpness: float
    brightness: float
    glare: float
    texture: float


class Codes(_Shape):
    """`unread` were seen, and their text is not known; the largest first. `quality` is there where no code was read."""

    model_config = ConfigDict(hide_input_in_errors=True)

    width: int
    height: int
    quality: Quality | None = None
    codes: tuple[Read, ...] = ()

    @property
    def read(self) -> tuple[Read, ...]:
        return tuple(read for read in self.codes if read.valid)[:_CODES_AT_MOST]

    @property
    def unread(self) -> tuple[Read, ...]:
        return tuple(read for read in self.codes if not read.valid)


class Matched(_Shape):
    """A product that the frame may show. `score` grows with certainty; `points` are those that agree, where they were asked
    for."""

    snapshot: str
    product_id: str
    score: float = Field(allow_inf_nan=False)
    inliers: int
    colour: float | None = None
    outline: tuple[Point, Point, Point, Point] | None = None
    points: tuple[Point, ...] = ()


class Matches(_Shape):
    """`candidates` are best first. `refused`: snapshots that could not be used, and why."""

    matcher: str
    width: int
    height: int
    quality: Quality
    candidates: tuple[Matched, ...] = ()
    refused: dict[str, str] = Field(default_factory=dict)


_CODES: TypeAdapter[Codes] = TypeAdapter(Codes)
_TEXT: TypeAdapter[Text] = TypeAdapter(Text)
_MATCHES: TypeAdapter[Matches] = TypeAdapter(Matches)


class Models:
    """`url` is host:port of Triton's gRPC service. Reconnects by itself."""

    def __init__(self, url: str) -> None:
        self._client = triton.InferenceServerClient(url, channel_args=list(_CHANNEL))

    async def codes(self, frame: bytes, time_s: float, *, search_s: float = 60.0, every: bool = False) -> Answered[Codes]:
        """The codes in the frame. `time_s` is how long the answer is waited for, as in all of these; `search_s` how long the
        model may look for codes that cannot be seen at once. With `every` it looks for what is beside a product's plain code."""
        return await self._ask("codes", frame, time_s, {"every": every}, _CODES, search_s)

    async def ocr(self, frame: bytes, time_s: float) -> Answered[Text]:
        """Every line of text in the frame."""
        return await self._ask("ocr", frame, time_s, {}, _TEXT)

    async def match(
        self, frame: bytes, time_s: float, snapshots: Sequence[str], *, candidates: int = 5, explain: bool = False
    ) -> Answered[Matches]:
        """The products of these snapshots that the frame may show, at most so many `candidates` of each. With `explain` it says
        which points agree."""
        options = {"snapshots": list(snapshots), "candidates": candidates, "explain": explain}
        return await self._ask("match", frame, time_s, options, _MATCHES)

    async def is_ready(self, model: str, time_s: float = 1.0) -> bool:
        try:
            return bool(await self._client.is_model_ready(model, client_timeout=time_s))
        except (InferenceServerException, grpc.RpcError):
            return False

    async def close(self) -> None:
        await self._client.close()

    async def _ask(
        self,
        model: str,
        frame: bytes,
        time_s: float,
        options: Mapping[str, Any],
        shape: TypeAdapter[Result],
        work_s: float = math.inf,
    ) -> Answered[Result]:
        if len(frame) > MAXIMUM_BYTES:
            raise Unreadable(f"a picture of more than {MAXIMUM_BYTES:,} bytes is not sent")
        if time_s <= 0:
            raise Late(model)
        time_left_s = max(min(time_s - _FOR_THE_WAY_S, work_s), 0.001)
        attributes = {names.RPC_SYSTEM: "grpc", names.RPC_SERVICE: "inference.GRPCInferenceService", names.MODEL: model}
        with tracing.span(f"infer {model}", kind=SpanKind.CLIENT, attributes={**attributes, names.RPC_METHOD: "ModelInfer"}):
            traceparent = tracing.current_traceparent()
            try:
                answer = await self._client.infer(
                    model,
                    _inputs(
                        frame, {**options, "time_left_ms": round(time_left_s * 1000, 1), "sent_at_ms": round(time.time() * 1000)}
                    ),
                    timeout=int(time_s * 1e6),
                    client_timeout=time_s,
                    headers={"traceparent": traceparent} if traceparent else None,
                )
                result = answer.as_numpy("RESULT")
                if result is None:
                    raise Failed(f"{model} has no RESULT")
                return Answered(shape.validate_json(result.reshape(-1)[0]), f"{model}:{answer.get_response().model_version}")
            except InferenceServerException as error:
                raise _refusal(model, error) from error
            except grpc.RpcError as error:
                raise Failed(f"{model}: {type(error).__qualname__}") from error
            except (ValidationError, ValueError):
                # Without what was answered: it is what the frame shows.
                raise Failed(f"{model} answers in another form than is known here") from None


def _inputs(frame: bytes, options: Mapping[str, Any]) -> list[triton.InferInput]:
    image = triton.InferInput("IMAGE", [1, len(frame)], "UINT8")
    image.set_data_from_numpy(numpy.frombuffer(frame, dtype=numpy.uint8).reshape(1, -1))
    said = triton.InferInput("OPTIONS", [1, 1], "BYTES")
    said.set_data_from_numpy(numpy.array([[json.dumps(options, separators=(",", ":")).encode()]], dtype=numpy.object_))
    return [image, said]


def _refusal(model: str, error: InferenceServerException) -> Exception:
    """What is refused as no picture is so for `codes` alone: another model may mean its options, and says which; our models name
    nothing of the frame."""
    status = error.status()
    if status in _LATE:
        return Late(model)
    if status in _REFUSED and model == "codes":
        return Unreadable(model)
    return Failed(f"{model}: {error.message() if status in _REFUSED else status}")
