"""Every route of the public API beside predictions, asked once and in ways that take its rarer branches."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from time import time
from typing import Any

from functions.api import bootstrap
from infra.local.aws_client import isolated_session, local_client
from infra.local.seed import PLAN
from infra.openapi import contract
from shared.adapters.dynamodb_jobs import DynamoDBJobs
from shared.domain.batches import BatchState
from shared.domain.jobs import Job, JobResult, ObjectRef, Outcome
from shared.domain.principal import Principal
from tests.adapters.samples import unique
from tests.functions.support import Answer, Function, event
from tests.iam.inputs import objects
from tests.usecases.job_runs import job_of

CSV = "text/csv"
ROWS = b"1,2\n"
UPLOAD = {"size": 4, "media_type": CSV, "sha256": "0" * 64}


class Api:
    """Asks the function as a tenant that may do everything, and keeps which operations were asked for."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.tenant = unique("t")
        self._caller = Principal(self.tenant, "k" * 16, frozenset({"predict", "webhooks"}), PLAN.name)
        self._function = Function(bootstrap.build(environment))
        self.paths = [path for path in contract()["paths"] if not path.startswith(("/v1/admin/", "/v2"))]
        self.asked: set[tuple[str, str]] = set()

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        # A part of a path that is always the same comes before one that may be anything.
        found = sorted((each for each in self.paths if _is_of(each, path)), key=lambda each: each.count("{"))
        route = found[0] if found else path
        self.asked.add((method, route))
        made = event(method, path, route, body, headers, self._caller)
        return Answer.of(self._function.handler(made, self._function.context))

    def once(self, path: str, body: Any, wrong: Any) -> Answer:
        """A request that fails and frees its Idempotency-Key, and one that is repeated."""
        assert self("POST", path, wrong, **{"idempotency-key": unique("key")}).status >= 400
        headers = {"idempotency-key": unique("key")}
        first, second = (self("POST", path, body, **headers) for _ in range(2))
        assert second.headers["idempotency-replayed"] == "true"
        assert first.body == second.body
        return first

    def signed(self, path: str, session: str) -> int:
        """The status for a caller that signed its request."""
        made = event("GET", f"/iam{path}", "/iam/v1/jobs", principal=None)
        made["requestContext"]["authorizer"] = {"iam": {"userArn": session}}
        return Answer.of(self._function.handler(made, self._function.context)).status


def _is_of(route: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"\{[a-z_]+\}", "[^/]+", route), path) is not None


def drive_api(environment: Mapping[str, str], model: str, session: str) -> None:
    """Ask for everything that the contract has of this function."""
    api = Api(environment)
    answers = [
        api("GET", "/v1/models"),
        api("GET", f"/v1/models/{model}"),
        api("GET", f"/v1/models/{model}/schema"),
        api("GET", f"/v1/models/{model}/versions/1"),
        api("GET", "/openapi.json"),
        api("GET", "/docs"),
        *_inputs(api, environment, model),
        *_jobs(api, environment),
        *_webhooks(api),
    ]
    assert [answer.body for answer in answers if answer.status >= 400] == []
    assert api.signed("/v1/jobs", session) == 200
    of_predict = re.compile("/(predict|jobs)$|^/(health|ready)$")
    wanted = {
        (method.upper(), path)
        for path, operations in contract()["paths"].items()
        for method in operations
        if path in api.paths and (path == "/v1/jobs" or not of_predict.search(path))
    }
    assert api.asked - {("GET", "/openapi.json"), ("GET", "/docs")} == wanted


def _inputs(api: Api, environment: Mapping[str, str], model: str) -> list[Answer]:
    upload_id, refs = objects(environment, api.tenant, f"{unique('rows')}.csv", ROWS, CSV)
    named: list[dict[str, Any]] = [{"upload_id": upload_id}, *({"s3_uri": ref.uri} for ref in refs)]
    path = f"/v1/models/{model}/batches"
    batches = [api("POST", path, {**each, "format": "csv"}) for each in named]
    pinned = api("POST", path, {**named[0], "format": "csv", "version": 1})
    return [api.once("/v1/uploads", UPLOAD, {}), api("GET", f"/v1/uploads/{upload_id}"), *batches, pinned]


def _jobs(api: Api, environment: Mapping[str, str]) -> list[Answer]:
    dynamodb = local_client(isolated_session(), "dynamodb", os.environ["AWS_ENDPOINT_URL"])
    store = DynamoDBJobs(dynamodb, environment["SLUICE_JOBS_TABLE"])

    def add(job: Job) -> str:
        store.add(replace(job, tenant=api.tenant))
        return f"/v1/jobs/{job.job_id}"

    def finished(path: str, outcome: Outcome) -> None:
        assert store.finish(path.rpartition("/")[2], outcome, time())

    bucket = environment["SLUICE_DATA_BUCKET"]
    result = ObjectRef(bucket, f"jobs/out/{api.tenant}/1/1", "version")
    waits, done, lost = add(job_of()), add(job_of()), add(job_of())
    finished(done, Outcome("succeeded", result=JobResult("application/json", 9, stored=result)))
    finished(lost, Outcome("cancelled"))
    out = f"batch/out/{api.tenant}/model/1"
    state = BatchState(source="s3://a/b", name="b.csv", manifest=f"{out}/manifest.json", errors=f"{out}/errors.jsonl")
    batch, lost_batch = add(job_of(kind="batch", batch=state.encode())), add(job_of(kind="batch", batch=state.encode()))
    output = JobResult(CSV, 9, stored=ObjectRef(bucket, f"{out}/b.csv"))
    finished(batch, Outcome("succeeded", result=output, batch=state.encode()))
    finished(lost_batch, Outcome("cancelled"))
    return [
        api("GET", "/v1/jobs"),
        api("GET", waits),
        api("DELETE", waits),
        api("GET", f"{done}/result"),
        api("GET", f"{batch}/result"),
        api("GET", f"{batch}/manifest"),
        api("GET", f"{batch}/errors"),
        api("POST", f"{lost}/retry"),
        api("POST", f"{lost_batch}/retry"),
    ]


def _webhooks(api: Api) -> list[Answer]:
    made = api.once("/v1/webhooks", {"url": "https://hooks.example.com/a"}, {})
    path = f"/v1/webhooks/{made.json['webhook_id']}"
    sent = api("POST", f"{path}/test")
    delivery = f"{path}/deliveries/{sent.json['delivery_id']}"
    return [
        made,
        api("GET", "/v1/webhooks"),
        api("GET", path),
        api("PATCH", path, {"description": "Ours"}),
        api("POST", f"{path}/rotate", {"overlap_s": 60}),
        sent,
        api("GET", f"{path}/deliveries"),
        api("GET", delivery),
        api("POST", f"{delivery}/redeliver"),
        api("DELETE", path),
    ]
