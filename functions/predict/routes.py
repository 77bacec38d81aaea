"""Routes of the data plane: predictions, liveness, readiness."""

import os
import re
from dataclasses import dataclass
from time import perf_counter
from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from functions.predict.readiness import Readiness
from shared.codecs.json_documents import JsonLimits, dumps
from shared.codecs.json_tensors import decode_instances, encode_predictions
from shared.domain import errors
from shared.domain.ports import InferenceContext
from shared.domain.trace import traceparent
from shared.usecases.predict import Predict, Prediction
from shared.web.contract import SECURED, answers, document, reference
from shared.web.requests import RequestRecord, header, model_name, principal_of, record_of

_JSON = re.compile(r"application/([a-z0-9!#$&^_.-]+\+)?json( *; *charset=\"?utf-8\"?)? *", re.IGNORECASE)
# Lambda returns 6 MB; the event around the answer escapes its quotes, and needs some for itself.
MAX_ANSWER_BYTES = 5 * 1024 * 1024
_PREDICT_ERRORS = (
    errors.InvalidRequest,
    errors.NotJson,
    errors.TooDeep,
    errors.Unauthenticated,
    errors.InsufficientScope,
    errors.ModelNotFound,
    errors.PayloadTooLarge,
    errors.AnswerTooLarge,
    errors.UnsupportedMediaType,
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
    errors.InvalidPackage,
    errors.DigestMismatch,
    errors.BackendError,
    errors.BackendRejected,
    errors.BackendUnavailable,
    errors.BackendTimeout,
)


@dataclass(frozen=True, slots=True)
class Services:
    """What the routes work with.

    A prediction may take what the invocation has left less `reserve_ms`, which is for the answer; `deadline_ms` where
    nothing tells what is left.
    """

    predict: Predict
    readiness: Readiness
    limits: JsonLimits
    deadline_ms: int
    reserve_ms: int


def router() -> APIRouter:
    """The routes, with what they say of themselves in the OpenAPI document."""
    routes = APIRouter()
    # First, because routes are tried in their order and this is the one that is asked most.
    routes.add_api_route(
        "/v1/models/{model}/predict",
        predict,
        methods=["POST"],
        operation_id="predict",
        summary="Predict with any model",
        tags=["predictions"],
        responses=answers("One prediction for each instance.", reference("PredictResponse"), *_PREDICT_ERRORS),
        openapi_extra={
            **SECURED,
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {"oneOf": [reference("PredictByRow"), reference("PredictByTensor")]},
                    }
                },
            },
        },
    )
    routes.add_api_route(
        "/health",
        health,
        methods=["GET"],
        operation_id="health",
        summary="Liveness: the function runs",
        tags=["operations"],
        responses=answers("The function runs.", reference("Health")),
    )
    routes.add_api_route(
        "/ready",
        ready,
        methods=["GET"],
        operation_id="ready",
        summary="Readiness: predictions can be served, or what is missing",
        tags=["operations"],
        responses={
            **answers("Predictions can be served.", reference("Readiness")),
            503: document("Something is missing, and `missing` says what.", reference("Readiness")),
        },
    )
    return routes


async def health() -> Response:
    """Liveness: asks nothing of anybody."""
    return Response(b'{"status":"ok"}', media_type="application/json")


async def ready(request: Request) -> Response:
    """Readiness: 200, or 503 with what is missing."""
    report = _services(request).readiness()
    missing = report.missing
    body = dumps({"ready": not missing, "missing": missing, "checks": report.checks})
    return Response(body, status_code=503 if missing else 200, media_type="application/json")


async def predict(request: Request, model: Annotated[str, Path(description="Name of a published model")]) -> Response:
    """Predict with the model's highest version. The body holds `instances` by row or `inputs` by tensor."""
    # The work is done here and not on another thread: an environment of Lambda has one request at a time.
    start = perf_counter()
    services = _services(request)
    record = record_of(request.scope)
    principal = principal_of(request.scope)
    record.log["model"] = model_name(model)
    _check_content_type(request.scope)
    body = await request.body()
    context = InferenceContext(
        request_id=record.request_id,
        tenant=principal.tenant,
        deadline_ms=_deadline_ms(request.scope, services),
        traceparent=traceparent(os.environ),
    )
    made = services.predict(
        principal, model, lambda signature: decode_instances(body, signature, services.limits), context
    )
    ran = perf_counter()
    answer = dumps(_answer(made))
    if len(answer) > MAX_ANSWER_BYTES:
        raise errors.AnswerTooLarge(
            f"The answer has {len(answer)} bytes; the limit is {MAX_ANSWER_BYTES}. Send fewer instances at once."
        )
    done = perf_counter()
    steps = {**made.timings_ms, "encode": (done - ran) * 1e3, "total": (done - start) * 1e3}
    _log(record, made, steps)
    timing = ", ".join(f"{name};dur={ms:.3f}" for name, ms in steps.items())
    return Response(answer, headers={"Server-Timing": timing}, media_type="application/json")


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _check_content_type(scope: Scope) -> None:
    """A body without a type is taken for JSON, the only type this route reads."""
    if (coding := header(scope, b"content-encoding")) and coding.strip().lower() != "identity":
        raise errors.UnsupportedMediaType(f"This route reads bodies as they are, not with the coding {coding[:100]!r}.")
    content_type = header(scope, b"content-type")
    if content_type and not _JSON.fullmatch(content_type):
        raise errors.UnsupportedMediaType(
            f"This route reads application/json in UTF-8, not {content_type[:100]!r}. "
            "With curl: -H 'Content-Type: application/json'."
        )


def _deadline_ms(scope: Scope, services: Services) -> int:
    context = scope.get("aws.context")
    if context is None:
        return services.deadline_ms
    left = int(context.get_remaining_time_in_millis()) - services.reserve_ms
    if left <= 0:
        raise errors.BackendTimeout("The time of this request is over before the model could run.")
    return min(left, services.deadline_ms)


def _answer(made: Prediction) -> dict[str, Any]:
    version = made.version
    return {
        "predictions": encode_predictions(made.outputs, version.signature),
        "model": {"name": version.model, "version": version.version, "variant": "main", "backend": made.backend},
        "prediction_id": made.prediction_id,
    }


def _log(record: RequestRecord, made: Prediction, steps: dict[str, float]) -> None:
    record.log.update(
        version=made.version.version,
        backend=made.backend,
        prediction_id=made.prediction_id,
        steps_ms={name: round(ms, 3) for name, ms in steps.items()},
    )
