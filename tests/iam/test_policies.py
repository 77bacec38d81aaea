"""Each function may do what its code does on every route and branch that calls AWS, and nothing else."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from botocore.session import Session

from functions.authorizer import bootstrap as authorizer
from functions.predict import bootstrap as predict
from functions.release_check import bootstrap as release_check
from functions.telemetry import bootstrap as telemetry
from infra.local.aws_client import isolated_session, local_client
from infra.local.seed import TENANT, seed_keys
from infra.local.stack import REGION, StackSpec
from infra.local.template import load_stack
from shared.adapters.aws import client
from shared.adapters.dynamodb_keys import DynamoDBKeys
from shared.adapters.dynamodb_models import DynamoDBModels
from shared.adapters.s3_packages import S3Packages
from shared.domain.audit import MAX_SHARDS, shard_of
from shared.domain.dtypes import DType
from shared.domain.model import PackageDescription, Placement
from shared.domain.ports import ApiKey
from shared.domain.signature import Signature, TensorSpec
from shared.usecases.publish_model import PublishModel
from tests.adapters.samples import unique
from tests.conftest import ROOT, LocalAws
from tests.faults import LOST, FaultProxy
from tests.functions.conftest import event_loops
from tests.functions.support import EVENTS, Answer, Function, LambdaContextStub, event
from tests.functions.test_bootstrap import publish
from tests.iam.admin_routes import drive_admin
from tests.iam.api_routes import drive_api
from tests.iam.backends import Queue, Routed, drive, sagemaker_runtime, set_up
from tests.iam.batches import drive_batch_runner
from tests.iam.inputs import drive_sources
from tests.iam.jobs import drive_async_result, drive_sweeper, drive_worker
from tests.iam.policies import PARAMETERS, Grant, grants, used_by_lambda
from tests.iam.recorder import Call, recorded
from tests.iam.webhooks import drive_webhook_sender
from tests.log_lines import authorization, batch, request, subscription
from tests.models import add_model, manifest, tensor, write_package

__all__ = ["event_loops"]  # closes what the functions open

CALLER_ROLE = "arn:aws:iam::000000000000:role/caller"
CALLER_SESSION = "arn:aws:sts::000000000000:assumed-role/caller/session"
# A whole batch of these is more than the 256 KiB that an item of the idempotency table takes.
WIDTH, ROWS = 64, 1024
WIDE = Signature(
    inputs=(TensorSpec("x", DType.FP32, (None, WIDTH)),), outputs=(TensorSpec("y", DType.FP32, (None, WIDTH)),)
)

Environment = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Given:
    """What the functions find.

    Their variables, published models by placement, one with large answers, endpoints with settings of their own,
    SageMaker Runtime, and a key's text.
    """

    environment: Environment
    models: Mapping[Placement, str]
    wide_model: str
    routed: Routed
    runtime: Queue
    api_key: str


Drive = Callable[[Given], None]


# ------------------------------------------------------------------ what the functions do
def drive_authorizer(given: Given) -> None:
    handler = authorizer.build(given.environment)
    event = json.loads((EVENTS / "authorizer.json").read_text())
    assert handler(event, None) == {"isAuthorized": False}
    assert handler({**event, "identitySource": [f"Bearer {given.api_key}"]}, None)["isAuthorized"] is True


def drive_predict(given: Given) -> None:
    function = Function(predict.build(given.environment))
    function("GET", "/health", principal=None)
    function("GET", "/ready", principal=None)
    path, body = f"/v1/models/{given.models[Placement.FUNCTION]}/predict", {"instances": [[1, 2]]}
    for asked in (path, path.replace("/predict", "/versions/1/predict")):
        assert function("POST", asked, body=body).json["predictions"] == [[2, 3]]
    function("POST", f"/v1/models/{given.models[Placement.CONTAINER]}/predict", body=body)
    assert function("POST", "/v1/models/absent/predict", body=body).status == 404
    assert function("GET", f"/v2/models/{given.models[Placement.FUNCTION]}").status == 200
    _signed(function, path, body)
    _once(function, f"/v1/models/{given.wide_model}/predict")
    drive_sources(given.environment, function, given.models[Placement.FUNCTION])
    drive(given.environment, given.routed, given.runtime)


def _signed(function: Function, path: str, body: object) -> None:
    made = event("POST", f"/iam{path}", "/iam/{proxy+}", body, principal=None)
    made["requestContext"]["authorizer"] = {"iam": {"userArn": CALLER_SESSION}}
    assert Answer.of(function.handler(made, function.context)).status == 200


def _once(function: Function, path: str) -> None:
    """Requests with an Idempotency-Key: one that fails and frees it, one whose answer goes to S3 and is read again."""
    failed = function("POST", "/v1/models/absent/predict", body={}, headers={"idempotency-key": unique("key")})
    assert failed.status >= 400
    body = {"instances": [[9] * WIDTH] * ROWS}
    headers = {"idempotency-key": unique("key"), "accept-encoding": "identity"}
    first, second = (function("POST", path, body=body, headers=headers) for _ in range(2))
    assert (first.status, second.status, second.headers["idempotency-replayed"]) == (200, 200, "true")
    assert first.body == second.body


def drive_telemetry(given: Given) -> None:
    # A shard that is new, so that its first segment is anchored; the answer to that is lost, and the anchor read.
    stream = next(name for name in iter(lambda: unique("stream"), "") if shard_of(name, MAX_SHARDS) == "60")
    event = subscription(batch(request(), authorization(), stream=stream))
    with FaultProxy(os.environ["AWS_ENDPOINT_URL"]) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        handler = telemetry.build({**given.environment, "SLUICE_AUDIT_SHARDS": str(MAX_SHARDS)})
        proxy.fail(LOST, operation="PUT", times=1)
        for _ in range(2):
            handler(event, LambdaContextStub())


def drive_release_check(given: Given) -> None:
    # There is no such version here, so it reports a failure: that takes all of its calls.
    handler = release_check.build(given.environment)
    event = json.loads((EVENTS / "release_check.json").read_text())
    assert handler(event, LambdaContextStub(left_ms=120_000))["status"] == "Failed"


DRIVES: Mapping[str, Drive] = {
    "AdminFunction": lambda given: drive_admin(given.environment),
    "AuthorizerFunction": drive_authorizer,
    "PredictFunction": drive_predict,
    "ApiFunction": lambda given: drive_api(given.environment, given.models[Placement.FUNCTION], CALLER_SESSION),
    "ReleaseCheckFunction": drive_release_check,
    "TelemetryFunction": drive_telemetry,
    "JobWorkerFunction": lambda given: drive_worker(
        given.environment, given.routed, given.runtime, [*given.models.values(), given.wide_model]
    ),
    "JobSweeperFunction": lambda given: drive_sweeper(given.environment),
    "AsyncResultFunction": lambda given: drive_async_result(given.environment, given.routed, given.runtime),
    "BatchRunnerFunction": lambda given: drive_batch_runner(given.environment, given.routed, given.models),
    "WebhookSenderFunction": lambda given: drive_webhook_sender(given.environment),
}


# -------------------------------------------------------------------------- the comparison
@pytest.fixture(scope="module")
def with_container() -> StackSpec:
    """The stack of `local_aws`, with the parts that a container adds."""
    return load_stack(ROOT / "template.yaml", stack_name="tests", parameters=PARAMETERS)


@pytest.fixture
def models(local_aws: LocalAws, aws_session: Session, tmp_path: Path) -> Mapping[Placement, str]:
    return {placement: publish(local_aws, aws_session, tmp_path, placement) for placement in Placement}


@pytest.fixture
def wide_model(local_aws: LocalAws, aws_session: Session, tmp_path: Path) -> str:
    model = unique("wide")
    document = manifest(
        model, 1, [tensor("x", DType.FP32, [-1, WIDTH])], [tensor("y", DType.FP32, [-1, WIDTH])], max_batch=ROWS
    )
    publish_package = PublishModel(
        DynamoDBModels(client("dynamodb", session=aws_session, endpoint_url=local_aws.url), local_aws.models_table),
        S3Packages(client("s3", session=aws_session, endpoint_url=local_aws.url), local_aws.bucket),
        Wide(),
    )
    publish_package(write_package(tmp_path / model, add_model(1.0, WIDTH), document))
    return model


@pytest.fixture
def kept_model(local_aws: LocalAws, aws_session: Session, tmp_path: Path) -> str:
    return publish(local_aws, aws_session, tmp_path / "kept")


class Wide:
    """Describes the package without reading it."""

    def describe(self, folder: Path) -> PackageDescription:
        return PackageDescription(folder.name, 1, WIDE, Placement.FUNCTION, {})


pytestmark = pytest.mark.usefixtures("keep_loggers")


def calls_of(
    function: str,
    stack: StackSpec,
    models: Mapping[Placement, str],
    wide_model: str,
    kept_model: str,
    local_aws: LocalAws,
    monkeypatch: pytest.MonkeyPatch,
    cache: Path,
) -> set[Call]:
    for name, value in {
        "AWS_ENDPOINT_URL": local_aws.url,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    environment = {**stack.functions[function].environment, "SLUICE_CACHE_DIR": str(cache)}
    api_key = seed_keys(local_aws.stack, local_aws.url).api_key
    keys = DynamoDBKeys(local_client(isolated_session(), "dynamodb", local_aws.url), local_aws.keys_table)
    keys.bind(ApiKey(key_id=f"iam#{CALLER_ROLE}", secret_hash="", tenant=TENANT, scopes=frozenset({"predict"})))
    stores = stack.functions["PredictFunction"].environment
    routed = set_up(local_aws, stores, kept_model)
    with sagemaker_runtime(local_aws, stores, monkeypatch) as runtime, recorded(monkeypatch) as calls:
        DRIVES[function](Given(environment, models, wide_model, routed, runtime, api_key))
    return calls


@pytest.mark.parametrize("function", sorted(DRIVES))
def test_a_function_may_do_what_it_does_and_no_more(
    function: str,
    with_container: StackSpec,
    models: Mapping[Placement, str],
    wide_model: str,
    kept_model: str,
    local_aws: LocalAws,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    calls = calls_of(
        function, with_container, models, wide_model, kept_model, local_aws, monkeypatch, tmp_path / "cache"
    )
    allowed, by_lambda = (found(ROOT / "template.yaml")[function] for found in (grants, used_by_lambda))
    assert by_lambda <= allowed
    missing = {call for call in calls if not any(_allows(grant, call) for grant in allowed)}
    unused = {grant for grant in allowed - by_lambda if not any(_allows(grant, call) for call in calls)}
    assert {"missing": sorted(map(str, missing)), "unused": sorted(map(str, unused))} == {"missing": [], "unused": []}


def test_every_function_of_the_template_is_driven(with_container: StackSpec) -> None:
    assert set(DRIVES) == set(with_container.functions) == set(grants(ROOT / "template.yaml"))


def test_no_function_has_a_wildcard_action_or_every_resource() -> None:
    for function, allowed in grants(ROOT / "template.yaml").items():
        for grant in allowed:
            assert "*" not in grant.action, f"{function}: {grant}"
            assert grant.resource != "*", f"{function}: {grant}"


def test_a_grant_covers_arns_as_iam_does() -> None:
    objects = Grant("s3:GetObject", "arn:aws:s3:::bucket/models/*")
    assert objects.covers("arn:aws:s3:::bucket/models/a/1/model.onnx")
    assert not objects.covers("arn:aws:s3:::bucket/other")
    assert not objects.covers("arn:aws:s3:::bucket2/models/a")
    bound = Grant("dynamodb:GetItem", "arn:table", ("iam#*",))
    assert bound.covers("arn:table", "iam#arn:aws:iam::1:role/caller")
    assert not bound.covers("arn:table", "kkkkkkkkkkkkkkkk")
    assert not bound.covers("arn:table")
    # In a file pattern these would be a set of characters.
    assert Grant("a", "arn:[x]").covers("arn:[x]")
    assert not Grant("a", "arn:[x]").covers("arn:x")


def _allows(grant: Grant, call: Call) -> bool:
    return grant.action == call.action and grant.covers(call.resource, call.key)
