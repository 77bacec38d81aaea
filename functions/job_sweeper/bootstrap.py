"""Composition root of the sweeper of jobs."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from time import perf_counter
from typing import Any, Final, Protocol

from botocore.session import Session

from functions.job_sweeper.settings import Settings
from shared.adapters.aws import client
from shared.adapters.dynamodb_jobs import DynamoDBJobs
from shared.adapters.sqs_batches import SqsBatchSteps
from shared.adapters.sqs_jobs import SqsDeadLetters, SqsJobs
from shared.domain.jobs import Job
from shared.domain.settings import load
from shared.usecases.sweep_jobs import SweepJobs, Swept
from shared.web.logs import configure

# As much of its time as a sweep uses: what was begun by then, and AWS is slow to answer, has the rest.
_SHARE: Final = 0.8


class Invocation(Protocol):
    """What the sweeper asks Lambda's context."""

    def get_remaining_time_in_millis(self) -> int:
        """Until the invocation is ended by force."""


Handler = Callable[[Any, Invocation], dict[str, Any]]


def build(environ: Mapping[str, str]) -> Handler:
    """The handler for an environment; SettingsError names what is wrong with it."""
    settings = load(Settings, environ)
    log = configure(settings.service, settings.log_level)
    bounds: dict[str, Any] = {
        "session": Session(),
        "connect_timeout": settings.connect_timeout_s,
        "read_timeout": settings.read_timeout_s,
        "retries": 1,
    }
    sqs = client("sqs", **bounds)
    batches = SqsBatchSteps(lambda: sqs, settings.batch_queue_url)

    def wake_batch(job: Job) -> None:
        batches.send(job, "plan")

    sweep = SweepJobs(
        DynamoDBJobs(client("dynamodb", **bounds), settings.jobs_table),
        SqsJobs(lambda: sqs, settings.jobs_queue_url),
        {
            "prediction": SqsDeadLetters(lambda: sqs, settings.jobs_dead_letters_url),
            "batch": SqsDeadLetters(lambda: sqs, settings.batch_dead_letters_url),
        },
        wake_batch,
    )
    return sweeper(sweep, log)


def sweeper(sweep: Callable[[float], Swept], log: logging.Logger) -> Handler:
    """The handler of a schedule; whatever the event is, it looks for what is overdue, and answers what it did.

    It goes on until all is looked at, or most of the invocation's time is over. It raises what the store of jobs
    raises: the next sweep comes by itself.
    """

    def handler(_event: Any, context: Invocation) -> dict[str, Any]:
        start = perf_counter()
        done = asdict(sweep(_SHARE * context.get_remaining_time_in_millis() / 1e3))
        fields = {**done, "ms": round((perf_counter() - start) * 1e3, 3)}
        log.log(logging.INFO if done["complete"] else logging.WARNING, "jobs swept", extra={"fields": fields})
        return done

    return handler
