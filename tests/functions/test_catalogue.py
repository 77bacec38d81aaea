import logging

import pytest

from functions.api.bootstrap import application
from shared.domain.errors import BackendUnavailable
from shared.domain.model import Placement
from shared.domain.principal import Principal
from shared.schemas.api import ModelDocument, ModelList, Problem, VersionDocument
from tests.fakes import InMemoryModels
from tests.functions.conftest import Serve
from tests.functions.support import Function, open_door, published


@pytest.fixture
def registry() -> InMemoryModels:
    return InMemoryModels(
        published("pair", 1, metadata={"stage": "archived"}),
        published("pair", 3),
        published("heavy", placement=Placement.CONTAINER, metadata={"metrics": {"auc": 0.9}}),
    )


@pytest.fixture
def function(serve: Serve, registry: InMemoryModels, log: logging.Logger) -> Function:
    return serve(application(registry, log, door=open_door(), contract_ttl_s=0))


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


def test_a_registry_that_is_away(function: Function, registry: InMemoryModels) -> None:
    registry.error = BackendUnavailable("The model registry cannot be reached.")
    assert code(function, "/v1/models") == (503, "backend_unavailable")
