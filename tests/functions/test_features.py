"""A model with features behind the predict function's application: from a request's bytes to its log line."""

import csv
import io
import json
import logging
from dataclasses import replace
from pathlib import Path
from time import time
from typing import Any

import pytest

from functions.api.examples import examples
from functions.predict.bootstrap import application
from shared.adapters.function_backend import FunctionBackend
from shared.adapters.onnx.package import OnnxPackage
from shared.domain.endpoint.config import FUNCTION, EndpointConfig, FeatureSettings, LogSettings
from shared.domain.errors import FeaturesUnavailable
from shared.domain.features import EntityKey, FeatureRecord
from shared.domain.model import ModelVersion
from tests.fakes import InMemoryFeatures, InMemoryModels
from tests.functions.conftest import LogLines, Serve
from tests.functions.parts import parts, stored
from tests.functions.served import Folders
from tests.functions.support import Answer, Function, predict_settings, published
from tests.models import add_model, manifest, tensor, write_package

PATH = "/v1/models/risk/predict"
FEATURES: dict[str, Any] = {
    "entity": "customer_id",
    "sets": [
        {
            "name": "customer",
            "input": "x",
            "fields": [{"feature": "age", "default": 40.0, "overridable": True}, {"feature": "income", "default": 7}],
        }
    ],
}


@pytest.fixture
def store() -> InMemoryFeatures:
    store = InMemoryFeatures()
    values = {"age": 30, "income": 100.5}
    store.put("acme", [FeatureRecord(EntityKey("customer", "c-1"), values, int(time()) - 60)])
    store.put("other", [FeatureRecord(EntityKey("customer", "c-2"), values, int(time()))])
    return store


def function_of(serve: Serve, log: logging.Logger, folder: Path, store: InMemoryFeatures, **config: Any) -> Function:
    """The function with the model, whose graph adds 1 to each column."""
    inputs = [tensor("x", "FP32", [-1, 3], features=["age", "amount", "income"])]
    document = manifest("risk", 1, inputs, [tensor("y", "FP32", [-1, 3])], features=FEATURES)
    package = OnnxPackage.load(write_package(folder, add_model(1, width=3), document), threads=1)
    version = replace(published("risk", signature=package.signature), features=package.manifest.model_features())
    made = parts(
        InMemoryModels(version),
        {FUNCTION: FunctionBackend(Folders(package))},
        features=store,
        endpoints=stored(EndpointConfig("risk", **config)),
    )
    return serve(application(predict_settings(), made, log))


def published_with_example(folder: Path) -> ModelVersion:
    """The version of that package, with an example as callers send it."""
    package = OnnxPackage.load(folder, threads=1)
    features = package.manifest.model_features()
    assert features is not None
    return replace(published("risk", signature=package.signature), features=replace(features, example=ROW))


def ask(function: Function, body: Any, path: str = PATH, **headers: str) -> Answer:
    route = "/v1/models/{model}/predict" if path == PATH else "/v2/models/{model}/infer"
    return function("POST", path, route=route, body=body, headers=headers)


ROW = {"x": {"amount": 9.5}, "customer_id": "c-1"}


def test_every_format_takes_ids(serve: Serve, log: logging.Logger, tmp_path: Path, store: InMemoryFeatures) -> None:
    function = function_of(serve, log, tmp_path, store)
    line = io.StringIO()
    csv.writer(line).writerows([["x.amount", "customer_id"], [9.5, "c-1"]])
    v2 = {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [9.5]},
            {"name": "customer_id", "datatype": "BYTES", "shape": [1], "data": ["c-1"]},
        ]
    }
    for body, headers in (
        ({"instances": [ROW]}, {}),
        ({"inputs": {"x": [[9.5]], "customer_id": ["c-1"]}}, {}),
        (json.dumps(ROW), {"content-type": "application/x-ndjson", "accept": "application/json"}),
        (line.getvalue(), {"content-type": "text/csv", "accept": "application/json"}),
    ):
        answer = ask(function, body, **headers)
        assert answer.status == 200, answer.body
        assert answer.json["predictions"] == [[31, 10.5, 101.5]]
    answer = ask(function, v2, "/v2/models/risk/infer")
    assert answer.json["outputs"][0]["data"] == [31, 10.5, 101.5]
    metadata = function("GET", "/v2/models/risk", route="/v2/models/{model}").json
    assert [(spec["name"], spec["datatype"], spec["shape"]) for spec in metadata["inputs"]] == [
        ("x", "FP32", [-1, 1]),
        ("customer_id", "BYTES", [-1]),
        ("age", "FP32", [-1]),
    ]


def test_the_examples_that_the_contract_shows_are_answered(
    serve: Serve, log: logging.Logger, tmp_path: Path, store: InMemoryFeatures
) -> None:
    function = function_of(serve, log, tmp_path, store)
    version = published_with_example(tmp_path)
    shown = examples(version.caller_signature, version.caller_example)
    assert shown.keys() >= {"application/json", "text/csv"}
    for kind in ("application/json", "text/csv"):
        for example in shown[kind].values():
            answer = ask(function, example["value"], **{"content-type": kind, "accept": "application/json"})
            assert answer.status == 200, answer.body


def test_rows_keep_their_own(serve: Serve, log: logging.Logger, tmp_path: Path, store: InMemoryFeatures) -> None:
    """Rows in any order, some of one entity, one that is another tenant's only."""
    function = function_of(serve, log, tmp_path, store)
    rows = [{"x": [at], "customer_id": name} for at, name in enumerate(("c-2", "c-1", "nobody", "c-1"))]
    assert ask(function, {"instances": rows}).json["predictions"] == [
        [41, 1, 8],
        [31, 2, 101.5],
        [41, 3, 8],
        [31, 4, 101.5],
    ]
    overridden = [{**row, "age": at} for at, row in enumerate(rows)]
    ages = [prediction[0] for prediction in ask(function, {"instances": overridden}).json["predictions"]]
    assert ages == [1, 2, 3, 4]
    assert len(store.reads) == 2


@pytest.mark.parametrize(
    ("row", "code", "pointer"),
    [
        ({"x": {"amount": 1}}, "missing_field", "/instances/0/customer_id"),
        ({**ROW, "x": {"amount": 1, "income": 2}}, "unknown_field", "/instances/0/x/income"),
        ({**ROW, "income": 2}, "unknown_field", "/instances/0/income"),
        ({**ROW, "customer_id": 7}, "wrong_dtype", "/instances/0/customer_id"),
        ({**ROW, "customer_id": "c" * 257}, "text_too_long", "/instances/0/customer_id"),
    ],
)
def test_what_callers_get_wrong(
    serve: Serve, log: logging.Logger, tmp_path: Path, store: InMemoryFeatures, row: Any, code: str, pointer: str
) -> None:
    answer = ask(function_of(serve, log, tmp_path, store), {"instances": [row]})
    assert (answer.status, answer.json["code"]) == (422, code)
    assert answer.json["errors"][0]["pointer"] == pointer
    assert store.reads == []


def test_what_is_too_old_for_the_endpoint(
    serve: Serve, log: logging.Logger, tmp_path: Path, store: InMemoryFeatures
) -> None:
    function = function_of(serve, log, tmp_path, store, features=FeatureSettings(max_age_s=30))
    assert ask(function, {"instances": [ROW]}).json["predictions"] == [[41, 10.5, 8]]


def test_while_the_store_fails(serve: Serve, log: logging.Logger, tmp_path: Path, store: InMemoryFeatures) -> None:
    refusing = function_of(serve, log, tmp_path / "a", store)
    going_on = function_of(serve, log, tmp_path / "b", store, features=FeatureSettings(on_failure="defaults"))
    store.error = FeaturesUnavailable("The feature store cannot be reached.")
    answer = ask(refusing, {"instances": [ROW]})
    assert (answer.status, answer.json["code"]) == (503, "features_unavailable")
    assert ask(going_on, {"instances": [ROW]}).json["predictions"] == [[41, 10.5, 8]]


def test_what_was_used_is_in_the_log_line(
    serve: Serve, log: logging.Logger, log_lines: LogLines, tmp_path: Path, store: InMemoryFeatures
) -> None:
    log.addHandler(log_lines)
    ask(function_of(serve, log, tmp_path / "a", store), {"instances": [ROW, {**ROW, "customer_id": "nobody"}]})
    (line,) = log_lines.requests()
    (used,) = line["features"]["sets"].values()
    assert used["oldest_s"] in range(60, 70)
    assert {name: used[name] for name in ("entities", "found", "missing")} == {"entities": 2, "found": 2, "missing": 2}
    # Neither ids nor values, unless the endpoint asks for them, and then without what it redacts.
    assert "c-1" not in log_lines.text
    settings = LogSettings(inputs=1.0, redact=("income", "customer_id"))
    ask(function_of(serve, log, tmp_path / "b", store, logging=settings), {"instances": [ROW]})
    logged = log_lines.requests()[1]
    assert "c-1" not in log_lines.text
    assert "100.5" not in log_lines.text
    assert '"age":30' in json.dumps(logged, separators=(",", ":"))
