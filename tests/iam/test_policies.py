"""Each function may do what its code does on every route and branch that calls AWS, and nothing else."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from botocore.session import Session

from functions.api import bootstrap as api
from functions.authorizer import bootstrap as authorizer
from functions.predict import bootstrap as predict
from functions.release_check import bootstrap as release_check
from infra.local.seed import seed_keys
from infra.local.stack import REGION, StackSpec
from infra.local.supervisor import PARAMETERS
from infra.local.template import load_stack
from shared.domain.model import Placement
from tests.conftest import ROOT, LocalAws
from tests.functions.conftest import event_loops
from tests.functions.support import EVENTS, Function, LambdaContextStub
from tests.functions.test_bootstrap import publish
from tests.iam.policies import Grant, grants
from tests.iam.recorder import Call, recorded

__all__ = ["event_loops"]  # closes what the functions open

# In a function's environment beside what the template gives it, for what drives the function: a key that is stored.
API_KEY = "TEST_API_KEY"

Environment = Mapping[str, str]
Drive = Callable[[Environment, Mapping[Placement, str]], None]


# ------------------------------------------------------------------ what the functions do
def drive_authorizer(environment: Environment, models: Mapping[Placement, str]) -> None:
    handler = authorizer.build(environment)
    event = json.loads((EVENTS / "authorizer.json").read_text())
    assert handler(event, None) == {"isAuthorized": False}
    credential = f"Bearer {environment[API_KEY]}"
    assert handler({**event, "identitySource": [credential]}, None)["isAuthorized"] is True


def drive_predict(environment: Environment, models: Mapping[Placement, str]) -> None:
    function = Function(predict.build(environment))
    function("GET", "/health", principal=None)
    function("GET", "/ready", principal=None)
    body = {"instances": [[1, 2]]}
    local = function("POST", f"/v1/models/{models[Placement.FUNCTION]}/predict", body=body)
    assert local.json["predictions"] == [[2, 3]]
    function("POST", f"/v1/models/{models[Placement.CONTAINER]}/predict", body=body)
    assert function("POST", "/v1/models/absent/predict", body=body).status == 404


def drive_api(environment: Environment, models: Mapping[Placement, str]) -> None:
    function = Function(api.build(environment))
    name = models[Placement.FUNCTION]
    assert function("GET", "/v1/models").status == 200
    assert function("GET", f"/v1/models/{name}").status == 200
    assert function("GET", f"/v1/models/{name}/versions/1").status == 200
    assert function("GET", f"/v1/models/{name}/versions/9").status == 404
    assert function("GET", "/openapi.json", principal=None).status == 200
    assert function("GET", "/docs", principal=None).status == 200


def drive_release_check(environment: Environment, models: Mapping[Placement, str]) -> None:
    # There is no such version here, so it reports a failure: that takes all of its calls.
    handler = release_check.build(environment)
    event = json.loads((EVENTS / "release_check.json").read_text())
    assert handler(event, LambdaContextStub(left_ms=120_000))["status"] == "Failed"


DRIVES: Mapping[str, Drive] = {
    "AuthorizerFunction": drive_authorizer,
    "PredictFunction": drive_predict,
    "ApiFunction": drive_api,
    "ReleaseCheckFunction": drive_release_check,
}


# -------------------------------------------------------------------------- the comparison
@pytest.fixture(scope="module")
def with_container() -> StackSpec:
    """The stack of `local_aws`, with the parts that a container adds."""
    return load_stack(ROOT / "template.yaml", stack_name="tests", parameters=PARAMETERS)


@pytest.fixture
def models(local_aws: LocalAws, aws_session: Session, tmp_path: Path) -> Mapping[Placement, str]:
    return {placement: publish(local_aws, aws_session, tmp_path, placement) for placement in Placement}


pytestmark = pytest.mark.usefixtures("keep_loggers")


def calls_of(
    function: str,
    stack: StackSpec,
    models: Mapping[Placement, str],
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
    environment = {
        **stack.functions[function].environment,
        "SLUICE_CACHE_DIR": str(cache),
        API_KEY: seed_keys(local_aws.stack, local_aws.url).api_key,
    }
    with recorded(monkeypatch) as calls:
        DRIVES[function](environment, models)
    return calls


@pytest.mark.parametrize("function", sorted(DRIVES))
def test_a_function_may_do_what_it_does_and_no_more(
    function: str,
    with_container: StackSpec,
    models: Mapping[Placement, str],
    local_aws: LocalAws,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    calls = calls_of(function, with_container, models, local_aws, monkeypatch, tmp_path / "cache")
    allowed = grants(ROOT / "template.yaml")[function]
    missing = {call for call in calls if not any(_allows(grant, call) for grant in allowed)}
    unused = {grant for grant in allowed if not any(_allows(grant, call) for call in calls)}
    assert (missing, unused) == (set(), set())


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
    # In a file pattern these would be a set of characters.
    assert Grant("a", "arn:[x]").covers("arn:[x]")
    assert not Grant("a", "arn:[x]").covers("arn:x")


def _allows(grant: Grant, call: Call) -> bool:
    return grant.action == call.action and grant.covers(call.resource)
