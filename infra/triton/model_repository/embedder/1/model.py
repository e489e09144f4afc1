"""Triton model `embedder`: pixels in, a vector of unit length out. See ../config.pbtxt for the shapes, vision/embedder.py for
what is checked before the first picture."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy
import triton_python_backend_utils as triton
from vision import embedder
from vision.guardian import Guardian
from vision.serving import device_of
from vision.shared_memory import withdraw


class TritonPythonModel:
    def initialize(self, args: Mapping[str, str]) -> None:
        withdraw()
        cv2.setNumThreads(1)
        manifest = embedder.configured()
        if manifest is None:
            raise embedder.EmbedderRefused(f"{embedder.MANIFEST_VARIABLE} names no manifest")
        self._embedder = embedder.load(manifest, device=device_of(args))
        self._guardian = Guardian()

    def finalize(self) -> None:
        self._guardian.dismiss()

    def execute(self, requests: list[Any]) -> list[Any]:
        waiting = [request for request in requests if not request.is_cancelled()]
        # All at once: on a GPU many pictures take hardly longer than one.
        answers = self._embedder.embed_each([triton.get_input_tensor_by_name(each, "IMAGE").as_numpy() for each in waiting])
        in_order = map(_response, answers)
        gone = triton.TritonError("the caller has gone", triton.TritonError.CANCELLED)
        kept = {id(request) for request in waiting}
        return [next(in_order) if id(request) in kept else triton.InferenceResponse(error=gone) for request in requests]


def _response(answer: numpy.ndarray[Any, Any] | Exception) -> Any:
    if isinstance(answer, embedder.PictureRefused):
        return triton.InferenceResponse(error=triton.TritonError(str(answer), triton.TritonError.INVALID_ARG))
    if isinstance(answer, Exception):
        # What it said is not told: a library's message may quote the picture.
        failure = triton.TritonError(f"embedder: {type(answer).__name__}", triton.TritonError.INTERNAL)
        return triton.InferenceResponse(error=failure)
    return triton.InferenceResponse(output_tensors=[triton.Tensor("EMBEDDING", answer)])
