"""The models `features` and `match` on a real tritonserver: by what one makes of catalogue pictures, the other knows products."""

import asyncio
import json
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import cv2
import numpy
import psutil
import pytest
from tritonclient.grpc import aio as client_library
from tritonclient.utils import InferenceServerException

from infra.local.stack import LocalStack
from infra.triton import profiles
from infra.triton.server import MODEL_REPOSITORY
from infra.triton.vision import extract
from infra.triton.vision.features import Features
from infra.triton.vision.parameters import PARAMETERS
from streams.sightings.picture_models import TritonPictureModels
from tests.integration.test_serving import Served, served
from tests.support.frames import blank_jpeg
from tests.support.groceries import OF_NO_PRODUCT, PRODUCTS, SHOWN, catalogue_picture, photograph, pixels, publish


@pytest.fixture
async def client(triton_url: str) -> AsyncIterator[client_library.InferenceServerClient]:
    client = client_library.InferenceServerClient(triton_url)
    yield client
    await client.close()


@pytest.fixture
def directory(triton: LocalStack) -> Path:
    return Path(triton.environment["AUGENBLICK_CATALOGUE_DIRECTORY"])


@pytest.fixture
async def snapshot(client: client_library.InferenceServerClient, directory: Path) -> str:
    """Of features that the server made."""
    blobs = []
    for product in PRODUCTS:
        answer = await infer(client, "features", catalogue_picture(product))
        blobs.append((product, answer.as_numpy("FEATURES").tobytes()))
    name = f"shop-1-{uuid4().hex[:12]}"
    publish(directory, name, blobs, matcher=PARAMETERS.matcher)
    return name


async def infer(client: client_library.InferenceServerClient, model: str, jpeg: bytes, options: Any = None) -> Any:
    image = client_library.InferInput("IMAGE", [1, len(jpeg)], "UINT8")
    image.set_data_from_numpy(numpy.frombuffer(jpeg, dtype=numpy.uint8).reshape(1, -1))
    inputs = [image]
    if options is not None:
        told = client_library.InferInput("OPTIONS", [1, 1], "BYTES")
        told.set_data_from_numpy(numpy.array([[json.dumps(options).encode()]], dtype=numpy.object_))
        inputs.append(told)
    return await client.infer(model, inputs, client_timeout=60)


async def match(client: client_library.InferenceServerClient, jpeg: bytes, **options: Any) -> dict[str, Any]:
    result = (await infer(client, "match", jpeg, options)).as_numpy("RESULT")
    assert result.shape == (1, 1)
    answer: dict[str, Any] = json.loads(result[0, 0])
    return answer


async def refusal(client: client_library.InferenceServerClient, model: str, jpeg: bytes, options: Any = None) -> str:
    with pytest.raises(InferenceServerException) as refused:
        await infer(client, model, jpeg, options)
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT", refused.value
    return str(refused.value.message())


async def test_what_the_server_made_is_recognised_by_it(client: client_library.InferenceServerClient, snapshot: str) -> None:
    unknown = (await match(client, photograph(OF_NO_PRODUCT), snapshots=[snapshot]))["candidates"]
    for photo, product in SHOWN.items():
        answer = await match(client, photograph(photo), snapshots=[snapshot], candidates=2, time_left_ms=20_000, explain=True)
        first = answer["candidates"][0]
        assert (first["product_id"], first["snapshot"]) == (product, snapshot)
        assert first["score"] > max(one["score"] for one in unknown) + 3
        assert len(first["points"]) == first["inliers"] >= 20 and len(first["outline"]) == 4
        assert len(answer["candidates"]) <= 2
        assert answer["matcher"] == PARAMETERS.scorer
        assert answer["quality"].keys() == {"sharpness", "brightness", "glare", "texture"}


async def test_features_are_what_they_are_here(client: client_library.InferenceServerClient) -> None:
    """The server's environment has another numpy and another OpenCV; a snapshot is good for both."""
    answer = await infer(client, "features", catalogue_picture("Oatly-Oat-Milk"))
    told = json.loads(answer.as_numpy("RESULT")[0, 0])
    features = Features.from_bytes(answer.as_numpy("FEATURES").tobytes())
    expected = {"matcher": PARAMETERS.matcher, "embedder": None, "points": len(features.points), "width": 198, "height": 198}
    assert told == expected
    assert max(features.size) == PARAMETERS.catalogue_side


async def test_what_cannot_be_used_is_refused_with_its_reason(
    client: client_library.InferenceServerClient, directory: Path, snapshot: str
) -> None:
    photo = photograph("Oatly-Oat-Milk_003")
    other = f"other-{uuid4().hex[:12]}"
    publish(directory, other, [], matcher="orb-7")
    assert "matcher 'orb-7'" in await refusal(client, "match", photo, {"snapshots": [other]})
    assert "is not there" in await refusal(client, "match", photo, {"snapshots": ["gone-1-abc"]})
    assert "name" in await refusal(client, "match", photo, {"snapshots": ["../secrets"]})
    assert "unknown key" in await refusal(client, "match", photo, {"snapshot": snapshot})
    assert "not a JPEG" in await refusal(client, "match", b"no picture", {"snapshots": [snapshot]})
    blank = cv2.imencode(".jpg", numpy.full((64, 64, 3), 255, numpy.uint8))[1].tobytes()
    assert "points to recognise it by" in await refusal(client, "features", blank)
    answer = await match(client, photo, snapshots=[snapshot, other])
    assert answer["candidates"][0]["product_id"] == "Oatly-Oat-Milk" and list(answer["refused"]) == [other]


async def test_a_frame_without_anything_in_it_is_answered(client: client_library.InferenceServerClient, snapshot: str) -> None:
    answer = await match(client, blank_jpeg(), snapshots=[snapshot])
    assert all(one["inliers"] < 8 for one in answer["candidates"])
    assert answer["quality"]["texture"] < 6


async def test_a_snapshot_is_opened_by_every_instance_before_it_is_used(tmp_path: Path) -> None:
    source, overrides = tmp_path / "source", tmp_path / "overrides"
    shutil.copytree(MODEL_REPOSITORY / "match", source / "match")
    overrides.mkdir()
    (overrides / "match.pbtxt").write_text("instance_group [ { kind: KIND_CPU, count: 2 } ]")
    profiles.render("cpu", tmp_path / "models", overrides, repository=source)
    async with served(tmp_path / "stack", tmp_path / "models") as running:
        place = await published(running)
        await opened(running.server.environment()["TRITON_URL"])
        assert await opened_by(running, place) == [True, True]


async def test_a_snapshot_is_opened_by_every_server_that_the_name_stands_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    shutil.copytree(MODEL_REPOSITORY / "match", source / "match")
    profiles.render("cpu", tmp_path / "models", repository=source)
    async with served(tmp_path / "one", tmp_path / "models") as one, served(tmp_path / "two", tmp_path / "models") as two:
        places = [await published(each) for each in (one, two)]
        url = one.server.environment()["TRITON_URL"]
        port = int(url.rpartition(":")[2])

        async def pods(*_: object, **__: object) -> list[tuple[object, ...]]:
            """As a service in Kubernetes that has no address of its own: here, and there, and a pod that is gone."""
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{pod}", port)) for pod in (1, 2, 3)]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", pods)
        async with forwarded("127.0.0.2", port, two.server.environment()["TRITON_URL"]):
            await opened(url)
        assert [await opened_by(each, place) for each, place in zip((one, two), places, strict=True)] == [[True], [True]]


@asynccontextmanager
async def forwarded(host: str, port: int, to: str) -> AsyncIterator[None]:
    """Bytes, both ways."""
    there, _, its_port = to.rpartition(":")

    async def copied(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The loop's own look-up of names is the test's.
        onwards = await asyncio.open_connection(sock=socket.create_connection((there, int(its_port))))
        await asyncio.gather(copied(reader, onwards[1]), copied(onwards[0], writer))

    async with await asyncio.start_server(connected, sock=socket.create_server((host, port))):
        yield


async def published(running: Served) -> Path:
    directory = Path(running.server.environment()["AUGENBLICK_CATALOGUE_DIRECTORY"])
    features = extract.of_catalogue_picture(pixels(catalogue_picture("Oatly-Oat-Milk"))).to_bytes()
    return publish(directory, "shop-1-abc", [("oatly", features)], matcher=PARAMETERS.matcher)


async def opened(url: str) -> None:
    models = TritonPictureModels(url)
    try:
        await models.open("shop-1-abc")
    finally:
        await models.close()


async def opened_by(running: Served, place: Path) -> list[bool]:
    """For each instance of `match`, whether it looks into the snapshot at `place`."""
    server = psutil.Process(running.supervisor.status("triton").pid)
    instances = [each for each in server.children(recursive=True) if "/match/1/model.py" in " ".join(each.cmdline())]
    return [str(place / "features.bin") in {each.path for each in instance.memory_maps()} for instance in instances]
