"""`sluice models` against an HTTP server that answers like the API."""

import json
from dataclasses import replace

from shared.domain.dtypes import DType
from shared.domain.endpoint.config import EndpointConfig
from shared.domain.features import Feature, FeatureSet, ModelFeatures
from shared.domain.pipeline import Pipeline, Source, Step
from shared.domain.signature import TensorSpec
from shared.schemas.api import ModelDocument, ModelList, ModelSummary
from tests.cli.conftest import Cli, Server, model_version


def test_the_list_is_a_table_or_the_documents(cli: Cli, server: Server) -> None:
    document = ModelList(models=[ModelSummary.of(model_version())])
    server.on("GET /v1/models", document.model_dump_json().encode())
    table = cli("models").stdout.splitlines()
    assert table[0].split() == ["name", "version", "placement", "stage", "published", "description"]
    assert table[1].split()[:4] == ["digits", "3", "function", "production"]
    assert cli.json("models") == json.loads(document.model_dump_json())


def test_an_empty_list_says_what_to_do(cli: Cli, server: Server) -> None:
    server.on("GET /v1/models", {"models": []})
    result = cli("models")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "sluice publish" in result.stderr


def test_one_model_shows_signature_metrics_and_licence(cli: Cli, server: Server) -> None:
    shares = TensorSpec("shares", DType.FP32, (None, 2), classes=("malignant", "benign"))
    document = ModelDocument.of_versions(
        [model_version(outputs=[shares]), model_version(version=1)], EndpointConfig("digits")
    )
    server.on("GET /v1/models/digits", document.model_dump_json().encode())
    shown = cli("models", "digits").stdout
    for text in ("digits version 3", "Handwritten digits", "accuracy: 0.975", "BSD-3-Clause", "1.2 MB", "3, 1"):
        assert text in shown
    assert "[batch, 64] or 8×8" in shown
    assert "malignant, benign" in shown
    assert "image; 0.0 … 16.0" in shown
    assert cli.json("models", "digits") == json.loads(document.model_dump_json())


def test_an_unknown_model_exits_with_1(cli: Cli) -> None:
    assert cli("models", "nothing").exit_code == 1


def test_without_a_stack_it_exits_with_3(down: Cli) -> None:
    assert down("models").exit_code == 3


def test_a_pipeline_shows_the_models_that_it_is_made_of(cli: Cli, server: Server) -> None:
    steps = (
        Step("scale", "scaler", 2, {"x": Source(None, "pixels")}, "a" * 64),
        Step("digits", "digits", 3, {"pixels": Source("scale", "y")}, "b" * 64),
    )
    made = Pipeline(steps, {"label": Source("digits", "label")})
    document = ModelDocument.of_versions([replace(model_version(), pipeline=made)], EndpointConfig("digits"))
    server.on("GET /v1/models/digits", document.model_dump_json().encode())
    shown = cli("models", "digits").stdout
    assert "A pipeline of:" in shown
    rows = [line.split() for line in shown.splitlines()]
    assert ["scale", "scaler", "2", "x", "=", "pixels", "a" * 12] in rows
    assert ["digits", "digits", "3", "pixels", "=", "scale.y", "b" * 12] in rows
    assert "It gives label = digits.label." in shown


def test_a_model_with_features_shows_what_is_sent_in_their_place(cli: Cli, server: Server) -> None:
    inputs = [TensorSpec("x", DType.FP32, (None, 2), features=("age", "amount"))]
    fields = (Feature("age", "x", "age", default=40.5, max_age_s=60), Feature("total", "x", "amount", overridable=True))
    features = ModelFeatures((FeatureSet("customer", "customer_id", fields),))
    document = ModelDocument.of_versions([replace(model_version(inputs), features=features)], EndpointConfig("digits"))
    server.on("GET /v1/models/digits", document.model_dump_json().encode())
    rows = [line.split() for line in cli("models", "digits").stdout.splitlines()]
    assert ["inputs", "customer_id", "BYTES", "[batch]", "text"] in rows
    assert ["customer", "customer_id", "age", "40.5", "60", "s", "no"] in rows
    assert ["customer", "customer_id", "total", "–", "–", "yes"] in rows
