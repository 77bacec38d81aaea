"""Composition root of the catalogue and the documentation."""

import logging
from collections.abc import Callable, Mapping

from botocore.session import Session
from fastapi import FastAPI

from functions.api.documentation import Contract
from functions.api.routes import Services, router
from functions.api.settings import Settings
from shared.adapters.aws import client
from shared.adapters.aws_calls import AwsCalls
from shared.adapters.cached_endpoints import CachedEndpoints
from shared.adapters.dynamodb_endpoints import DynamoDBEndpoints
from shared.adapters.dynamodb_models import DynamoDBModels
from shared.domain.endpoint.config import EndpointConfig
from shared.domain.ports import ModelRegistry
from shared.domain.settings import load
from shared.web.admission import Door
from shared.web.app import create_app
from shared.web.bootstrap import admit, observed, quick_dynamodb
from shared.web.callers import Callers
from shared.web.lambda_handler import Handler, lambda_handler
from shared.web.logs import configure
from shared.web.middleware import Observed


def build(environ: Mapping[str, str]) -> Handler:
    """The handler for an environment; SettingsError names what is wrong with it."""
    settings = load(Settings, environ)
    log = configure(settings.service, settings.log_level)
    session, calls = Session(), AwsCalls()
    calls.watch(session)
    connect_s, read_s = settings.connect_timeout_s, settings.read_timeout_s
    dynamodb = client("dynamodb", session=session, connect_timeout=connect_s, read_timeout=read_s, retries=1)
    registry = DynamoDBModels(dynamodb, settings.models_table)
    quick = quick_dynamodb(settings, session)
    endpoints = CachedEndpoints(DynamoDBEndpoints(quick, settings.endpoints_table), ttl_s=settings.endpoints_ttl_s)
    door, lines = Door(Callers(), admit(settings, quick)), observed(settings, calls)
    return lambda_handler(
        application(registry, endpoints.config, log, door=door, contract_ttl_s=settings.contract_ttl_s, lines=lines)
    )


def application(
    registry: ModelRegistry,
    config_of: Callable[[str], EndpointConfig],
    log: logging.Logger,
    *,
    door: Door,
    contract_ttl_s: float,
    lines: Observed | None = None,
) -> FastAPI:
    """The application on a registry and endpoints' configurations, behind a door.

    `lines` is what is told of each request.
    """
    services = Services(door, registry, config_of, Contract(registry, config_of, contract_ttl_s))
    return create_app([router()], services, log, lines)
