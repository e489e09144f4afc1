"""Triton model `features`: one catalogue picture in, what `match` recognises it by out. See ../config.pbtxt for the shapes."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy
from vision import embedder, frames, matching
from vision.extract import UselessPicture
from vision.options import NUMBER, Deadline
from vision.serving import Answer, FrameModel


class TritonPythonModel(FrameModel):
    options: ClassVar = {"time_left_ms": NUMBER}
    refusals: ClassVar = (UselessPicture,)

    def load(self, parameters: Mapping[str, str]) -> None:
        self._maximum_pixels = int(parameters["maximum_pixels"])
        self._embedder = embedder.configured()

    def answer(self, jpeg: frames.Picture, options: Mapping[str, Any], deadline: Deadline) -> Answer:
        picture = frames.decode(jpeg, maximum_pixels=self._maximum_pixels, orient=True)
        features, described = matching.catalogue_features(picture, self._embedder)
        return Answer(described, {"FEATURES": numpy.frombuffer(features.to_bytes(), numpy.uint8)})
