"""Answers held against what raw ONNX Runtime says to the same row."""

from functools import cache
from typing import Any

import numpy as np
import orjson

from benchmarks.generator import Answer
from benchmarks.models import path_of
from benchmarks.workloads import GRPC_PREFIX, Row, Workload, messages

# Kernels differ with the size of a batch.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4


@cache
def _session(model: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path_of(model), options, providers=["CPUExecutionProvider"])


def expected(workload: Workload, index: int) -> Row:
    """What raw ONNX Runtime answers to a row."""
    session = _session(workload.model)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, workload.row(index)), strict=True))


def check(workload: Workload, answer: Answer, protocol: str) -> None:
    """ValueError unless the answer holds what raw ONNX Runtime says to its very row."""
    if answer.status != 200:
        raise ValueError(f"status {answer.status}: {answer.body[:300]!r}")
    if protocol == "rows":
        outputs = _read_rows(answer, _session(workload.model).get_outputs()[-1].name)
    else:
        outputs = _READERS[protocol](answer)
    for name, wanted in expected(workload, answer.request).items():
        if protocol == "rows" and name not in outputs:
            continue  # the last output is all that such a server answers with
        if name not in outputs:
            raise ValueError(f"the output {name} is missing; there are {', '.join(outputs)}")
        got = outputs[name].reshape(wanted.shape)
        if not np.allclose(got, wanted, rtol=_RELATIVE, atol=_ABSOLUTE):
            raise ValueError(f"the output {name} of row {answer.request} is wrong")


_NUMPY = {"FP32": "<f4", "INT64": "<i8", "FP64": "<f8"}


def _read_json(answer: Answer) -> Row:
    document = orjson.loads(answer.body)
    return {output["name"]: np.array(output["data"]) for output in document["outputs"]}


def _read_rows(answer: Answer, output: str) -> Row:
    document = orjson.loads(answer.body)
    return {output: np.array(document["outputs"] if isinstance(document, dict) else document)}


def _read_binary(answer: Answer) -> Row:
    found = [
        line for line in answer.head.lower().split(b"\r\n") if line.startswith(b"inference-header-content-length:")
    ]
    at = int(found[0].partition(b":")[2])
    document = orjson.loads(answer.body[:at])
    outputs = {}
    for output in document["outputs"]:
        size = output["parameters"]["binary_data_size"]
        outputs[output["name"]] = np.frombuffer(answer.body[at : at + size], _NUMPY[output["datatype"]])
        at += size
    return outputs


def _read_grpc(answer: Answer) -> Row:
    message = messages().ModelInferResponse.FromString(answer.body[GRPC_PREFIX:])
    outputs = zip(message.outputs, message.raw_output_contents, strict=True)
    return {output.name: np.frombuffer(raw, _NUMPY[output.datatype]) for output, raw in outputs}


_READERS = {"json": _read_json, "binary": _read_binary, "grpc": _read_grpc}
