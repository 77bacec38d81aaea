"""`sluice doctor`: each check finds what it is for, and says what to do."""

import json
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from infra.cli.checks import account as account_module
from infra.cli.checks import deployment, machine
from infra.cli.checks.check import Check, Outcome, Status, failed, run
from infra.cli.deployed import Account, StackResource, StackState
from infra.local.ports import Ports
from tests.cli.conftest import Cli, Server
from tests.cli.deployment import deploy, template, user_environment
from tests.conftest import LocalAws

MODELS = {"models": [{"name": "digits"}]}
MODEL = {"name": "digits", "metadata": {"example": [1, 2]}}


def ready_api(server: Server) -> None:
    server.on("GET /ready", {"ready": True, "missing": []})
    server.on("GET /v1/models", MODELS)
    server.on("GET /v1/models/digits", MODEL)
    server.on("POST /v1/models/digits/predict", {"predictions": [7]})


def checks(document: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    return {check["name"]: (check["status"], check["found"]) for check in document["checks"]}


# ------------------------------------------------------------------ a deployment
def test_a_deployment_that_works(down: Cli, server: Server, local_aws: LocalAws) -> None:
    ready_api(server)
    name = deploy(local_aws, template(server.url))
    result = down("doctor", "--stack", name, "--json", env=user_environment(local_aws, SLUICE_API_KEY="key"))
    assert result.exit_code == 0, result.stdout + result.stderr
    found = checks(json.loads(result.stdout))
    assert {check: status for check, (status, _) in found.items() if status != "ok"} == {
        # The local Service Quotas does not know this one.
        "quota: concurrency": "warning"
    }
    assert found["functions"][1] == "All 1 functions are active."
    assert found["prediction"][1].startswith("digits answered a prediction in ")
    assert server.requests[-1].json() == {"instances": [[1, 2]]}
    assert server.requests[-1].headers["authorization"] == "Bearer key"


def test_without_a_key_the_rest_is_checked(down: Cli, server: Server, local_aws: LocalAws) -> None:
    ready_api(server)
    name = deploy(local_aws, template(server.url))
    result = down("doctor", "--stack", name, env=user_environment(local_aws))
    assert result.exit_code == 0, result.stderr
    assert "warning prediction: No prediction was made: there is no key." in result.stdout
    assert "→ Give one with SLUICE_API_KEY" in result.stdout
    assert not [request for request in server.requests if request.method == "POST"]


def test_an_api_that_is_not_ready_fails_with_what_is_missing(down: Cli, server: Server, local_aws: LocalAws) -> None:
    server.on("GET /ready", {"ready": False, "missing": ["models: no model is published"]}, status=503)
    server.on("GET /v1/models", {"models": []})
    name = deploy(local_aws, template(server.url))
    result = down("doctor", "--stack", name, env=user_environment(local_aws, SLUICE_API_KEY="key"))
    assert result.exit_code == 1
    assert "failed  ready" in result.stdout
    assert f"sluice publish MODEL.onnx --stack {name}" in result.stdout
    assert result.stderr == "Error: 2 of 8 checks failed.\n"


def test_a_key_that_is_refused_fails(down: Cli, server: Server, local_aws: LocalAws) -> None:
    server.on("GET /ready", {"ready": True})
    server.on("GET /v1/models", {"message": "Forbidden"}, status=403)
    name = deploy(local_aws, template(server.url))
    result = down("doctor", "--stack", name, "--json", env=user_environment(local_aws, SLUICE_API_KEY="wrong"))
    assert result.exit_code == 1
    status, found = checks(json.loads(result.stdout))["prediction"]
    assert status == "failed"
    assert "403" in found
    assert "Check the key" in found


def test_an_api_out_of_reach_exits_with_3(down: Cli, local_aws: LocalAws) -> None:
    name = deploy(local_aws, template("http://127.0.0.1:1"))
    result = down("doctor", "--stack", name, "--json", env=user_environment(local_aws))
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert document["ok"] is False
    assert [check["name"] for check in document["checks"] if check["unreachable"]] == ["ready"]


def test_a_stack_that_does_not_exist(down: Cli, local_aws: LocalAws) -> None:
    result = down("doctor", "--stack", "absent", "--json", env=user_environment(local_aws))
    assert result.exit_code == 1
    found = checks(json.loads(result.stdout))
    assert found["credentials"][0] == "ok"
    assert found["stack"] == (
        "failed",
        "AWS refused the call: ValidationError: Stack with id absent does not exist.",
    )
    assert len(found) == 8


def test_a_stack_without_functions(down: Cli, server: Server, local_aws: LocalAws) -> None:
    ready_api(server)
    name = deploy(local_aws, template(server.url, functions=False))
    result = down("doctor", "--stack", name, "--json", env=user_environment(local_aws))
    assert checks(json.loads(result.stdout))["functions"] == ("failed", "The stack has no function.")


# -------------------------------------------------------------------- an account
def test_an_account_before_anything_is_deployed(down: Cli, local_aws: LocalAws) -> None:
    arguments = ("doctor", "--account", "--region", "eu-west-1", "--json")
    result = down(*arguments, env=user_environment(local_aws))
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert [check["name"] for check in document["checks"]] == [
        "region",
        "credentials",
        "quota: concurrency",
    ]
    assert document["checks"][0]["found"] == "The region is eu-west-1."


def test_without_credentials_or_region(down: Cli, local_aws: LocalAws) -> None:
    environment = user_environment(
        local_aws, AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None, AWS_DEFAULT_REGION=None
    )
    result = down("doctor", "--account", env=environment)
    assert result.exit_code == 1
    assert "failed  region: No AWS region is set." in result.stdout
    assert "Traceback" not in result.stdout + result.stderr
    signed_out = {**environment, "AWS_DEFAULT_REGION": "eu-west-1"}
    result = down("doctor", "--account", env=signed_out)
    assert result.exit_code == 3
    assert "There are no AWS credentials." in result.stdout


def test_a_profile_that_does_not_exist(down: Cli, local_aws: LocalAws) -> None:
    result = down("doctor", "--account", "--profile", "nobody", env=user_environment(local_aws))
    assert result.exit_code == 1
    assert "nobody" in result.stdout
    assert "--profile" in result.stdout


def test_aws_out_of_reach(down: Cli, local_aws: LocalAws) -> None:
    environment = user_environment(local_aws, AWS_ENDPOINT_URL="http://127.0.0.1:1")
    result = down("doctor", "--account", env=environment)
    assert result.exit_code == 3
    assert "AWS cannot be reached" in result.stdout


class Quotas:
    """Service Quotas with an answer of two pages; the local one has no values of SageMaker."""

    def __init__(self, concurrency: float, instances: float) -> None:
        self._concurrency = concurrency
        self._pages: list[dict[str, Any]] = [
            {"Quotas": [{"QuotaName": "other", "QuotaCode": "L-0", "Value": 9.0}], "NextToken": "2"},
            {"Quotas": [{"QuotaName": "ml.g5.xlarge for endpoint usage", "QuotaCode": "L-1", "Value": instances}]},
        ]

    def get_service_quota(self, **_: str) -> dict[str, Any]:
        return {"Quota": {"Value": self._concurrency}}

    def list_service_quotas(self, *, NextToken: str = "1", **_: Any) -> dict[str, Any]:  # noqa: N803
        return self._pages[int(NextToken) - 1]


def account_of(**clients: Any) -> Account:
    named = {name.replace("_", "-"): made for name, made in clients.items()}
    return cast("Account", SimpleNamespace(client=named.__getitem__))


@pytest.mark.parametrize(
    ("instances", "status", "advice"), [(0, "failed", "L-1"), (1, "warning", "blue/green"), (4, "ok", "")]
)
def test_the_quota_of_the_endpoints_instances(instances: float, status: str, advice: str) -> None:
    account = account_of(service_quotas=Quotas(1000, instances))
    outcome = account_module.endpoint_instances(account, "ml.g5.xlarge")
    assert outcome.status == status
    assert advice in outcome.advice
    unknown = account_module.endpoint_instances(account, "ml.unknown")
    assert (unknown.status, "another ContainerInstanceType" in unknown.advice) == (Status.WARNING, True)


@pytest.mark.parametrize(("limit", "status"), [(10, "warning"), (1000, "ok")])
def test_the_quota_of_concurrent_executions(limit: float, status: str) -> None:
    assert account_module.concurrency(account_of(service_quotas=Quotas(limit, 0))).status == status


def test_the_root_user_is_advised_against() -> None:
    identity = {"Account": "1", "Arn": "arn:aws:iam::1:root"}
    account = account_of(sts=SimpleNamespace(get_caller_identity=lambda: identity))
    assert account_module.credentials(account).status is Status.WARNING


# -------------------------------------------------- what CloudFormation and others say
NEEDED = {"ApiUrl": "u", "ModelsTableName": "t", "ModelBucketName": "b", "KeysTableName": "k"}


@pytest.mark.parametrize(
    ("status", "outputs", "expected"),
    [
        ("UPDATE_COMPLETE", NEEDED, "ok"),
        ("UPDATE_IN_PROGRESS", NEEDED, "warning"),
        ("UPDATE_ROLLBACK_COMPLETE", NEEDED, "warning"),
        ("ROLLBACK_COMPLETE", NEEDED, "failed"),
        ("UPDATE_ROLLBACK_FAILED", NEEDED, "failed"),
        ("CREATE_COMPLETE", {"ApiUrl": "u"}, "failed"),
    ],
)
def test_the_state_of_a_stack(status: str, outputs: dict[str, str], expected: str) -> None:
    outcome = deployment.stack("s", StackState(status, "", outputs, {}))
    assert outcome.status == expected
    assert bool(outcome.advice) == (expected != "ok")


def test_functions_and_endpoints_in_trouble_are_named_with_the_reason() -> None:
    lambda_ = SimpleNamespace(
        get_function_configuration=lambda **_: {"State": "Failed", "StateReason": "the image is gone"}
    )
    sagemaker = SimpleNamespace(
        describe_endpoint=lambda **_: {"EndpointStatus": "Failed", "FailureReason": "no capacity"}
    )
    account = account_of(**{"lambda": lambda_}, sagemaker=sagemaker)
    function = StackResource("PredictFunction", "AWS::Lambda::Function", "f")
    outcome = deployment.functions(account, [function])
    assert (outcome.status, "PredictFunction is Failed" in outcome.found) == (Status.FAILED, True)
    assert "the image is gone" in outcome.found
    endpoint = StackResource("Endpoint", "AWS::SageMaker::Endpoint", "arn:aws:sagemaker:r:1:endpoint/heavy")
    assert deployment.endpoints(account, [endpoint]).found == "The endpoint heavy is Failed (no capacity)."


def test_an_endpoint_in_service_is_well_and_so_is_none(local_aws: LocalAws) -> None:
    sagemaker = SimpleNamespace(describe_endpoint=lambda **_: {"EndpointStatus": "InService"})
    endpoint = StackResource("Endpoint", "AWS::SageMaker::Endpoint", "heavy")
    assert deployment.endpoints(account_of(sagemaker=sagemaker), [endpoint]).status is Status.OK
    assert deployment.endpoints(account_of(), []).status is Status.OK


# ------------------------------------------------------------------- this machine
def test_a_machine_without_a_stack(down: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = Ports.free().environment() | {"PORT": str(taken.getsockname()[1])}
        result = down("doctor", "--json", env=ports)
    assert result.exit_code == 1
    found = checks(json.loads(result.stdout))
    assert found["python"][0] == "ok"
    assert found["stack"] == ("warning", "The local stack is not up.")
    assert found["ports"][0] == "failed"
    assert ports["PORT"] in found["ports"][1]
    free = down("doctor", "--json", env=Ports.free().environment())
    assert free.exit_code == 0, free.stdout


def test_a_stack_that_is_up_is_asked_with_its_own_key(cli: Cli, server: Server) -> None:
    ready_api(server)
    result = cli("doctor")
    assert result.exit_code == 0, result.stdout
    assert "ok      prediction: digits answered" in result.stdout
    assert server.requests[-1].headers["authorization"] == "Bearer sluice_local_key"


def test_too_old_too_full_and_nothing_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.python((3, 10)).status is Status.FAILED
    assert machine.models(tmp_path).status is Status.WARNING
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    assert machine.disk(tmp_path / "not" / "there").status is Status.WARNING
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**9))
    assert machine.memory(up=False).status is Status.WARNING
    assert machine.memory(up=True).status is Status.OK


@pytest.mark.parametrize(
    "arguments", [("--region", "eu-west-1"), ("--instance-type", "ml.g5.xlarge"), ("--stack", "s", "--account")]
)
def test_wrong_usage(down: Cli, arguments: tuple[str, ...]) -> None:
    assert down("doctor", *arguments).exit_code == 2


def test_one_check_that_fails_does_not_end_the_others() -> None:
    results = list(run([Check("a", lambda: failed("found", "advice")), Check("b", lambda: Outcome(Status.OK, "fine"))]))
    assert [result.outcome.status for result in results] == ["failed", "ok"]
