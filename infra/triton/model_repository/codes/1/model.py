"""Triton model `codes`: one JPEG in, the barcodes and QR codes it shows out. See ../config.pbtxt for the shapes.

A frame that cannot be read is refused with an error for that request only; the model goes on with the next.
"""

import json
import os
from typing import Any

import numpy
import triton_python_backend_utils as pb_utils

JPEG_START = b"\xff\xd8\xff"


class UnreadableFrame(ValueError):
    """The bytes are no JPEG that may be decoded. The message goes to the caller."""


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        # OpenCV checks a picture's stated size before it decodes, against a limit it reads from here when it is loaded.
        os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = parameters["maximum_pixels"]["string_value"]
        import cv2
        import zxingcpp

        cv2.setNumThreads(1)
        self._cv2 = cv2
        self._zxing = zxingcpp
        self._first_formats = zxingcpp.barcode_formats_from_str(parameters["first_formats"]["string_value"])
        self._all_formats = zxingcpp.barcode_formats_from_str(parameters["all_formats"]["string_value"])

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        # The caller's deadline passed while the frame waited its turn. Reading it now would only make the next one late too.
        if request.is_cancelled():
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("the caller has gone", pb_utils.TritonError.CANCELLED))
        try:
            frame = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().reshape(-1)
            codes = self._read(self._decode(frame))
        except UnreadableFrame as refusal:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(refusal), pb_utils.TritonError.INVALID_ARG))
        except Exception as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"codes: {error}", pb_utils.TritonError.INTERNAL))
        result = numpy.array([[json.dumps(codes, ensure_ascii=False).encode()]], dtype=numpy.object_)
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("RESULT", result)])

    def _decode(self, frame: numpy.ndarray) -> numpy.ndarray:
        if frame[:3].tobytes() != JPEG_START:
            raise UnreadableFrame("IMAGE is not a JPEG")
        try:
            grey = self._cv2.imdecode(frame, self._cv2.IMREAD_GRAYSCALE)
        except self._cv2.error as error:
            raise UnreadableFrame(f"IMAGE cannot be decoded, or has too many pixels: {error}") from error
        if grey is None:
            raise UnreadableFrame("IMAGE is a damaged or truncated JPEG")
        return grey

    def _read(self, grey: numpy.ndarray) -> list[dict[str, Any]]:
        plain = self._zxing.TextMode.Plain
        found = self._zxing.read_barcodes(grey, formats=self._first_formats, try_invert=False, text_mode=plain)
        found = found or self._zxing.read_barcodes(grey, formats=self._all_formats, text_mode=plain)
        return [
            {
                "text": code.text,
                "format": code.format.name,
                "symbology_identifier": code.symbology_identifier,
                "corners": [
                    [corner.x, corner.y]
                    for corner in (
                        code.position.top_left,
                        code.position.top_right,
                        code.position.bottom_right,
                        code.position.bottom_left,
                    )
                ],
                "valid": code.valid,
            }
            for code in found
        ]
