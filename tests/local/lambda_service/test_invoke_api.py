import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import boto3
import pytest
from aiohttp import web
from botocore.config import Config
from botocore.exceptions import ClientError

from infra.local.lambda_service.invoke_api import create_app
from tests.local.lambda_service.conftest import Lambda, function


@pytest.fixture(scope="module")
def endpoint(functions: Lambda) -> Iterator[str]:
    async def serve() -> tuple[web.AppRunner, int]:
        runner = web.AppRunner(create_app(functions.service))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, runner.addresses[0][1]

    runner, port = functions.runner.run(serve())
    yield f"http://127.0.0.1:{port}"
    functions.runner.run(runner.cleanup())


@pytest.fixture(scope="module")
def client(functions: Lambda, endpoint: str) -> Iterator[Callable[..., Any]]:
    """`client("invoke", FunctionName=…)` with AWS's SDK, in a thread beside the service's loop."""
    config = Config(retries={"total_max_attempts": 1}, read_timeout=20)
    aws = boto3.client(
        "lambda",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=config,
    )

    def call(**request: Any) -> Any:
        def invoke() -> Any:
            response = aws.invoke(**request)
            return {**response, "Payload": response["Payload"].read()}

        return functions.runner.run(asyncio.to_thread(invoke))

    yield call
    aws.close()


def test_boto3_invokes_by_name_and_by_arn_and_sees_the_answer(client: Any) -> None:
    arn = function("echo").arn
    # A published version and an alias, as templates name them, are the one copy of the code that there is here.
    for name in ("stack-echo", arn, "echo", f"{arn}:$LATEST", f"{arn}:1", f"{arn}:live"):
        response = client(FunctionName=name, Payload=b'{"a": "\xc3\xa4"}')
        assert response["StatusCode"] == 200
        assert response["ExecutedVersion"] == "$LATEST"
        assert "FunctionError" not in response
        assert json.loads(response["Payload"])["event"] == {"a": "ä"}


def test_an_empty_payload_is_an_empty_event(client: Any) -> None:
    assert json.loads(client(FunctionName="echo")["Payload"])["event"] == {}


def test_a_function_error_is_a_200_with_its_header_and_the_log_comes_on_request(client: Any) -> None:
    response = client(FunctionName="fail", Payload=b"{}", LogType="Tail")
    assert (response["StatusCode"], response["FunctionError"]) == (200, "Unhandled")
    assert json.loads(response["Payload"])["errorType"] == "ValueError"
    log = base64.b64decode(response["LogResult"]).decode()
    assert "bad luck" in log
    assert f"REPORT RequestId: {response['ResponseMetadata']['RequestId']}" in log


def test_the_client_context_reaches_the_handler(client: Any) -> None:
    context = base64.b64encode(json.dumps({"custom": {"größe": "1"}}).encode()).decode()
    response = client(FunctionName="describe", ClientContext=context)
    assert json.loads(response["Payload"])["custom"] == {"größe": "1"}


def test_events_and_dry_runs_have_their_own_statuses(client: Any) -> None:
    assert client(FunctionName="echo", Payload=b"{}", InvocationType="Event")["StatusCode"] == 202
    assert client(FunctionName="echo", Payload=b"{}", InvocationType="DryRun")["StatusCode"] == 204


@pytest.mark.parametrize(
    ("request_", "code", "status"),
    [
        ({"FunctionName": "nothing"}, "ResourceNotFoundException", 404),
        ({"FunctionName": "echo", "Qualifier": "7"}, "ResourceNotFoundException", 404),
        ({"FunctionName": "echo", "Payload": b"{nope"}, "InvalidRequestContentException", 400),
        ({"FunctionName": "echo", "ClientContext": "!"}, "InvalidRequestContentException", 400),
        ({"FunctionName": "echo", "Payload": b'"%s"' % (b"x" * 6291456)}, "RequestTooLargeException", 413),
        ({"FunctionName": "echo", "InvocationType": "Often"}, "InvalidParameterValueException", 400),
    ],
)
def test_refusals_have_awss_error_codes(client: Any, request_: dict[str, Any], code: str, status: int) -> None:
    with pytest.raises(ClientError) as caught:
        client(**request_)
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["Error"]["Message"]
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


def test_the_status_lists_functions_with_their_environments(functions: Lambda, client: Any, endpoint: str) -> None:
    pid = json.loads(client(FunctionName="echo")["Payload"])["pid"]

    async def fetch() -> Any:
        async with aiohttp.ClientSession() as session, session.get(f"{endpoint}/_sluice/status") as response:
            return await response.json()

    listed = {each["logical_id"]: each for each in functions.runner.run(fetch())["functions"]}
    assert listed["echo"]["name"] == "stack-echo"
    assert pid in [each["pid"] for each in listed["echo"]["environments"]]
    assert listed["echo"]["queued"] == 0
