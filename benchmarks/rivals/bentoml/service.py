# mypy: ignore-errors
"""BentoML with its adaptive batching: one worker process a core (`bentoml serve service:Rows`)."""

import os

import bentoml
import numpy as np
from onnx_rows import OnnxRows


@bentoml.service(
    workers=int(os.environ["WORKERS"]),
    traffic={"timeout": 60, "max_concurrency": 512},
    logging={"access": {"enabled": False}},
)
class Rows:
    """Serves one model."""

    def __init__(self) -> None:
        self._model = OnnxRows()

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=64)
    def infer(self, inputs: np.ndarray) -> np.ndarray:
        """Rows of flat numbers to the model's last output."""
        result: np.ndarray = self._model.run(inputs)
        return result
