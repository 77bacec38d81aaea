"""`sluice invoke` against an HTTP server that answers like Lambda's Invoke API."""

import base64
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, Server

INVOKE = "POST /2015-03-31/functions/sluice-predict/invocations"
LOG = {"X-Amz-Log-Result": base64.b64encode("START\né\nEND\n".encode()).decode(), "X-Amz-Executed-Version": "$LATEST"}


@pytest.fixture
def event(tmp_path: Path) -> str:
    path = tmp_path / "event.json"
    path.write_text('{"rawPath": "/health"}')
    return str(path)


@pytest.mark.parametrize("name", ["PredictFunction", "sluice-predict"])
def test_the_payload_goes_to_stdout_and_the_log_to_stderr(cli: Cli, server: Server, event: str, name: str) -> None:
    server.on(INVOKE, b'{"statusCode":200}', headers=LOG)
    result = cli("invoke", name, "--event", event)
    assert (result.exit_code, result.stdout, result.stderr) == (0, '{"statusCode":200}\n', "START\né\nEND\n")
    (request,) = server.requests
    assert request.json() == {"rawPath": "/health"}
    assert request.headers["x-amz-invocation-type"] == "RequestResponse"
    assert request.headers["x-amz-log-type"] == "Tail"


def test_json_holds_all_of_it(cli: Cli, server: Server) -> None:
    server.on(INVOKE, {"statusCode": 200}, headers=LOG)
    assert cli.json("invoke", "PredictFunction", "--event", "-", stdin="{}") == {
        "function": "sluice-predict",
        "status": 200,
        "function_error": None,
        "executed_version": "$LATEST",
        "payload": {"statusCode": 200},
        "log": "START\né\nEND\n",
    }


def test_a_function_that_fails_exits_with_1(cli: Cli, server: Server, event: str) -> None:
    failure = {"errorType": "ValueError", "errorMessage": "no"}
    server.on(INVOKE, failure, headers={**LOG, "X-Amz-Function-Error": "Unhandled"})
    result = cli("invoke", "PredictFunction", "--event", event)
    assert result.exit_code == 1
    assert json.loads(result.stdout) == failure
    assert result.stderr.endswith("Error: sluice-predict failed (Unhandled).\n")
    result = cli("invoke", "PredictFunction", "--event", event, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["function_error"] == "Unhandled"


def test_async_queues_the_event(cli: Cli, server: Server, event: str) -> None:
    server.on(INVOKE, b"", status=202)
    result = cli("invoke", "PredictFunction", "--event", event, "--async")
    assert (result.exit_code, result.stdout) == (0, "")
    assert server.requests[0].headers["x-amz-invocation-type"] == "Event"
    assert cli.json("invoke", "PredictFunction", "--event", event, "--async")["payload"] is None


def test_a_refusal_of_the_service_is_told(cli: Cli, server: Server, event: str) -> None:
    server.on(
        INVOKE,
        {"Type": "User", "Message": "Could not parse request body into json"},
        status=400,
        headers={"x-amzn-ErrorType": "InvalidRequestContentException"},
    )
    result = cli("invoke", "PredictFunction", "--event", event)
    assert result.exit_code == 1
    assert "400 InvalidRequestContentException" in result.stderr
    assert "Could not parse" in result.stderr


def test_an_unknown_function_is_wrong_usage_and_names_the_known(cli: Cli, server: Server, event: str) -> None:
    result = cli("invoke", "Nothing", "--event", event)
    assert result.exit_code == 2
    assert "ApiFunction, PredictFunction" in result.stderr
    assert not server.requests


def test_an_event_that_is_not_there_is_wrong_usage(cli: Cli) -> None:
    assert cli("invoke", "PredictFunction", "--event", "no-such-file").exit_code == 2


def test_without_a_stack_it_exits_with_3(down: Cli, event: str) -> None:
    assert down("invoke", "PredictFunction", "--event", event).exit_code == 3
