"""Triton model `codes`: one JPEG in, the codes it shows out. See ../config.pbtxt for the shapes, vision/codes.py for how."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar

from vision import codes, frames
from vision.options import NUMBER, Deadline
from vision.quality import of_grey
from vision.serving import Answer, FrameModel


class TritonPythonModel(FrameModel):
    options: ClassVar = {"time_left_ms": NUMBER, "every": bool}

    def load(self, parameters: Mapping[str, str]) -> None:
        self._maximum_pixels = int(parameters["maximum_pixels"])
        self._further_ms = float(parameters["further_ms"])

    def answer(self, jpeg: frames.Picture, options: Mapping[str, Any], deadline: Deadline) -> Answer:
        grey = frames.decode(jpeg, maximum_pixels=self._maximum_pixels, grey=True)
        reads = codes.read(grey, deadline, self._further_ms, every=options.get("every", False))
        # Nobody is told to hold still whose code was read; and a frame with one is answered a millisecond earlier without.
        quality = None if any(read.valid for read in reads) else asdict(of_grey(grey))
        return Answer(
            {
                "width": grey.shape[1],
                "height": grey.shape[0],
                "quality": quality and {name: round(value, 4) for name, value in quality.items()},
                "codes": [read.as_json() for read in reads],
            }
        )
