"""What all models' `model.py` have in common: a request in, its answer or its refusal out. Runs inside tritonserver only.

A request that is refused or fails costs its own caller the answer, and nobody else. No message holds anything of the frame.
"""

import json
import math
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import numpy
import triton_python_backend_utils as triton  # type: ignore[import-not-found]

from .frames import Picture, UnreadableFrame
from .guardian import Guardian
from .options import NUMBER, Deadline, OptionsRefused, parse
from .shared_memory import withdraw
from .turns import Turns

SHED = "augenblick_frames_shed_total"
SENT_AT = "sent_at_ms"
"""An option of every model: when the caller sent the frame, in milliseconds since 1970. `time_left_ms` counts from then."""


@dataclass(frozen=True)
class Answer:
    """`result` becomes the tensor RESULT, as JSON; `tensors` are further outputs by name, without the batch dimension."""

    result: Any
    tensors: Mapping[str, numpy.ndarray[Any, Any]] = field(default_factory=dict)


class FrameModel:
    """Base of a `TritonPythonModel` that takes one encoded JPEG. A model says what it takes, loads, and answers."""

    options: ClassVar[Mapping[str, type | tuple[type, ...]]] = {}
    """Keys that OPTIONS may have, and their types."""
    refusals: ClassVar[tuple[type[Exception], ...]] = ()
    """Errors of the model that are the caller's: their message is sent as INVALID_ARG."""
    missing: ClassVar[tuple[type[Exception], ...]] = ()
    """Errors that say that something beside the model is not there: their message is sent as UNAVAILABLE."""

    def load(self, parameters: Mapping[str, str]) -> None:
        """Called once, with the `parameters` of config.pbtxt."""

    def answer(self, jpeg: Picture, options: Mapping[str, Any], deadline: Deadline) -> Answer:
        """`jpeg` is the encoded picture, uint8 [bytes]; decode it with `frames.decode`."""
        raise NotImplementedError

    def initialize(self, args: Mapping[str, str]) -> None:
        withdraw()
        cv2.setNumThreads(1)  # one instance is one core; more come with more instances
        self.name = args["model_name"]
        self.device = device_of(args)
        parameters = json.loads(args["model_config"])["parameters"]
        # Triton takes back a family of figures that nobody holds, and all its figures with it.
        self._shed_family = _shed_family()
        self._shed = {
            reason: self._shed_family.Metric(labels={"model": self.name, "reason": reason}) for reason in ("cancelled", "late")
        }
        self._turns = Turns()
        self.load({name: value["string_value"] for name, value in parameters.items()})
        self._guardian = Guardian()  # from now on; one that cannot be loaded leaves the others

    def finalize(self) -> None:
        self._guardian.dismiss()

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        # The caller's deadline passed while the frame waited its turn. Reading it now would only make the next one late too.
        if request.is_cancelled():
            self._shed["cancelled"].increment(1)
            return _error("the caller has gone", triton.TritonError.CANCELLED)
        answered = False
        try:
            options = parse(_options(request), {**self.options, SENT_AT: NUMBER})
            waited_ms = self._turns.begin(options.pop(SENT_AT, None))
            deadline = Deadline(options.get("time_left_ms", math.inf) - waited_ms)
            if self._turns.too_late(deadline.left_ms(), waited_ms):
                self._shed["late"].increment(1)
                return _error("no time is left", triton.TritonError.CANCELLED)
            image = triton.get_input_tensor_by_name(request, "IMAGE").as_numpy().reshape(-1)
            answer = self.answer(image, options, deadline)
            answered = True
        except Exception as error:
            if isinstance(error, (UnreadableFrame, OptionsRefused, *self.refusals)):
                return _error(str(error), triton.TritonError.INVALID_ARG)
            if isinstance(error, self.missing):
                return _error(str(error), triton.TritonError.UNAVAILABLE)
            log_failure(self.name, error)
            return _error(f"{self.name}: {type(error).__name__}", triton.TritonError.INTERNAL)
        finally:
            self._turns.end(answered=answered)
        result = json.dumps(answer.result, ensure_ascii=False, separators=(",", ":")).encode()
        tensors = {"RESULT": numpy.array([result], dtype=numpy.object_), **answer.tensors}
        return triton.InferenceResponse(output_tensors=[triton.Tensor(name, value[None]) for name, value in tensors.items()])


def log_failure(what: str, error: BaseException) -> None:
    """Where it happened is told, what it said is not: a library's message may quote the frame."""
    where = "".join(traceback.format_tb(error.__traceback__))
    triton.Logger.log_error(f"{what}: {type(error).__name__}\n{where}")


def device_of(args: Mapping[str, str]) -> str:
    """Where an instance runs, as PyTorch names it: what the profile's instance group says."""
    return f"cuda:{args['model_instance_device_id']}" if args["model_instance_kind"] == "GPU" else "cpu"


def _options(request: Any) -> bytes | None:
    tensor = triton.get_input_tensor_by_name(request, "OPTIONS")
    return None if tensor is None else bytes(tensor.as_numpy().reshape(-1)[0])


def _error(message: str, code: int) -> Any:
    return triton.InferenceResponse(error=triton.TritonError(message, code))


def _shed_family() -> Any:
    """Frames that were not looked at because nobody would have waited for the answer, by reason. All models share one family."""
    return triton.MetricFamily(
        name=SHED,
        description="Frames that a model did not look at: their callers had gone, or too little time was left",
        kind=triton.MetricFamily.COUNTER,
    )
