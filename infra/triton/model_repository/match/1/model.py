"""Triton model `match`: one JPEG in, the catalogue products it shows out. See ../config.pbtxt for the shapes, vision/match.py for
how."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from vision import frames, matching, neighbours
from vision.options import Deadline
from vision.serving import Answer, FrameModel
from vision.snapshots import SnapshotRefused


class TritonPythonModel(FrameModel):
    options: ClassVar = matching.OPTIONS
    refusals: ClassVar = (SnapshotRefused,)

    def load(self, parameters: Mapping[str, str]) -> None:
        self._maximum_pixels = int(parameters["maximum_pixels"])
        directory = os.environ.get(matching.DIRECTORY_VARIABLE)
        self._matcher = matching.Matcher(
            Path(directory) if directory else None,
            keep=int(parameters["snapshots_kept"]),
            embedder=neighbours.served_embedder(),
            device=self.device,
        )

    def answer(self, jpeg: frames.Picture, options: Mapping[str, Any], deadline: Deadline) -> Answer:
        picture = frames.decode(jpeg, maximum_pixels=self._maximum_pixels)
        return Answer(self._matcher.answer(picture, options, deadline))
