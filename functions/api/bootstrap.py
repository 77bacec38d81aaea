"""Composition root of the catalogue and the documentation."""

import logging
from collections.abc import Mapping

from botocore.session import Session
from fastapi import FastAPI

from functions.api.documentation import Contract
from functions.api.routes import Services, router
from functions.api.settings import Settings
from shared.adapters.aws import client
from shared.adapters.aws_calls import AwsCalls
from shared.adapters.dynamodb_models import DynamoDBModels
from shared.domain.ports import ModelRegistry
from shared.domain.settings import load
from shared.web.admission import Door
from shared.web.app import create_app
from shared.web.bootstrap import admit, observed
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
    door = Door(Callers(), admit(settings, session))
    ttl_s = settings.contract_ttl_s
    return lambda_handler(application(registry, log, door=door, contract_ttl_s=ttl_s, lines=observed(settings, calls)))


def application(
    registry: ModelRegistry,
    log: logging.Logger,
    *,
    door: Door,
    contract_ttl_s: float,
    lines: Observed | None = None,
) -> FastAPI:
    """The application on a registry, behind a door; `lines` is what is told of each request."""
    return create_app([router()], Services(door, registry, Contract(registry, contract_ttl_s)), log, lines)
