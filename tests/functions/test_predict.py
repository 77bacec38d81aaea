import base64
import json
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from functions.predict.bootstrap import application
from shared.domain import errors
from shared.domain.endpoint.config import FUNCTION
from shared.domain.model import ModelVersion, Placement
from shared.domain.principal import Principal
from shared.domain.tensors import Tensors
from shared.schemas.api import PredictResponse, Problem
from shared.web.logs import JsonFormatter
from shared.web.problems import status_of
from tests.fakes import FakeBackend, InMemoryModels
from tests.functions.conftest import LogLines, Serve
from tests.functions.parts import parts
from tests.functions.support import (
    GATEWAY_ID,
    Answer,
    Function,
    LambdaContextStub,
    event,
    predict_settings,
    published,
)

SETTINGS = predict_settings(max_body_bytes=4096, max_json_depth=8)
ROUTE = "/v1/models/{model}/predict"


def all_errors(root: type[errors.SluiceError] = errors.SluiceError) -> Iterator[type[errors.SluiceError]]:
    yield root
    for error in root.__subclasses__():
        yield from all_errors(error)


@pytest.fixture
def backend() -> FakeBackend:
    def double(_version: ModelVersion, inputs: Tensors) -> Tensors:
        return {"y": np.asarray(inputs["x"] * 2, dtype=np.float32)}

    return FakeBackend(double)


@pytest.fixture
def registry() -> InMemoryModels:
    return InMemoryModels(published(), published(version=2), published("heavy", placement=Placement.CONTAINER))


@pytest.fixture
def function(serve: Serve, registry: InMemoryModels, backend: FakeBackend, log: logging.Logger) -> Function:
    return serve(application(SETTINGS, parts(registry, {FUNCTION: backend}), log))


def predict(function: Function, body: Any, model: str = "pair", **more: Any) -> Answer:
    return function("POST", f"/v1/models/{model}/predict", route=ROUTE, body=body, **more)


def problem(answer: Answer) -> Problem:
    assert answer.headers["content-type"] == "application/problem+json"
    assert not answer.is_base64
    assert b"Traceback" not in answer.body
    document = Problem.model_validate_json(answer.body)
    assert document.status == answer.status
    assert document.request_id == answer.headers["x-request-id"]
    return document


def test_the_highest_version_answers_each_instance_in_order(function: Function) -> None:
    answer = predict(function, {"instances": [[1, 2], [3, 4.5]]})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    document = answer.json
    assert document["predictions"] == [{"left": 2, "right": 4}, {"left": 6, "right": 9}]
    assert document["model"] == {"name": "pair", "version": 2, "variant": "main", "backend": "function"}
    assert PredictResponse.model_validate(document).prediction_id


def test_rows_features_layouts_and_tensors_mean_the_same(function: Function) -> None:
    bodies: list[Any] = [
        {"instances": [[1, 2]]},
        {"instances": [{"b": 2, "a": 1}]},
        {"instances": [[[1], [2]]]},
        {"inputs": {"x": [[1, 2]]}},
    ]
    answers = [predict(function, body).json["predictions"] for body in bodies]
    assert answers == [[{"left": 2, "right": 4}]] * 4


def test_the_backend_is_told_request_tenant_and_the_time_that_is_left(function: Function, backend: FakeBackend) -> None:
    function.context = LambdaContextStub(left_ms=5_000)
    predict(function, {"instances": [[1, 2]]}, headers={"x-request-id": "abc-123"})
    _, _, context = backend.calls[0]
    assert (context.request_id, context.tenant) == ("abc-123", "acme")
    left = 5_000 - SETTINGS.deadline_reserve_ms
    assert left - 200 < context.deadline_ms <= left
    function.context = LambdaContextStub(left_ms=900_000)
    predict(function, {"instances": [[1, 2]]})
    assert SETTINGS.deadline_ms - 200 < backend.calls[1][2].deadline_ms <= SETTINGS.deadline_ms


def test_without_time_left_no_model_runs(function: Function, backend: FakeBackend) -> None:
    function.context = LambdaContextStub(left_ms=100)
    answer = predict(function, {"instances": [[1, 2]]})
    assert (answer.status, problem(answer).code) == (504, "backend_timeout")
    assert backend.calls == []


def test_a_prediction_tells_its_timing_and_every_answer_its_request(function: Function) -> None:
    answer = predict(function, {"instances": [[1, 2]]})
    steps = dict(step.split(";dur=") for step in answer.headers["server-timing"].split(", "))
    assert list(steps) == ["admit", "route", "decode", "run", "encode", "total"]
    assert all(float(ms) >= 0 for ms in steps.values())
    assert answer.headers["x-request-id"] == GATEWAY_ID
    assert predict(function, "{").headers["x-request-id"] == GATEWAY_ID


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        ("{", 400, "not_json", None),
        (b"\xff\xfe", 400, "not_json", None),
        ("", 400, "not_json", None),
        ("[" * 9 + "]" * 9, 400, "too_deep", None),
        ('{"instances": [[NaN, 1]]}', 422, "not_finite", None),
        ('{"instances": [[1e999, 1]]}', 422, "not_finite", None),
        ('{"instances": [[1e39, 1]]}', 422, "not_finite", "/instances/0/0"),
        ({"rows": [[1, 2]]}, 422, "unknown_field", "/rows"),
        ({"instances": [{"a": 1, "c": 2}]}, 422, "missing_field", "/instances/0/b"),
        ({"inputs": {"z": [[1, 2]]}}, 422, "unknown_field", "/inputs/z"),
        ({"instances": [[1, "2"]]}, 422, "wrong_dtype", "/instances/0/1"),
        ({"instances": [[1, True]]}, 422, "wrong_dtype", "/instances/0/1"),
        ({"instances": [[1, 2], [1, 2, 3]]}, 422, "wrong_shape", "/instances/1"),
        ({"instances": [[1, 2, 3]]}, 422, "wrong_shape", "/instances"),
        ({"instances": [[1, 1001]]}, 422, "out_of_range", "/instances/0/1"),
        ({"instances": []}, 422, "empty_batch", "/instances"),
        ({"instances": [[1, 2]] * 5}, 413, "batch_too_large", "/instances"),
        ({"instances": [[1, 2]], "pad": "x" * 4096}, 413, "payload_too_large", None),
    ],
)
def test_bad_input_is_refused_with_its_code_and_reaches_no_model(
    function: Function, backend: FakeBackend, body: Any, status: int, code: str, pointer: str | None
) -> None:
    answer = predict(function, body)
    document = problem(answer)
    assert (answer.status, document.code) == (status, code)
    assert [field.pointer for field in document.errors] == ([] if pointer is None else [pointer])
    assert backend.calls == []


@pytest.mark.parametrize("error", [error for error in all_errors() if error.__module__ == errors.__name__])
def test_whatever_a_backend_raises_is_answered_with_its_code(
    function: Function, backend: FakeBackend, error: type[errors.SluiceError]
) -> None:
    def fail(_version: ModelVersion, _inputs: Tensors) -> Tensors:
        raise error.at("/instances/0", "it was the test")

    backend.run = fail
    answer = predict(function, {"instances": [[1, 2]]})
    document = problem(answer)
    assert (answer.status, document.code, document.title) == (status_of(error).value, error.code, error.title)
    assert document.type == f"urn:sluice:problem:{error.code}"
    assert [(field.pointer, field.detail) for field in document.errors] == [("/instances/0", "it was the test")]
    waits = answer.status == 503 or error.retry_after_s is not None
    assert ("retry-after" in answer.headers) == waits


@pytest.mark.parametrize("model", ["nothing", "Pair", "a" * 65, "..", "-x", "a b", "é"])
def test_an_unknown_model_is_told_and_a_name_that_is_none_asks_no_store(
    function: Function, registry: InMemoryModels, model: str
) -> None:
    answer = predict(function, {"instances": [[1, 2]]}, model=model)
    assert (answer.status, problem(answer).code) == (404, "model_not_found")
    assert registry.calls == (1 if model == "nothing" else 0)


@pytest.mark.parametrize(
    ("scopes", "status"),
    [({"predict"}, 200), ({"predict:pair"}, 200), ({"predict:heavy"}, 403), ({"jobs", "admin"}, 403), (set(), 403)],
)
def test_a_caller_needs_the_scope(function: Function, scopes: set[str], status: int) -> None:
    principal = Principal("acme", "key", frozenset(scopes), "demo")
    answer = predict(function, {"instances": [[1, 2]]}, principal=principal)
    assert answer.status == status
    unknown = predict(function, {"instances": [[1, 2]]}, model="nothing", principal=principal)
    assert unknown.status == (404 if "predict" in scopes else 403)


def test_a_request_that_passed_no_authorizer_is_refused(function: Function, backend: FakeBackend) -> None:
    answer = predict(function, {"instances": [[1, 2]]}, principal=None)
    assert (answer.status, problem(answer).code) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert backend.calls == []


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=UTF-8", 200),
        ("application/vnd.acme+json", 200),
        ("", 200),
        ("application/json; charset=latin-1", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/jsonx", 415),
    ],
)
def test_json_has_many_names_and_one_charset(function: Function, content_type: str, status: int) -> None:
    answer = predict(function, {"instances": [[1, 2]]}, headers={"content-type": content_type})
    assert answer.status == status
    if status == 415:
        assert problem(answer).code == "unsupported_media_type"


def test_a_model_for_the_container_says_that_there_is_none(function: Function) -> None:
    answer = predict(function, {"instances": [[1, 2]]}, model="heavy")
    document = problem(answer)
    assert (answer.status, document.code) == (503, "backend_unavailable")
    assert "ContainerImage" in document.detail


def test_the_log_line_names_the_caller_and_the_model_and_no_inputs(function: Function, log_lines: LogLines) -> None:
    body = {"instances": [[123.5, 456.25]]}
    answer = predict(function, body, headers={"authorization": "Bearer hidden"})
    (line,) = log_lines.requests()
    assert line["request_id"] == answer.headers["x-request-id"]
    expected = {
        "level": "INFO",
        "route": f"POST {ROUTE}",
        "status": 200,
        "code": "ok",
        "tenant": "acme",
        "key_id": "k" * 16,
        "model": "pair",
        "version": 2,
        "variant": "main",
        "backend": "function",
        "rows": 1,
        "bytes_in": len(json.dumps(body)),
        "bytes_out": len(answer.body),
        "prediction_id": answer.json["prediction_id"],
        "cold_start": True,
    }
    assert expected.items() <= line.items()
    assert set(line["steps_ms"]) == {"admit", "route", "decode", "run", "encode"}
    predict(function, "{")
    second = log_lines.requests()[1]
    assert (second["status"], second["code"], second["cold_start"]) == (400, "not_json", False)
    assert "123.5" not in log_lines.text
    assert "hidden" not in log_lines.text


@pytest.mark.parametrize("said", ["0", "-1", "1e3", "9" * 30, "9" * 5000])
def test_the_log_line_tells_the_bytes_that_came_whatever_the_caller_says(
    function: Function, log_lines: LogLines, said: str
) -> None:
    body = {"instances": [[1, 2]]}
    assert predict(function, body, headers={"content-length": said}).status == 200
    assert function("GET", "/health", headers={"content-length": said}, principal=None).status == 200
    first, second = log_lines.requests()
    assert first["bytes_in"] == len(json.dumps(body))
    assert second["bytes_in"] == 0


def test_an_unexpected_error_shows_nothing_and_logs_everything(
    function: Function, backend: FakeBackend, log_lines: LogLines, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.setFormatter(JsonFormatter("test"))

    def fail(_version: ModelVersion, _inputs: Tensors) -> Tensors:
        raise ZeroDivisionError("a secret of the inside")

    backend.run = fail
    answer = predict(function, {"instances": [[1, 2]]})
    document = problem(answer)
    assert (answer.status, document.code) == (502, "backend_error")
    assert b"secret of the inside" not in answer.body
    (line,) = log_lines.lines
    error = json.loads(caplog.text.splitlines()[0])
    assert "ZeroDivisionError: a secret of the inside" in error["exception"]
    assert error["request_id"] == line["request_id"] == document.request_id
    assert (line["level"], line["status"], line["code"]) == ("ERROR", 502, "backend_error")


def test_health_asks_nobody(function: Function, registry: InMemoryModels) -> None:
    registry.error = errors.BackendUnavailable("The registry is down.")
    answer = function("GET", "/health", principal=None)
    assert (answer.status, answer.json) == (200, {"status": "ok"})
    assert registry.calls == 0


def test_a_body_may_come_as_text_or_as_base64(function: Function) -> None:
    sent = event("POST", "/v1/models/pair/predict", ROUTE, {"instances": [[1, 2]]})
    assert sent["isBase64Encoded"] is True
    as_text = {**sent, "body": base64.b64decode(sent["body"]).decode(), "isBase64Encoded": False}
    for made in (sent, as_text):
        answer = Answer.of(function.handler(made, function.context))
        assert answer.json["predictions"] == [{"left": 2, "right": 4}]


def test_the_trace_of_the_invocation_goes_on_to_the_backend(
    function: Function, backend: FakeBackend, log_lines: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1")
    predict(function, {"instances": [[1, 2]]})
    monkeypatch.delenv("_X_AMZN_TRACE_ID")
    predict(function, {"instances": [[1, 2]]})
    traces = [context.traceparent for _, _, context in backend.calls]
    assert traces == ["00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01", None]
    assert [line.get("trace_id") for line in log_lines.requests()] == ["1-5759e988-bd862e3fe1be46a994272793", None]


def test_an_answer_that_lambda_could_not_return_is_refused(
    function: Function, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("functions.predict.prediction.MAX_EVENT_BYTES", 100)
    assert problem(predict(function, {"instances": [[1, 2]] * 3})).code == "answer_too_large"


def test_a_body_that_is_not_in_the_coding_it_names_is_refused(function: Function) -> None:
    answer = predict(function, {"instances": [[1, 2]]}, headers={"content-encoding": "gzip"})
    assert (answer.status, problem(answer).code) == (400, "invalid_request")
    answer = predict(function, {"instances": [[1, 2]]}, headers={"content-encoding": "br"})
    assert (answer.status, problem(answer).code) == (415, "unsupported_media_type")
    assert predict(function, {"instances": [[1, 2]]}, headers={"content-encoding": "identity"}).status == 200


def test_a_path_is_decoded_once(function: Function) -> None:
    answer = function("POST", "/v1/models/p%61ir/predict", route=ROUTE, body={"instances": [[1, 2]]})
    assert problem(answer).code == "model_not_found"
