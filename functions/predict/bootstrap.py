"""Composition root of the data plane."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from botocore.session import Session
from fastapi import FastAPI

from functions.predict.endpoint_check import endpoint_check
from functions.predict.readiness import ENDPOINT_CHECK, Check, Readiness
from functions.predict.routes import router
from functions.predict.services import Services
from functions.predict.settings import Settings
from shared.adapters.aws import client
from shared.adapters.aws_calls import AwsCalls
from shared.adapters.dynamodb_jobs import DynamoDBJobs
from shared.adapters.s3_job_objects import S3JobObjects
from shared.adapters.s3_objects import S3Objects
from shared.adapters.snapstart import is_snapshotted
from shared.adapters.sqs_jobs import SqsJobs
from shared.bootstrap.aws_backends import function_backend
from shared.bootstrap.data_plane import DataPlaneParts, assemble, parts_on_aws
from shared.bootstrap.http import admit, callers, idempotency, observed
from shared.bootstrap.settings import Clients
from shared.codecs.json_documents import JsonLimits
from shared.domain.errors import VersionNotFound
from shared.domain.model import ModelVersion
from shared.domain.settings import load
from shared.domain.uploads import input_prefixes
from shared.usecases.sources import Sources
from shared.usecases.submit_job import SubmitJob
from shared.web.admission import Door
from shared.web.app import create_app
from shared.web.lambda_handler import Handler, lambda_handler
from shared.web.logs import configure
from shared.web.payload_log import PayloadLog

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True, slots=True)
class Parts:
    """What the function is put together from: the data plane's parts, and what is before it."""

    door: Door
    plane: DataPlaneParts
    submit: SubmitJob
    sources: Sources
    checks: Mapping[str, Check]


def build(environ: Mapping[str, str]) -> Handler:
    """The handler for an environment; SettingsError names what is wrong with it."""
    settings = load(Settings, environ)
    log = configure(settings.service, settings.log_level)
    session, calls = Session(), AwsCalls()
    services = partial(_services_on_aws, settings, calls=calls, log=log)
    app = create_app([router()], services(session), log, observed(settings, calls))
    handler = lambda_handler(app)
    if is_snapshotted(environ):
        from functions.predict.snapshot import register_hooks  # an ordinary environment pays nothing for it

        register_hooks(
            app,
            handler,
            session,
            services=services,
            warm_up=partial(_warm_up, settings),
            log=log,
        )
    return handler


def application(settings: Settings, parts: Parts, log: logging.Logger) -> FastAPI:
    """The application of these parts."""
    return create_app([router()], services_of(settings, parts, log), log)


def services_of(settings: Settings, parts: Parts, log: logging.Logger) -> Services:
    """What the routes work with."""
    plane = assemble(settings, parts.plane)
    return Services(
        door=parts.door,
        registry=plane.registry,
        endpoints=plane.endpoints,
        predict=plane.predict,
        submit=parts.submit,
        sources=parts.sources,
        prices=plane.prices,
        payloads=PayloadLog(),
        readiness=Readiness(
            parts.checks, log, within=lambda check: plane.runner.run("readiness", check, settings.ready_timeout_s)
        ),
        limits=JsonLimits(
            max_bytes=settings.max_body_bytes,
            max_depth=settings.max_json_depth,
            max_values=settings.max_json_values,
            max_string=settings.max_string_bytes,
        ),
        deadline_ms=settings.deadline_ms,
        reserve_ms=settings.deadline_reserve_ms,
    )


def _services_on_aws(settings: Settings, session: Session, *, calls: AwsCalls, log: logging.Logger) -> Services:
    calls.watch(session)
    clients = Clients.of(settings, session)
    plane = parts_on_aws(settings, session, clients)
    registry = plane.registry
    checks: dict[str, Check] = {"models": lambda: None if registry.models() else "no model is published"}
    if settings.endpoint_name:
        checks[ENDPOINT_CHECK] = endpoint_check(settings, session)
    submit, sources = _jobs(settings, session, clients)
    return services_of(settings, Parts(_door(settings, session, clients), plane, submit, sources, checks), log)


def _jobs(settings: Settings, session: Session, clients: Clients) -> tuple[SubmitJob, Sources]:
    """What takes jobs on; the clients of S3 and SQS, which few requests need, are made for the first that does."""

    @cache
    def s3() -> "S3Client":
        return client("s3", session=session, connect_timeout=settings.connect_timeout_s, retries=1)

    def sqs() -> Any:
        return client("sqs", session=session, connect_timeout=settings.connect_timeout_s, retries=1)

    submit = SubmitJob(
        DynamoDBJobs(clients.dynamodb, settings.jobs_table),
        SqsJobs(sqs, settings.jobs_queue_url),
        S3JobObjects(s3, settings.data_bucket),
    )
    places = input_prefixes(settings.input_prefixes, settings.data_bucket, settings.model_bucket)
    return submit, Sources(S3Objects(s3), settings.data_bucket, places)


def _door(settings: Settings, session: Session, clients: Clients) -> Door:
    return Door(
        callers(settings, clients.dynamodb),
        admit(settings, clients.quick),
        idempotency(settings, session),
        max_body_bytes=settings.max_body_bytes,
    )


def _unknown(model: str, version: int) -> ModelVersion:
    raise VersionNotFound(f"{model} {version} is not looked for before the snapshot.")


def _warm_up(settings: Settings, session: Session) -> None:
    """Make what a first prediction makes; nothing is sent, and what is kept is in the session."""
    import shared.adapters.idempotency_records  # noqa: F401 - what the first Idempotency-Key needs

    function_backend(settings, session, _unknown)
    if settings.endpoint_name:
        client("sagemaker-runtime", session=session)
