"""Composition root of the public API beside predictions: catalogue, jobs, uploads, batches, webhooks, documentation."""

import logging
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from botocore.session import Session
from fastapi import FastAPI

from functions.api.batches import Batches
from functions.api.documentation import Contract
from functions.api.routes import router
from functions.api.services import Services
from functions.api.settings import Settings
from shared.adapters.aws import client
from shared.adapters.aws_calls import AwsCalls
from shared.adapters.cached_endpoints import CachedEndpoints
from shared.adapters.dynamodb_deliveries import DynamoDBDeliveries
from shared.adapters.dynamodb_endpoints import DynamoDBEndpoints
from shared.adapters.dynamodb_jobs import DynamoDBJobs
from shared.adapters.dynamodb_models import DynamoDBModels
from shared.adapters.dynamodb_webhooks import DynamoDBWebhooks
from shared.adapters.s3_job_objects import S3JobObjects
from shared.adapters.s3_objects import S3Objects
from shared.adapters.s3_uploads import S3Uploads
from shared.adapters.secrets_manager import SecretText
from shared.adapters.sqs_batches import SqsBatchSteps
from shared.adapters.sqs_jobs import SqsJobs
from shared.adapters.sqs_webhooks import SqsDeliveries
from shared.adapters.webhook_seal import WebhookSeal
from shared.bootstrap.http import admit, callers, idempotency, observed, quick_dynamodb
from shared.domain.jobs import Job
from shared.domain.settings import load
from shared.domain.uploads import input_prefixes
from shared.usecases.manage_jobs import ManageJobs
from shared.usecases.manage_webhooks import ManageWebhooks
from shared.usecases.sources import Sources
from shared.usecases.start_batch import CheckTarget, StartBatch
from shared.usecases.uploads import Uploads
from shared.web.admission import Door
from shared.web.app import create_app
from shared.web.lambda_handler import Handler, lambda_handler
from shared.web.logs import configure
from shared.web.middleware import Observed

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient

# No document of these routes is near it.
MAX_BODY_BYTES: Final = 1024 * 1024


def build(environ: Mapping[str, str]) -> Handler:
    """The handler for an environment; SettingsError names what is wrong with it."""
    settings = load(Settings, environ)
    log = configure(settings.service, settings.log_level)
    session, calls = Session(), AwsCalls()
    calls.watch(session)  # before there are clients, whose calls it counts
    return lambda_handler(application(_services_on_aws(settings, session), log, observed(settings, calls)))


def application(services: Services, log: logging.Logger, lines: Observed | None = None) -> FastAPI:
    """The application on its services; `lines` is what is told of each request."""
    return create_app([router()], services, log, lines)


class _Clients:
    """Clients of AWS services. Those of S3 and SQS are made for the requests that need one, which takes some 50 ms."""

    def __init__(self, settings: Settings, session: Session) -> None:
        bounds: dict[str, Any] = {
            "session": session,
            "connect_timeout": settings.connect_timeout_s,
            "read_timeout": settings.read_timeout_s,
            "retries": 1,
        }
        self.dynamodb: DynamoDBClient = client("dynamodb", **bounds)
        self.s3: Callable[[], S3Client] = cache(lambda: client("s3", **bounds))
        self.sqs: Callable[[], Any] = cache(lambda: client("sqs", **bounds))
        self.secretsmanager: Callable[[], SecretsManagerClient] = cache(lambda: client("secretsmanager", **bounds))


def _services_on_aws(settings: Settings, session: Session) -> Services:
    clients = _Clients(settings, session)
    dynamodb, quick = clients.dynamodb, quick_dynamodb(settings, session)
    registry = DynamoDBModels(dynamodb, settings.models_table)
    endpoints = CachedEndpoints(DynamoDBEndpoints(quick, settings.endpoints_table), ttl_s=settings.endpoints_ttl_s)
    # It seals webhooks' secrets in the table, and in answers that are kept for an `Idempotency-Key`.
    webhook_key = SecretText(clients.secretsmanager, settings.webhook_key_arn)
    jobs = _jobs(settings, dynamodb, clients)
    return Services(
        door=Door(
            callers(settings, dynamodb),
            admit(settings, quick),
            idempotency(settings, session),
            MAX_BODY_BYTES,
            webhook_key,
        ),
        registry=registry,
        config_of=endpoints.config,
        contract=Contract(registry, endpoints.config, settings.contract_ttl_s),
        batches=_batches(settings, dynamodb, clients, CheckTarget(registry, endpoints.config), jobs),
        jobs=jobs,
        uploads=_uploads(settings, clients),
        webhooks=_webhooks(settings, dynamodb, clients, webhook_key),
    )


def _jobs(settings: Settings, dynamodb: "DynamoDBClient", clients: _Clients) -> ManageJobs:
    batches = SqsBatchSteps(clients.sqs, settings.batch_queue_url)

    def wake_batch(job: Job) -> None:
        batches.send(job, "plan")

    return ManageJobs(
        DynamoDBJobs(dynamodb, settings.jobs_table),
        SqsJobs(clients.sqs, settings.jobs_queue_url),
        S3JobObjects(clients.s3, settings.data_bucket),
        wake_batch,
    )


def _batches(
    settings: Settings, dynamodb: "DynamoDBClient", clients: _Clients, check: CheckTarget, jobs: ManageJobs
) -> Batches:
    bucket = settings.data_bucket
    queue = SqsBatchSteps(clients.sqs, settings.batch_queue_url)
    return Batches(
        Sources(S3Objects(clients.s3), bucket, input_prefixes(settings.input_prefixes, bucket)),
        check,
        StartBatch(DynamoDBJobs(dynamodb, settings.jobs_table), queue),
        jobs,
        S3JobObjects(clients.s3, bucket),
        bucket,
    )


def _uploads(settings: Settings, clients: _Clients) -> Uploads:
    bucket, s3 = settings.data_bucket, clients.s3
    # What of other buckets may be read does not matter here: uploads are in the stack's own.
    return Uploads(S3Uploads(s3), Sources(S3Objects(s3), bucket), bucket, settings.upload_url_s)


def _webhooks(
    settings: Settings, dynamodb: "DynamoDBClient", clients: _Clients, key: Callable[[], bytes]
) -> ManageWebhooks:
    return ManageWebhooks(
        DynamoDBWebhooks(dynamodb, settings.webhooks_table, WebhookSeal(key)),
        DynamoDBDeliveries(dynamodb, settings.deliveries_table),
        SqsDeliveries(clients.sqs, settings.webhooks_queue_url),
        allow_loopback=settings.webhook_allow_loopback,
    )
