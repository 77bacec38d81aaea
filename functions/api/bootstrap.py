"""Composition root of the catalogue and the documentation."""

import logging
from collections.abc import Mapping

from fastapi import FastAPI

from functions.api.documentation import Contract
from functions.api.routes import Services, router
from functions.api.settings import Settings
from shared.adapters.aws import client
from shared.adapters.dynamodb_models import DynamoDBModels
from shared.domain.ports import ModelRegistry
from shared.domain.settings import load
from shared.web.app import create_app
from shared.web.lambda_handler import Handler, lambda_handler
from shared.web.logs import configure


def build(environ: Mapping[str, str]) -> Handler:
    """The handler for an environment; SettingsError names what is wrong with it."""
    settings = load(Settings, environ)
    log = configure(settings.service, settings.log_level)
    registry = DynamoDBModels(
        client("dynamodb", connect_timeout=settings.connect_timeout_s, read_timeout=settings.read_timeout_s, retries=1),
        settings.models_table,
    )
    return lambda_handler(application(registry, log, contract_ttl_s=settings.contract_ttl_s))


def application(registry: ModelRegistry, log: logging.Logger, *, contract_ttl_s: float) -> FastAPI:
    """The application on a registry."""
    return create_app([router()], Services(registry, Contract(registry, contract_ttl_s)), log)
