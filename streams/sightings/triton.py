"""Triton's client. One per process; the frame goes as it came, encoded, and stays within the deadline of its capture."""

import json
from typing import Protocol

import grpc
import numpy
from opentelemetry.trace import SpanKind
from pydantic import BaseModel, ConfigDict, TypeAdapter
from tritonclient.grpc import aio as triton
from tritonclient.utils import InferenceServerException

from schemas.recognition import Code, PayeeCode
from streams.core.telemetry import names, tracing
from streams.sightings import payee_codes
from streams.sightings.payee_codes import PayersCode
from streams.sightings.service import gtin_of


class Unreadable(Exception):
    """The frame is not one the model can decode."""


class Unavailable(Exception):
    """The model did not answer in time, or not at all."""


class Recogniser(Protocol):
    model: str

    async def codes(self, frame: bytes, timeout_s: float) -> tuple[Code, ...]:
        """Every code in the frame. Raises Unreadable or Unavailable."""


class _Read(BaseModel):
    """One entry of the model's answer; see infra/triton/model_repository/codes/config.pbtxt."""

    model_config = ConfigDict(extra="ignore")

    text: str
    format: str
    corners: tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]
    valid: bool


_READS = TypeAdapter(list[_Read], config=ConfigDict(hide_input_in_errors=True))
_PAYEE_FORMATS = frozenset({"QRCode"})
_AT_MOST = 64  # codes of one frame; see schemas.recognition.Recognition
_REFUSED = {"StatusCode.INVALID_ARGUMENT"}


def _code(read: _Read) -> Code:
    """The text of what is no product's code may be anybody's (a payment code, a ticket, a contact): it stops here."""
    if gtin := gtin_of(read.text, read.format):
        return Code(text=read.text, format=read.format, corners=read.corners, gtin=gtin)
    if payee_codes.is_payers_code(read.text):
        return PayersCode(text="", format=read.format, corners=read.corners)
    return Code(text="", format=read.format, corners=read.corners, payee=_payee(read))


def _payee(read: _Read) -> PayeeCode | None:
    if read.format not in _PAYEE_FORMATS:
        return None
    try:
        return payee_codes.read(read.text)
    except payee_codes.NotAPayeesCode:
        return None


class TritonRecogniser:
    """`url` is host:port of Triton's gRPC service. Reconnects by itself."""

    model = "codes:1"

    def __init__(self, url: str) -> None:
        self._client = triton.InferenceServerClient(url)

    async def codes(self, frame: bytes, timeout_s: float) -> tuple[Code, ...]:
        image = triton.InferInput("IMAGE", [1, len(frame)], "UINT8")
        image.set_data_from_numpy(numpy.frombuffer(frame, dtype=numpy.uint8).reshape(1, -1))
        attributes = {names.RPC_SYSTEM: "grpc", names.RPC_SERVICE: "inference.GRPCInferenceService", names.MODEL: "codes"}
        with tracing.span("infer codes", kind=SpanKind.CLIENT, attributes={**attributes, names.RPC_METHOD: "ModelInfer"}):
            traceparent = tracing.current_traceparent()
            try:
                answer = await self._client.infer(
                    "codes",
                    [image],
                    timeout=int(timeout_s * 1e6),
                    client_timeout=timeout_s,
                    headers={"traceparent": traceparent} if traceparent else None,
                )
            except InferenceServerException as error:
                if error.status() in _REFUSED:
                    raise Unreadable from error
                raise Unavailable(error.status() or "no status") from error
            except grpc.RpcError as error:
                raise Unavailable(type(error).__qualname__) from error
        result = answer.as_numpy("RESULT")
        reads = _READS.validate_python(json.loads(result.reshape(-1)[0]))
        return tuple(_code(read) for read in reads if read.valid)[:_AT_MOST]

    async def close(self) -> None:
        await self._client.close()
