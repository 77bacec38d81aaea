import logging
from dataclasses import replace

import pytest
from jsonschema import Draft202012Validator

from shared.adapters.cached_endpoints import CachedEndpoints
from shared.domain.dtypes import DType
from shared.domain.endpoint.config import EndpointConfig, ResponseFilter, StoredEndpoint, Threshold, Variant
from shared.domain.errors import BackendUnavailable
from shared.domain.features import Feature, FeatureSet, ModelFeatures
from shared.domain.model import Placement
from shared.domain.pipeline import Pipeline, Source, Step
from shared.domain.principal import Principal
from shared.domain.signature import TensorSpec
from shared.schemas.api import ModelDocument, ModelList, Problem, VersionDocument
from tests.fakes import InMemoryEndpoints, InMemoryModels
from tests.functions.api_parts import api_application
from tests.functions.conftest import Serve
from tests.functions.support import SIGNATURE, Function, published


@pytest.fixture
def registry() -> InMemoryModels:
    return InMemoryModels(
        published("pair", 1, metadata={"stage": "archived"}),
        published("pair", 3),
        published("heavy", placement=Placement.CONTAINER, metadata={"metrics": {"auc": 0.9}}),
    )


@pytest.fixture
def function(serve: Serve, registry: InMemoryModels, log: logging.Logger) -> Function:
    return serve(api_application(log, registry))


def code(function: Function, path: str, principal: Principal | None = None) -> tuple[int, str]:
    answer = function("GET", path, principal=principal) if principal else function("GET", path)
    return answer.status, Problem.model_validate_json(answer.body).code


def test_all_models_by_name(function: Function) -> None:
    answer = function("GET", "/v1/models")
    document = ModelList.model_validate_json(answer.body)
    assert [(model.name, model.version, model.placement) for model in document.models] == [
        ("heavy", 1, Placement.CONTAINER),
        ("pair", 3, Placement.FUNCTION),
    ]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]


def test_a_model_has_its_versions_its_traffic_and_its_highest_version(function: Function) -> None:
    document = ModelDocument.model_validate_json(function("GET", "/v1/models/pair").body)
    assert (document.name, document.version, document.stage) == ("pair", 3, "production")
    assert [(version.version, version.stage) for version in document.versions] == [(3, "production"), (1, "archived")]
    assert [(share.version, share.percent) for share in document.traffic] == [(3, 100)]
    (tensor,) = document.signature.inputs
    assert (tensor.shape, tensor.features, tensor.layouts) == ((-1, 2), ("a", "b"), ((2, 1),))


def test_callers_see_the_ids_in_place_of_what_the_feature_store_fills(serve: Serve, log: logging.Logger) -> None:
    fields = (Feature("a", "x", "a", default=1), Feature("b", "x", "b", overridable=True))
    features = ModelFeatures((FeatureSet("customer", "customer_id", fields),), example="c-1")
    registry = InMemoryModels(replace(published(metadata={"example": [1, 2]}), features=features))
    function = serve(api_application(log, registry))
    document = ModelDocument.model_validate_json(function("GET", "/v1/models/pair").body)
    assert [(spec.name, spec.optional) for spec in document.signature.inputs] == [("customer_id", False), ("b", True)]
    assert document.metadata["example"] == "c-1"
    assert document.features is not None
    assert [field.feature for field in document.features.sets[0].fields] == ["a", "b"]
    schemas = function("GET", "/v1/models/pair/schema").json
    for instance, fits in (
        ("c-1", True),
        ({"customer_id": "c-1", "b": 2}, True),
        ([1, 2], False),
        ({"a": 1, "b": 2}, False),
    ):
        assert Draft202012Validator(schemas["request"]).is_valid({"instances": [instance]}) is fits
    shown = function("GET", "/openapi.json").json["paths"]["/v1/models/pair/predict"]["post"]["requestBody"]["content"]
    assert shown["application/json"]["examples"]["rows"]["value"] == {"instances": ["c-1"]}
    assert shown["text/csv"]["examples"]["row"]["value"] == "customer_id\r\nc-1\r\n"


def test_one_version(function: Function, registry: InMemoryModels) -> None:
    document = VersionDocument.model_validate_json(function("GET", "/v1/models/pair/versions/1").body)
    stored = registry.get("pair", 1)
    assert (document.digest, document.size, document.created_at) == (stored.digest, stored.size, stored.created_at)
    assert document.signature.to_signature() == stored.signature
    assert (document.metadata["description"], document.stage) == ("Two numbers.", "archived")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/models/nothing", "model_not_found"),
        ("/v1/models/No", "model_not_found"),
        ("/v1/models/nothing/versions/1", "model_not_found"),
        ("/v1/models/pair/versions/2", "version_not_found"),
        ("/v1/models/pair/versions/0", "version_not_found"),
        ("/v1/models/pair/versions/-1", "version_not_found"),
        ("/v1/models/pair/versions/01", "version_not_found"),
        ("/v1/models/pair/versions/latest", "version_not_found"),
        ("/v1/models/pair/versions/" + "9" * 50, "version_not_found"),
    ],
)
def test_what_is_not_there(function: Function, path: str, expected: str) -> None:
    assert code(function, path) == (404, expected)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/pair", "/v1/models/pair/versions/1"])
def test_any_caller_may_read_it_and_nobody_else(function: Function, path: str) -> None:
    anybody = Principal("acme", "key", frozenset(), "demo")
    assert function("GET", path, principal=anybody).status == 200
    answer = function("GET", path, principal=None)
    assert (answer.status, Problem.model_validate_json(answer.body).code) == (401, "unauthenticated")


FILTERED = EndpointConfig(
    "pair",
    variants=(
        Variant("main", version="prod", weight=3),
        Variant("next", weight=1),
        Variant("copy", version=1, weight=0),
    ),
    labels={"prod": 1},
    thresholds={"decision": Threshold("y", 0.5, "go", "stop", class_name="left")},
    class_labels={"y": {"right": "starboard"}},
    response=ResponseFilter(outputs=("decision", "y"), classes={"y": ("right",)}),
)
SECRET = TensorSpec("embedding", DType.FP32, (None, 7))
TWO_OUTPUTS = replace(SIGNATURE, outputs=(*SIGNATURE.outputs, SECRET))
SHOWN_PATHS = ("/v1/models/pair", "/v1/models/pair/schema", "/v1/models/pair/versions/1", "/openapi.json")


@pytest.fixture
def filtered(serve: Serve, log: logging.Logger) -> tuple[Function, InMemoryEndpoints]:
    steps = (Step("a", "a", 1, {"x": Source(None, "x")}, "a" * 64),)
    pipeline = Pipeline(steps, {"y": Source("a", "y"), "embedding": Source("a", "embedding")})
    first = replace(published("pair", 1, signature=TWO_OUTPUTS), pipeline=pipeline)
    endpoints = InMemoryEndpoints(StoredEndpoint(FILTERED, 1, 1_700_000_000))
    registry = InMemoryModels(first, published("pair", 2, signature=TWO_OUTPUTS))
    config_of = CachedEndpoints(endpoints, ttl_s=0, pause_s=0).config
    return serve(api_application(log, registry, config_of)), endpoints


@pytest.mark.parametrize("path", SHOWN_PATHS)
def test_what_the_response_filter_hides_is_shown_nowhere(
    filtered: tuple[Function, InMemoryEndpoints], path: str
) -> None:
    answer = filtered[0]("GET", path)
    assert answer.status == 200
    assert b"embedding" not in answer.body
    assert b'"left"' not in answer.body
    assert b'"right"' not in answer.body
    assert b"decision" in answer.body
    assert b"starboard" in answer.body


@pytest.mark.parametrize("path", SHOWN_PATHS)
def test_without_the_configuration_no_outputs_are_shown(
    filtered: tuple[Function, InMemoryEndpoints], path: str
) -> None:
    function, endpoints = filtered
    endpoints.error = BackendUnavailable("The store of endpoint configurations cannot be reached.")
    answer = function("GET", path)
    assert (answer.status, answer.json["code"]) == (503, "backend_unavailable")


def test_the_schema_of_answers_is_that_of_what_callers_get(filtered: tuple[Function, InMemoryEndpoints]) -> None:
    response = Draft202012Validator(filtered[0]("GET", "/v1/models/pair/schema").json["response"])
    model = {"name": "pair", "version": 2, "variant": "next", "backend": "triton"}
    answer = {"predictions": [{"decision": "stop", "y": {"starboard": 0.25}}], "model": model, "prediction_id": "p"}
    assert response.is_valid(answer)
    assert not response.is_valid({**answer, "predictions": [{"y": {"left": 0.75, "right": 0.25}}]})


def test_a_model_shows_who_gets_its_traffic(filtered: tuple[Function, InMemoryEndpoints]) -> None:
    document = ModelDocument.model_validate_json(filtered[0]("GET", "/v1/models/pair").body)
    shares = [(share.variant, share.version, share.percent) for share in document.traffic]
    assert shares == [("main", 1, 75), ("next", 2, 25)]
    assert document.labels == {"prod": 1}


def test_a_filter_that_leaves_nothing_is_shown_as_such(filtered: tuple[Function, InMemoryEndpoints]) -> None:
    function, endpoints = filtered
    nothing = EndpointConfig("pair", response=ResponseFilter(outputs=("of an older version",)))
    endpoints.put(StoredEndpoint(nothing, 2, 1_700_000_000))
    assert function("GET", "/v1/models/pair").json["signature"]["outputs"] == []
    assert [function("GET", path).status for path in SHOWN_PATHS] == [200] * 4


def test_a_pipeline_is_shown_where_nothing_of_it_is_hidden(filtered: tuple[Function, InMemoryEndpoints]) -> None:
    function, endpoints = filtered
    assert function("GET", "/v1/models/pair/versions/1").json["pipeline"] is None
    endpoints.put(StoredEndpoint(EndpointConfig("pair"), 2, 1_700_000_000))
    shown = function("GET", "/v1/models/pair/versions/1").json["pipeline"]
    assert shown["outputs"] == {"y": "a.y", "embedding": "a.embedding"}


def test_a_registry_that_is_away(function: Function, registry: InMemoryModels) -> None:
    registry.error = BackendUnavailable("The model registry cannot be reached.")
    assert code(function, "/v1/models") == (503, "backend_unavailable")
