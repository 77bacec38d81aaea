"""Routes of `/v1` that predict."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from functions.predict.prediction import produce, read_head
from functions.predict.services import Services
from shared.codecs.content.media import KNOWN
from shared.domain import errors
from shared.domain.idempotency import StoredAnswer
from shared.domain.principal import Principal
from shared.web.contract import (
    ADMISSION,
    IDEMPOTENCY_KEY,
    ONCE,
    ROUTING,
    SECURED,
    Responses,
    answers,
    media_types,
    of_prediction,
    reference,
)
from shared.web.negotiation import READ

PREDICT_ERRORS: Final = (
    *ADMISSION,
    *ONCE,
    errors.InvalidRequest,
    errors.NotJson,
    errors.TooDeep,
    errors.ModelNotFound,
    errors.AnswerTooLarge,
    errors.UnsupportedMediaType,
    errors.NotAcceptable,
    errors.UnknownField,
    errors.MissingField,
    errors.WrongDtype,
    errors.WrongShape,
    errors.OutOfRange,
    errors.NotFinite,
    errors.EmptyBatch,
    errors.BatchTooLarge,
    errors.BadImage,
    errors.ImageTooLarge,
    errors.TextTooLong,
    errors.DeadlineMissed,
    errors.AsyncRequired,
    errors.FeatureMissing,
    errors.FeaturesUnavailable,
    errors.CircuitOpen,
    errors.Overloaded,
    errors.InvalidPackage,
    errors.DigestMismatch,
    errors.BackendRejected,
)

ModelPath = Annotated[str, Path(description="Name of a published model")]
VersionPath = Annotated[str, Path(description="A version, counted from 1, or a label of the endpoint")]


def add_routes(routes: APIRouter) -> None:
    """Add them, with what they say of themselves in the OpenAPI document."""
    routes.add_api_route(
        "/v1/models/{model}/predict",
        predict,
        methods=["POST"],
        operation_id="predict",
        summary="Predict with any model",
        tags=["predictions"],
        responses=_responses(*PREDICT_ERRORS),
        openapi_extra=_extra(),
    )
    routes.add_api_route(
        "/v1/models/{model}/versions/{version}/predict",
        predict_version,
        methods=["POST"],
        operation_id="predictVersion",
        summary="Predict with one version of a model",
        tags=["predictions"],
        responses=_responses(*PREDICT_ERRORS, errors.VersionNotFound, errors.VersionNotAllowed),
        openapi_extra=_extra(),
    )


async def predict(request: Request, model: ModelPath) -> Response:
    """Predict with the version that the endpoint's configuration says, the highest by default.

    The body holds `instances` by row or `inputs` by tensor.

    Bodies and answers have other types as well: the container's V2 messages, CSV, JSON Lines, NumPy's files; see
    Content-Type and Accept.
    """
    return await _predict(request, model, None)


async def predict_version(request: Request, model: ModelPath, version: VersionPath) -> Response:
    """Predict with the version that the path names; all else is as without one."""
    return await _predict(request, model, version)


async def _predict(request: Request, model: str, version: str | None) -> Response:
    # The work is done here and not on another thread: an environment of Lambda has one request at a time.
    services: Services = request.app.state.services

    def work(principal: Principal, body: bytes) -> StoredAnswer:
        return produce(request.scope, services, read_head(request.scope, model, version), principal, body)

    return await services.door.serve(request, work, scopes=("predict", f"predict:{model}"), model=model)


def _extra() -> dict[str, Any]:
    rows = {"oneOf": [reference("PredictByRow"), reference("PredictByTensor"), reference("InferRequest")]}
    return {
        **SECURED,
        "parameters": [IDEMPOTENCY_KEY, *ROUTING],
        "requestBody": {"required": True, "content": media_types(READ, rows)},
    }


def _responses(*possible: type[errors.SluiceError]) -> Responses:
    responses = answers("One prediction for each instance.", reference("PredictResponse"), *possible)
    schema = {"oneOf": [reference("PredictResponse"), reference("InferResponse")]}
    responses[200]["content"] = media_types(KNOWN, schema)
    return of_prediction(responses)
