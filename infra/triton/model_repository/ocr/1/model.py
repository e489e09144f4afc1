"""Triton model `ocr`: one JPEG in, the lines of text it shows out. See ../config.pbtxt for the shapes, vision/ocr.py for how."""

from collections.abc import Mapping
from typing import Any, ClassVar

from vision import frames, ocr
from vision.options import NUMBER, Deadline
from vision.serving import Answer, FrameModel


class TritonPythonModel(FrameModel):
    options: ClassVar = {"time_left_ms": NUMBER}

    def load(self, parameters: Mapping[str, str]) -> None:
        self._maximum_pixels = int(parameters["maximum_pixels"])
        limits = ocr.Limits(
            side=int(parameters["side"]), side_when_late=int(parameters["side_when_late"]), lines=int(parameters["lines"])
        )
        gpu = self.device.partition(":")[2]
        self._reader = ocr.Reader(limits, ocr.providers(gpu or None))

    def answer(self, jpeg: frames.Picture, options: Mapping[str, Any], deadline: Deadline) -> Answer:
        picture = frames.decode(jpeg, maximum_pixels=self._maximum_pixels)
        lines = [
            {
                "text": line.text,
                "confidence": round(line.confidence, 4),
                "characters": [round(value, 3) for value in line.characters],
                "corners": line.corners.round(1).tolist(),
            }
            for line in self._reader.read(picture, deadline)
        ]
        return Answer({"width": picture.shape[1], "height": picture.shape[0], "lines": lines})
