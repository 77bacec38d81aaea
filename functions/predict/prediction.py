"""One prediction over HTTP for any route: what its head asks for, and the answer to its body."""

import os
from collections.abc import Callable, Mapping
from time import perf_counter

from starlette.types import Scope

from functions.predict.services import Services
from shared.codecs.compression import compress, decompress
from shared.codecs.content.answers import Members
from shared.codecs.content.decoded import Decoded
from shared.codecs.content.formats import AnswerFormat, RequestFormat, answer_format
from shared.domain import errors
from shared.domain.idempotency import StoredAnswer
from shared.domain.ports import InferenceContext
from shared.domain.principal import Principal
from shared.domain.signature import Signature
from shared.domain.trace import traceparent
from shared.usecases.predict import Prediction
from shared.web.answer_size import MAX_EVENT_BYTES, event_bytes, is_text
from shared.web.negotiation import request_format
from shared.web.requests import RequestRecord, model_name, model_version, record_of

ReadFormat = Callable[[str, Mapping[str, str]], RequestFormat]
"""The format of a body by its content type and all headers (names in lower case)."""


class Asked:
    """What the head of a request says of a prediction; `version` None asks for the highest."""

    __slots__ = ("accept_encoding", "answer", "content_encoding", "model", "request", "version")

    def __init__(
        self, model: str, version: int | None, request: RequestFormat, answer: AnswerFormat, headers: Mapping[str, str]
    ) -> None:
        self.model = model
        self.version = version
        self.request = request
        self.answer = answer
        self.content_encoding = headers.get("content-encoding", "")
        self.accept_encoding = headers.get("accept-encoding", "")


class _Version:
    """A version as answers name it."""

    __slots__ = ("name", "version")

    def __init__(self, name: str, version: int) -> None:
        self.name = name
        self.version = version


def read_head(scope: Scope, model: str, version: str | None = None, *, formats: ReadFormat = request_format) -> Asked:
    """What a request asks for, by the parameters of its path and its headers; notes the model for the log.

    `formats` tells the formats that the route reads: those of `/v1`, unless V2's own are given (`v2_format`).
    Raises ModelNotFound, VersionNotFound, UnsupportedMediaType, NotAcceptable, InvalidRequest.
    """
    record_of(scope).log["model"] = model_name(model)
    number = None if version is None else model_version(version)
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    request = formats(headers.get("content-type", ""), headers)
    return Asked(model, number, request, answer_format(headers.get("accept", ""), request), headers)


def produce(scope: Scope, services: Services, asked: Asked, principal: Principal, body: bytes) -> StoredAnswer:
    """Predict and write the answer, 200; what is worth logging and the times of the steps go into the request's record.

    Raises InsufficientScope, NotFound, InvalidRequest (AnswerTooLarge among them) and BackendError.
    """
    record = record_of(scope)

    def decode(signature: Signature) -> Decoded:
        return _decode(asked, body, signature, services)

    context = InferenceContext(
        request_id=record.request_id,
        tenant=principal.tenant,
        deadline_ms=_deadline_ms(scope, services),
        traceparent=traceparent(os.environ),
    )
    made = services.predict(principal, asked.model, asked.version, decode, context)
    ran = perf_counter()
    answer = _encode(asked, made)
    _note(record, made, encode_ms=(perf_counter() - ran) * 1e3)
    signature = made.version.signature
    services.payloads.add(
        record.log,
        asked.model,
        (made.decoded.inputs.tensors, signature.inputs),
        (made.outputs, signature.outputs),
    )
    return answer


def _decode(asked: Asked, body: bytes, signature: Signature, services: Services) -> Decoded:
    limits = services.limits
    if len(body) > limits.max_bytes:
        raise errors.PayloadTooLarge(f"The body has {len(body)} bytes; the limit is {limits.max_bytes}.")
    if asked.content_encoding:
        body = decompress(body, asked.content_encoding, limits.max_bytes)
    return asked.request.decode(body, signature, limits)


def _encode(asked: Asked, made: Prediction) -> StoredAnswer:
    version = made.version
    members = Members(
        {"variant": made.variant, "backend": made.backend},
        {"prediction_id": made.prediction_id},
    )
    written, media_type, more = asked.answer.encode(
        _Version(version.model, version.version), version.signature, made.outputs, made.decoded, members
    )
    body, coding = compress(written, asked.accept_encoding) if asked.accept_encoding else (written, None)
    size = event_bytes(body, is_text=coding is None and is_text(media_type))
    if size > MAX_EVENT_BYTES:
        hint = "" if coding else " Accept-Encoding: gzip makes it smaller."
        raise errors.AnswerTooLarge(
            f"The answer takes {size} bytes; the limit is {MAX_EVENT_BYTES}. Send fewer instances at once.{hint}"
        )
    headers = [("Content-Type", media_type), *more, ("X-Prediction-Id", made.prediction_id)]
    if coding is not None:
        headers.append(("Content-Encoding", coding))
    return StoredAnswer(200, tuple(headers), body)


def _deadline_ms(scope: Scope, services: Services) -> int:
    context = scope.get("aws.context")
    if context is None:
        return services.deadline_ms
    left = int(context.get_remaining_time_in_millis()) - services.reserve_ms
    if left <= 0:
        raise errors.BackendTimeout("The time of this request is over before the model could run.")
    return min(left, services.deadline_ms)


def _note(record: RequestRecord, made: Prediction, *, encode_ms: float) -> None:
    record.log.update(
        version=made.version.version,
        variant=made.variant,
        backend=made.backend,
        rows=made.rows,
        prediction_id=made.prediction_id,
    )
    record.steps.update(made.timings_ms, encode=encode_ms)
