"""Answers with what it was given."""

from typing import Any

import triton_python_backend_utils as triton


class TritonPythonModel:
    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        given = triton.get_input_tensor_by_name(request, "IMAGE").as_numpy()
        return triton.InferenceResponse(output_tensors=[triton.Tensor("ECHO", given)])
