"""Routes of the Open Inference Protocol (KServe V2): what the server and its models are, and `infer`.

Statistics, model configuration, the model repository and streaming are the container's: a function has no queue and
loads nothing on demand. Source: Open Inference Protocol, "REST".
"""

from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from functions.predict.prediction import produce, read_head
from functions.predict.readiness import ENDPOINT_CHECK
from functions.predict.services import Services
from functions.predict.v1 import PREDICT_ERRORS, ModelPath, VersionPath
from shared.codecs.content.formats import v2_format
from shared.codecs.content.media import BINARY, JSON, KNOWN, SAGEMAKER_BINARY
from shared.codecs.json_documents import dumps
from shared.codecs.v2_metadata import model_metadata, server_metadata
from shared.domain import errors
from shared.domain.endpoint.config import AUTO, CONTAINER
from shared.domain.endpoint.target import Target
from shared.domain.idempotency import StoredAnswer
from shared.domain.principal import Principal
from shared.domain.signature import Signature
from shared.web.contract import (
    ADMISSION,
    IDEMPOTENCY_KEY,
    ROUTING,
    SECURED,
    Responses,
    answers,
    document,
    media_types,
    of_prediction,
    reference,
)
from shared.web.problems import MEDIA_TYPE
from shared.web.requests import model_name, record_of, version_or_label

EXTENSIONS: Final = ("binary_tensor_data",)
"""What this server has of Triton's extensions; the documents of its models are the container's own."""

_TAGS: Final[list[str | Enum]] = ["open inference"]
_MODEL: Final = "/v2/models/{model}"
_VERSION: Final = "/v2/models/{model}/versions/{version}"
_CALLER: Final = (errors.Unauthenticated, errors.CredentialExpired)
_HEADER_LENGTH: Final[dict[str, Any]] = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "description": "How many bytes of the body are JSON; the raw bytes of tensors follow them.",
    "schema": {"type": "integer", "minimum": 1},
}


def add_routes(routes: APIRouter) -> None:
    """Add them, with what they say of themselves in the OpenAPI document; those that are asked most come first."""
    _add_infer(routes)
    _add_models(routes)
    _add_server(routes)


def _add_infer(routes: APIRouter) -> None:
    body = media_types((JSON, BINARY, SAGEMAKER_BINARY), reference("InferRequest"))
    extra = {
        **SECURED,
        "parameters": [_HEADER_LENGTH, IDEMPOTENCY_KEY, *ROUTING],
        "requestBody": {"required": True, "content": body},
    }
    of_version = (*PREDICT_ERRORS, errors.VersionNotFound, errors.VersionNotAllowed)
    for path, handler, operation, summary, possible in (
        (_MODEL, infer, "infer", "Infer with any model", PREDICT_ERRORS),
        (_VERSION, infer_version, "inferVersion", "Infer with one version of a model", of_version),
    ):
        responses = _answers("The outputs, binary where the request asks for it.", "InferResponse", *possible)
        responses[200]["content"] = media_types(KNOWN, reference("InferResponse"))
        routes.add_api_route(
            f"{path}/infer",
            handler,
            methods=["POST"],
            operation_id=operation,
            summary=summary,
            tags=_TAGS,
            responses=of_prediction(responses),
            openapi_extra=extra,
        )


def _add_models(routes: APIRouter) -> None:
    of_model = (*ADMISSION, errors.ModelNotFound, errors.InvalidPackage)
    of_version = (*of_model, errors.VersionNotFound, errors.VersionNotAllowed)
    for path, handler, operation, possible in (
        (_MODEL, metadata, "modelMetadata", of_model),
        (_VERSION, version_metadata, "modelVersionMetadata", of_version),
    ):
        routes.add_api_route(
            path,
            handler,
            methods=["GET"],
            operation_id=operation,
            summary="Inputs and outputs of a model",
            tags=_TAGS,
            responses=_answers("The signature.", "ModelMetadata", *possible),
            openapi_extra=SECURED,
        )
    for path, handler, operation, possible in (
        (_MODEL, ready, "modelReady", of_model),
        (_VERSION, version_ready, "modelVersionReady", of_version),
    ):
        routes.add_api_route(
            f"{path}/ready",
            handler,
            methods=["GET"],
            operation_id=operation,
            summary="Whether a model would answer",
            tags=_TAGS,
            responses=_with_unready(_answers("The model would answer.", "ModelReady", *possible), "ModelReady"),
            openapi_extra=SECURED,
        )


def _add_server(routes: APIRouter) -> None:
    served = _answers("The server can serve predictions.", "ServerReady", *_CALLER)
    for path, handler, operation, summary, responses in (
        (
            "/v2",
            server,
            "serverMetadata",
            "Name, version and extensions",
            _answers("The server.", "ServerMetadata", *_CALLER),
        ),
        ("/v2/health/live", live, "serverLive", "Liveness", _answers("The function runs.", "ServerLive", *_CALLER)),
        ("/v2/health/ready", server_ready, "serverReady", "Readiness", _with_unready(served, "ServerReady")),
    ):
        routes.add_api_route(
            path,
            handler,
            methods=["GET"],
            operation_id=operation,
            summary=summary,
            tags=_TAGS,
            responses=responses,
            openapi_extra=SECURED,
        )


async def infer(request: Request, model: ModelPath) -> Response:
    """Infer with the version that the endpoint's configuration says, the highest by default.

    Tensors are JSON, or raw bytes behind the JSON whose length `Inference-Header-Content-Length` tells. Of the
    protocol's parameters `timeout` (microseconds) shortens the time that the request may take.
    """
    return await _infer(request, model, None)


async def infer_version(request: Request, model: ModelPath, version: VersionPath) -> Response:
    """Infer with the version that the path names; all else is as without one."""
    return await _infer(request, model, version)


async def metadata(request: Request, model: ModelPath) -> Response:
    """The signature of the model's highest version, and all versions."""
    return await _metadata(request, model, None)


async def version_metadata(request: Request, model: ModelPath, version: VersionPath) -> Response:
    """The signature of one version, and all versions."""
    return await _metadata(request, model, version)


async def ready(request: Request, model: ModelPath) -> Response:
    """200 if the model's highest version would answer, else 503."""
    return await _ready(request, model, None)


async def version_ready(request: Request, model: ModelPath, version: VersionPath) -> Response:
    """200 if this version would answer, else 503."""
    return await _ready(request, model, version)


async def server(request: Request) -> Response:
    """Name, version and extensions of this server."""
    return _probe(request, server_metadata(EXTENSIONS))


async def live(request: Request) -> Response:
    """Liveness: asks nothing of anybody."""
    return _probe(request, {"live": True})


async def server_ready(request: Request) -> Response:
    """Readiness; `/ready` says what is missing."""
    services = _services(request)
    services.door.callers.of(request.scope)  # before anybody is asked for their sake
    is_ready = not services.readiness().missing
    return _probe(request, {"ready": is_ready}, 200 if is_ready else 503)


async def _infer(request: Request, model: str, version: str | None) -> Response:
    services = _services(request)

    def work(principal: Principal, body: bytes) -> StoredAnswer:
        asked = read_head(request.scope, model, version, formats=v2_format)
        return produce(request.scope, services, asked, principal, body)

    return await services.door.serve(request, work, scopes=("predict", f"predict:{model}"), model=model)


async def _metadata(request: Request, model: str, version: str | None) -> Response:
    def document() -> StoredAnswer:
        target, signature = _find(request, model, version)
        versions = _services(request).registry.versions(target.version.model)
        return _json(model_metadata(target.version.model, [each.version for each in versions], signature))

    return await _admitted(request, document)


async def _ready(request: Request, model: str, version: str | None) -> Response:
    def document() -> StoredAnswer:
        target, _ = _find(request, model, version)
        backend = target.version.placement.value if target.backend == AUTO else target.backend
        is_ready = (
            backend != CONTAINER
            # Without a container there is no such check, and nothing to run the model.
            or _services(request).readiness().checks.get(ENDPOINT_CHECK) == "ok"
        )
        return _json({"name": target.version.model, "ready": is_ready}, 200 if is_ready else 503)

    return await _admitted(request, document)


async def _admitted(request: Request, document: Callable[[], StoredAnswer]) -> Response:
    return await _services(request).door.serve(request, lambda _principal, _body: document())


def _probe(request: Request, document: dict[str, Any], status: int = 200) -> Response:
    """What a caller asks again and again: it has to be known, and is not counted."""
    _services(request).door.callers.of(request.scope)
    return Response(dumps(document), status, media_type=JSON)


def _find(request: Request, model: str, version: str | None) -> tuple[Target, Signature]:
    name = record_of(request.scope).log["model"] = model_name(model)
    return _services(request).predict.describe(name, None if version is None else version_or_label(version))


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _json(document: dict[str, Any], status: int = 200) -> StoredAnswer:
    return StoredAnswer(status, (("Content-Type", JSON),), dumps(document))


def _answers(description: str, schema: str, *possible: type[errors.SluiceError]) -> Responses:
    """As `answers` has it; problems here have the member `error` as well."""
    responses = answers(description, reference(schema), *possible)
    for status, response in responses.items():
        if status != 200:
            response["content"] = {MEDIA_TYPE: {"schema": reference("ProtocolProblem")}}
    return responses


def _with_unready(responses: Responses, schema: str) -> Responses:
    unready = document("Not now.", reference(schema))
    problems: dict[str, Any] = responses.get(503, {}).get("content", {})
    return {**responses, 503: {**unready, "content": {**unready["content"], **problems}}}
