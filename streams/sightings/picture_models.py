"""Triton's client for importing catalogues: features of catalogue pictures, and opening a snapshot before anybody waits for it.
Nobody wears glasses here: there is time, and what a model says against a picture or a snapshot is passed on."""

import asyncio
import io
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy
from PIL import Image, ImageDraw
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tritonclient.grpc import aio as triton
from tritonclient.utils import InferenceServerException

from schemas.errors import Misconfigured, Retryable
from streams.catalogues.service import Extracted, TooLittleShown
from streams.catalogues.store import Models

_TIME_S = 30.0
_OPENING_S = 300.0  # a snapshot of 10^5 products is gigabytes, and may be indexed when it is opened
_REFUSED = "StatusCode.INVALID_ARGUMENT"
_UNAVAILABLE = {"StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED"}


class _Features(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    matcher: str = Field(min_length=1)
    embedder: str | None = None
    points: int = Field(ge=0)


class _Match(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    matcher: str


class _Refused(Exception):
    """The model does not take this picture or this snapshot. The message is the model's."""


class TritonPictureModels:
    """`url` is host:port of Triton's gRPC service; `host` may have several addresses. See
    `streams.catalogues.service.PictureModels`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = triton.InferenceServerClient(url)

    async def identify(self) -> Models:
        try:
            return (await self._extract(_probe())).models
        except _Refused as refused:
            raise Misconfigured(f"Triton's model `features` cannot be used: {refused}") from None

    async def extract(self, jpeg: bytes) -> Extracted:
        try:
            return await self._extract(jpeg)
        except _Refused as refused:
            raise TooLittleShown(str(refused)) from None

    async def open(self, name: str) -> None:
        try:
            # The first makes what the others find beside the snapshot.
            await self._open(self._client, name)
            await asyncio.gather(*(self._open_everywhere(address, name) for address in await _addresses(self.url)))
        except _Refused as refused:
            raise Misconfigured(
                f"Triton cannot use the snapshot: {refused}. It has to see the same AUGENBLICK_CATALOGUE_DIRECTORY as this "
                "command, and to run the models that made the snapshot."
            ) from None
        except ValidationError:
            raise Misconfigured("Triton's model `match` answers in another form than is known here.") from None

    async def close(self) -> None:
        await self._client.close()

    async def _open_everywhere(self, address: str, name: str) -> None:
        """By every instance of the server at one address. One that does not answer now opens it with its first frame."""
        client = triton.InferenceServerClient(address)
        try:
            with suppress(Retryable):
                instances = await self._instances(client, "match")
                await asyncio.gather(*(self._open(client, name) for _ in range(instances)))
        finally:
            await client.close()

    async def _open(self, client: triton.InferenceServerClient, name: str) -> None:
        answer = await self._infer(client, "match", _probe(), {"snapshots": [name], "candidates": 1}, _OPENING_S)
        _Match.model_validate_json(answer.as_numpy("RESULT").reshape(-1)[0])

    async def _instances(self, client: triton.InferenceServerClient, model: str) -> int:
        """How many there are, each of which takes one of as many requests at once."""
        with self._errors_of(model):
            configuration = (await client.get_model_config(model, client_timeout=_TIME_S)).config
        return sum(group.count * max(1, len(group.gpus)) for group in configuration.instance_group)

    async def _extract(self, jpeg: bytes) -> Extracted:
        answer = await self._infer(self._client, "features", jpeg, None, _TIME_S)
        features = answer.as_numpy("FEATURES")
        try:
            said = _Features.model_validate_json(answer.as_numpy("RESULT").reshape(-1)[0])
        except ValidationError:
            raise Misconfigured("Triton's model `features` answers in another form than is known here.") from None
        return Extracted(Models(said.matcher, said.embedder), features.tobytes(), said.points)

    async def _infer(
        self, client: triton.InferenceServerClient, model: str, jpeg: bytes, options: dict[str, Any] | None, time_s: float
    ) -> Any:
        image = triton.InferInput("IMAGE", [1, len(jpeg)], "UINT8")
        image.set_data_from_numpy(numpy.frombuffer(jpeg, dtype=numpy.uint8).reshape(1, -1))
        inputs = [image]
        if options is not None:
            said = triton.InferInput("OPTIONS", [1, 1], "BYTES")
            said.set_data_from_numpy(numpy.array([[json.dumps(options).encode()]], dtype=numpy.object_))
            inputs.append(said)
        with self._errors_of(model):
            return await client.infer(model, inputs, client_timeout=time_s)

    @contextmanager
    def _errors_of(self, model: str) -> Iterator[None]:
        try:
            yield
        except InferenceServerException as error:
            if error.status() == _REFUSED:
                raise _Refused(error.message()) from error
            if error.status() in _UNAVAILABLE:
                raise Retryable(
                    f"Triton at {self.url} does not answer: {error.message()}. Is it running, and is its model `{model}` ready?"
                ) from error
            raise Misconfigured(f"Triton's model `{model}` failed: {error.message()}") from error
        except grpc.RpcError as error:
            raise Retryable(f"Triton at {self.url} does not answer ({type(error).__qualname__}).") from error


async def _addresses(url: str) -> list[str]:
    """All that a name stands for, each with its port: of a service in Kubernetes that has no address of its own, every pod's.
    What is written in another form that gRPC knows, or cannot be looked up here, is one address."""
    try:
        there = urlsplit(f"//{url}")
        if there.hostname is None or there.port is None:
            return [url]
        found = await asyncio.get_running_loop().getaddrinfo(there.hostname, there.port, type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return [url]
    hosts = dict.fromkeys(str(address[0]) for *_, address in found)
    return [f"[{host}]:{there.port}" if ":" in host else f"{host}:{there.port}" for host in hosts]


def _probe() -> bytes:
    """A picture of nobody's product, with a few corners in it."""
    picture = Image.new("RGB", (160, 160), "white")
    draw = ImageDraw.Draw(picture)
    for number in range(1, 6):
        draw.rectangle((20 * number, 15 * number, 20 * number + 25, 15 * number + 12 + 5 * number), fill=(40 * number, 20, 90))
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=90)
    return written.getvalue()
