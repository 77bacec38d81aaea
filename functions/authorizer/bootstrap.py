"""Composition root of the authorizer."""

import logging
from collections.abc import Callable, Mapping
from time import time
from typing import TYPE_CHECKING, Any

from botocore.session import Session

from functions.authorizer.settings import Settings
from shared.adapters.aws import client
from shared.adapters.dynamodb_keys import DynamoDBKeys
from shared.adapters.dynamodb_tenants import DynamoDBTenants
from shared.adapters.secrets_manager import SecretText
from shared.domain.jwt_claims import TokenIdentity
from shared.domain.ports import TokenVerifier
from shared.domain.settings import load
from shared.usecases.authorize import Authorize
from shared.web.logs import configure

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

Handler = Callable[[Mapping[str, Any], object], dict[str, Any]]


class IssuerTokens:
    """Implements `shared.domain.ports.TokenVerifier`: the real one is made by the first token that comes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._verifier: TokenVerifier | None = None

    def verify(self, token: str) -> TokenIdentity:
        """As the real one does."""
        if self._verifier is None:
            self._verifier = self._make()
        return self._verifier.verify(token)

    def _make(self) -> TokenVerifier:
        from shared.adapters.jwks import Jwks
        from shared.adapters.jwt_verifier import JwtVerifier

        settings = self._settings
        keys = Jwks(settings.jwt_issuer, settings.jwt_jwks_url, timeout_s=settings.jwt_timeout_s, now=time)
        return JwtVerifier(
            keys,
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            tenant_claim=settings.jwt_tenant_claim,
            now=time,
        )


def build(environ: Mapping[str, str]) -> Handler:
    """The handler for an environment; SettingsError names what is wrong with it."""
    settings = load(Settings, environ)
    log = configure(settings.service, settings.log_level)
    session = Session()
    connect_s, read_s = settings.connect_timeout_s, settings.read_timeout_s
    dynamodb = client("dynamodb", session=session, connect_timeout=connect_s, read_timeout=read_s, retries=1)

    def secrets() -> "SecretsManagerClient":
        return client("secretsmanager", session=session, connect_timeout=connect_s, read_timeout=read_s, retries=1)

    authorize = Authorize(
        DynamoDBKeys(dynamodb, settings.keys_table),
        DynamoDBTenants(dynamodb, settings.tenants_table, settings.usage_table),
        SecretText(secrets, settings.key_pepper_arn),
        IssuerTokens(settings) if settings.jwt_issuer else None,
    )
    return authorizer(authorize, log)


def authorizer(authorize: Authorize, log: logging.Logger) -> Handler:
    """The handler of a Lambda authorizer with payload format 2.0 and simple responses.

    An event without a usable credential is not authorized; an error of a store or of the token issuer is raised, which
    API Gateway answers with 500 and does not keep.
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
