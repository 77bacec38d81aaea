"""Composition root of the authorizer."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from functions.authorizer.settings import Settings
from shared.adapters.aws import client
from shared.adapters.dynamodb_keys import DynamoDBKeys
from shared.domain.settings import load
from shared.usecases.authorize import Authorize
from shared.web.logs import configure

Handler = Callable[[Mapping[str, Any], object], dict[str, Any]]


def build(environ: Mapping[str, str]) -> Handler:
    """The handler for an environment; SettingsError names what is wrong with it."""
    settings = load(Settings, environ)
    log = configure(settings.service, settings.log_level)
    keys = DynamoDBKeys(
        client("dynamodb", connect_timeout=settings.connect_timeout_s, read_timeout=settings.read_timeout_s, retries=1),
        settings.keys_table,
    )
    return authorizer(Authorize(keys), log)


def authorizer(authorize: Authorize, log: logging.Logger) -> Handler:
    """The handler of a Lambda authorizer with payload format 2.0 and simple responses.

    An event without a usable credential is not authorized; an error of the key store is raised, which API Gateway
    answers with 500.
    """

    def handler(event: Mapping[str, Any], context: object) -> dict[str, Any]:
        del context
        decision = authorize(_credential(event))
        fields = {
            "request_id": _request_id(event),
            "authorized": decision.principal is not None,
            "reason": decision.refusal,
            "key_id": decision.key_id,
            "tenant": decision.principal.tenant if decision.principal else None,
        }
        log.info("authorization", extra={"fields": fields})
        if decision.principal is None:
            return {"isAuthorized": False}
        return {"isAuthorized": True, "context": decision.principal.to_context()}

    return handler


def _credential(event: Mapping[str, Any]) -> str:
    """The identity source: what API Gateway caches the answer under, so nothing else may be looked at."""
    match event:
        case {"identitySource": [str() as credential]}:
            return credential
        case _:
            return ""


def _request_id(event: Mapping[str, Any]) -> str | None:
    match event:
        case {"requestContext": {"requestId": str() as request_id}}:
            return request_id
        case _:
            return None
