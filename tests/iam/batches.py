"""What the batch runner does: files that are dropped, planned, run in parts and joined, or come to nothing."""

import gzip
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pytest

from functions.batch_runner import bootstrap
from infra.local.aws_client import isolated_session, local_client
from shared.adapters import s3_batches
from shared.adapters.dynamodb_jobs import DynamoDBJobs
from shared.adapters.dynamodb_tenants import DynamoDBTenants
from shared.domain.batch_formats import file_type
from shared.domain.batches import BatchState
from shared.domain.jobs import Job, JobFilter, JobRequest, ObjectRef
from shared.domain.model import Placement
from shared.domain.tenants import Tenant
from tests.adapters.samples import unique
from tests.functions.batch_house import created
from tests.iam.backends import Routed
from tests.iam.inputs import objects, s3_client
from tests.iam.jobs import AT_ONCE, CONTEXT, Stores, messages
from tests.usecases.job_runs import job_of

CSV = "text/csv"
ROWS = b"1,2\n3,4\n"


@dataclass(frozen=True)
class Runs:
    """Batches of one tenant, each step of which is handed to the function."""

    environment: Mapping[str, str]
    tenant: str
    handler: Callable[[Mapping[str, Any], Any], dict[str, Any]]

    @cached_property
    def _dynamodb(self) -> Any:
        return local_client(isolated_session(), "dynamodb", os.environ["AWS_ENDPOINT_URL"])

    @cached_property
    def jobs(self) -> DynamoDBJobs:
        return DynamoDBJobs(self._dynamodb, self.environment["SLUICE_JOBS_TABLE"])

    @property
    def bucket(self) -> str:
        return self.environment["SLUICE_DATA_BUCKET"]

    def open(self) -> None:
        DynamoDBTenants(self._dynamodb, self.environment["SLUICE_TENANTS_TABLE"], "").add(
            Tenant(self.tenant, "standard")
        )

    def drop(self, model: str, name: str, content: bytes, *, told_by_s3: bool = False) -> str:
        """The id of the job of a file that is dropped."""
        key = f"batch/in/{self.tenant}/{model}/{name}"
        version_id = s3_client().put_object(Bucket=self.bucket, Key=key, Body=content)["VersionId"]
        before = self._ids()
        self.handler(_told_by_s3(self.bucket, key) if told_by_s3 else created(self.bucket, key, version_id), CONTEXT)
        (job_id,) = self._ids() - before
        return job_id

    def of(self, model: str, source: ObjectRef) -> str:
        """The id of a job that the API has taken on for an object."""
        kind = file_type("rows.csv", CSV)
        state = BatchState(source=source.uri, name="rows.csv", format=kind.format, packed=kind.packed, size=len(ROWS))
        request = JobRequest(None, {}, source=source)
        job = job_of(model=model, tenant=self.tenant, kind="batch", request=request, batch=state.encode())
        self.jobs.add(job)
        return job.job_id

    def step(self, job_id: str, step: str, **part: int) -> None:
        self.handler(messages({"job_id": job_id, "step": step, **part}), CONTEXT)

    def run(self, job_id: str) -> Job:
        """The job after all steps of a batch of one part."""
        self.step(job_id, "plan")
        self.step(job_id, "part", part=0)
        self.step(job_id, "finish")
        return self.jobs.get(self.tenant, job_id)

    def _ids(self) -> set[str]:
        return {job.job_id for job in self.jobs.list(self.tenant, JobFilter(), limit=100).jobs}


def _handler(environment: Mapping[str, str]) -> Callable[[Mapping[str, Any], Any], dict[str, Any]]:
    return bootstrap.build({**environment, **AT_ONCE})


def _told_by_s3(bucket: str, key: str) -> dict[str, Any]:
    """An event as a notification of the bucket itself has it, from a bucket without versions."""
    return {"Records": [{"eventSource": "aws:s3", "s3": {"bucket": {"name": bucket}, "object": {"key": key}}}]}


def drive_batch_runner(environment: Mapping[str, str], routed: Routed, models: Mapping[Placement, str]) -> None:
    """Run files of all places, packed ones, with wrong rows, on all kinds of backends."""
    runs = Runs(environment, unique("t"), _handler(environment))
    runs.open()
    model = models[Placement.FUNCTION]
    assert runs.run(runs.drop(model, "a.csv", ROWS)).state == "succeeded"
    assert runs.run(runs.drop(model, "b.csv", ROWS, told_by_s3=True)).state == "succeeded"
    assert runs.run(runs.drop(model, "c.csv.gz", gzip.compress(ROWS, mtime=0))).state == "succeeded"
    assert runs.run(runs.drop(model, "d.csv", b"1,2\nwrong,4\n" * 2)).state == "failed"
    assert runs.jobs.get(runs.tenant, runs.drop(model, "e.unknown", ROWS)).state == "failed"
    job_id = runs.drop(routed.kept, "f.csv", ROWS)
    runs.step(job_id, "plan")
    Stores(environment).reset(routed.kept)  # another worker goes on by the settings that it began with
    assert replace(runs, handler=_handler(environment)).run(job_id).state == "succeeded"
    _stopped_and_told_twice(runs, model)
    _, refs = objects(environment, runs.tenant, f"{unique('rows')}.csv", ROWS, CSV)
    theirs = refs[-1]
    for ref in (*refs, ObjectRef(theirs.bucket, theirs.key)):
        runs.run(runs.of(model, ref))
    for other in (models[Placement.CONTAINER], routed.enriched, *routed.called):
        runs.run(runs.of(other, refs[0]))
    _in_parts(runs, model)


def _stopped_and_told_twice(runs: Runs, model: str) -> None:
    """What a step does that finds another's work: parts that are done, messages that were lost."""
    job_id = runs.drop(model, "g.csv", ROWS)
    runs.step(job_id, "plan")
    runs.step(job_id, "plan")
    runs.step(job_id, "part", part=0)
    runs.step(job_id, "part", part=0)
    runs.step(job_id, "plan")
    runs.step(job_id, "finish")
    runs.step(job_id, "finish")
    assert runs.jobs.get(runs.tenant, job_id).state == "succeeded"


def _in_parts(runs: Runs, model: str) -> None:
    """Outputs that are uploaded in parts: S3 refuses the small ones of this test in the end, and they are given up."""
    job_id = runs.drop(model, "h.csv", ROWS * 8)
    runs.step(job_id, "plan")
    runs.step(job_id, "part", part=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3_batches, "_PIECE", 1)
        patch.setattr(s3_batches, "_WINDOW", 8)
        runs.step(job_id, "finish")
