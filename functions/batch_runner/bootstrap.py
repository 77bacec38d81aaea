"""Composition root of the batch runner."""

import logging
import sys
from collections.abc import Mapping
from typing import Any

from botocore.session import Session

from functions.batch_runner.lines import StepLines
from functions.batch_runner.runner import BatchRunner, Handler, Steps
from functions.batch_runner.settings import Settings
from shared.adapters.aws import client
from shared.adapters.aws_calls import AwsCalls
from shared.adapters.dynamodb_batches import DynamoDBBatches
from shared.adapters.dynamodb_endpoints import DynamoDBEndpoints
from shared.adapters.dynamodb_jobs import DynamoDBJobs
from shared.adapters.dynamodb_tenants import DynamoDBTenants
from shared.adapters.s3_batches import S3Batches
from shared.adapters.sqs_batches import SqsBatchSteps
from shared.adapters.sqs_jobs import SqsDeadLetters
from shared.adapters.sqs_messages import SqsMessages
from shared.adapters.sqs_visibility import SqsVisibility
from shared.bootstrap.data_plane import DataPlane, data_plane
from shared.bootstrap.settings import Clients
from shared.domain.batch_formats import Bounds
from shared.domain.settings import load
from shared.usecases.end_batch import EndBatch
from shared.usecases.finish_batch import FinishBatch
from shared.usecases.plan_batch import BOUNDS, PlanBatch
from shared.usecases.predict_rows import PredictRows
from shared.usecases.read_ahead import SWITCH_S
from shared.usecases.run_part import RunPart
from shared.usecases.start_batch import DropBatch, StartBatch
from shared.web.logs import configure


def build(environ: Mapping[str, str]) -> Handler:
    """The handler for an environment; SettingsError names what is wrong with it."""
    settings = load(Settings, environ)
    log = configure(settings.service, settings.log_level)
    sys.setswitchinterval(SWITCH_S)
    session, calls = Session(), AwsCalls()
    calls.watch(session)  # before there are clients, whose calls it counts
    clients = Clients.patient(settings, session)
    return runner(settings, session, clients, data_plane(settings, session, clients), calls, log)


def runner(
    settings: Settings,
    session: Session,
    clients: Clients,
    plane: DataPlane,
    calls: AwsCalls,
    log: logging.Logger,
    bounds: Bounds | None = None,
) -> BatchRunner:
    """The handler on a data plane; `bounds` says how files are cut, where that is not left to the plan."""
    lines = StepLines(settings, plane, calls, log)
    timeouts: dict[str, Any] = {"session": session, "connect_timeout": settings.connect_timeout_s}
    sqs = client("sqs", **timeouts, read_timeout=settings.read_timeout_s)
    dynamodb = clients.dynamodb
    jobs, store = DynamoDBJobs(dynamodb, settings.jobs_table), DynamoDBBatches(dynamodb, settings.jobs_table)
    objects = S3Batches(client("s3", **timeouts, read_timeout=settings.object_timeout_s), settings.data_bucket)
    queue = SqsBatchSteps(lambda: sqs, settings.batch_queue_url)
    end = EndBatch(jobs, store, objects, SqsDeadLetters(lambda: sqs, settings.batch_dead_letters_url))
    revisions = DynamoDBEndpoints(dynamodb, settings.endpoints_table)
    predict = PredictRows(plane.endpoints, revisions.revision, plane.route, plane.run_target, plane.enrich)
    tenants = DynamoDBTenants(dynamodb, settings.tenants_table, "")
    steps = Steps(
        drop=DropBatch(StartBatch(jobs, queue), jobs, objects, tenants, plane.registry),
        plan=PlanBatch(jobs, store, objects, queue, predict, end, bounds or BOUNDS),
        part=RunPart(jobs, store, objects, queue, predict, end, lines.cost),
        finish=FinishBatch(jobs, store, objects, predict, end, lines.cost),
    )
    return BatchRunner(
        steps,
        SqsVisibility(sqs, settings.batch_queue_url),
        SqsMessages(lambda: sqs, settings.batch_queue_url, settings.batch_dead_letters_url),
        lines,
        log,
        bucket=settings.data_bucket,
        reserve_s=settings.step_reserve_s,
    )
