"""Endpoints for every store and backend that the predict function may use, and a server in place of SageMaker."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import time
from typing import Any

import pytest

from functions.predict import bootstrap
from infra.local.aws_client import isolated_session, local_client
from shared.adapters.dynamodb_endpoints import DynamoDBEndpoints
from shared.adapters.dynamodb_models import DynamoDBModels
from shared.domain.endpoint.config import (
    BackendChoice,
    CacheSettings,
    EndpointConfig,
    EndpointLimits,
    Fallback,
    StoredEndpoint,
    Variant,
)
from shared.domain.features import Feature, FeatureSet, ModelFeatures
from shared.domain.model import ModelVersion
from tests.adapters.sagemaker_server import Answer, Call, SageMakerServer
from tests.adapters.samples import unique
from tests.conftest import LocalAws
from tests.functions.support import SIGNATURE, Function, published
from tests.iam.policies import THEIRS

OUTPUT: dict[str, Any] = {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [0.25, 0.75]}
BODY = {"instances": [[1, 2]]}


@dataclass(frozen=True, slots=True)
class Routed:
    """Models by what their endpoints are for."""

    kept: str
    enriched: str
    called: tuple[str, ...]
    queued: str
    failing: str
    long: str
    fallen: str


class Queue:
    """Answers asynchronous invocations with places in the data bucket, and writes to one of them; refuses all else."""

    def __init__(self, aws_url: str, bucket: str) -> None:
        self._s3 = local_client(isolated_session(), "s3", aws_url)
        self._bucket = bucket
        self.place = "out"
        self.rows = 1

    def __call__(self, call: Call) -> Answer:
        if not call.path.endswith("/async-invocations"):
            return Answer(500, b"{}")
        locations = self.put(self.place, call.attributes["model"])
        headers = {
            "x-amzn-sagemaker-outputlocation": locations["out"],
            "x-amzn-sagemaker-failurelocation": locations["failed"],
            "content-type": "application/json",
        }
        told = {"InferenceId": call.headers.get("x-amzn-sagemaker-inference-id", "1")}
        return Answer(202, json.dumps(told).encode(), headers)

    def put(self, place: str, model: str = "model") -> dict[str, str]:
        """Where an answer and a failure would be, by place; one of them is there now."""
        name = unique("of")
        keys = {each: f"async/{each}/{name}" for each in ("out", "failed")}
        output = {**OUTPUT, "shape": [self.rows, 2], "data": OUTPUT["data"] * self.rows}
        body = json.dumps({"model_name": model, "model_version": "1", "outputs": [output]}).encode()
        self._s3.put_object(Bucket=self._bucket, Key=keys[place], Body=body, ContentType="application/json")
        return {each: f"s3://{self._bucket}/{key}" for each, key in keys.items()}


@contextmanager
def sagemaker_runtime(
    local_aws: LocalAws, environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Queue]:
    """SageMaker Runtime for as long as the context lasts."""
    server = SageMakerServer()
    queue = server.script = Queue(local_aws.url, environment["SLUICE_DATA_BUCKET"])
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", server.url)
    try:
        yield queue
    finally:
        server.close()


def set_up(local_aws: LocalAws, environment: Mapping[str, str], model: str) -> Routed:
    """Store what the drive needs; `model` has a package, which the others do without: they run elsewhere."""
    endpoints = Endpoints(local_aws, environment)
    own = environment["SLUICE_ENDPOINT_NAME"]
    secret = local_client(isolated_session(), "secretsmanager", local_aws.url).create_secret(
        Name=f"tests/backends/{unique('token')}", SecretString="token"
    )
    # Nothing listens there: the token is read before the call fails.
    triton = {"url": "http://127.0.0.1:9", "bearer_secret": secret["ARN"]}
    queue = {"endpoint": f"{own}-async", "inline": False, "poll_min_ms": 10}
    endpoints.put(EndpointConfig(model, cache=CacheSettings(60, store="dynamodb", join=True)))
    return Routed(
        kept=model,
        enriched=endpoints.run_on("sagemaker", {"endpoint": THEIRS}, _enriched()),
        called=(
            endpoints.run_on("sagemaker-stream", {"endpoint": own}),
            endpoints.run_on("sagemaker", {"endpoint": THEIRS}),
            endpoints.run_on("sagemaker-stream", {"endpoint": THEIRS}),
            endpoints.run_on("sagemaker-async", {"endpoint": THEIRS}),
            endpoints.run_on("open-inference-http", triton, limits=EndpointLimits(concurrency=2)),
        ),
        queued=endpoints.run_on("sagemaker-async", queue),
        failing=endpoints.run_on("sagemaker-async", queue),
        long=endpoints.run_on("sagemaker-async", queue, _long()),
        fallen=endpoints.fall_back(
            BackendChoice("sagemaker", {"endpoint": THEIRS}), BackendChoice("sagemaker-async", queue)
        ),
    )


class Endpoints:
    """Makes models that are registered only, and their endpoints."""

    def __init__(self, local_aws: LocalAws, environment: Mapping[str, str]) -> None:
        dynamodb = local_client(isolated_session(), "dynamodb", local_aws.url)
        self._models = DynamoDBModels(dynamodb, environment["SLUICE_MODELS_TABLE"])
        self._endpoints = DynamoDBEndpoints(dynamodb, environment["SLUICE_ENDPOINTS_TABLE"])

    def put(self, config: EndpointConfig) -> None:
        """Store a configuration."""
        self._endpoints.put(StoredEndpoint(config, 1, int(time())))

    def run_on(self, kind: str, options: dict[str, Any], version: ModelVersion | None = None, **settings: Any) -> str:
        """The name of a model that runs on a backend of its own."""
        version = version or published(unique("model"))
        assert self._models.add(version)
        self.put(
            EndpointConfig(
                version.model,
                backends={"elsewhere": BackendChoice(kind, options)},
                variants=(Variant("main", backend="elsewhere"),),
                **settings,
            )
        )
        return version.model

    def fall_back(self, first: BackendChoice, second: BackendChoice) -> str:
        """The name of a model that runs on the second backend where the first fails."""
        version = published(unique("model"))
        assert self._models.add(version)
        self.put(
            EndpointConfig(
                version.model,
                backends={"first": first, "second": second},
                variants=(Variant("main", backend="first"), Variant("other", weight=0, backend="second")),
                fallback=(Fallback("variant", "other"),),
            )
        )
        return version.model


def _long() -> ModelVersion:
    """A version that takes many rows at once."""
    return replace(published(unique("model")), digest="a" * 64, signature=replace(SIGNATURE, max_batch=10_000))


def _enriched() -> ModelVersion:
    """A version whose second column is a feature."""
    fed = FeatureSet("customer", "customer_id", (Feature("age", "x", "b", default=40.0),))
    return replace(published(unique("model")), digest="e" * 64, features=ModelFeatures((fed,)))


def drive(environment: Mapping[str, str], routed: Routed, queue: Queue) -> None:
    """Ask for predictions of all of them, and for one that is answered later."""
    function = Function(bootstrap.build(environment))

    def predict(model: str, body: Any = None, **headers: str) -> Any:
        return function("POST", f"/v1/models/{model}/predict", body=body or BODY, headers=headers)

    first, second = predict(routed.kept), predict(routed.kept)
    assert first.json["predictions"] == second.json["predictions"] == [[2, 3]]
    assert "hit" in second.headers["cache-status"]
    enriched = predict(routed.enriched, {"inputs": {"x": [[1]], "customer_id": ["c-1"]}})
    # All but one of the servers are not there, or refuse: what matters is that they were called.
    assert [enriched.status, *(predict(model).status for model in routed.called)] == [502, 502, 502, 502, 200, 503]
    answer = predict(routed.queued)
    assert (answer.status, answer.json["predictions"]) == (200, [{"left": 0.25, "right": 0.75}])
    assert predict(routed.queued, prefer="respond-async").status == 202
    queue.place = "failed"
    assert predict(routed.failing).status == 502
