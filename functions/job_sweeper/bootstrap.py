"""Composition root of the sweeper of jobs."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from time import perf_counter
from typing import Any

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

Handler = Callable[[Any, Any], dict[str, Any]]


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
    return sweeper(sweep, settings.sweep_s, log)


def sweeper(sweep: Callable[[float], Swept], seconds: float, log: logging.Logger) -> Handler:
    """The handler of a schedule; whatever the event is, it looks for what is overdue, and answers what it did.

    It raises what the store of jobs raises: the next sweep comes by itself.
    """

    def handler(_event: Any, _context: Any) -> dict[str, Any]:
        start = perf_counter()
        done = asdict(sweep(seconds))
        fields = {**done, "ms": round((perf_counter() - start) * 1e3, 3)}
        log.log(logging.INFO if done["complete"] else logging.WARNING, "jobs swept", extra={"fields": fields})
        return done

    return handler
