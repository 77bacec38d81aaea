"""Staged functions under Lambda's Python, in clean processes."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from infra.packaging.interpreter import Interpreter
from tests.conftest import LocalAws
from tests.packaging.calls import DIGIT, TUMOR, authorize, body, expected, file, predict
from tests.packaging.clean_process import run
from tests.packaging.conftest import Unpack

NAMES = ["ApiFunction", "AuthorizerFunction", "PredictFunction", "ReleaseCheckFunction"]


@pytest.mark.parametrize("name", NAMES)
def test_a_function_needs_nothing_but_its_artefacts(
    name: str, unpack: Unpack, interpreter: Interpreter, tmp_path: Path
) -> None:
    function = unpack(name)
    ran = run(interpreter, function, [], tmp_path)
    allowed = (*map(str, function.search_path), ran.library)
    assert [name for name, path in ran.loaded.items() if not path.startswith(allowed)] == []
    assert ran.loaded[function.spec.handler.rpartition(".")[0]].startswith(str(function.task))
    *artefacts, _in_lambda = map(str, function.search_path)
    ours = [name for name, path in ran.loaded.items() if path.startswith(tuple(artefacts)) and path.endswith(".py")]
    assert [name for name in ours if not Path(ran.cached[name]).is_file()] == []  # all of it came with its bytecode


def test_predict_answers_as_the_model_does(
    unpack: Unpack, interpreter: Interpreter, published: Sequence[str], tmp_path: Path
) -> None:
    requests = [("tumor", TUMOR), ("digits", DIGIT)]
    events = [predict(model, request).event for model, request in requests]
    ran = run(interpreter, unpack("PredictFunction"), events, tmp_path)
    for (model, request), answer in zip(requests, ran.answers, strict=True):
        document = body(answer)
        assert document["model"]["backend"] == "function"
        for got, wanted in zip(document["predictions"], expected(model, request), strict=True):
            assert got["label"] == wanted["label"]
            assert list(got["probabilities"].values()) == pytest.approx(wanted["probabilities"], rel=1e-3, abs=1e-6)


def test_a_text_model_is_sent_to_the_container(
    unpack: Unpack, interpreter: Interpreter, published: Sequence[str], tmp_path: Path
) -> None:
    (answer,) = run(interpreter, unpack("PredictFunction"), [file("predict_embed")], tmp_path).answers
    problem = json.loads(answer["body"])
    assert problem["status"] == 503
    assert "ContainerImage" in problem["detail"]


def test_the_authorizer_knows_a_key(
    unpack: Unpack, interpreter: Interpreter, local_aws: LocalAws, tmp_path: Path
) -> None:
    events = [authorize(local_aws).event, file("authorizer")]
    known, unknown = run(interpreter, unpack("AuthorizerFunction"), events, tmp_path).answers
    assert known["isAuthorized"] is True
    assert known["context"]["tenant"] == "demo"
    assert unknown == {"isAuthorized": False}


def test_the_contract_and_its_page_are_served(
    unpack: Unpack, interpreter: Interpreter, published: Sequence[str], tmp_path: Path
) -> None:
    events = [file("api_openapi"), file("api_docs"), file("api_docs_asset")]
    contract, page, asset = run(interpreter, unpack("ApiFunction"), events, tmp_path).answers
    assert "/v1/models/tumor/predict" in body(contract)["paths"]
    assert page["statusCode"] == asset["statusCode"] == 200
    assert len(asset["body"]) > 1000
