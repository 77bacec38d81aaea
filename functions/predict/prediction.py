"""One prediction over HTTP for any route: what its head asks for, and the answer to its body."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter
from typing import Final

from starlette.types import Scope

from functions.predict.services import Services
from functions.predict.submission import preferred, prefers_async
from shared.codecs.compression import compress
from shared.codecs.content.decoded import Decoded
from shared.codecs.content.formats import AnswerFormat, RequestFormat, answer_format
from shared.domain import errors
from shared.domain.endpoint.config import EndpointLimits
from shared.domain.idempotency import StoredAnswer
from shared.domain.ports import InferenceContext
from shared.domain.principal import Principal
from shared.domain.signature import Signature
from shared.domain.trace import traceparent
from shared.usecases.prediction import Prediction, Wanted
from shared.usecases.prediction_parts import instances_nusd
from shared.web.answer_size import MAX_EVENT_BYTES, event_bytes, is_text
from shared.web.cache_status import cache_control
from shared.web.negotiation import request_format
from shared.web.origin import note, note_route
from shared.web.prediction_bodies import decode as decode_body
from shared.web.prediction_bodies import encode
from shared.web.requests import RequestRecord, model_name, record_of, version_or_label

DEADLINE_HEADER: Final = "x-sluice-deadline-ms"
_MAX_DIGITS = 9

ReadFormat = Callable[[str, Mapping[str, str]], RequestFormat]
"""The format of a body by its content type and all headers (names in lower case)."""


class Asked:
    """What the head of a request says of a prediction; `version` is a number, a label, or None.

    `deadline_ms` is the caller's own, None without one.
    """

    __slots__ = ("answer", "deadline_ms", "headers", "model", "request", "version")

    def __init__(
        self,
        model: str,
        version: int | str | None,
        request: RequestFormat,
        answer: AnswerFormat,
        headers: Mapping[str, str],
    ) -> None:
        self.model = model
        self.version = version
        self.request = request
        self.answer = answer
        self.headers = headers
        self.deadline_ms = _deadline_of(headers)


def read_head(scope: Scope, model: str, version: str | None = None, *, formats: ReadFormat = request_format) -> Asked:
    """What a request asks for, by the parameters of its path and its headers; notes the model for the log.

    `formats` tells the formats that the route reads: those of `/v1`, unless V2's own are given (`v2_format`).
    Raises ModelNotFound, VersionNotFound, UnsupportedMediaType, NotAcceptable, InvalidRequest.
    """
    record_of(scope).log["model"] = model_name(model)
    wanted = None if version is None else version_or_label(version)
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    request = formats(headers.get("content-type", ""), headers)
    return Asked(model, wanted, request, answer_format(headers.get("accept", ""), request), headers)


def produce(scope: Scope, services: Services, asked: Asked, principal: Principal, body: bytes) -> StoredAnswer:
    """Predict and write the answer: 200, or 202 with a job.

    What is worth logging and the times of the steps go into the request's record.

    Raises InsufficientScope, NotFound, InvalidRequest (AnswerTooLarge among them) and BackendError.
    """
    record = record_of(scope)
    most_ms = services.full_ms(scope)
    left_ms = _left_ms(record, asked, most_ms)
    cache = cache_control(asked.headers.get("cache-control", ""))
    prefer = prefers_async(asked.headers.get("prefer", ""))
    wanted = Wanted(
        asked.model, asked.version, asked.headers.get, most_ms, *cache, prefer, partial(note_route, record.log)
    )
    context = InferenceContext(
        request_id=record.request_id,
        tenant=principal.tenant,
        deadline_ms=left_ms,
        traceparent=traceparent(os.environ),
    )

    def decode(signature: Signature, limits: EndpointLimits) -> Decoded:
        return decode_body(asked.request, asked.headers, body, signature, services.limits, limits)

    try:
        made = services.predict(principal, wanted, decode, context)
    except errors.AsyncRequired:
        if not prefer:
            raise
        return preferred(scope, services, asked, principal, body)
    ran = perf_counter()
    answer = _encode(asked, made)
    note(record.log, made)
    record.instance_share_nusd += instances_nusd(made, services.prices)
    record.steps.update(made.timings_ms, encode=(perf_counter() - ran) * 1e3)
    services.payloads.add(
        record.log,
        made.config.logging,
        (made.decoded.inputs.tensors, made.version.caller_signature.inputs),
        (made.outputs, made.signature.outputs),
        None if made.features is None else made.features.values,
    )
    return answer


def _encode(asked: Asked, made: Prediction) -> StoredAnswer:
    written, media_type, more = encode(asked.answer, made)
    accept = asked.headers.get("accept-encoding", "")
    body, coding = compress(written, accept) if accept else (written, None)
    size = event_bytes(body, is_text=coding is None and is_text(media_type))
    if size > MAX_EVENT_BYTES:
        hint = "" if coding else " Accept-Encoding: gzip makes it smaller."
        raise errors.AnswerTooLarge(
            f"The answer takes {size} bytes; the limit is {MAX_EVENT_BYTES}. Send fewer instances at once.{hint}"
        )
    headers = [("Content-Type", media_type), *more]
    if coding is not None:
        headers.append(("Content-Encoding", coding))
    return StoredAnswer(200, tuple(headers), body)


def _left_ms(record: RequestRecord, asked: Asked, full_ms: int) -> int:
    """What this request has from now on: the time that it gave itself began when it came."""
    if asked.deadline_ms is None:
        return full_ms
    left = asked.deadline_ms - int((perf_counter() - record.started) * 1e3)
    if left <= 0:
        raise errors.DeadlineMissed(
            f"The {asked.deadline_ms} ms of X-Sluice-Deadline-Ms passed before the model could run."
        )
    return min(left, full_ms)


def _deadline_of(headers: Mapping[str, str]) -> int | None:
    text = headers.get(DEADLINE_HEADER)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS and int(text) > 0):
        raise errors.InvalidRequest(
            f"X-Sluice-Deadline-Ms is a whole number of milliseconds from 1, not {text[:32]!r}."
        )
    return int(text)
