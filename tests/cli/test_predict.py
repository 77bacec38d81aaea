"""`sluice predict` against an HTTP server that answers like the API."""

import base64
import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from shared.domain.dtypes import DType
from shared.domain.endpoint.config import EndpointConfig
from shared.domain.errors import FieldError
from shared.domain.signature import TensorSpec
from shared.schemas.api import ModelDocument, PredictResponse
from shared.web.problems import problem
from tests.cli.conftest import Cli, Server, model_version

PREDICT = "POST /v1/models/digits/predict"


def answer(*predictions: Any) -> dict[str, Any]:
    document = {
        "predictions": list(predictions),
        "model": {"name": "digits", "version": 3, "variant": "main", "backend": "function"},
        "prediction_id": "p-1",
    }
    PredictResponse.model_validate(document)
    return document


def serve_signature(server: Server, *inputs: TensorSpec) -> None:
    document = ModelDocument.of_versions([model_version(inputs)], EndpointConfig("digits"))
    server.on("GET /v1/models/digits", document.model_dump_json().encode())


def sent(server: Server) -> Any:
    return next(request for request in server.requests if request.method == "POST").json()


@pytest.mark.parametrize(
    ("data", "body"),
    [
        ('{"instances": [[1.5]]}', {"instances": [[1.5]]}),
        ('{"inputs": {"pixels": [[1]]}}', {"inputs": {"pixels": [[1]]}}),
        ('{"age": 3, "income": 2}', {"instances": [{"age": 3, "income": 2}]}),
        ('[{"age": 3}, {"age": 4}]', {"instances": [{"age": 3}, {"age": 4}]}),
        ('"a text"', {"instances": ["a text"]}),
        ("7", {"instances": [7]}),
        ("[]", {"instances": []}),
    ],
)
def test_data_becomes_a_body_without_a_look_at_the_model(cli: Cli, server: Server, data: str, body: Any) -> None:
    server.on(PREDICT, answer(1))
    result = cli("predict", "digits", "--data", data)
    assert result.exit_code == 0, result.stderr
    assert [request.method for request in server.requests] == ["POST"]
    assert sent(server) == body


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ([0] * 64, True),
        ([[0] * 8] * 8, True),
        ([[0] * 64] * 8, False),
        ([[[0] * 8] * 8] * 2, False),
        ([0] * 63, True),  # too short for an instance, and no list of instances either: the API says what is wrong
        ([[0] * 63] * 2, False),
    ],
)
def test_a_list_is_one_instance_or_several_by_the_signature(
    cli: Cli, server: Server, value: list[Any], is_one: bool
) -> None:
    serve_signature(server)
    server.on(PREDICT, answer(1))
    result = cli("predict", "digits", "--data", "-", stdin=json.dumps(value))
    assert result.exit_code == 0, result.stderr
    assert sent(server) == {"instances": [value] if is_one else value}


def test_a_list_of_strings_is_a_list_of_instances(cli: Cli, server: Server) -> None:
    serve_signature(server, TensorSpec("text", DType.BYTES, (None,)))
    server.on(PREDICT, answer(1, 2))
    assert cli("predict", "digits", "--data", '["a", "b"]').exit_code == 0
    assert sent(server) == {"instances": ["a", "b"]}


def test_numbers_reach_the_api_as_they_were_written(cli: Cli, server: Server, tmp_path: Path) -> None:
    server.on(PREDICT, answer(1))
    (tmp_path / "body.json").write_text('{"instances": [[1e999, 0.1000000000000000055]]}')
    assert cli("predict", "digits", "--data", f"@{tmp_path}/body.json").exit_code == 0
    assert server.requests[0].body == b'{"instances": [[1e999, 0.1000000000000000055]]}'


def test_texts_and_images_are_instances(cli: Cli, server: Server, tmp_path: Path) -> None:
    server.on(PREDICT, answer(1, 2))
    assert cli("predict", "digits", "-t", "-", "-t", "@b").exit_code == 0
    assert sent(server) == {"instances": ["-", "@b"]}
    server.requests.clear()
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    assert cli("predict", "digits", "--image", str(tmp_path / "a.png")).exit_code == 0
    assert sent(server) == {"instances": [{"b64": base64.b64encode(b"\x89PNG").decode()}]}


def test_the_key_goes_as_a_bearer_and_the_name_is_escaped(cli: Cli, server: Server) -> None:
    assert cli("predict", "a/../b", "--text", "x").exit_code == 1
    assert server.requests[0].path == "/v1/models/a%2F..%2Fb/predict"
    assert server.requests[0].headers["authorization"] == "Bearer sluice_local_key"
    assert server.requests[0].headers["content-type"] == "application/json"


def test_json_is_the_answer_as_it_came(cli: Cli, server: Server) -> None:
    body = b'{"predictions":[0.1],"model":{"name":"digits"},"prediction_id":"p"}'
    server.on(PREDICT, body)
    result = cli("predict", "digits", "--text", "x", "--json")
    assert (result.stdout, result.stderr, result.exit_code) == (body.decode() + "\n", "", 0)


def test_a_table_shows_classes_and_shortens_vectors(cli: Cli, server: Server) -> None:
    shares = {"malignant": 0.1, "benign": 0.85, "unclear": 0.04, "[red]none": 0.01}
    server.on(
        PREDICT,
        answer({"label": "benign", "shares": shares}, {"label": "[bold]x[/]", "shares": [0.5] * 384}),
        headers={"Server-Timing": "route;dur=1.500, run;dur=0.250"},
    )
    result = cli("predict", "digits", "--text", "x")
    assert "benign 0.85, malignant 0.1, unclear 0.04, … 4 in all" in result.stdout
    assert "[0.5, 0.5, 0.5, 0.5, …] 384 numbers, length 9.798" in result.stdout
    assert "[bold]x[/]" in result.stdout
    assert "\x1b" not in result.stdout + result.stderr
    assert "digits version 3 (function), prediction p-1" in result.stderr
    assert "route 1.500, run 0.250" in result.stderr


def test_a_long_answer_is_cut_and_says_so(cli: Cli, server: Server) -> None:
    server.on(PREDICT, answer(*range(60)))
    result = cli("predict", "digits", "--text", "x")
    assert len(result.stdout.splitlines()) == 51
    assert "10 more" in result.stderr


def test_a_problem_is_shown_with_its_fields(cli: Cli, server: Server) -> None:
    fields = [FieldError("/instances/0/3", "must be a number"), FieldError("/instances/1", "has 63 elements")]
    told = problem(
        HTTPStatus.UNPROCESSABLE_ENTITY, code="wrong_dtype", title="Wrong type", detail="Two places are wrong.",
        request_id="r-1", fields=fields,
    )  # fmt: skip
    server.on(PREDICT, bytes(told.body), status=422)
    result = cli("predict", "digits", "--text", "x", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "Error: Two places are wrong.",
        "  /instances/0/3: must be a number",
        "  /instances/1: has 63 elements",
        "  wrong_dtype (422), request r-1",
    ]


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b'{"message":"Unauthorized"}', "The API answered 401: Unauthorized. Check the key"),
        (500, b'{"message":null}', "The API answered 500: no reason given."),
        (502, b"<html>", "answered 502 without JSON"),
        (301, b"[]", "The API answered 301"),
        (404, b'{"message":"\\u001b[2Jgone"}', "The API answered 404"),
    ],
)
def test_what_is_no_problem_document_is_a_sentence_too(
    cli: Cli, server: Server, status: int, body: bytes, said: str
) -> None:
    server.on(PREDICT, body, status=status, headers={"Location": server.url})
    result = cli("predict", "digits", "--text", "x")
    assert result.exit_code == 1
    assert said in result.stderr
    assert "\x1b" not in result.stderr
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--text", "a", "--data", "1"),
        ("--data", "{nope"),
        ("--data", "@no-such-file"),
        ("--image", "no-such-file"),
        ("--text", "a", "--url", "127.0.0.1:1", "--key", "k"),
        ("--text", "a", "--url", "http://127.0.0.1:1"),
        ("--text", "a", "--url", "http://[", "--key", "k"),
    ],
)
def test_wrong_usage_exits_with_2_and_asks_nobody(cli: Cli, server: Server, arguments: tuple[str, ...]) -> None:
    result = cli("predict", "digits", *arguments)
    assert result.exit_code == 2, result.stderr
    assert result.stderr.startswith("Error: ")
    assert not server.requests


def test_the_local_key_never_goes_to_another_address(cli: Cli, server: Server) -> None:
    server.on(PREDICT, answer(1))
    elsewhere = {"SLUICE_API_URL": server.url}
    assert cli("predict", "digits", "--text", "x", env=elsewhere).exit_code == 2
    assert not server.requests
    assert cli("predict", "digits", "--text", "x", env={**elsewhere, "SLUICE_API_KEY": "mine"}).exit_code == 0
    assert server.requests[0].headers["authorization"] == "Bearer mine"


def test_without_a_stack_it_exits_with_3(down: Cli) -> None:
    result = down("predict", "digits", "--text", "x")
    assert result.exit_code == 3
    assert "sluice up" in result.stderr


def test_an_api_that_is_not_there_exits_with_3(down: Cli) -> None:
    result = down("predict", "digits", "--text", "x", "--url", "http://127.0.0.1:1", "--key", "k")
    assert result.exit_code == 3
    assert "Connection refused" in result.stderr
