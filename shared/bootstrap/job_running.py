"""What runs jobs and writes what came of them, on a data plane: for the worker and for those that fetch answers."""

from dataclasses import dataclass
from logging import Logger
from typing import TYPE_CHECKING, Annotated, Any, Final

from botocore.session import Session
from msgspec import Meta

from shared.adapters.aws import client
from shared.adapters.aws_calls import AwsCalls
from shared.adapters.dynamodb_jobs import DynamoDBJobs
from shared.adapters.s3_job_objects import S3JobObjects
from shared.adapters.sqs_jobs import SqsDeadLetters, SqsJobs
from shared.bootstrap.data_plane import DataPlane, data_plane
from shared.bootstrap.data_plane_settings import MIB, DataPlaneSettings
from shared.bootstrap.job_lines import JobLines
from shared.bootstrap.settings import Clients
from shared.codecs.json_documents import JsonLimits
from shared.domain.jobs import MAX_BODY
from shared.domain.ports import DeadLetters, JobObjects, JobQueue, JobStore
from shared.usecases.async_jobs import AsyncJobs
from shared.usecases.async_results import AsyncResults
from shared.usecases.hold import Hold
from shared.usecases.job_endings import JobEndings
from shared.usecases.job_requests import JobRequests
from shared.usecases.run_job import RunJob, Running
from shared.web.prediction_bodies import PredictionForm

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_OBJECT_S: Final = 30.0
# A job's body may be ten times what a request's is, and so may be what is in it.
JOB_LIMITS: Final = JsonLimits(max_bytes=MAX_BODY, max_depth=32, max_values=10_000_000, max_string=16 * MIB)


class JobSettings(DataPlaneSettings, frozen=True, kw_only=True):
    """Settings of the functions that work with jobs, beside those of the data plane; nobody waits for them."""

    endpoints_wait_s: Annotated[float, Meta(gt=0, le=30)] = 8.0
    jobs_table: str
    jobs_queue_url: str
    jobs_dead_letters_url: str


@dataclass(frozen=True, slots=True)
class JobStores:
    """Where jobs are, and where they go."""

    jobs: JobStore
    queue: JobQueue
    dead_letters: DeadLetters
    objects: JobObjects


@dataclass(frozen=True, slots=True)
class JobRunning:
    """What runs a job, what fetches an answer that came later, and what is told when one of the two begins."""

    run: RunJob
    results: AsyncResults
    hold: Hold
    lines: JobLines


def job_running_on_aws(settings: JobSettings, session: Session, log: Logger) -> JobRunning:
    """What a function on AWS runs jobs with."""
    calls = AwsCalls()
    calls.watch(session)  # before there are clients, whose calls it counts
    clients = Clients.patient(settings, session)
    plane, stores = data_plane(settings, session, clients), stores_on_aws(settings, session, clients)
    return job_running(plane, stores, JobLines(settings, calls, log))


def stores_on_aws(settings: JobSettings, session: Session, clients: Clients) -> JobStores:
    """The stack's."""
    connect_s, read_s = settings.connect_timeout_s, settings.read_timeout_s

    def sqs() -> Any:
        return client("sqs", session=session, connect_timeout=connect_s, read_timeout=read_s)

    def s3() -> "S3Client":
        # An object of a job may be large: its bytes come one after the other, each in time.
        return client("s3", session=session, connect_timeout=connect_s, read_timeout=_OBJECT_S)

    return JobStores(
        DynamoDBJobs(clients.dynamodb, settings.jobs_table),
        SqsJobs(sqs, settings.jobs_queue_url),
        SqsDeadLetters(sqs, settings.jobs_dead_letters_url),
        S3JobObjects(s3, settings.data_bucket),
    )


def job_running(plane: DataPlane, stores: JobStores, lines: JobLines, limits: JsonLimits = JOB_LIMITS) -> JobRunning:
    """What runs jobs on these stores."""
    requests = JobRequests(stores.objects, plane.predict, lambda headers: PredictionForm(headers, limits))
    asynchronous = AsyncJobs(
        plane.predict, plane.route, plane.backends, lambda call, seconds: plane.runner.run("hand in", call, seconds)
    )
    endings = JobEndings(stores.jobs, stores.dead_letters, stores.objects, lines)
    results = AsyncResults(stores.jobs, stores.queue, plane.predict, requests, asynchronous, endings)
    running = Running(
        predict=plane.predict,
        requests=requests,
        asynchronous=asynchronous,
        results=results,
        endings=endings,
        runner=plane.runner,
        prices=plane.prices,
        routed=lines.routed,
    )
    return JobRunning(RunJob(stores.jobs, running), results, Hold(stores.jobs), lines)
