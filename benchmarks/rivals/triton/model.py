# mypy: ignore-errors
"""The model for Triton's Python backend: all requests of a dynamic batch in one run."""

import numpy as np
import triton_python_backend_utils as pb_utils
from onnx_rows import OnnxRows


class TritonPythonModel:
    """Serves one model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model in the instance's process."""
        del args
        self._model = OnnxRows()
        self._inputs = [node.name for node in self._model.session.get_inputs()]

    def execute(self, requests: list[object]) -> list[object]:
        """One answer for each request."""
        columns = {
            name: [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for request in requests]
            for name in self._inputs
        }
        ends = np.cumsum([len(part) for part in columns[self._inputs[0]]])[:-1]
        feed = {name: np.concatenate(parts) for name, parts in columns.items()}
        values = self._model.session.run(self._model.names, feed)
        # The backend wants a dimension beside that of the batch.
        outputs = [np.split(value.reshape(len(value), -1), ends) for value in values]
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(*pair) for pair in zip(self._model.names, parts, strict=True)])
            for parts in zip(*outputs, strict=True)
        ]
