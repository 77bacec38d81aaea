"""Composition root of the data plane."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from botocore.session import Session
from fastapi import FastAPI

from functions.predict.backends import backends_on_aws, endpoint_check, function_backend
from functions.predict.prices import CallPrices
from functions.predict.readiness import ENDPOINT_CHECK, Check, Readiness
from functions.predict.routes import router
from functions.predict.services import Services
from functions.predict.settings import Settings
from shared.adapters.aws import client
from shared.adapters.aws_calls import AwsCalls
from shared.adapters.cached_endpoints import CachedEndpoints
from shared.adapters.cached_models import CachedModels
from shared.adapters.dynamodb_answers import DynamoDBAnswers
from shared.adapters.dynamodb_endpoints import DynamoDBEndpoints
from shared.adapters.dynamodb_features import DynamoDBFeatures
from shared.adapters.dynamodb_guards import DynamoDBGuards
from shared.adapters.dynamodb_jobs import DynamoDBJobs
from shared.adapters.dynamodb_keys import DynamoDBKeys
from shared.adapters.dynamodb_models import DynamoDBModels
from shared.adapters.dynamodb_tenants import DynamoDBTenants
from shared.adapters.memory_answers import MemoryAnswers
from shared.adapters.snapstart import is_snapshotted
from shared.codecs.json_documents import JsonLimits
from shared.domain.endpoint.config import EndpointState
from shared.domain.endpoint.latency import Latencies
from shared.domain.errors import VersionNotFound
from shared.domain.model import ModelVersion
from shared.domain.ports import AnswerStore, Backends, FeatureReader, GuardStore, JobStore, ModelRegistry
from shared.domain.settings import load
from shared.usecases.answer import Answer
from shared.usecases.authorize import Authorize
from shared.usecases.deadline import DeadlineRunner
from shared.usecases.enrich import Enrich
from shared.usecases.fall_back import FallBack
from shared.usecases.jobs import Jobs
from shared.usecases.keep_answers import KeepAnswers
from shared.usecases.predict import Predict
from shared.usecases.route import Route
from shared.usecases.run_target import RunTarget
from shared.usecases.shadow import Shadows
from shared.web.admission import Door
from shared.web.app import create_app
from shared.web.bootstrap import admit, architecture, idempotency, observed, quick_dynamodb
from shared.web.callers import Callers
from shared.web.lambda_handler import Handler, lambda_handler
from shared.web.logs import configure
from shared.web.payload_log import PayloadLog

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@dataclass(frozen=True, slots=True)
class Parts:
    """What the data plane is put together from; `ready` says whether a version is loaded in this process."""

    door: Door
    registry: ModelRegistry
    endpoints: Callable[[str], EndpointState]
    backends: Backends
    ready: Callable[[ModelVersion], bool]
    guards: GuardStore
    answers: AnswerStore
    features: FeatureReader
    jobs: JobStore
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
    latencies = Latencies()
    prices = CallPrices.of(settings, architecture())
    runner = DeadlineRunner()
    route = Route(parts.registry, latencies, prices.call_nusd)
    answer = Answer(
        route,
        FallBack(RunTarget(parts.backends, parts.guards, latencies, runner=runner, ready=parts.ready)),
        KeepAnswers(
            MemoryAnswers(max_bytes=settings.answers_bytes),
            parts.answers,
            within=lambda call, seconds: runner.run("answers", call, seconds),
        ),
        Shadows(parts.backends),
    )

    return Services(
        door=parts.door,
        registry=parts.registry,
        predict=Predict(
            parts.endpoints,
            route,
            answer,
            Enrich(parts.features, lambda call, seconds: runner.run("features", call, seconds)),
            Jobs(parts.jobs, parts.backends, lambda call, seconds: runner.run("jobs", call, seconds)),
        ),
        prices=prices,
        payloads=PayloadLog(),
        readiness=Readiness(
            parts.checks, log, within=lambda check: runner.run("readiness", check, settings.ready_timeout_s)
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
    dynamodb = client(
        "dynamodb",
        session=session,
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        retries=1,
    )
    # The limiter's: what a request waits for, and can do without.
    quick = quick_dynamodb(settings, session)
    registry = CachedModels(DynamoDBModels(dynamodb, settings.models_table), ttl_s=settings.registry_ttl_s)
    checks: dict[str, Check] = {"models": lambda: None if registry.models() else "no model is published"}
    if settings.endpoint_name:
        checks[ENDPOINT_CHECK] = endpoint_check(settings, session)
    backends, ready = backends_on_aws(settings, session, registry)
    parts = Parts(
        door=_door(settings, session, dynamodb, quick),
        registry=registry,
        endpoints=CachedEndpoints(
            DynamoDBEndpoints(quick, settings.endpoints_table, settings.guards_table), ttl_s=settings.endpoints_ttl_s
        ),
        backends=backends,
        ready=ready,
        guards=DynamoDBGuards(quick, settings.guards_table),
        answers=DynamoDBAnswers(quick, settings.answers_table),
        features=DynamoDBFeatures(quick, settings.features_table),
        jobs=DynamoDBJobs(dynamodb, settings.jobs_table),
        checks=checks,
    )
    return services_of(settings, parts, log)


def _door(settings: Settings, session: Session, dynamodb: "DynamoDBClient", quick: "DynamoDBClient") -> Door:
    authorize = Authorize(
        DynamoDBKeys(dynamodb, settings.keys_table),
        DynamoDBTenants(dynamodb, settings.tenants_table, settings.usage_table),
        pepper=None,  # API keys are the authorizer's: here only signed requests are looked up
    )
    return Door(
        Callers(lambda arn: authorize.by_role(arn).principal),
        admit(settings, quick),
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
