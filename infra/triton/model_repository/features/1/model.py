"""Triton model `features`: one catalogue picture in, what `match` recognises it by out. See ../config.pbtxt for the shapes."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy
from vision import frames, matching, neighbours
from vision.embedder import EmbedderRefused
from vision.extract import UselessPicture
from vision.options import NUMBER, Deadline
from vision.serving import Answer, FrameModel


class TritonPythonModel(FrameModel):
    options: ClassVar = {"time_left_ms": NUMBER, "embedding": bool}
    refusals: ClassVar = (UselessPicture,)
    missing: ClassVar = (EmbedderRefused,)

    def load(self, parameters: Mapping[str, str]) -> None:
        self._maximum_pixels = int(parameters["maximum_pixels"])
        self._embedder = neighbours.served_embedder()

    def answer(self, jpeg: frames.Picture, options: Mapping[str, Any], deadline: Deadline) -> Answer:
        picture = frames.decode(jpeg, maximum_pixels=self._maximum_pixels, orient=True)
        # Without one in the warm-up: no other model can be asked while models are being loaded.
        embedder = self._embedder if options.get("embedding", True) else None
        features, described = matching.catalogue_features(picture, embedder)
        return Answer(described, {"FEATURES": numpy.frombuffer(features.to_bytes(), numpy.uint8)})
