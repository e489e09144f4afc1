"""Triton model `match`: one JPEG in, the catalogue products it shows out. See ../config.pbtxt for the shapes, vision/match.py for
how."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from vision import frames, index, matching, neighbours
from vision.options import Deadline
from vision.serving import Answer, FrameModel, log_failure
from vision.snapshots import SnapshotRefused


class TritonPythonModel(FrameModel):
    options: ClassVar = matching.OPTIONS
    refusals: ClassVar = (SnapshotRefused,)

    def load(self, parameters: Mapping[str, str]) -> None:
        self._maximum_pixels = int(parameters["maximum_pixels"])
        self._matcher = matching.Matcher(
            _directory(matching.DIRECTORY_VARIABLE),
            keep=int(parameters["snapshots_kept"]),
            keep_large=int(parameters["first_stages_kept"]),
            embedder=neighbours.served_embedder(),
            device=self.device,
            indexes=_directory(index.INDEXES_VARIABLE),
            log=log_failure,
        )

    def answer(self, jpeg: frames.Picture, options: Mapping[str, Any], deadline: Deadline) -> Answer:
        picture = frames.decode(jpeg, maximum_pixels=self._maximum_pixels)
        return Answer(self._matcher.answer(picture, options, deadline))


def _directory(variable: str) -> Path | None:
    named = os.environ.get(variable)
    return Path(named) if named else None
