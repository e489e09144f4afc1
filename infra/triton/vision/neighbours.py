"""Models of the same server, asked from within another one's `execute`. Runs inside tritonserver only.

Triton answers nobody while models are being loaded: nobody may be asked before the first frame. And a model that is asked may not
ask in turn: each waits with its instance in hand.
"""

import numpy as np
import triton_python_backend_utils as triton  # type: ignore[import-not-found]
from numpy.typing import NDArray

from . import embedder

EMBEDDER = "embedder"


def served_embedder() -> embedder.Embedder | None:
    """The model `embedder`, of whichever kind; None where no manifest is configured."""
    manifest = embedder.configured()
    if manifest is None:
        return None
    try:
        return embedder.served(manifest, _embed)
    except embedder.EmbedderRefused as refusal:
        return embedder.Refusing(str(refusal))


def _embed(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    request = triton.InferenceRequest(
        model_name=EMBEDDER,
        requested_output_names=["EMBEDDING"],
        inputs=[triton.Tensor("IMAGE", batch)],
        # A plan's answer would stay on its GPU.
        preferred_memory=triton.PreferredMemory(triton.TRITONSERVER_MEMORY_CPU, 0),
    )
    response = request.exec()
    if response.has_error():
        raise embedder.EmbedderRefused(f"the model {EMBEDDER} does not answer: {response.error().message()}")
    tensor = triton.get_output_tensor_by_name(response, "EMBEDDING")
    return np.array(tensor.as_numpy())  # a copy: what it looks into goes with the response
