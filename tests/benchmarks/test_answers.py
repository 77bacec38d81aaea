import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from benchmarks import answers
from benchmarks.answers import check
from benchmarks.generator import Answer
from benchmarks.workloads import Workload, messages

DOUBLER = Workload("doubler", "x", (1, 3), "float32", 3)


@pytest.fixture(autouse=True)
def doubler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", [x], [y])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    monkeypatch.setattr(answers, "path_of", lambda name: tmp_path / "m.onnx")
    answers._session.cache_clear()
    yield
    answers._session.cache_clear()


def right(index: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    return np.asarray(DOUBLER.row(index)["x"] * 2, np.float32)


def json_answer(values: object, index: int = 4, status: int = 200) -> Answer:
    output = {"name": "y", "shape": [1, 3], "datatype": "FP32", "data": values}
    return Answer(index, status, b"", json.dumps({"outputs": [output]}).encode())


def test_a_right_answer_passes_in_each_protocol() -> None:
    values = right(4)
    check(DOUBLER, json_answer(values.ravel().tolist()), "json")
    check(DOUBLER, Answer(4, 200, b"", json.dumps({"outputs": values.tolist()}).encode()), "rows")
    check(DOUBLER, Answer(4, 200, b"", json.dumps(values.tolist()).encode()), "rows")
    output = {"name": "y", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}
    header = json.dumps({"outputs": [output]}).encode()
    head = b"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: %d\r\n\r\n" % len(header)
    check(DOUBLER, Answer(4, 200, head, header + values.tobytes()), "binary")
    message = messages().ModelInferResponse(raw_output_contents=[values.tobytes()])
    message.outputs.add(name="y", datatype="FP32", shape=[1, 3])
    check(DOUBLER, Answer(4, 200, b"", b"\0\0\0\0\0" + message.SerializeToString()), "grpc")


def test_another_rows_answer_is_found_out() -> None:
    with pytest.raises(ValueError, match="output y of row 4 is wrong"):
        check(DOUBLER, json_answer(right(5).ravel().tolist()), "json")


def test_a_refusal_and_a_missing_output_are_no_answers() -> None:
    with pytest.raises(ValueError, match="status 503"):
        check(DOUBLER, json_answer([0, 0, 0], status=503), "json")
    with pytest.raises(ValueError, match="output y is missing"):
        check(DOUBLER, Answer(4, 200, b"", b'{"outputs": [{"name": "z", "data": [1]}]}'), "json")
