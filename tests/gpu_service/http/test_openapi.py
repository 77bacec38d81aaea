"""`docs/container-openapi.json`: it names every route, and the container answers as it says."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import hypothesis
import pytest
import schemathesis
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gpu_service.http import open_inference, operations, sagemaker
from gpu_service.http.router import Router
from tests.gpu_service.server import Server, running
from tests.models import add_model, sum_model, text_package, write_package

DOCUMENT = json.loads((Path(__file__).parents[3] / "docs/container-openapi.json").read_text())
ALLOWED_5XX = (503, 504, 507)
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]

schema = schemathesis.openapi.from_dict(DOCUMENT)
schema.config.generation.modes = list(schemathesis.GenerationMode)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    write_package(models / "plus/1", add_model())
    write_package(models / "sum/1", sum_model())
    text_package(models / "texts/1")
    limits = {"SLUICE_ACCESS_LOG": "false", "SLUICE_MAX_BODY_BYTES": "1000000"}
    with running(tmp_path_factory.mktemp("log"), SLUICE_MODEL_DIR=str(models), **limits) as server:
        server.wait_for_ping(200)
        yield server


def test_the_document_is_valid() -> None:
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_the_document_names_every_route() -> None:
    router, nothing = Router(), cast("Any", None)
    sagemaker.add_routes(router, nothing, nothing, nothing, nothing, nothing)
    open_inference.add_routes(router, nothing, cast("Any", SimpleNamespace(traced=False)), nothing, nothing)
    operations.add_routes(router, nothing)
    served = {(method, pattern) for method, pattern in router.routes() if method != "HEAD"}
    documented = {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item}
    assert documented == served


@schema.parametrize()
@hypothesis.settings(
    max_examples=8,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_answers_are_as_the_document_says(case: schemathesis.Case[Any], server: Server) -> None:
    """Arguments that the schemas allow, and others; where the path names a model, once more with one that is there."""
    check(case, server)
    if "model" in case.path_parameters and not case.path.endswith("unload"):
        case.path_parameters["model"] = "plus"
        check(case, server)
    assert server.client.get("/v2/models/plus/ready").status_code == 200


def check(case: schemathesis.Case[Any], server: Server) -> None:
    response = case.call(base_url=server.url)
    assert response.status_code < 500 or response.status_code in ALLOWED_5XX, response.text
    case.validate_response(response, checks=CHECKS)


def test_the_examples_of_the_protocols_are_in_it(server: Server) -> None:
    """What the document calls an answer is one: checked with the validator of OpenAPI's own schemas."""
    response: httpx.Response = server.predict({"instances": [[1, 2]]}, "model=plus")
    schema["/invocations"]["POST"].validate_response(response)
    tensors = [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]
    response = server.client.post("/v2/models/plus/infer", json={"inputs": tensors})
    schema["/v2/models/{model}/infer"]["POST"].validate_response(response)
    response = server.client.post("/v2/models/plus/infer", json={"inputs": []})
    schema["/v2/models/{model}/infer"]["POST"].validate_response(response)
