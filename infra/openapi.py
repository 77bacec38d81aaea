"""Writes the contract of all functions to the file that `functions/api` serves: `python -m infra.openapi`.

Functions do not import one another, so the one that serves the document cannot ask the others for their routes; this
does, when the routes change. A test fails when the file has drifted from the code.
"""

import json
from importlib.metadata import version
from typing import Any

from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from functions.admin import routes as admin
from functions.api import routes as api
from functions.api.documentation import CONTRACT
from functions.predict import routes as predict
from shared.schemas import admin as admin_schemas
from shared.schemas import (
    admin_features,
    admin_keys,
    admin_traffic,
    admin_usage,
    batches,
    endpoint,
    jobs,
    uploads,
    webhooks,
)
from shared.schemas import api as schemas
from shared.web.contract import HEADERS, SECURITY_SCHEME, reference
from shared.web.deprecation import DEPRECATED
from shared.web.routing import DirectRoute

DESCRIPTION = """Predictions from ONNX models, and the catalogue of what is published.

Errors that a function makes are problem documents (RFC 9457) with a stable `code`. What the gateway answers by itself
(credential missing or refused, no such route, body over its limit) has the form `{"message": …}`."""

_SCHEMAS = (
    schemas.Problem,
    schemas.ProtocolProblem,
    schemas.GatewayMessage,
    schemas.PredictByRow,
    schemas.PredictByTensor,
    schemas.PredictResponse,
    schemas.InferRequest,
    schemas.InferResponse,
    schemas.ServerMetadata,
    schemas.ServerLive,
    schemas.ServerReady,
    schemas.ModelReady,
    schemas.ModelMetadata,
    schemas.Health,
    schemas.Readiness,
    schemas.ModelList,
    schemas.ModelDocument,
    schemas.ModelSchemas,
    schemas.VersionDocument,
    jobs.JobDocument,
    jobs.JobList,
    batches.BatchRequest,
    uploads.CreatedUpload,
    uploads.UploadDocument,
    webhooks.WebhookDocument,
    webhooks.WebhookWithSecret,
    webhooks.WebhookList,
    webhooks.DeliveryDocument,
    webhooks.DeliveryList,
)

_ADMIN_SCHEMAS = (
    admin_schemas.TenantDocument,
    admin_schemas.TenantList,
    admin_usage.UsageDocument,
    admin_schemas.PlanDocument,
    admin_schemas.PlanList,
    admin_keys.KeyDocument,
    admin_keys.CreatedKey,
    admin_keys.KeyList,
    endpoint.EndpointList,
    endpoint.EndpointHistory,
    endpoint.EndpointPlan,
    admin_traffic.TrafficDocument,
    admin_features.EntityFeaturesDocument,
    admin_features.EntitiesDocument,
)
# What is read: members with a default may be left out.
_REQUESTS = (
    jobs.JobSource,
    uploads.UploadRequest,
    webhooks.WebhookRequest,
    webhooks.WebhookChangeRequest,
    webhooks.SecretRotationRequest,
    admin_schemas.TenantRequest,
    admin_schemas.TenantChange,
    admin_schemas.PlanRequest,
    admin_keys.KeyRequest,
    admin_keys.RotationRequest,
    admin_keys.RoleRequest,
    admin_features.EntityFeaturesRequest,
    admin_features.EntitiesRequest,
    endpoint.RollbackRequest,
    endpoint.TrafficRequest,
)


def contract() -> dict[str, Any]:
    """The OpenAPI 3.1 document of every route but the models' own."""
    routes = [
        route.described()
        for function in (predict, api, admin)
        for route in function.router().routes
        if isinstance(route, DirectRoute)
    ]
    document = get_openapi(title="Sluice", version=version("sluice"), description=DESCRIPTION, routes=routes)
    _, definitions = models_json_schema(
        [
            *((model, "serialization") for model in (*_SCHEMAS, *_ADMIN_SCHEMAS)),
            *((model, "validation") for model in _REQUESTS),
        ],
        ref_template="#/components/schemas/{model}",
    )
    document["components"] = {
        "schemas": definitions["$defs"],
        "headers": dict(HEADERS),
        "securitySchemes": {
            SECURITY_SCHEME: {"type": "http", "scheme": "bearer", "description": "An API key (`sluice_…`) or a JWT"}
        },
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _correct(operation["responses"], secured="security" in operation)
            if f"{method.upper()} {path}" in DEPRECATED:
                operation["deprecated"] = True
    return document


def _correct(responses: dict[str, Any], *, secured: bool) -> None:
    # FastAPI declares its own form of this answer for every parameter; ours are problem documents.
    if "HTTPValidationError" in json.dumps(responses.get("422", {})):
        del responses["422"]
    if secured:
        for status, meaning in (("401", "There is no credential."), ("403", "The credential is refused.")):
            response = responses.setdefault(status, {"description": ""})
            response["description"] = f"{response['description']} The gateway's own: {meaning}".strip()
            response.setdefault("content", {})["application/json"] = {"schema": reference("GatewayMessage")}


def render() -> str:
    """The file's text."""
    return json.dumps(contract(), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the file."""
    CONTRACT.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
