"""An ONNX embedder on the real server: it answers, or it is refused and the others serve without it."""

from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc.aio as grpc

from tests.support import own_embedder
from tests.support.servers import local_stack

pytestmark = pytest.mark.timeout(300)


async def test_it_answers_through_onnxruntime(tmp_path: Path) -> None:
    manifest = own_embedder.bring(tmp_path)
    picture = np.random.default_rng(1).integers(0, 256, (own_embedder.HEIGHT, own_embedder.WIDTH, 3), dtype=np.uint8)
    configured = {"AUGENBLICK_EMBEDDER_MANIFEST": str(manifest)}
    async with local_stack(tmp_path / "stack", "triton", configured=configured) as stack:
        assert not [note for note in stack.notes if "embedder" in note]
        client = grpc.InferenceServerClient(stack.environment["TRITON_URL"])
        try:
            image = grpc.InferInput("IMAGE", [1, *picture.shape], "UINT8")
            image.set_data_from_numpy(picture[None])
            answer = await client.infer("embedder", [image], client_timeout=10)
        finally:
            await client.close()
    embedding = answer.as_numpy("EMBEDDING")
    assert embedding.dtype == np.float32
    np.testing.assert_allclose(embedding, own_embedder.run(picture[None]), atol=1e-5)


async def test_a_model_that_breaks_its_promise_is_refused_and_the_others_serve(tmp_path: Path) -> None:
    manifest = own_embedder.bring(tmp_path)
    golden = tmp_path / "golden.json"
    golden.write_text(golden.read_text().replace("[", "[-", 1).replace("--", ""))
    configured = {"AUGENBLICK_EMBEDDER_MANIFEST": str(manifest)}
    async with local_stack(tmp_path / "stack", "triton", configured=configured) as stack:
        assert any("without the model embedder" in note and "golden vector differs" in note for note in stack.notes), stack.notes
        client = grpc.InferenceServerClient(stack.environment["TRITON_URL"])
        try:
            assert await client.is_model_ready("codes")
            assert not await client.is_model_ready("embedder")
        finally:
            await client.close()
