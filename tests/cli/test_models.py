"""`sluice models` against an HTTP server that answers like the API."""

import json

from shared.domain.dtypes import DType
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
    document = ModelDocument.of_versions([model_version(outputs=[shares]), model_version(version=1)])
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
