"""Composition root of the data plane."""

import logging
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.session import Session
from fastapi import FastAPI

from functions.predict.readiness import ENDPOINT_CHECK, Check, Readiness
from functions.predict.routes import router
from functions.predict.services import Services
from functions.predict.settings import Settings
from shared.adapters.aws import client
from shared.adapters.aws_calls import AwsCalls
from shared.adapters.cached_endpoints import CachedEndpoints
from shared.adapters.cached_models import CachedModels
from shared.adapters.dynamodb_endpoints import DynamoDBEndpoints
from shared.adapters.dynamodb_keys import DynamoDBKeys
from shared.adapters.dynamodb_models import DynamoDBModels
from shared.adapters.dynamodb_tenants import DynamoDBTenants
from shared.adapters.function_backend import FunctionBackend, Runnable
from shared.adapters.onnx.package import OnnxPackage
from shared.adapters.package_cache import PackageCache
from shared.adapters.s3_packages import S3Packages
from shared.adapters.sagemaker_backend import SageMakerBackend, endpoint_status
from shared.adapters.snapstart import is_snapshotted
from shared.codecs.json_documents import JsonLimits
from shared.domain.endpoint_settings import EndpointSettings
from shared.domain.errors import BackendUnavailable
from shared.domain.model import ModelVersion, Placement
from shared.domain.ports import Backend, InferenceContext, ModelRegistry
from shared.domain.settings import load
from shared.domain.tensors import Tensors
from shared.usecases.authorize import Authorize
from shared.usecases.predict import Predict
from shared.web.admission import Door
from shared.web.app import create_app
from shared.web.bootstrap import admit, idempotency, observed
from shared.web.callers import Callers
from shared.web.lambda_handler import Handler, lambda_handler
from shared.web.logs import configure
from shared.web.payload_log import PayloadLog

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient

# Rising steps, the last of them below the 29 s that the template gives the function.
_CONTAINER_TIMEOUTS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 27.0)


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


def application(
    settings: Settings,
    registry: ModelRegistry,
    backends: Mapping[Placement, Backend],
    checks: Mapping[str, Check],
    log: logging.Logger,
    *,
    door: Door,
    payloads: PayloadLog | None = None,
) -> FastAPI:
    """The application on a registry and backends, behind a door; payloads are not logged unless something says so."""
    payloads = payloads or PayloadLog(EndpointSettings)
    return create_app([router()], _services(settings, registry, backends, checks, log, door, payloads), log)


def _services_on_aws(settings: Settings, session: Session, *, calls: AwsCalls, log: logging.Logger) -> Services:
    calls.watch(session)
    dynamodb = client(
        "dynamodb",
        session=session,
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        retries=1,
    )
    registry = DynamoDBModels(dynamodb, settings.models_table)
    backends = {
        Placement.FUNCTION: OnFirstUse(partial(_function_backend, settings, session)),
        Placement.CONTAINER: OnFirstUse(partial(_container_backend, settings, session))
        if settings.endpoint_name
        else NoContainer(),
    }
    checks: dict[str, Check] = {"models": partial(_models_missing, registry)}
    if settings.endpoint_name:
        checks[ENDPOINT_CHECK] = _endpoint_check(settings, session)
    endpoints = CachedEndpoints(DynamoDBEndpoints(dynamodb, settings.endpoints_table), ttl_s=settings.endpoints_ttl_s)
    door = _door(settings, session, dynamodb)
    return _services(settings, registry, backends, checks, log, door, PayloadLog(endpoints))


def _door(settings: Settings, session: Session, dynamodb: "DynamoDBClient") -> Door:
    authorize = Authorize(
        DynamoDBKeys(dynamodb, settings.keys_table),
        DynamoDBTenants(dynamodb, settings.tenants_table, settings.usage_table),
        pepper=None,  # API keys are the authorizer's: here only signed requests are looked up
    )
    return Door(
        Callers(lambda arn: authorize.by_role(arn).principal),
        admit(settings, session),
        idempotency(settings, session),
        max_body_bytes=settings.max_body_bytes,
    )


def _services(
    settings: Settings,
    registry: ModelRegistry,
    backends: Mapping[Placement, Backend],
    checks: Mapping[str, Check],
    log: logging.Logger,
    door: Door,
    payloads: PayloadLog,
) -> Services:
    return Services(
        door=door,
        predict=Predict(CachedModels(registry, ttl_s=settings.registry_ttl_s), backends),
        payloads=payloads,
        readiness=Readiness(checks, log),
        limits=JsonLimits(
            max_bytes=settings.max_body_bytes,
            max_depth=settings.max_json_depth,
            max_values=settings.max_json_values,
            max_string=settings.max_string_bytes,
        ),
        deadline_ms=settings.deadline_ms,
        reserve_ms=settings.deadline_reserve_ms,
    )


class OnFirstUse:
    """A backend that is made when the first prediction needs it: a client of a service takes some 50 ms to make."""

    def __init__(self, make: Callable[[], Backend]) -> None:
        self._made = cache(make)

    def infer(self, version: ModelVersion, inputs: Tensors, context: InferenceContext) -> Tensors:
        """Run the model on the backend."""
        return self._made().infer(version, inputs, context)


class NoContainer:
    """Stands for the container in a stack that has none."""

    def infer(self, version: ModelVersion, inputs: Tensors, context: InferenceContext) -> Tensors:
        """Raise BackendUnavailable."""
        del inputs, context
        raise BackendUnavailable(
            f"{version.model} runs in the container, and this stack has none: deploy it with ContainerImage set."
        )


def _function_backend(settings: Settings, session: Session) -> Backend:
    s3 = client("s3", session=session, connect_timeout=settings.connect_timeout_s, read_timeout=settings.read_timeout_s)

    def load_package(folder: Path, version: ModelVersion) -> Runnable:
        return OnnxPackage.load(folder, threads=settings.threads, name=version.model, version=version.version)

    packages = PackageCache[Runnable](
        S3Packages(s3, settings.model_bucket), settings.cache_dir, settings.cache_bytes, load_package
    )
    return FunctionBackend(packages)


def _container_backend(settings: Settings, session: Session) -> Backend:
    def client_for(seconds: float) -> "SageMakerRuntimeClient":
        return client(
            "sagemaker-runtime",
            session=session,
            connect_timeout=settings.connect_timeout_s,
            read_timeout=seconds,
            retries=0,
        )

    return SageMakerBackend(client_for, settings.endpoint_name, timeouts_s=_CONTAINER_TIMEOUTS_S)


def _warm_up(settings: Settings, session: Session) -> None:
    """Make what a first prediction makes; nothing is sent, and what is kept is in the session."""
    import shared.adapters.idempotency_records  # noqa: F401 - what the first Idempotency-Key needs

    _function_backend(settings, session)
    if settings.endpoint_name:
        client("sagemaker-runtime", session=session)


def _models_missing(registry: ModelRegistry) -> str | None:
    return None if registry.models() else "no model is published"


def _endpoint_check(settings: Settings, session: Session) -> Check:
    @cache  # its model is large: made when readiness is asked for, and once
    def sagemaker() -> "SageMakerClient":
        return client(
            "sagemaker",
            session=session,
            connect_timeout=settings.connect_timeout_s,
            read_timeout=settings.read_timeout_s,
            retries=0,
        )

    def missing() -> str | None:
        status = endpoint_status(sagemaker(), settings.endpoint_name)
        return None if status == "InService" else f"the endpoint {settings.endpoint_name} is {status}"

    return missing
