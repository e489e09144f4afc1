"""An ONNX embedder on the real server: it answers, chooses in large catalogues, or is refused and the others serve without it."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc.aio as grpc
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from infra.local.stack import LocalStack
from infra.triton.vision import match
from infra.triton.vision.features import Features
from infra.triton.vision.parameters import PARAMETERS
from streams.catalogues.store import Models
from streams.sightings.picture_models import TritonPictureModels
from tests.support import own_embedder
from tests.support.groceries import catalogue_picture, photograph, pixels, publish
from tests.support.servers import local_stack

pytestmark = pytest.mark.timeout(300)

SHOWN, PHOTOGRAPH = "Oatly-Oat-Milk", "Oatly-Oat-Milk_003"
OTHER = "Arla-Natural-Yoghurt"
ID = "mean-colour-1"


@asynccontextmanager
async def server(manifest: Path, root: Path) -> AsyncIterator[tuple[LocalStack, grpc.InferenceServerClient]]:
    async with local_stack(root, "triton", configured={"AUGENBLICK_EMBEDDER_MANIFEST": str(manifest)}) as stack:
        client = grpc.InferenceServerClient(stack.environment["TRITON_URL"])
        try:
            yield stack, client
        finally:
            await client.close()


async def ask(client: grpc.InferenceServerClient, model: str, jpeg: bytes, **options: Any) -> Any:
    image = grpc.InferInput("IMAGE", [1, len(jpeg)], "UINT8")
    image.set_data_from_numpy(np.frombuffer(jpeg, np.uint8)[None])
    told = grpc.InferInput("OPTIONS", [1, 1], "BYTES")
    told.set_data_from_numpy(np.array([[json.dumps(options).encode()]], np.object_))
    return await client.infer(model, [image, told], client_timeout=60)


def result(answer: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(answer.as_numpy("RESULT")[0, 0])
    return told


async def features_of(client: grpc.InferenceServerClient, product: str) -> Features:
    return Features.from_bytes((await ask(client, "features", catalogue_picture(product))).as_numpy("FEATURES").tobytes())


def large_catalogue(directory: Path, name: str, shown: Features, other: Features) -> str:
    """`shown` among so many pictures of another product, `other`, that a first stage has to choose."""
    decoys = [(f"other-{number}", other.to_bytes()) for number in range(match.EXHAUSTIVE_UP_TO)]
    blobs = [*decoys[:100], (SHOWN, shown.to_bytes()), *decoys[100:]]
    publish(directory, name, blobs, matcher=PARAMETERS.matcher, embedder=ID)
    return name


def embedding(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """By the same model, computed here. It looks at the mean colour, which resizing keeps."""
    return own_embedder.run(picture[None, :, :, ::-1])[0]


async def test_it_answers_and_chooses_in_a_large_catalogue(tmp_path: Path) -> None:
    async with server(own_embedder.bring(tmp_path), tmp_path / "stack") as (stack, client):
        assert not [note for note in stack.notes if "without the model" in note], stack.notes

        picture = np.random.default_rng(1).integers(0, 256, (own_embedder.HEIGHT, own_embedder.WIDTH, 3), dtype=np.uint8)
        image = grpc.InferInput("IMAGE", [1, *picture.shape], "UINT8")
        image.set_data_from_numpy(picture[None])
        answer = (await client.infer("embedder", [image], client_timeout=10)).as_numpy("EMBEDDING")
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, own_embedder.run(picture[None]), atol=1e-5)

        # Pixels come from anybody: too many are refused, and so are none.
        for height, width, reason in ((5000, 4001, "20,005,000 pixels"), (0, 4, "IMAGE")):
            refused = grpc.InferInput("IMAGE", [1, height, width, 3], "UINT8")
            refused.set_data_from_numpy(np.zeros((1, height, width, 3), np.uint8))
            with pytest.raises(InferenceServerException, match=reason) as failure:
                await client.infer("embedder", [refused], client_timeout=30)
            assert failure.value.status() == "StatusCode.INVALID_ARGUMENT"

        # `features` has asked it, and says so.
        shown, other = await features_of(client, SHOWN), await features_of(client, OTHER)
        np.testing.assert_allclose(shown.embedding, embedding(pixels(catalogue_picture(SHOWN))), atol=0.02)
        told = result(await ask(client, "features", catalogue_picture(SHOWN)))
        assert (told["matcher"], told["embedder"]) == (PARAMETERS.matcher, ID)

        # So does `match`: the same local features are found by the embedding that is the frame's, and passed over by one that
        # is further from it than everybody else's.
        frame = embedding(pixels(photograph(PHOTOGRAPH)))
        directory = Path(stack.environment["AUGENBLICK_CATALOGUE_DIRECTORY"])
        far = replace(other, embedding=-frame)
        near = large_catalogue(directory, "near", replace(shown, embedding=frame), far)
        passed_over = large_catalogue(directory, "passed-over", replace(shown, embedding=-frame), replace(other, embedding=frame))
        models = TritonPictureModels(stack.environment["TRITON_URL"])
        try:
            assert await models.identify() == Models(PARAMETERS.matcher, ID)
            await models.open(near)
        finally:
            await models.close()
        found = result(await ask(client, "match", photograph(PHOTOGRAPH), snapshots=[near]))
        assert found["matcher"] == PARAMETERS.scorer
        assert found["candidates"][0]["product_id"] == SHOWN and found["candidates"][0]["inliers"] >= 20
        missed = result(await ask(client, "match", photograph(PHOTOGRAPH), snapshots=[passed_over], candidates=50))
        assert missed["candidates"] and SHOWN not in {one["product_id"] for one in missed["candidates"]}


async def test_a_model_that_breaks_its_promise_is_refused_and_the_others_serve(tmp_path: Path) -> None:
    manifest = own_embedder.bring(tmp_path)
    golden = tmp_path / "golden.json"
    golden.write_text(golden.read_text().replace("[", "[-", 1).replace("--", ""))
    async with server(manifest, tmp_path / "stack") as (stack, client):
        assert any("without the model embedder" in note and "golden vector differs" in note for note in stack.notes), stack.notes
        assert not await client.is_model_ready("embedder")
        for name in ("codes", "ocr", "match", "features"):
            assert await client.is_model_ready(name)
        # A catalogue that needs it is not made, and not looked into; a small one, whose pictures are all compared, serves.
        with pytest.raises(InferenceServerException, match="the model embedder does not answer") as failure:
            await ask(client, "features", catalogue_picture(SHOWN))
        assert failure.value.status() == "StatusCode.UNAVAILABLE"
        without = await ask(client, "features", catalogue_picture(SHOWN), embedding=False)
        assert result(without)["embedder"] is None
        features = Features.from_bytes(without.as_numpy("FEATURES").tobytes())
        features = replace(features, embedding=own_embedder.run(np.zeros((1, 4, 4, 3), np.uint8))[0])
        directory = Path(stack.environment["AUGENBLICK_CATALOGUE_DIRECTORY"])
        publish(directory, "small", [(SHOWN, features.to_bytes())], matcher=PARAMETERS.matcher, embedder=ID)
        large = large_catalogue(directory, "large", features, features)
        found = result(await ask(client, "match", photograph(PHOTOGRAPH), snapshots=[large, "small"]))
        assert found["candidates"][0]["product_id"] == SHOWN
        assert "the model embedder does not answer" in found["refused"][large]


async def test_a_manifest_that_does_not_fit_its_model_leaves_all_the_others(tmp_path: Path) -> None:
    manifest = own_embedder.bring(tmp_path)
    manifest.write_text(re.sub(r'sha256 = "[0-9a-f]{8}', 'sha256 = "00000000', manifest.read_text()))
    async with server(manifest, tmp_path / "stack") as (stack, client):
        assert any("without the model embedder" in note and "SHA-256" in note for note in stack.notes), stack.notes
        with pytest.raises(InferenceServerException, match="SHA-256") as failure:
            await ask(client, "features", catalogue_picture(SHOWN))
        assert failure.value.status() == "StatusCode.UNAVAILABLE"
        made = (await ask(client, "features", catalogue_picture(SHOWN), embedding=False)).as_numpy("FEATURES").tobytes()
        directory = Path(stack.environment["AUGENBLICK_CATALOGUE_DIRECTORY"])
        publish(directory, "from-before", [(SHOWN, made)], matcher=PARAMETERS.matcher)
        found = result(await ask(client, "match", photograph(PHOTOGRAPH), snapshots=["from-before"]))
        assert found["candidates"][0]["product_id"] == SHOWN
