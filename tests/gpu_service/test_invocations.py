"""`/invocations` of one real server: formats, picking of the model, and every error code."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from shared.codecs.content.media import SAGEMAKER_BINARY, sagemaker_binary
from shared.codecs.json_documents import JsonLimits
from shared.codecs.v2 import V2Tensor, decode_response, encode_request
from shared.domain.dtypes import DType
from shared.domain.tensors import bytes_tensor
from tests.gpu_service.server import Server, running, wait_until
from tests.models import (
    add_model,
    gather_model,
    identity_model,
    image_package,
    label_package,
    slow_model,
    sum_model,
    text_package,
    write_package,
)

MAX_BODY = 100_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_package(models / "plus/1", add_model(1))
    write_package(models / "plus/2", add_model(2))
    write_package(models / "plus/10", add_model(10))
    write_package(models / "sum/1", sum_model())
    write_package(models / "gather/1", gather_model())
    write_package(models / "slow/1", slow_model())
    write_package(models / "nan/1", identity_model(DType.FP32, ["n"]))
    write_package(models / "half/1", identity_model(DType.BF16, ["n", 2]))
    label_package(models / "labels/1")
    text_package(models / "texts/1")
    image_package(models / "images/1", max_pixels=100)
    folder = tmp_path_factory.mktemp("server")
    limits = {"SLUICE_MAX_BODY_BYTES": str(MAX_BODY), "SLUICE_MAX_JSON_DEPTH": "8"}
    with running(folder, SLUICE_MODEL_DIR=str(models), **limits) as server:
        server.wait_for_ping(200)
        yield server


def test_rows_of_plain_json(server: Server) -> None:
    answer = server.predict({"instances": [[1, 2], [3, 4]]}, "model=plus;version=1")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"predictions": [[2, 3], [4, 5]], "model": {"name": "plus", "version": 1}}


def test_tensors_of_plain_json(server: Server) -> None:
    answer = server.predict({"inputs": {"a": [[3]], "b": [[1]]}}, "model=sum")
    assert answer.json()["predictions"] == [{"total": [4], "difference": [2]}]


def test_objects_by_feature_and_class_names(server: Server) -> None:
    answer = server.predict({"instances": [{"f1": 0, "f3": 9, "f2": 1}]}, "model=labels")
    assert answer.json()["predictions"] == [{"label": "c", "scores": [0, 1, 9]}]


def test_text_in_and_tokens_out(server: Server) -> None:
    answer = server.predict({"instances": ["one", "two three"]}, "model=texts")
    assert answer.json()["predictions"][0] == [[1, 4, 2, 0], [1, 1, 1, 0]]


def test_without_a_version_the_highest_answers(server: Server) -> None:
    answer = server.predict({"instances": [[0, 0]]}, "model=plus").json()
    assert answer == {"predictions": [[10, 10]], "model": {"name": "plus", "version": 10}}


def test_target_model_header_picks_and_the_attribute_wins(server: Server) -> None:
    body = {"instances": [[0, 0]]}
    header = {"X_Amzn_SageMaker_Target_Model": "plus"}
    assert server.predict(body, **header).json()["model"]["name"] == "plus"
    assert server.predict({"inputs": {"a": [[1]], "b": [[1]]}}, "model=sum", **header).json()["model"]["name"] == "sum"


@pytest.mark.parametrize("first", ["inputs", "id", "parameters"])
def test_v2_json(server: Server, first: str) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}
    body = {"id": "7", "parameters": {}, "inputs": [tensor]}
    ordered = {first: body.pop(first), **body}
    answer = server.predict(ordered, "model=plus;version=2")
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "id": "7",
        "model_name": "plus",
        "model_version": "2",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [3, 4, 5, 6]}],
    }


def test_v2_selects_outputs(server: Server) -> None:
    tensors = [{"name": name, "datatype": "FP32", "shape": [1, 1], "data": [5]} for name in ("a", "b")]
    answer = server.predict({"inputs": tensors, "outputs": [{"name": "difference"}]}, "model=sum").json()
    assert [output["name"] for output in answer["outputs"]] == ["difference"]
    answer = server.predict({"inputs": tensors, "outputs": [{"name": "nothing"}]}, "model=sum")
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_field")


def binary(server: Server, model: str, tensor: V2Tensor, name: str = "x") -> dict[str, V2Tensor]:
    body, header_length = encode_request({name: tensor}, request_id="b")
    answer = server.predict(body, f"model={model}", content_type=sagemaker_binary(header_length))
    assert answer.status_code == 200, answer.text
    media_type, _, size = answer.headers["content-type"].partition(";json-header-size=")
    assert media_type == SAGEMAKER_BINARY
    response = decode_response(answer.content, int(size), JsonLimits())
    assert response.id == "b"
    return dict(response.outputs)


def test_v2_binary(server: Server) -> None:
    outputs = binary(server, "plus;version=1", V2Tensor(DType.FP32, np.ones((3, 2), np.float32)))
    np.testing.assert_array_equal(outputs["y"].array, np.full((3, 2), 2))
    outputs = binary(server, "half", V2Tensor(DType.BF16, np.array([[0x3F80, 0x4000]], np.uint16)))
    np.testing.assert_array_equal(outputs["y"].array, [[0x3F80, 0x4000]])
    outputs = binary(server, "texts", V2Tensor(DType.BYTES, bytes_tensor([b"one"])), "text")
    np.testing.assert_array_equal(outputs["y"].array, [[[1, 4, 2], [1, 1, 1]]])


def test_request_id_comes_back_and_is_logged(server: Server) -> None:
    answer = server.predict({"instances": [[0, 0]]}, "model=plus;request-id=abc-1;tenant=acme%3B1")
    assert answer.headers["x-request-id"] == "abc-1"
    (line,) = wait_until(lambda: [line for line in server.lines() if line.get("request_id") == "abc-1"])
    assert (line["model"], line["version"], line["rows"], line["status"]) == ("plus", 10, 1, 200)
    assert line["tenant"] == "acme;1"
    assert set(line["ms"]) == {"queue", "decode", "run", "encode", "total"}


def v2(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2], **changes}]}


@pytest.mark.parametrize(
    ("body", "attributes", "status", "code"),
    [
        ({"instances": [[1, 2]]}, "", 400, "invalid_request"),
        ({"instances": [[1, 2]]}, "model=nothing", 404, "model_not_found"),
        ({"instances": [[1, 2]]}, "model=plus;version=3", 404, "version_not_found"),
        ({"instances": [[1, 2]]}, "model=plus;version=one", 400, "invalid_request"),
        ({"instances": [[1, 2]]}, "model=plus;version=0", 400, "invalid_request"),
        ({"instances": [[1, 2]]}, "model=plus;deadline-ms=soon", 400, "invalid_request"),
        ({"instances": [[1, 2]]}, "model=plus;deadline-ms=0", 504, "backend_timeout"),
        ({"instances": [[1, 2]]}, "model=plus;deadline-ms=-5", 504, "backend_timeout"),
        (b"", "model=plus", 400, "not_json"),
        (b"{", "model=plus", 400, "not_json"),
        (b"\xff", "model=plus", 400, "not_json"),
        (b"[" * 200 + b"]" * 200, "model=plus", 400, "too_deep"),
        ({"wrong": 1}, "model=plus", 422, "unknown_field"),
        ({"inputs": {"x": [[1, 2]], "z": [1]}}, "model=plus", 422, "unknown_field"),
        ({"inputs": {}}, "model=plus", 422, "missing_field"),
        ({"instances": []}, "model=plus", 422, "empty_batch"),
        ({"instances": [[1, 2]] * 1025}, "model=plus", 413, "batch_too_large"),
        ({"instances": [["a", 2]]}, "model=plus", 422, "wrong_dtype"),
        ({"instances": [[1, 2, 3]]}, "model=plus", 422, "wrong_shape"),
        (b'{"instances": [[1, NaN]]}', "model=plus", 422, "not_finite"),
        (b'{"instances": [[1, 1e999]]}', "model=plus", 422, "not_finite"),
        ({"instances": [99]}, "model=gather", 400, "invalid_request"),
        ({"instances": [{"b64": "aGVsbG8="}]}, "model=images", 422, "bad_image"),
        ({"instances": [{"b64": "/w=="}]}, "model=texts", 422, "wrong_dtype"),
        (b" " * (MAX_BODY + 1), "model=plus", 413, "payload_too_large"),
        (v2(datatype="INT32"), "model=plus", 422, "wrong_dtype"),
        (v2(shape=[2, 2]), "model=plus", 422, "wrong_shape"),
        (v2(name="z"), "model=plus", 422, "unknown_field"),
    ],
)
def test_every_fault_has_its_code(server: Server, body: Any, attributes: str, status: int, code: str) -> None:
    answer = server.predict(body, f"{attributes};request-id=r-9")
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert problem["request_id"] == "r-9"
    assert "Traceback" not in answer.text
    assert "onnx" not in answer.text.lower()


def test_a_body_without_announced_length_is_bounded(server: Server) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(30):
            yield b" " * 10_000

    headers = {"content-type": "application/json", "X-Amzn-SageMaker-Custom-Attributes": "model=plus"}
    answer = server.client.post("/invocations", content=chunks(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


@pytest.mark.parametrize("given", ["text/html", "image/png", "multipart/form-data", "application/jsonx"])
def test_unknown_content_type_names_the_known_ones(server: Server, given: str) -> None:
    answer = server.predict(b"1,2", "model=plus", content_type=given)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert "application/json" in answer.json()["detail"]
    assert SAGEMAKER_BINARY in answer.json()["detail"]


@pytest.mark.parametrize("parameters", ["", ";json-header-size=", ";json-header-size=-1", ";json-header-size=99999999"])
def test_binary_with_a_wrong_header_size(server: Server, parameters: str) -> None:
    answer = server.predict(b"{}", "model=plus", content_type=SAGEMAKER_BINARY + parameters)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_json_with_a_charset_and_in_capitals(server: Server) -> None:
    answer = server.predict({"instances": [[0, 0]]}, "model=plus", content_type="Application/JSON; charset=utf-8")
    assert answer.status_code == 200


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("GET", "/invocations", 405)])
def test_no_such_route(server: Server, method: str, path: str, status: int) -> None:
    answer = server.client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v2/nothing", 404, "no_such_route"),
        ("POST", "/v2/models/plus/infer/more", 404, "no_such_route"),
        ("GET", "/v2/models/plus/infer", 405, "method_not_allowed"),
        ("DELETE", "/v2", 405, "method_not_allowed"),
        ("POST", "/v2/", 405, "method_not_allowed"),
    ],
)
def test_a_route_that_the_protocol_has_not_is_refused_as_its_clients_read_it(
    server: Server, method: str, path: str, status: int, code: str
) -> None:
    answer = server.client.request(method, path)
    document = answer.json()
    assert (answer.status_code, document["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/json"
    assert document["error"] == document["detail"]
    assert ("allow" in answer.headers) == (status == 405)
    assert "error" not in server.client.get("/v2x").json()


def test_a_bad_row_is_named(server: Server) -> None:
    image = {"b64": "aGVsbG8="}
    problem = server.predict({"instances": [image, image]}, "model=images").json()
    assert problem["errors"][0]["pointer"] == "/instances/0"


def test_everyone_gets_their_own_rows(server: Server) -> None:
    with ThreadPoolExecutor(64) as pool:
        rows = [[[float(i), float(-i)]] * (1 + i % 3) for i in range(64)]
        answers = list(pool.map(lambda own: server.predict({"instances": own}, "model=plus;version=1"), rows))
    for own, answer in zip(rows, answers, strict=True):
        assert answer.status_code == 200, answer.text
        assert answer.json()["predictions"] == [[x + 1, y + 1] for x, y in own]


def test_ping_answers_while_models_run(server: Server) -> None:
    with ThreadPoolExecutor(8) as pool:
        slow = [pool.submit(server.predict, {"instances": [[40_000]]}, "model=slow") for _ in range(8)]
        while not all(future.done() for future in slow):
            assert server.ping().status_code == 200
        assert [future.result().json()["predictions"] for future in slow] == [[[80_000.0]]] * 8


def test_work_that_cannot_be_done_in_time_is_not_started(server: Server) -> None:
    with ThreadPoolExecutor(12) as pool:
        slow = [pool.submit(server.predict, {"instances": [[120_000]]}, "model=slow") for _ in range(4)]
        late = {"instances": [[120_000]]}, "model=slow;deadline-ms=20;request-id=late"
        wait_until(lambda: server.predict(*late).status_code in (503, 504))
        assert [future.result().status_code for future in slow] == [200] * 4
    refused = [line for line in server.lines() if line.get("request_id") == "late" and line.get("code")]
    assert refused
    assert {line["code"] for line in refused} <= {"backend_timeout", "overloaded"}


def test_every_line_of_the_log_is_json(server: Server) -> None:
    server.predict({"instances": [[0, 0]]}, "model=plus")
    assert {"level", "timestamp", "logger", "message"} <= set(server.lines()[-1])
    assert json.dumps(server.lines())
