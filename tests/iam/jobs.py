"""What is done with jobs: by the worker, by the sweep, and by what fetches answers of asynchronous endpoints."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from time import time
from typing import Any

from functions.async_result import bootstrap as async_result
from functions.job_sweeper import bootstrap as job_sweeper
from functions.job_worker import bootstrap as job_worker
from infra.local.aws_client import isolated_session, local_client
from shared.adapters.dynamodb_endpoints import DynamoDBEndpoints
from shared.adapters.dynamodb_jobs import DynamoDBJobs
from shared.domain.endpoint.config import EndpointConfig, StoredEndpoint
from shared.domain.jobs import Job, JobRequest, ObjectRef, Outcome
from tests.adapters.samples import unique
from tests.functions.support import LambdaContextStub
from tests.iam.backends import Queue, Routed
from tests.iam.inputs import BODY, JSON, objects, s3_client
from tests.usecases.job_runs import job_of

CONTEXT = LambdaContextStub(left_ms=900_000)
# What is set for an endpoint is in force at once.
AT_ONCE = {"SLUICE_ENDPOINTS_TTL_S": "0"}


@dataclass(frozen=True)
class Stores:
    """Where jobs are, without the function that is driven."""

    environment: Mapping[str, str]

    @cached_property
    def _dynamodb(self) -> Any:
        return local_client(isolated_session(), "dynamodb", os.environ["AWS_ENDPOINT_URL"])

    @cached_property
    def jobs(self) -> DynamoDBJobs:
        return DynamoDBJobs(self._dynamodb, self.environment["SLUICE_JOBS_TABLE"])

    def add(self, model: str, body: bytes = BODY, **more: Any) -> Job:
        job = job_of(model=model, body=body, **more)
        self.jobs.add(job)
        return job

    def now(self, job: Job) -> Job:
        return self.jobs.get(job.tenant, job.job_id)

    def reset(self, model: str) -> None:
        """Let a model have the settings that it would have without any."""
        endpoints = DynamoDBEndpoints(self._dynamodb, self.environment["SLUICE_ENDPOINTS_TABLE"])
        stored = endpoints.read(model).stored
        assert stored is not None
        endpoints.put(StoredEndpoint(EndpointConfig(model), stored.revision + 1, int(time())))


def messages(*bodies: Any) -> dict[str, Any]:
    """An event of a queue; the messages are in none, so nothing becomes of what is done with them there."""
    return {
        "Records": [
            {
                "messageId": unique("message"),
                "receiptHandle": unique("receipt"),
                "body": body if isinstance(body, str) else json.dumps(body),
                "attributes": {"ApproximateReceiveCount": "1"},
                "messageAttributes": {},
                "eventSource": "aws:sqs",
            }
            for body in bodies
        ]
    }


def of_jobs(*jobs: Job) -> dict[str, Any]:
    """An event for jobs."""
    return messages(*({"job_id": job.job_id} for job in jobs))


def drive_worker(environment: Mapping[str, str], routed: Routed, queue: Queue, models: Sequence[str]) -> None:
    """Run jobs on all kinds of backends, with their bodies in all places, and what cannot be read."""
    stores, worker = Stores(environment), job_worker.build({**environment, **AT_ONCE})

    def run(*jobs: Job) -> list[str]:
        worker(of_jobs(*jobs), CONTEXT)
        return [stores.now(job).state for job in jobs]

    *small, wide = models
    assert worker(messages("poison"), CONTEXT) == {"batchItemFailures": []}
    # The second one finds the first one's answer; what is called elsewhere is refused.
    assert run(stores.add(routed.kept), stores.add(routed.kept)) == ["succeeded", "succeeded"]
    assert set(run(*(stores.add(model) for model in small))) == {"succeeded", "failed"}
    assert run(stores.add(routed.enriched, b'{"inputs": {"x": [[1]], "customer_id": ["c-1"]}}')) == ["failed"]
    rows = json.dumps({"instances": [[9] * 64] * 1024}).encode()
    large = stores.add(wide, rows)
    assert run(large) == ["succeeded"]
    result = stores.now(large).result
    assert result is not None
    assert result.stored is not None
    for model in routed.called:
        assert run(stores.add(model)) != ["succeeded"]
    _sources(stores, run, routed.kept)
    _answered_later(stores, run, routed, queue)
    for place in ("failed", "out"):  # waited for, since it is in the place of an answer that was to come at once
        queue.place = place
        job = stores.add(routed.fallen)
        assert run(job) == ["failed" if place == "failed" else "succeeded"], (place, stores.now(job).problem)
    # The last attempt is followed by a letter.
    assert run(stores.add(routed.called[0], attempts=4)) == ["failed"]


def _sources(stores: Stores, run: Any, model: str) -> None:
    for ref in _places(stores.environment):
        run(stores.add(model, request=JobRequest(None, {"content-type": JSON}, None, ref)))


def _places(environment: Mapping[str, str]) -> list[ObjectRef]:
    """The same content in all places that a job may have it in; a bucket of others may have versions, or none."""
    _, refs = objects(environment, "acme", unique("name"), BODY)
    bucket, key = environment["SLUICE_DATA_BUCKET"], f"jobs/in/acme/{unique('job')}"
    mine = ObjectRef(bucket, key, s3_client().put_object(Bucket=bucket, Key=key, Body=BODY)["VersionId"])
    return [*refs, replace(refs[-1], version_id=None), mine]


def _answered_later(stores: Stores, run: Any, routed: Routed, queue: Queue) -> None:
    """Answers of asynchronous endpoints that are fetched by who gets the message again."""
    queue.place = "out"
    job = stores.add(routed.queued)
    assert run(job) == ["running"]
    assert run(job) == ["succeeded"]
    queue.place = "failed"
    job = stores.add(routed.failing)
    assert run(job) == ["running"]
    assert run(job) == ["failed"]
    queue.place = "out"
    job = stores.add(routed.queued)
    assert run(job) == ["running"]
    stores.reset(routed.queued)  # the answer is nobody's to fetch: the job runs again
    run(job)


def drive_async_result(environment: Mapping[str, str], routed: Routed, queue: Queue) -> None:
    """Take notices of answers and failures, of all that a job may have read, and of what nobody can fetch."""
    stores, handler = Stores(environment), async_result.build({**environment, **AT_ONCE})

    def told(job: Job, place: str) -> str:
        """What becomes of a job that was handed in, once the notice of its answer, or of its failure, is there."""
        reference = f"{job.job_id}-1"
        locations = queue.put(place, job.model)
        ticket = {
            "output_location": locations["out"],
            "failure_location": locations["failed"],
            "inference_id": reference,
            "handed_in_at": str(int(time())),
        }
        assert stores.jobs.claim(job.job_id, "worker", time(), 30).outcome == "claimed"
        ran = Outcome("succeeded", rows_total=1, version=1, variant="main", backend="elsewhere")
        assert stores.jobs.hand_over(job.job_id, "worker", ticket, ran, time() + 60)
        notice = {
            "inferenceId": reference,
            "invocationStatus": "Completed" if place == "out" else "Failed",
            "responseParameters": {"outputLocation": locations["out"]},
        }
        handler({"Records": [{"EventSource": "aws:sns", "Sns": {"Message": json.dumps(notice)}}]}, CONTEXT)
        return stores.now(job).state

    assert told(stores.add(routed.queued), "out") == "succeeded"
    assert told(stores.add(routed.failing), "failed") == "failed"
    for ref in _places(environment):
        request = JobRequest(None, {"content-type": JSON}, None, ref)
        told(stores.add(routed.queued, request=request), "out")
    queue.rows = 6000
    large = stores.add(routed.long, json.dumps({"instances": [[1, 2]] * queue.rows}).encode())
    assert told(large, "out") == "succeeded"
    result = stores.now(large).result
    assert result is not None
    assert result.stored is not None
    queue.rows = 1
    # The answer is nobody's to fetch any more: the job runs again.
    job = stores.add(routed.queued)
    stores.reset(routed.queued)
    assert told(job, "out") == "queued"


def drive_sweeper(environment: Mapping[str, str]) -> None:
    """Sweep what waits, what was given up, and what is over, of both kinds."""
    stores, sweep = Stores(environment), job_sweeper.build(environment)
    past = time() - 10
    old = time() - 7200
    jobs = [
        stores.add("any", created_at=old, due_at=past),
        stores.add("any", due_at=past, start_by=past),
        stores.add("any", due_at=past, state="running", attempts=1, owner="gone", lease_until=past),
        stores.add("any", due_at=past, state="running", attempts=5, owner="gone", lease_until=past),
        stores.add("any", due_at=past, kind="batch"),
        stores.add("any", due_at=past, kind="batch", start_by=past),
    ]
    swept = sweep({}, CONTEXT)
    assert swept["complete"]
    assert [stores.now(job).state for job in jobs] == ["queued", "failed", "queued", "failed", "queued", "failed"]
