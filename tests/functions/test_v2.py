"""The Open Inference Protocol over the API's functions, through the handler that Lambda calls."""

import gzip
import json
import logging
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functions.predict.bootstrap import application
from functions.predict.readiness import Check
from shared.codecs.v2 import V2Tensor, decode_response, encode_request
from shared.domain import errors
from shared.domain.dtypes import DType
from shared.domain.endpoint.config import CONTAINER, FUNCTION
from shared.domain.model import ModelVersion, Placement
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import Tensors
from shared.domain.version import VERSION
from shared.schemas.api import (
    InferResponse,
    ModelMetadata,
    ModelReady,
    ProtocolProblem,
    ServerLive,
    ServerMetadata,
    ServerReady,
)
from tests.codecs.signatures import LIMITS
from tests.fakes import FakeBackend, InMemoryModels
from tests.functions.conftest import LogLines, Serve
from tests.functions.parts import parts
from tests.functions.served import serving
from tests.functions.support import CALLER, Answer, Function, LambdaContextStub, predict_settings, published
from tests.models import identity_model, write_package

SETTINGS = predict_settings(max_body_bytes=4096, max_json_depth=8)
INFER = "/v2/models/{model}/infer"
INFER_VERSION = "/v2/models/{model}/versions/{version}/infer"
X = np.array([[1, 2], [3, 4.5]], np.float32)
WORDS = Signature(
    inputs=(TensorSpec("text", DType.BYTES, (None,)), TensorSpec("scale", DType.FP64, (1, 2), optional=True)),
    outputs=(TensorSpec("label", DType.BYTES, (None, 3)), TensorSpec("n", DType.INT64, (None,))),
)


class Checks:
    """What readiness finds."""

    def __init__(self) -> None:
        self.missing: str | None = None


@pytest.fixture
def checks() -> Checks:
    return Checks()


@pytest.fixture
def backend() -> FakeBackend:
    def double(_version: ModelVersion, inputs: Tensors) -> Tensors:
        return {"y": np.asarray(inputs["x"] * 2, dtype=np.float32)}

    return FakeBackend(double)


@pytest.fixture
def registry() -> InMemoryModels:
    return InMemoryModels(
        published(),
        published(version=2),
        published(version=10),
        published("words", signature=WORDS),
        published("heavy", placement=Placement.CONTAINER),
    )


@pytest.fixture
def function(
    serve: Serve, registry: InMemoryModels, backend: FakeBackend, checks: Checks, log: logging.Logger
) -> Function:
    found: dict[str, Check] = {"models": lambda: checks.missing, "endpoint": lambda: None}
    both = {FUNCTION: backend, CONTAINER: backend}
    return serve(application(SETTINGS, parts(registry, both, checks=found), log))


def tensor(**more: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": X.reshape(-1).tolist(), **more}


def request(*, outputs: Any = None, **more: Any) -> dict[str, Any]:
    return {"inputs": [tensor()], **({} if outputs is None else {"outputs": outputs}), **more}


def infer(function: Function, body: Any, model: str = "pair", **more: Any) -> Answer:
    return function("POST", f"/v2/models/{model}/infer", route=INFER, body=body, **more)


def problem(answer: Answer) -> ProtocolProblem:
    assert answer.headers["content-type"] == "application/problem+json"
    assert not answer.is_base64
    document = ProtocolProblem.model_validate_json(answer.body)
    assert document.status == answer.status
    assert document.error == document.detail
    assert document.request_id == answer.headers["x-request-id"]
    return document


def test_the_server_says_what_it_is(function: Function, registry: InMemoryModels) -> None:
    answer = function("GET", "/v2")
    document = ServerMetadata.model_validate_json(answer.body)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert (document.name, document.version, document.extensions) == ("sluice", VERSION, ["binary_tensor_data"])
    assert ServerLive.model_validate_json(function("GET", "/v2/health/live").body).live
    assert registry.calls == 0


@pytest.mark.parametrize(("missing", "status"), [(None, 200), ("no model is published", 503)])
def test_readiness_is_that_of_the_whole_function(
    function: Function, checks: Checks, missing: str | None, status: int
) -> None:
    checks.missing = missing
    answer = function("GET", "/v2/health/ready")
    assert answer.status == status
    assert ServerReady.model_validate_json(answer.body).ready is (missing is None)


def test_a_model_tells_its_versions_and_tensors(function: Function) -> None:
    answer = function("GET", "/v2/models/pair", route="/v2/models/{model}")
    document = ModelMetadata.model_validate_json(answer.body)
    assert answer.status == 200
    assert (document.name, document.versions, document.platform) == ("pair", ["1", "2", "10"], "onnxruntime_onnx")
    assert answer.json["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    assert answer.json["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}]
    words = function("GET", "/v2/models/words/versions/1").json
    assert words["inputs"] == [
        {"name": "text", "datatype": "BYTES", "shape": [-1]},
        {"name": "scale", "datatype": "FP64", "shape": [1, 2]},
    ]
    assert words["outputs"] == [
        {"name": "label", "datatype": "BYTES", "shape": [-1, 3]},
        {"name": "n", "datatype": "INT64", "shape": [-1]},
    ]


def test_a_model_is_ready_where_its_backend_is(function: Function) -> None:
    for path in ("pair", "pair/versions/2", "heavy", "heavy/versions/1"):
        answer = function("GET", f"/v2/models/{path}/ready")
        assert (answer.status, ModelReady.model_validate_json(answer.body).ready) == (200, True)


def test_a_model_of_the_container_is_not_ready_without_it(
    serve: Serve, registry: InMemoryModels, backend: FakeBackend, log: logging.Logger
) -> None:
    absent: dict[str, Check] = {"models": lambda: None}
    for checks in (absent, {"endpoint": lambda: "the endpoint is Creating"}):
        function = serve(application(SETTINGS, parts(registry, {FUNCTION: backend}, checks=checks), log))
        answer = function("GET", "/v2/models/heavy/ready")
        assert (answer.status, answer.json) == (503, {"name": "heavy", "ready": False})
        assert function("GET", "/v2/models/pair/ready").status == 200


@pytest.mark.parametrize("path", ["", "/ready"])
@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("nothing", "model_not_found"),
        ("No Model", "model_not_found"),
        ("pair/versions/3", "version_not_found"),
        ("pair/versions/one", "version_not_found"),
        ("nothing/versions/1", "model_not_found"),
    ],
)
def test_what_is_not_published_is_not_found(function: Function, target: str, code: str, path: str) -> None:
    answer = function("GET", f"/v2/models/{target}{path}")
    assert (answer.status, problem(answer).code) == (404, code)
    answer = function("POST", f"/v2/models/{target}/infer", body=request())
    assert (answer.status, problem(answer).code) == (404, code)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/pair/stats", 404),
        ("GET", "/v2/models/pair/config", 404),
        ("POST", "/v2/repository/index", 404),
        ("POST", "/v2/models/pair/generate_stream", 404),
        ("GET", "/v2/models/pair/infer", 405),
        ("POST", "/v2", 405),
    ],
)
def test_what_is_not_served_here_is_said_in_the_protocol_s_way(
    function: Function, method: str, path: str, status: int
) -> None:
    answer = function(method, path)
    assert (answer.status, problem(answer).status) == (status, status)


def test_paths_that_only_look_alike_have_plain_problems(function: Function) -> None:
    for path in ("/v20", "/v1/v2/x", "/v1/models/nothing/predict"):
        assert "error" not in function("POST", path, body=request()).json


def test_a_body_of_the_protocol_is_answered_with_its_id(function: Function, log_lines: LogLines) -> None:
    answer = infer(function, request(id="r-1"))
    document = InferResponse.model_validate_json(answer.body)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert not answer.is_base64
    assert (document.model_name, document.model_version, document.id) == ("pair", "10", "r-1")
    (output,) = document.outputs
    assert (output.name, output.datatype, output.shape) == ("y", "FP32", [2, 2])
    assert output.data == (X * 2).reshape(-1).tolist()
    assert answer.headers["x-prediction-id"]
    (line,) = log_lines.requests()
    assert (line["model"], line["version"], line["rows"], line["tenant"]) == ("pair", 10, 2, "acme")
    assert "id" not in infer(function, request()).json


def test_a_version_in_the_path_answers(function: Function) -> None:
    answer = function("POST", "/v2/models/pair/versions/1/infer", route=INFER_VERSION, body=request())
    assert (answer.status, answer.json["model_version"]) == (200, "1")


@pytest.mark.parametrize("content_type", ["", "application/octet-stream", "application/x-www-form-urlencoded"])
def test_binary_tensors_go_in_and_out(function: Function, content_type: str) -> None:
    body, length = encode_request({"x": V2Tensor(DType.FP32, X)}, request_id="r")
    headers = {"content-type": content_type, "inference-header-content-length": str(length)}
    answer = infer(function, body, headers=headers)
    assert (answer.status, answer.is_base64) == (200, True)
    assert answer.headers["content-type"] == "application/octet-stream"
    response = decode_response(answer.body, int(answer.headers["inference-header-content-length"]), LIMITS)
    assert response.id == "r"
    assert response.outputs["y"].array.tolist() == (X * 2).tolist()


def test_each_output_is_binary_or_not_as_the_request_says(function: Function) -> None:
    for wanted, is_binary in ((True, True), (False, False)):
        outputs = [{"name": "y", "parameters": {"binary_data": wanted}}]
        answer = infer(function, request(outputs=outputs, parameters={"binary_data_output": not wanted}))
        assert answer.is_base64 is is_binary
        assert ("inference-header-content-length" in answer.headers) is is_binary
    answer = infer(function, request(outputs=[{"name": "z"}]))
    document = problem(answer)
    assert (document.status, document.code) == (422, "unknown_field")
    assert [field.pointer for field in document.errors] == ["/outputs/0"]


def test_texts_come_back_as_they_went_in(serve: Serve, tmp_path: Path, log: logging.Logger) -> None:
    function = serve(serving(log, write_package(tmp_path / "raw/1", identity_model(DType.BYTES, ["n"]))))
    words = np.array([b"a b\n", "é".encode(), b""], dtype=np.object_)
    body, length = encode_request({"x": V2Tensor(DType.BYTES, words)})
    answer = infer(function, body, model="raw", headers={"inference-header-content-length": str(length)})
    response = decode_response(answer.body, int(answer.headers["inference-header-content-length"]), LIMITS)
    assert response.outputs["y"].array.tolist() == words.tolist()
    answer = infer(function, request() | {"inputs": [tensor(datatype="BYTES", shape=[1], data=["é"])]}, model="raw")
    assert answer.json["outputs"][0]["data"] == ["é"]


@pytest.mark.parametrize(("coding", "pack", "unpack"), [
    ("gzip", gzip.compress, gzip.decompress),
    ("deflate", zlib.compress, zlib.decompress),
])  # fmt: skip
def test_bodies_may_be_compressed(
    serve: Serve, tmp_path: Path, log: logging.Logger, coding: str, pack: Any, unpack: Any
) -> None:
    function = serve(serving(log, write_package(tmp_path / "same/1", identity_model(DType.FP32, ["n", 2]))))
    zeros = np.zeros((600, 2), np.float32)
    body, length = encode_request({"x": V2Tensor(DType.FP32, zeros)})
    headers = {
        "content-encoding": coding,
        "accept-encoding": coding,
        "inference-header-content-length": str(length),
    }
    answer = infer(function, pack(body), model="same", headers=headers)
    assert (answer.status, answer.is_base64, answer.headers["content-encoding"]) == (200, True, coding)
    response = decode_response(unpack(answer.body), int(answer.headers["inference-header-content-length"]), LIMITS)
    assert response.outputs["y"].array.tolist() == zeros.tolist()
    document = problem(infer(function, body, model="same", headers=headers))
    assert (document.status, document.code) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        ("{", 400, "not_json", None),
        ("[" * 9 + "]" * 9, 400, "too_deep", None),
        ({"instances": [[1, 2]]}, 422, "missing_field", "/inputs"),
        ({"inputs": []}, 422, "missing_field", "/inputs"),
        ({"inputs": [tensor(name="z")]}, 422, "unknown_field", "/inputs/0/name"),
        ({"inputs": [tensor(datatype="FP64")]}, 422, "wrong_dtype", "/inputs/0/datatype"),
        ({"inputs": [tensor(shape=[4, 1])]}, 422, "wrong_shape", "/inputs/0/shape"),
        ({"inputs": [tensor(shape=[0, 2], data=[])]}, 422, "empty_batch", "/inputs/0/shape"),
        ({"inputs": [tensor(shape=[5, 2], data=[1] * 10)]}, 413, "batch_too_large", "/inputs/0/shape"),
        ({"inputs": [tensor(data=[1, 2, 3, 1001])]}, 422, "out_of_range", "/inputs/0/data/3"),
        (request(id=1), 422, "wrong_dtype", "/id"),
        (request(parameters={"timeout": -1}), 422, "wrong_dtype", "/parameters/timeout"),
        (request(parameters={"priority": 256}), 422, "wrong_dtype", "/parameters/priority"),
        (request(pad="x" * 4096), 413, "payload_too_large", None),
        (
            {
                "inputs": [
                    {"name": "x", "datatype": "FP32", "shape": [2, 2], "parameters": {"shared_memory_region": "r"}}
                ]
            },
            422,
            "unknown_field",
            "/inputs/0/parameters/shared_memory_region",
        ),
        (
            request(outputs=[{"name": "y", "parameters": {"shared_memory_region": "r"}}]),
            422,
            "unknown_field",
            "/outputs/0/parameters/shared_memory_region",
        ),
        (
            request(outputs=[{"name": "y", "parameters": {"classification": 2}}]),
            422,
            "unknown_field",
            "/outputs/0/parameters/classification",
        ),
    ],
)
def test_bad_input_is_refused_with_its_place(
    function: Function, backend: FakeBackend, body: Any, status: int, code: str, pointer: str | None
) -> None:
    document = problem(infer(function, body))
    assert (document.status, document.code) == (status, code)
    if pointer is not None:
        assert document.errors[0].pointer == pointer
    assert backend.calls == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/csv"}, 415),
        ({"accept": "image/png"}, 406),
        ({"inference-header-content-length": "many"}, 400),
        ({"inference-header-content-length": "99999"}, 400),
        ({"content-encoding": "br"}, 415),
    ],
)
def test_bad_headers_are_refused(function: Function, headers: dict[str, str], status: int) -> None:
    answer = infer(function, request(), headers=headers)
    assert (answer.status, problem(answer).status) == (status, status)


def test_the_protocol_s_timeout_bounds_the_deadline(function: Function, backend: FakeBackend) -> None:
    function.context = LambdaContextStub(left_ms=5_000)
    for timeout_us in (0, 250_000, 10**9):
        assert infer(function, request(parameters={"timeout": timeout_us, "priority": 1})).status == 200
    left = 5_000 - SETTINGS.deadline_reserve_ms
    for (_, _, context), most in zip(backend.calls, (left, 250, left), strict=True):
        assert most - 200 < context.deadline_ms <= most


@pytest.mark.parametrize(
    ("scopes", "status"),
    [
        ({"predict"}, 200),
        ({"predict:pair"}, 200),
        ({"predict:heavy"}, 403),
        ({"admin", "jobs", "ingest", "models:write"}, 403),
        (set(), 403),
    ],
)
def test_predictions_need_the_scope(function: Function, scopes: set[str], status: int) -> None:
    caller = replace(CALLER, scopes=frozenset(scopes))
    answer = infer(function, request(), principal=caller)
    assert answer.status == status
    if status == 403:
        assert problem(answer).code == "insufficient_scope"
    # What is described is what the catalogue tells every caller.
    assert function("GET", "/v2/models/pair", principal=caller).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2"),
        ("GET", "/v2/health/live"),
        ("GET", "/v2/health/ready"),
        ("GET", "/v2/models/pair"),
        ("GET", "/v2/models/pair/ready"),
        ("GET", "/v2/models/pair/versions/1"),
        ("GET", "/v2/models/pair/versions/1/ready"),
        ("POST", "/v2/models/pair/infer"),
        ("POST", "/v2/models/pair/versions/1/infer"),
    ],
)
def test_every_route_needs_a_caller(function: Function, registry: InMemoryModels, method: str, path: str) -> None:
    body = request() if method == "POST" else None
    assert problem(function(method, path, body=body, principal=None)).code == "unauthenticated"
    expired = replace(CALLER, expires_at=1)
    assert problem(function(method, path, body=body, principal=expired)).code == "credential_expired"
    assert registry.calls == 0


def test_failures_are_told_in_the_protocol_s_way(
    function: Function, registry: InMemoryModels, backend: FakeBackend
) -> None:
    def failing(error: Exception) -> Any:
        def run(_version: ModelVersion, _inputs: Tensors) -> Tensors:
            raise error

        return run

    backend.run = failing(errors.BackendUnavailable("Overloaded."))
    answer = infer(function, request())
    assert (answer.status, problem(answer).error, answer.headers["retry-after"]) == (503, "Overloaded.", "1")
    backend.run = failing(RuntimeError("inside"))
    document = problem(infer(function, request()))
    assert (document.status, document.code) == (502, "backend_error")
    assert "inside" not in document.error
    registry.error = errors.BackendUnavailable("The registry is down.")
    assert problem(function("GET", "/v2/models/words")).error == "The registry is down."


def test_the_answer_has_no_member_that_the_protocol_has_not(function: Function) -> None:
    assert json.loads(infer(function, request()).body).keys() == {"model_name", "model_version", "outputs"}
