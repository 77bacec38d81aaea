"""The real handlers, as their composition roots make them, on the AWS services of the local stack."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session

from functions.api import bootstrap as api
from functions.authorizer import bootstrap as authorizer
from functions.predict import bootstrap as predict
from infra.local.seed import PLAN, TENANT, seed_keys
from infra.local.stack import REGION
from shared.adapters.aws import client
from shared.adapters.dynamodb_endpoints import DynamoDBEndpoints
from shared.adapters.dynamodb_keys import DynamoDBKeys
from shared.adapters.dynamodb_models import DynamoDBModels
from shared.adapters.s3_packages import S3Packages
from shared.bootstrap import aws_backends
from shared.bootstrap import settings as bootstrap_settings
from shared.domain.dtypes import DType
from shared.domain.endpoint.config import EndpointConfig, ResponseFilter, StoredEndpoint
from shared.domain.jobs import MAX_INLINE_BODY
from shared.domain.model import PackageDescription, Placement
from shared.domain.ports import ApiKey
from shared.domain.principal import Principal
from shared.domain.signature import Signature, TensorSpec
from shared.usecases.publish_model import PublishModel
from tests.adapters.samples import unique
from tests.conftest import LocalAws
from tests.functions.support import CALLER, EVENTS, Answer, Function, event
from tests.models import add_model, manifest, tensor, write_package

SIGNATURE = Signature(
    inputs=(TensorSpec("x", DType.FP32, (None, 2)),), outputs=(TensorSpec("y", DType.FP32, (None, 2)),)
)


pytestmark = pytest.mark.usefixtures("keep_loggers")


@pytest.fixture
def environment(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Mapping[str, str]:
    """What the template gives the functions; botocore reads its part from the process's own environment."""
    for name, value in {
        "AWS_ENDPOINT_URL": local_aws.url,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    functions = local_aws.stack.functions.values()
    given = {name: value for function in functions for name, value in function.environment.items() if value}
    return {**given, "SLUICE_CACHE_DIR": str(tmp_path / "cache")}


class Described:
    """Reads no package: says what the test says."""

    def __init__(self, model: str, placement: Placement) -> None:
        self._description = PackageDescription(model, 1, SIGNATURE, placement, {"example": [1, 2]})

    def describe(self, folder: Path) -> PackageDescription:
        return self._description


def publish(local_aws: LocalAws, session: Session, folder: Path, placement: Placement = Placement.FUNCTION) -> str:
    model = unique("plus")
    document = manifest(model, 1, [tensor("x", DType.FP32, [-1, 2])], [tensor("y", DType.FP32, [-1, 2])])
    dynamodb = client("dynamodb", session=session, endpoint_url=local_aws.url)
    s3 = client("s3", session=session, endpoint_url=local_aws.url)
    PublishModel(
        DynamoDBModels(dynamodb, local_aws.models_table),
        S3Packages(s3, local_aws.bucket),
        Described(model, placement),
    )(write_package(folder / model, add_model(1.0), document))
    return model


def test_predict_fetches_a_published_package_and_runs_it(
    environment: Mapping[str, str], local_aws: LocalAws, aws_session: Session, tmp_path: Path
) -> None:
    model = publish(local_aws, aws_session, tmp_path)
    function = Function(predict.build(environment))
    assert function("GET", "/ready", principal=None).json["ready"] is True
    answer = function("POST", f"/v1/models/{model}/predict", body={"instances": [[1, 2], [3, 4]]})
    assert (answer.status, answer.json["predictions"]) == (200, [[2, 3], [4, 5]])
    assert answer.json["model"] == {"name": model, "version": 1, "variant": "main", "backend": "function"}


def test_predict_without_a_container_says_so(
    environment: Mapping[str, str], local_aws: LocalAws, aws_session: Session, tmp_path: Path
) -> None:
    model = publish(local_aws, aws_session, tmp_path, Placement.CONTAINER)
    answer = Function(predict.build(environment))("POST", f"/v1/models/{model}/predict", body={"instances": [[1, 2]]})
    assert (answer.status, answer.json["code"]) == (503, "backend_unavailable")


def test_readiness_names_an_endpoint_and_a_table_that_are_not_there(environment: Mapping[str, str]) -> None:
    function = Function(
        predict.build({**environment, "SLUICE_ENDPOINT_NAME": "absent", "SLUICE_MODELS_TABLE": "absent"})
    )
    answer = function("GET", "/ready", principal=None)
    assert answer.status == 503
    models, endpoint = answer.json["missing"]
    assert models == "models: The model registry refused the call: ResourceNotFoundException."
    assert endpoint == "endpoint: the endpoint absent is Missing"


def test_predict_makes_no_client_that_its_path_does_not_use(
    environment: Mapping[str, str], local_aws: LocalAws, aws_session: Session, tmp_path: Path, monkeypatch: Any
) -> None:
    model = publish(local_aws, aws_session, tmp_path)
    made: list[str] = []

    def spy(service: str, **options: Any) -> Any:
        made.append(service)
        factory: Any = client
        return factory(service, **options)

    monkeypatch.setattr(bootstrap_settings, "client", spy)
    monkeypatch.setattr(aws_backends, "client", spy)
    function = Function(predict.build({**environment, "SLUICE_ENDPOINT_NAME": "endpoint"}))
    function("GET", "/health", principal=None)
    assert made == ["dynamodb", "dynamodb"]
    function("POST", f"/v1/models/{model}/predict", body={"instances": [[1, 2]]})
    function("POST", f"/v1/models/{model}/predict", body={"instances": [[1, 2]]})
    assert made == ["dynamodb", "dynamodb", "s3"]


def test_the_catalogue_and_the_contract_show_a_published_model(
    environment: Mapping[str, str], local_aws: LocalAws, aws_session: Session, tmp_path: Path
) -> None:
    model = publish(local_aws, aws_session, tmp_path)
    function = Function(api.build(environment))
    assert model in [summary["name"] for summary in function("GET", "/v1/models").json["models"]]
    assert function("GET", f"/v1/models/{model}").json["signature"]["inputs"][0]["shape"] == [-1, 2]
    operation = function("GET", "/openapi.json", principal=None).json["paths"][f"/v1/models/{model}/predict"]["post"]
    shown = operation["requestBody"]["content"]["application/json"]["examples"]
    assert shown["rows"]["value"] == {"instances": [[1, 2]]}


def test_a_job_is_taken_on_shown_listed_and_cancelled(
    environment: Mapping[str, str], local_aws: LocalAws, aws_session: Session, tmp_path: Path
) -> None:
    model = publish(local_aws, aws_session, tmp_path)
    submit, function = Function(predict.build(environment)), Function(api.build(environment))
    caller = replace(CALLER, tenant=unique("tenant"))
    large = b'{"instances": [[1, 2]' + b" " * MAX_INLINE_BODY + b"]}"
    headers = {"idempotency-key": unique("key")}
    path = f"/v1/models/{model}/jobs"
    taken = submit("POST", path, body=large, headers=headers, principal=caller)
    assert taken.status == 202, taken.body
    replayed = submit("POST", path, body=large, headers=headers, principal=caller)
    assert (replayed.json["job_id"], replayed.headers["idempotency-replayed"]) == (taken.json["job_id"], "true")
    shown = function("GET", taken.headers["location"], principal=caller)
    assert (shown.status, shown.json) == (200, taken.json)
    assert [job["job_id"] for job in function("GET", "/v1/jobs", principal=caller).json["jobs"]] == [
        shown.json["job_id"]
    ]
    cancelled = function("DELETE", taken.headers["location"], principal=caller)
    assert (cancelled.status, cancelled.json["state"]) == (200, "cancelled")
    again = function("POST", f"{taken.headers['location']}/retry", headers=headers, principal=caller)
    assert (again.status, again.json["state"]) == (200, "queued")
    assert function("POST", f"{taken.headers['location']}/retry", headers=headers, principal=caller).json == again.json
    key = f"jobs/in/{caller.tenant}/{taken.json['job_id']}"
    s3 = client("s3", session=aws_session, endpoint_url=local_aws.url)
    assert s3.get_object(Bucket=environment["SLUICE_DATA_BUCKET"], Key=key)["Body"].read() == large


def test_a_signed_request_finds_the_jobs_of_the_tenant_that_its_role_is_bound_to(
    environment: Mapping[str, str], local_aws: LocalAws, aws_session: Session, tmp_path: Path
) -> None:
    seed_keys(local_aws.stack, local_aws.url)
    role = unique("caller")
    keys = DynamoDBKeys(client("dynamodb", session=aws_session, endpoint_url=local_aws.url), local_aws.keys_table)
    arn = f"arn:aws:iam::000000000000:role/{role}"
    keys.bind(ApiKey(key_id=f"iam#{arn}", secret_hash="", tenant=TENANT, scopes=frozenset({"predict"})))
    model = publish(local_aws, aws_session, tmp_path)
    submit, function = Function(predict.build(environment)), Function(api.build(environment))

    def signed(to: Function, method: str, path: str, body: Any = None, by: str = role) -> Answer:
        made = event(method, f"/iam{path}", f"/iam{path}", body, principal=None)
        session = f"arn:aws:sts::000000000000:assumed-role/{by}/session"
        made["requestContext"]["authorizer"] = {"iam": {"userArn": session}}
        return Answer.of(to.handler(made, to.context))

    taken = signed(submit, "POST", f"/v1/models/{model}/jobs", {"instances": [[1, 2]]})
    assert taken.status == 202, taken.body
    path = taken.headers["location"]
    assert signed(function, "GET", path).json == taken.json
    assert signed(function, "GET", path, by="nobody").status == 403
    assert function("GET", path, principal=replace(CALLER, tenant=unique("tenant"))).status == 404
    assert signed(function, "DELETE", path).json["state"] == "cancelled"
    # Without the gateway's word for it, the way of signed requests leads nowhere.
    unsigned = event("GET", f"/iam{path}", f"/iam{path}", principal=CALLER)
    assert Answer.of(function.handler(unsigned, function.context)).status == 404


def test_what_an_endpoint_hides_is_in_no_contract(
    environment: Mapping[str, str], local_aws: LocalAws, aws_session: Session, tmp_path: Path
) -> None:
    model = publish(local_aws, aws_session, tmp_path)
    hidden = EndpointConfig(model, response=ResponseFilter(outputs=("other",)))
    dynamodb = client("dynamodb", session=aws_session, endpoint_url=local_aws.url)
    DynamoDBEndpoints(dynamodb, environment["SLUICE_ENDPOINTS_TABLE"]).put(StoredEndpoint(hidden, 1, 1_700_000_000))
    function = Function(api.build(environment))
    assert function("GET", f"/v1/models/{model}").json["signature"]["outputs"] == []
    document = function("GET", "/openapi.json", principal=None).json["paths"][f"/v1/models/{model}/predict"]
    (answer, _v2) = document["post"]["responses"]["200"]["content"]["application/json"]["schema"]["anyOf"]
    assert answer["properties"]["predictions"]["items"]["properties"] == {}
    unread = Function(api.build({**environment, "SLUICE_ENDPOINTS_TABLE": "absent"}))
    assert unread("GET", f"/v1/models/{model}").status == 503
    assert unread("GET", "/openapi.json", principal=None).status == 503


def test_the_authorizer_knows_a_stored_key_and_no_other(environment: Mapping[str, str], local_aws: LocalAws) -> None:
    credential = f"Bearer {seed_keys(local_aws.stack, local_aws.url).api_key}"
    handler = authorizer.build(environment)
    event = json.loads((EVENTS / "authorizer.json").read_text())
    assert handler(event, None) == {"isAuthorized": False}
    allowed = handler({**event, "identitySource": [credential]}, None)
    assert (allowed["isAuthorized"], allowed["context"]["tenant"]) == (True, "demo")
    assert Principal.from_context(allowed["context"]).limits == PLAN.limits
