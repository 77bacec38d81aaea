"""Composition root of the admin API."""

import logging
from collections.abc import Mapping
from time import time
from typing import Any

from botocore.session import Session
from fastapi import FastAPI

from functions.admin.routes import router
from functions.admin.services import Services
from functions.admin.settings import Settings
from shared.adapters.aws import client
from shared.adapters.aws_calls import AwsCalls
from shared.adapters.backends.registry import Registry
from shared.adapters.backends.resources import Resources
from shared.adapters.dynamodb_endpoints import DynamoDBEndpoints
from shared.adapters.dynamodb_features import DynamoDBFeatures
from shared.adapters.dynamodb_keys import DynamoDBKeys
from shared.adapters.dynamodb_models import DynamoDBModels
from shared.adapters.dynamodb_tenants import DynamoDBTenants
from shared.adapters.dynamodb_traffic import DynamoDBTraffic
from shared.adapters.dynamodb_usage import DynamoDBUsage
from shared.adapters.secrets_manager import SecretText
from shared.bootstrap.http import admit, idempotency, observed, quick_dynamodb
from shared.domain.settings import load
from shared.usecases.manage_endpoints import ManageEndpoints
from shared.usecases.manage_features import ManageFeatures
from shared.usecases.manage_keys import ManageKeys
from shared.usecases.manage_tenants import ManageTenants
from shared.usecases.read_traffic import ReadTraffic
from shared.web.admission import Door
from shared.web.app import create_app
from shared.web.callers import Callers
from shared.web.documents import MAX_BYTES
from shared.web.lambda_handler import Handler, lambda_handler
from shared.web.logs import configure
from shared.web.middleware import Observed


def build(environ: Mapping[str, str]) -> Handler:
    """The handler for an environment; SettingsError names what is wrong with it."""
    settings = load(Settings, environ)
    log = configure(settings.service, settings.log_level)
    session, calls = Session(), AwsCalls()
    calls.watch(session)  # before there are clients, whose calls it counts
    return lambda_handler(application(_services_on_aws(settings, session), log, observed(settings, calls)))


def application(services: Services, log: logging.Logger, lines: Observed | None = None) -> FastAPI:
    """The application on its services."""
    return create_app([router()], services, log, lines)


def _services_on_aws(settings: Settings, session: Session) -> Services:
    bounds: dict[str, Any] = {
        "session": session,
        "connect_timeout": settings.connect_timeout_s,
        "read_timeout": settings.read_timeout_s,
        "retries": 1,
    }
    dynamodb = client("dynamodb", **bounds)
    pepper = SecretText(lambda: client("secretsmanager", **bounds), settings.key_pepper_arn)
    tenants = DynamoDBTenants(dynamodb, settings.tenants_table, settings.usage_table)
    door = Door(
        Callers(),
        admit(settings, quick_dynamodb(settings, session)),
        idempotency(settings, session),
        max_body_bytes=MAX_BYTES,
        pepper=pepper,
    )
    return Services(
        door=door,
        keys=ManageKeys(DynamoDBKeys(dynamodb, settings.keys_table), tenants, pepper),
        tenants=ManageTenants(tenants, DynamoDBUsage(dynamodb, settings.usage_table)),
        endpoints=ManageEndpoints(
            DynamoDBEndpoints(dynamodb, settings.endpoints_table),
            Registry(Resources()),
            DynamoDBModels(dynamodb, settings.models_table),
        ),
        features=ManageFeatures(DynamoDBFeatures(dynamodb, settings.features_table), tenants),
        traffic=ReadTraffic(DynamoDBTraffic(dynamodb, settings.traffic_table)),
        now=time,
    )
