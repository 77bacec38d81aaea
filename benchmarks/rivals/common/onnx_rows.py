"""The model as every rival's handler runs it: one ONNX Runtime thread, since each rival runs one worker a core.

Imported inside the rivals' own environments: NumPy and ONNX Runtime only.
"""

import os
from typing import Any

import numpy as np
import onnxruntime


class OnnxRows:
    """Runs the model of the variable MODEL."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
        self.names = [node.name for node in self.session.get_outputs()]
        first, *others = self.session.get_inputs()
        self._input, self._dtype = first.name, np.int64 if "int64" in first.type else np.float32
        self._masks = [node.name for node in others]
        self._shape = tuple(size for size in first.shape[1:] if isinstance(size, int))

    def run(self, rows: Any) -> Any:
        """The last output for rows of flat numbers; an attention mask, if there is one, is all ones."""
        flat = np.asarray(rows, self._dtype)
        x = flat.reshape(len(flat), *self._shape) if self._shape else flat
        feed = {self._input: x, **{name: np.ones(x.shape, np.int64) for name in self._masks}}
        return self.session.run(self.names[-1:], feed)[0]
