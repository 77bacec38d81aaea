# mypy: ignore-errors
"""The server that a user writes first: FastAPI, a pydantic model, `session.run`.

Two workers of one ONNX Runtime thread each: `MODEL=<path> uvicorn app:app --workers 2`.
"""

import os
from typing import Any

import numpy as np
import onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel

_DTYPES = {"FP32": np.float32, "INT64": np.int64}
_DATATYPES = {"float32": "FP32", "int64": "INT64"}


class Tensor(BaseModel):
    """A tensor of the Open Inference Protocol."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class InferRequest(BaseModel):
    """A request of the Open Inference Protocol."""

    inputs: list[Tensor]


def _session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])


app = FastAPI()
session = _session()
names = [output.name for output in session.get_outputs()]


@app.post("/infer")
def infer(request: InferRequest) -> dict[str, Any]:
    """Run the model in FastAPI's thread pool, as its documentation says of work that blocks."""
    return _run(request)


@app.post("/infer-on-loop")
async def infer_on_loop(request: InferRequest) -> dict[str, Any]:
    """Run the model on the event loop: what blocks is short, and a switch of threads costs more."""
    return _run(request)


def _run(request: InferRequest) -> dict[str, Any]:
    feed = {
        tensor.name: np.array(tensor.data, _DTYPES[tensor.datatype]).reshape(tensor.shape) for tensor in request.inputs
    }
    outputs = zip(names, session.run(names, feed), strict=True)
    return {
        "outputs": [
            {
                "name": name,
                "shape": list(value.shape),
                "datatype": _DATATYPES[value.dtype.name],
                "data": value.ravel().tolist(),
            }
            for name, value in outputs
        ]
    }
