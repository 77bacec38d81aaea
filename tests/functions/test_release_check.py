"""The check before a release: against the real predict function in the local Lambda service, and against bad ones."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from aiohttp import web
from aws_lambda_powertools.utilities.parser.models import APIGatewayProxyEventV2Model
from botocore.session import Session

from functions.release_check import bootstrap
from functions.release_check.bootstrap import Handler, hook
from functions.release_check.check import PRINCIPAL, CheckFailed, Findings, ReleaseCheck
from infra.local.lambda_service.invoke_api import create_app
from infra.local.lambda_service.service import LambdaService
from infra.local.stack import REGION, FunctionSpec
from shared.adapters.aws import client
from shared.adapters.dynamodb_models import DynamoDBModels
from shared.adapters.s3_packages import S3Packages
from shared.domain.dtypes import DType
from shared.domain.errors import BackendUnavailable
from shared.domain.model import ModelVersion, PackageDescription, Placement
from shared.domain.principal import Principal
from shared.domain.signature import Signature, TensorSpec
from shared.usecases.publish_model import PublishModel
from shared.web.http_event import http_event
from tests.conftest import ROOT, LocalAws
from tests.fakes import InMemoryModels
from tests.functions.conftest import LogLines
from tests.functions.support import EVENTS, LambdaContextStub, published
from tests.models import add_model, manifest, tensor, write_package

SIGNATURE = Signature(
    inputs=(TensorSpec("x", DType.FP32, (None, 2)),), outputs=(TensorSpec("y", DType.FP32, (None, 2)),)
)
EVENT = json.loads((EVENTS / "release_check.json").read_text())
CONTEXT = LambdaContextStub(left_ms=180_000)
PREFIX = f"arn:aws:lambda:{REGION}:000000000000:function"


# ------------------------------------------------------------------ with everything that it talks to


@pytest.fixture(scope="module")
def tables(local_aws: LocalAws, aws_session: Session) -> Mapping[str, str]:
    """Registries of its own: the check asks every model that it finds."""
    dynamodb = client("dynamodb", session=aws_session, endpoint_url=local_aws.url)
    properties = local_aws.stack.resources["ModelsTable"].properties
    for name in ("release-check", "release-check-empty"):
        dynamodb.create_table(
            TableName=name,
            KeySchema=properties["KeySchema"],
            AttributeDefinitions=properties["AttributeDefinitions"],
            BillingMode="PAY_PER_REQUEST",
        )
    return {"published": "release-check", "empty": "release-check-empty"}


@pytest.fixture(scope="module")
def store(local_aws: LocalAws, aws_session: Session) -> S3Packages:
    return S3Packages(client("s3", session=aws_session, endpoint_url=local_aws.url), local_aws.bucket)


@pytest.fixture(scope="module")
def _published(
    tables: Mapping[str, str],
    store: S3Packages,
    local_aws: LocalAws,
    aws_session: Session,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    registry = DynamoDBModels(client("dynamodb", session=aws_session, endpoint_url=local_aws.url), tables["published"])
    for model, placement, example in (
        ("rc-heavy", Placement.CONTAINER, [1, 2]),
        ("rc-plus", Placement.FUNCTION, [1, 2]),
        ("rc-silent", Placement.FUNCTION, None),
    ):
        described = PackageDescription(model, 1, SIGNATURE, placement, {"example": example})

        class Described:
            def describe(self, folder: Path, description: PackageDescription = described) -> PackageDescription:
                return description

        document = manifest(model, 1, [tensor("x", DType.FP32, [-1, 2])], [tensor("y", DType.FP32, [-1, 2])])
        folder = write_package(tmp_path_factory.mktemp("packages") / model, add_model(1.0), document)
        PublishModel(registry, store, Described())(folder)


@pytest.fixture(scope="module")
def lambda_url(
    local_aws: LocalAws, tables: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The local Lambda service with the predict function, once as it should be and twice as it should not."""
    base = {
        **{name: value for name, value in local_aws.stack.functions["PredictFunction"].environment.items() if value},
        "AWS_ENDPOINT_URL": local_aws.url,
        "SLUICE_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
    }
    variables: dict[str, dict[str, str]] = {
        "good": {"SLUICE_MODELS_TABLE": tables["published"]},
        "new": {"SLUICE_MODELS_TABLE": tables["empty"]},
        "small": {"SLUICE_MODELS_TABLE": tables["published"], "SLUICE_MAX_BODY_BYTES": "3"},
        "broken": {"SLUICE_MODELS_TABLE": tables["published"], "SLUICE_THREADS": "many"},
    }
    specs = {
        name: FunctionSpec(
            logical_id=name,
            name=name,
            handler="functions.predict.handler.handler",
            code_dir=ROOT,
            memory_mb=1769,
            timeout_s=29.0,
            environment=own,
        )
        for name, own in variables.items()
    }
    log_dir = tmp_path_factory.mktemp("logs")
    with asyncio.Runner() as runner:
        loop = runner.get_loop()

        async def start() -> tuple[LambdaService, web.AppRunner, int]:
            service = LambdaService(specs, base_environment=base, log_dir=log_dir)
            app = web.AppRunner(create_app(service))
            await app.setup()
            await web.TCPSite(app, "127.0.0.1", 0).start()
            return service, app, app.addresses[0][1]

        service, app, port = runner.run(start())
        thread = Thread(target=loop.run_forever)
        thread.start()
        yield f"http://127.0.0.1:{port}"
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        runner.run(service.close())
        runner.run(app.cleanup())


@dataclass
class CodeDeploy:
    """What CodeDeploy was told."""

    url: str
    told: list[dict[str, str]]


@contextmanager
def code_deploy_server() -> Iterator[CodeDeploy]:
    told: list[dict[str, str]] = []

    class Operations(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["X-Amz-Target"] == "CodeDeploy_20141006.PutLifecycleEventHookExecutionStatus"
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            answer = json.dumps({"lifecycleEventHookExecutionId": told[-1]["lifecycleEventHookExecutionId"]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Keeps the output of the tests quiet."""

    with HTTPServer(("127.0.0.1", 0), Operations) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield CodeDeploy(f"http://127.0.0.1:{server.server_port}", told)
        server.shutdown()
        thread.join()


@pytest.fixture
def code_deploy() -> Iterator[CodeDeploy]:
    with code_deploy_server() as server:
        yield server


@pytest.fixture
def check(
    local_aws: LocalAws,
    lambda_url: str,
    tables: Mapping[str, str],
    code_deploy: CodeDeploy,
    monkeypatch: pytest.MonkeyPatch,
    _published: None,
    keep_loggers: None,
) -> Callable[..., dict[str, Any]]:
    """Runs the check of a function's version as its composition root makes it."""
    for name, value in {
        "AWS_ENDPOINT_URL": local_aws.url,
        "AWS_ENDPOINT_URL_LAMBDA": lambda_url,
        "AWS_ENDPOINT_URL_CODEDEPLOY": code_deploy.url,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)

    def run(function: str, table: str = "published", **environment: str) -> dict[str, Any]:
        settings = {"SLUICE_TARGET": f"{PREFIX}:{function}:7", "SLUICE_MODELS_TABLE": tables[table], **environment}
        return bootstrap.build(settings)(EVENT, CONTEXT)

    return run


def told(status: str) -> list[dict[str, str]]:
    return [
        {
            "deploymentId": EVENT["DeploymentId"],
            "lifecycleEventHookExecutionId": EVENT["LifecycleEventHookExecutionId"],
            "status": status,
        }
    ]


def test_a_good_release_is_let_through(check: Any, code_deploy: CodeDeploy) -> None:
    assert check("good") == {
        "status": "Succeeded",
        "reason": None,
        "passed": ["/health", "/ready", "rc-plus version 1"],
        "skipped": ["rc-silent version 1"],
        "reported": True,
    }
    assert code_deploy.told == told("Succeeded")


def test_a_stack_without_models_is_let_through(check: Any, code_deploy: CodeDeploy) -> None:
    outcome = check("new", "empty")
    assert (outcome["status"], outcome["passed"]) == ("Succeeded", ["/health", "/ready"])
    assert code_deploy.told == told("Succeeded")


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("small", "rc-plus version 1 was answered with 413: "),
        ("broken", "The function failed: SettingsError: SLUICE_THREADS"),
        ("absent", "The function refused the call: ResourceNotFoundException."),
        ("new", "/ready was answered with 503: "),  # the registry has models, and this version sees none
    ],
)
def test_a_bad_release_is_stopped(check: Any, code_deploy: CodeDeploy, function: str, reason: str) -> None:
    outcome = check(function)
    assert outcome["status"] == "Failed"
    assert outcome["reason"].startswith(reason)
    assert code_deploy.told == told("Failed")


def test_bad_settings_stop_the_release_and_not_the_deployment(check: Any, code_deploy: CodeDeploy) -> None:
    outcome = check("good", SLUICE_MAX_MODELS="all")
    assert outcome["status"] == "Failed"
    assert "SLUICE_MAX_MODELS" in outcome["reason"]
    assert code_deploy.told == told("Failed")


def test_a_code_deploy_that_does_not_take_the_report_breaks_nothing(
    check: Any, code_deploy: CodeDeploy, local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_CODEDEPLOY", local_aws.url)  # the local services know no such operation
    outcome = check("good")
    assert (outcome["status"], outcome["reported"]) == ("Succeeded", False)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (line,) = [line for line in lines if line["message"] == "CodeDeploy was not told"]
    assert (line["level"], line["status"], line["deployment_id"]) == ("ERROR", "Succeeded", EVENT["DeploymentId"])


# ------------------------------------------------------------------------------- rule by rule


def http(status: int, document: Any) -> dict[str, Any]:
    return {"statusCode": status, "headers": {}, "body": json.dumps(document), "isBase64Encoded": False}


class Version:
    """A version of the predict function that keeps what it is asked."""

    def __init__(self, **answers: Any) -> None:
        self.events: list[dict[str, Any]] = []
        self.answers = {
            "/health": http(200, {"status": "ok"}),
            "/ready": http(200, {"ready": True, "missing": []}),
            "/v1/models/pair/predict": http(200, {"predictions": [[2, 4]], "model": {"name": "pair", "version": 1}}),
        } | answers

    def __call__(self, event: dict[str, Any]) -> Any:
        self.events.append(event)
        return self.answers[event["rawPath"]]


class Reports(list[tuple[str, str, str]]):
    """What was reported; `error` is raised instead."""

    error: Exception | None = None

    def __call__(self, deployment: str, execution: str, status: str) -> None:
        if self.error is not None:
            raise self.error
        self.append((deployment, execution, status))


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def run(reports: Reports, log: logging.Logger) -> Callable[..., dict[str, Any]]:
    """The handler's answer for a version of the function and a registry."""

    def run(version: Version, *models: ModelVersion, max_models: int = 10, left_ms: int = 180_000) -> dict[str, Any]:
        check = ReleaseCheck(version, InMemoryModels(*models), max_models, log)
        handler: Handler = hook(check, reports, log, budget_s=100, call_s=45)
        return handler(EVENT, LambdaContextStub(left_ms=left_ms))

    return run


def test_the_events_are_those_of_api_gateway(run: Any) -> None:
    version = Version()
    assert run(version, published())["status"] == "Succeeded"
    parsed = [APIGatewayProxyEventV2Model.model_validate(event) for event in version.events]
    assert [event.routeKey for event in parsed] == ["GET /health", "GET /ready", "POST /v1/models/{model}/predict"]
    assert json.loads(version.events[2]["body"]) == {"instances": [[1.0, 2.0]]}
    callers = [event["requestContext"].get("authorizer") for event in version.events]
    assert callers[:2] == [None, None]
    assert Principal.from_context(callers[2]["lambda"]) == PRINCIPAL
    assert PRINCIPAL.scopes == {"predict"}
    assert APIGatewayProxyEventV2Model.model_validate(http_event("GET", "/ä")).rawPath == "/ä"


def test_the_highest_version_of_a_bounded_number_of_models_is_asked(run: Any, log_lines: LogLines) -> None:
    version = Version()
    version.answers["/v1/models/pair/predict"] = http(
        200, {"predictions": [[2, 4]], "model": {"name": "pair", "version": 3}}
    )
    outcome = run(version, published(), published(version=2), published("zeta"), max_models=1)
    # Version 3 was published meanwhile: it is newer than what the registry said, so this is no fault.
    assert outcome["passed"] == ["/health", "/ready", "pair version 2"]
    assert outcome["skipped"] == ["zeta version 1"]
    assert [line["message"] for line in log_lines.lines] == ["models not asked", "release check"]


def test_an_empty_registry_is_said_in_the_log(run: Any, log_lines: LogLines) -> None:
    missing = {"/ready": http(503, {"ready": False, "missing": ["models: no model is published"]})}
    assert run(Version(**missing))["status"] == "Succeeded"
    assert log_lines.lines[0]["message"] == "no model is published that could be asked for a prediction"


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"/health": http(500, {})}, "/health was answered with 500: {}"),
        ({"/health": None}, "/health was not answered as HTTP with a JSON body: null"),
        ({"/health": {"statusCode": 200, "body": "<html>"}}, "/health was not answered as HTTP"),
        ({"/ready": http(503, {"missing": ["models: no model is published"]})}, "/ready was answered with 503"),
        ({"/ready": http(503, ["odd"])}, "/ready was answered with 503"),
        ({"/v1/models/pair/predict": http(200, {"predictions": []})}, "pair version 1 was answered with 200"),
        (
            {"/v1/models/pair/predict": http(200, {"predictions": [1], "model": {"name": "other", "version": 1}})},
            "pair version 1 was answered with 200",
        ),
        (
            {"/v1/models/pair/predict": http(200, {"predictions": [1], "model": {"name": "pair", "version": 0}})},
            "pair version 1 was answered with 200",
        ),
    ],
)
def test_an_answer_that_is_not_right_stops_the_release(
    run: Any, reports: Reports, answers: dict[str, Any], reason: str
) -> None:
    outcome = run(Version(**answers), published())
    assert outcome["status"] == "Failed"
    assert outcome["reason"].startswith(reason)
    assert [status for *_, status in reports] == ["Failed"]


def test_a_long_answer_is_quoted_in_part(run: Any) -> None:
    outcome = run(Version(**{"/health": http(500, "x" * 100_000)}))
    assert len(outcome["reason"]) < 1000


def test_what_nobody_expected_is_reported_too(run: Any, reports: Reports, log_lines: LogLines) -> None:
    outcome = run(Version(), published(metadata={"example": object()}))
    assert outcome["reason"] == "The check itself failed: TypeError."
    assert [status for *_, status in reports] == ["Failed"]
    assert "Traceback" in log_lines.lines[0]["exception"]


def test_a_check_without_time_reports_before_the_invocation_ends(run: Any, reports: Reports) -> None:
    version = Version()
    outcome = run(version, published(), left_ms=60_000)  # one call may take 45 s, the report 15 s
    assert outcome["reason"] == "The time for the check was over before /health could be asked."
    assert version.events == []
    assert [status for *_, status in reports] == ["Failed"]


def test_no_request_is_begun_when_the_budget_is_over(log: logging.Logger) -> None:
    times = iter([0.0, 1.0, 99.0, 101.0])
    version = Version()
    check = ReleaseCheck(version, InMemoryModels(published()), 10, log, clock=lambda: next(times))
    findings = Findings()
    with pytest.raises(CheckFailed, match="before pair version 1 could be asked"):
        check(100.0, findings)
    assert findings.passed == ["/health", "/ready"]


def test_the_outcome_is_told_even_if_code_deploy_is_not(run: Any, reports: Reports, log_lines: LogLines) -> None:
    reports.error = BackendUnavailable("CodeDeploy cannot be reached.")
    outcome = run(Version(), published())
    assert (outcome["status"], outcome["reported"]) == ("Succeeded", False)
    assert [line["message"] for line in log_lines.lines] == ["CodeDeploy was not told", "release check"]


@pytest.mark.parametrize(
    "event", [{}, {"DeploymentId": "d-1"}, {"DeploymentId": "", "LifecycleEventHookExecutionId": 1}]
)
def test_an_event_of_nobody_is_checked_and_reported_to_nobody(
    reports: Reports, log: logging.Logger, log_lines: LogLines, event: dict[str, Any]
) -> None:
    check = ReleaseCheck(Version(), InMemoryModels(published()), 10, log)
    outcome = hook(check, reports, log, budget_s=100, call_s=45)(event, CONTEXT)
    assert (outcome["status"], outcome["reported"], list(reports)) == ("Succeeded", False, [])
    assert log_lines.lines[0]["message"].startswith("the event names no deployment")
