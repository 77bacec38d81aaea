import json
import logging
import re
from typing import Any

import orjson
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from functions.api.documentation import CONTRACT, MAX_MODELS
from infra.local.stack import StackSpec
from infra.openapi import render
from shared.codecs.content.media import KNOWN, MULTIPART
from shared.domain.dtypes import DType
from shared.domain.signature import Content, Signature, TensorSpec
from tests.fakes import InMemoryModels
from tests.functions.api_parts import api_application
from tests.functions.conftest import Serve
from tests.functions.support import SIGNATURE, Function, published

IMAGE = TensorSpec("image", DType.FP32, (None, 4), layouts=((2, 2),), content=Content.IMAGE, minimum=0, maximum=16)
TEXT = TensorSpec("text", DType.BYTES, (None,), content=Content.TEXT, max_length=5)
LABEL = TensorSpec("label", DType.BYTES, (None,), classes=("yes", "no"))
VECTOR = TensorSpec("vector", DType.FP32, (None, 3))
TWO = Signature(inputs=(TEXT, IMAGE), outputs=(LABEL, VECTOR), max_batch=2)
SINGLE = Signature(inputs=(TensorSpec("n", DType.INT64, (2,)),), outputs=(VECTOR,), batched=False)


@pytest.fixture
def registry() -> InMemoryModels:
    return InMemoryModels(
        published("pair", metadata={"example": [1.0, 2.0]}),
        published("two.parts", signature=TWO, metadata={"example": {"text": "hi", "image": [1, 2, 3, 4]}}),
        published("single", signature=SINGLE, metadata={"example": None}),
    )


@pytest.fixture
def function(serve: Serve, registry: InMemoryModels, log: logging.Logger) -> Function:
    return serve(api_application(log, registry, contract_ttl_s=60))


@pytest.fixture
def document(function: Function) -> dict[str, Any]:
    answer = function("GET", "/openapi.json", principal=None)
    assert (answer.status, answer.is_base64) == (200, False)
    return dict(answer.json)


def test_the_committed_contract_is_what_the_routes_say() -> None:
    assert CONTRACT.read_text(encoding="utf-8") == render(), "run: python -m infra.openapi"


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    validate(document)


def test_it_has_every_route_of_the_template_but_its_own(document: dict[str, Any], stack: StackSpec) -> None:
    (api,) = stack.http_apis.values()
    # The routes for signed requests are the others' below /iam; the page and the document do not describe themselves.
    hidden = re.compile("/docs|/openapi|/iam/")
    # A variable that goes over slashes has one name only to SAM, and one that tells more to who reads the document.
    paths = {route: route.path.replace("{proxy+}", "{entity}") for route in api.routes if not hidden.match(route.path)}
    routes = {(route.method, path): route for route, path in paths.items()}
    described = {
        (method.upper(), path): operation
        for path, operations in json.loads(CONTRACT.read_text())["paths"].items()
        for method, operation in operations.items()
    }
    assert described.keys() == routes.keys()
    for key, operation in described.items():
        assert bool(operation.get("security")) == bool(routes[key].authorizer), key


def test_problems_are_declared_with_their_codes(document: dict[str, Any]) -> None:
    responses = document["paths"]["/v1/models/{model}/predict"]["post"]["responses"]
    assert set(responses) == {
        "200", "202", "400", "401", "403", "404", "406", "409", "413", "415", "422", "429", "500", "502", "503", "504",
    }  # fmt: skip
    for status, response in responses.items():
        if int(status) >= 400:
            assert response["content"]["application/problem+json"]["schema"]["$ref"].endswith("/Problem")
    assert responses["202"]["content"]["application/json"]["schema"]["$ref"].endswith("/JobDocument")
    assert "`wrong_shape`" in responses["422"]["description"]
    assert "GatewayMessage" in json.dumps(responses["403"]["content"]["application/json"])


def test_every_model_has_its_own_operation(document: dict[str, Any]) -> None:
    operation = document["paths"]["/v1/models/two.parts/predict"]["post"]
    assert operation["operationId"] == "predict_two.parts"
    assert operation["security"] == [{"bearer": []}]
    assert "single" not in operation["description"]


def schema_of(document: dict[str, Any], model: str, part: str) -> OAS31Validator:
    operation = document["paths"][f"/v1/models/{model}/predict"]["post"]
    place = operation["requestBody"] if part == "request" else operation["responses"]["200"]
    schema = place["content"]["application/json"]["schema"]
    return OAS31Validator({**schema, "components": document["components"]})  # references lead into the same document


@pytest.mark.parametrize("model", ["pair", "two.parts"])
def test_the_example_fits_the_schema(document: dict[str, Any], model: str) -> None:
    content = document["paths"][f"/v1/models/{model}/predict"]["post"]["requestBody"]["content"]["application/json"]
    values = [example["value"] for example in content["examples"].values()]
    assert values[0]["instances"]
    for value in values:
        schema_of(document, model, "request").validate(value)


@pytest.mark.parametrize(
    ("model", "body", "fits"),
    [
        ("pair", {"instances": [[1, 2]] * 4}, True),
        ("pair", {"instances": [{"a": 1, "b": 2}]}, True),
        ("pair", {"instances": [[[1], [2]]]}, True),
        ("pair", {"inputs": {"x": [[1, 2]]}}, True),
        ("pair", {"instances": [[1, 2]] * 5}, False),
        ("pair", {"instances": []}, False),
        ("pair", {"instances": [[1]]}, False),
        ("pair", {"instances": [[1, "2"]]}, False),
        ("pair", {"instances": [[1, 1001]]}, False),
        ("pair", {"instances": [{"a": 1}]}, False),
        ("pair", {"rows": [[1, 2]]}, False),
        ("two.parts", {"instances": [{"text": "hello", "image": {"b64": "aGk="}}]}, True),
        ("two.parts", {"instances": [{"text": "hello", "image": [[1, 2], [3, 4]]}]}, True),
        ("two.parts", {"inputs": {"text": ["a", "b"], "image": [[1, 2, 3, 4]] * 2}}, True),
        ("two.parts", {"instances": [{"text": "hello!", "image": [1, 2, 3, 4]}]}, False),
        ("two.parts", {"instances": [{"text": "hello"}]}, False),
        ("single", {"instances": [[1, 2]]}, True),
        ("single", {"inputs": {"n": [1, 2]}}, True),
        ("single", {"instances": [[1, 2], [1, 2]]}, False),
        ("single", {"instances": [[1.5, 2]]}, False),
    ],
)
def test_the_schema_takes_what_the_signature_takes(
    document: dict[str, Any], model: str, body: dict[str, Any], fits: bool
) -> None:
    assert schema_of(document, model, "request").is_valid(body) is fits


@pytest.mark.parametrize(
    ("model", "prediction", "fits"),
    [
        ("pair", {"left": 0.5, "right": 1}, True),
        ("pair", [0.5, 1], False),
        ("two.parts", {"label": "yes", "vector": [1, 2, 3]}, True),
        ("two.parts", {"label": "maybe", "vector": [1, 2, 3]}, False),
    ],
)
def test_the_schema_says_what_predictions_look_like(
    document: dict[str, Any], model: str, prediction: Any, fits: bool
) -> None:
    answer = {
        "predictions": [prediction],
        "model": {"name": model, "version": 1, "variant": "main", "backend": "function"},
        "prediction_id": "1",
    }
    assert schema_of(document, model, "response").is_valid(answer) is fits


@pytest.mark.parametrize("path", ["/v1/models/{model}/predict", "/v1/models/pair/predict"])
def test_the_types_of_the_route_are_listed(document: dict[str, Any], path: str) -> None:
    operation = document["paths"][path]["post"]
    assert set(operation["requestBody"]["content"]) == {*KNOWN, MULTIPART}
    assert set(operation["responses"]["200"]["content"]) == set(KNOWN)


def test_the_schemas_of_a_model_are_documents_of_their_own(function: Function) -> None:
    answer = function("GET", "/v1/models/two.parts/schema")
    assert (answer.status, answer.json["model"], answer.json["version"]) == (200, "two.parts", 1)
    request, response = (OAS31Validator(answer.json[part]) for part in ("request", "response"))
    for part in ("request", "response"):
        assert answer.json[part]["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        OAS31Validator.check_schema(answer.json[part])
    assert request.is_valid({"instances": [{"text": "hi", "image": [1, 2, 3, 4]}]})
    assert not request.is_valid({"instances": [{"text": "hi", "image": [1, 2, 3, 99]}]})
    served: dict[str, Any] = {"name": "two.parts", "version": 1, "variant": "main", "backend": "function"}
    made: dict[str, Any] = {
        "predictions": [{"label": "yes", "vector": [1, 2, 3]}],
        "model": served,
        "prediction_id": "1",
    }
    assert response.is_valid(made)
    assert not response.is_valid(made | {"model": served | {"version": 2}})


def test_there_is_no_schema_of_an_unknown_model_and_none_without_a_caller(function: Function) -> None:
    assert function("GET", "/v1/models/nothing/schema").json["code"] == "model_not_found"
    assert function("GET", "/v1/models/pair/schema", principal=None).status == 401


def test_the_document_is_kept_for_its_time(serve: Serve, registry: InMemoryModels, log: logging.Logger) -> None:
    kept = serve(api_application(log, registry, contract_ttl_s=60))
    first = kept("GET", "/openapi.json").body
    registry.add(published("late"))
    assert kept("GET", "/openapi.json").body == first
    renewed = serve(api_application(log, registry))
    assert "/v1/models/late/predict" in renewed("GET", "/openapi.json").json["paths"]


def test_the_document_stays_below_lambdas_limit(serve: Serve, log: logging.Logger) -> None:
    wide = TensorSpec("x", DType.FP32, (None, 30), features=tuple(f"a feature with a name {i}" for i in range(30)))
    signature = Signature(inputs=(wide,), outputs=SIGNATURE.outputs)
    registry = InMemoryModels(*(published(f"m{number}", signature=signature) for number in range(MAX_MODELS + 50)))
    function = serve(api_application(log, registry))
    assert len(function("GET", "/openapi.json").body) < 5_000_000


def test_the_page_loads_nothing_from_elsewhere(function: Function) -> None:
    answer = function("GET", "/docs", principal=None)
    html = answer.body.decode()
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "http" not in html.replace("http-equiv", "")
    assert '"validatorUrl": null' in html
    loaded = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert len(loaded) == 3
    for address in loaded:
        assert function("GET", f"/{address}", principal=None).status == 200, address


@pytest.mark.parametrize(
    ("name", "media_type", "is_base64"),
    [
        ("swagger-ui-bundle.js", "text/javascript; charset=utf-8", False),
        ("swagger-ui.css", "text/css; charset=utf-8", False),
        ("favicon.png", "image/png", True),
    ],
)
def test_the_files_of_the_page(function: Function, name: str, media_type: str, is_base64: bool) -> None:
    answer = function("GET", f"/docs/{name}", principal=None)
    assert (answer.status, answer.headers["content-type"], answer.is_base64) == (200, media_type, is_base64)
    assert "max-age" in answer.headers["cache-control"]
    assert len(answer.body) > 1000
    assert len(orjson.dumps(answer.body.decode("latin-1"))) < 6 * 1024 * 1024


@pytest.mark.parametrize("name", ["redoc.standalone.js", "..", "%2e%2e%2fcore.py", "nothing", "swagger-ui.css%00"])
def test_no_other_file_can_be_read(function: Function, name: str) -> None:
    answer = function("GET", f"/docs/{name}", principal=None)
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")
