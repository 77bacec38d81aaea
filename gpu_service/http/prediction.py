"""The doors that predict: `/invocations` and V2's `infer`, from the bytes of a request to the bytes of its answer."""

import logging
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from gpu_service.http.exchange import Exchange
from gpu_service.http.head import Head
from gpu_service.http.streaming import StreamedPrediction, is_long
from gpu_service.inference.calls import request_id_of
from gpu_service.inference.dataplane import DataPlane
from gpu_service.inference.request import Call, InferenceRequest
from gpu_service.logs import fields
from gpu_service.models.errors import ModelEvicted
from gpu_service.problems import Report, problem_report
from gpu_service.telemetry.tracing import Operation, http_operation
from shared.codecs.compression import compress, decompress
from shared.codecs.content.answers import Headers as AnswerHeaders
from shared.codecs.content.formats import AnswerFormat, RequestFormat
from shared.codecs.content.tables import JsonLinesAnswer
from shared.codecs.json_documents import JsonLimits
from shared.domain.errors import SluiceError

if TYPE_CHECKING:
    from gpu_service.telemetry.tracing import Tracer

_log = logging.getLogger(__name__)


class Negotiated:
    """What follows from the head of a request alone; kept with it while a client repeats it."""

    __slots__ = ("accept_encoding", "answer", "call", "content_encoding", "request", "request_id", "streams")

    def __init__(self, head: Head, call: Call, request: RequestFormat, answer: AnswerFormat) -> None:
        self.call = call
        self.request_id = call.request_id.encode("ascii")
        self.request = request
        self.answer = answer
        self.streams = isinstance(answer, JsonLinesAnswer) and head.is_http_1_1  # older ones know no chunks
        self.content_encoding = head.headers.get("content-encoding", "")
        self.accept_encoding = head.headers.get("accept-encoding", "")


Negotiate = Callable[[Head], Negotiated]


class PredictionDoor:
    """Handles the exchanges of routes that predict; `negotiate` reads the head, `report` writes errors.

    There is one door for all requests of a route, and no object for each: what a request needs lies in its exchange.
    """

    def __init__(
        self,
        dataplane: DataPlane,
        limits: JsonLimits,
        new_request_id: Callable[[], bytes],
        *,
        negotiate: Negotiate,
        report: Report = problem_report,
        tracer: "Tracer | None" = None,
        access_log: bool = False,
    ) -> None:
        self._dataplane = dataplane
        self._limits = limits
        self._new_request_id = new_request_id
        self._negotiate = negotiate
        self._report = report
        self._tracer = tracer
        self._access_log = access_log
        self._observed = tracer is not None or access_log
        self._operations: dict[str, Operation] = {}
        self._done: Callable[[InferenceRequest], None] = self._answer  # bound once

    @property
    def traced(self) -> bool:
        """Whether requests are traced."""
        return self._tracer is not None

    def __call__(self, exchange: Exchange) -> None:
        """Predict and answer."""
        try:
            self._begin(exchange)
        except ModelEvicted:
            exchange.connection.server.spawn(self._begin_again(exchange))
        except Exception as error:  # noqa: BLE001 - told apart and logged by `_fail`
            self._refuse(exchange, error)

    def _begin(self, exchange: Exchange) -> None:
        """Queue the request; raises what keeps it from being queued."""
        arrived = monotonic()
        negotiated = self._prepare(exchange)
        call = negotiated.call
        model = self._dataplane.find(call, arrived)
        try:
            if call.deadline_ms is not None and model.sharing is None and not model.queue.idle:
                deadline = arrived + call.deadline_ms / 1000
                model.queue.check_deadline(deadline, call.tenant, call.priority)
            if negotiated.content_encoding:
                self._decompress(exchange, negotiated.content_encoding)
            decoded = negotiated.request.decode(exchange.body, model.signature, self._limits)
            if negotiated.streams and is_long(decoded, model.signature):
                pieces = StreamedPrediction(self._dataplane, exchange, negotiated.answer, self._observe)
                exchange.connection.server.spawn(pieces.run(call, model, decoded, arrived))
                return
            exchange.request = self._dataplane.accept(call, model, decoded, arrived, self._done, exchange)
        except SluiceError as error:
            model.stats.refused(error.code)
            raise

    def _prepare(self, exchange: Exchange) -> Negotiated:
        """What the head says; raises InvalidRequest and its subclasses."""
        head = exchange.head
        negotiated: Negotiated | None = head.prepared
        if negotiated is None:
            exchange.request_id = given_id(head) or self._new_request_id()
            negotiated = head.prepared = self._negotiate(head)
        elif not exchange.request_id:
            exchange.request_id = negotiated.request_id or self._new_request_id()
        return negotiated

    def _decompress(self, exchange: Exchange, coding: str) -> None:
        """Not before the model is found: `_begin` begins anew where it has to be loaded first."""
        exchange.body = decompress(exchange.body, coding, self._limits.max_bytes)

    async def _begin_again(self, exchange: Exchange) -> None:
        """The model is not in memory: load it again, then begin anew."""
        try:
            await self._dataplane.ensure(exchange.head.prepared.call)
            self._begin(exchange)
        except Exception as error:  # noqa: BLE001 - told apart and logged by `_fail`
            self._refuse(exchange, error)

    def _answer(self, request: InferenceRequest) -> None:
        """The request is done: encode its result and send it."""
        began = monotonic()
        exchange: Exchange = request.context
        exchange.request = None
        exchange.body = b""
        model = request.model
        code = ""
        if request.error is None and request.result is not None:
            negotiated: Negotiated = exchange.head.prepared
            try:
                answer = negotiated.answer.encode(model.key, model.signature, request.result, request.decoded)
                body, media_type, headers = answer
                if exchange.headers:
                    headers = (*headers, *exchange.headers)
                if negotiated.accept_encoding:
                    body, headers = _compressed(body, negotiated.accept_encoding, headers)
                exchange.answer(200, body, media_type, headers)
            except Exception as error:  # noqa: BLE001 - told apart and logged by `_fail`
                code = self._fail(exchange, error)
        else:
            code = self._fail(exchange, request.error)
        now = monotonic()
        model.stats.request(code, request.decoded_at - request.arrived, now - began, now - request.arrived)
        if self._observed:
            self._observe(request, exchange, code, now)

    def _observe(self, request: InferenceRequest, exchange: Exchange, code: str, now: float) -> None:
        """Tell the tracer and the log of a request that was queued."""
        if self._access_log:
            log_request(request, exchange, code, now)
        if self._tracer is not None:
            key = request.model.key
            operation = self._operation(exchange.head)
            status, version = exchange.status, request.model.version_text
            self._tracer.record(request, operation, status, now, model=key.name, version=version, code=code)

    def _refuse(self, exchange: Exchange, error: Exception) -> None:
        """Answer with what kept the request from being queued."""
        code = self._fail(exchange, error)
        request_id = exchange.request_id.decode("ascii")
        if self._access_log:
            _log.info("request", extra=fields(request_id=request_id, status=exchange.status, code=code))
        if self._tracer is not None:
            now = monotonic()
            operation = self._operation(exchange.head)
            self._tracer.refused(operation, exchange.status, now, now, code=code, request_id=request_id)

    def _fail(self, exchange: Exchange, error: Exception | None) -> str:
        """Answer with an error; its code."""
        request_id = exchange.request_id.decode("ascii")
        if not isinstance(error, SluiceError):
            _log.error("unexpected error", extra=fields(request_id=request_id), exc_info=error)
            error = SluiceError("The container failed to answer.")
        problem, media_type = self._report(error, request_id)
        if problem.status >= 500 and error.__cause__ is not None:
            _log.error("prediction failed", extra=fields(request_id=request_id), exc_info=error)
        exchange.answer(problem.status, problem.body, media_type, problem.headers)
        return error.code

    def _operation(self, head: Head) -> Operation:
        """What traces call this route."""
        pattern = head.route.pattern
        if pattern not in self._operations:
            self._operations[pattern] = http_operation(head.method, pattern)
        return self._operations[pattern]


def _compressed(body: bytes, accept: str, headers: AnswerHeaders) -> tuple[bytes, AnswerHeaders]:
    body, encoding = compress(body, accept)
    if encoding:
        headers = [*headers, ("Content-Encoding", encoding), ("Vary", "Accept-Encoding")]
    return body, headers


def log_request(request: InferenceRequest, exchange: Exchange, code: str, answered: float) -> None:
    """Write the line of one prediction; times in milliseconds, of the steps that it went through."""
    moments = (request.arrived, request.decoded_at, request.started, request.finished, answered)
    steps = ("decode", "queue", "run", "encode")
    spans = zip(steps, moments[:-1], moments[1:], strict=True)
    ms = {step: round((end - start) * 1e3, 3) for step, start, end in spans if start and end}
    line = {
        "request_id": exchange.request_id.decode("ascii"),
        "tenant": request.tenant,
        "traceparent": request.traceparent,
        "model": request.model.key.name,
        "version": request.model.key.version,
        "status": exchange.status,
        "code": code,
        "rows": request.rows,
        "ms": {**ms, "total": round((answered - request.arrived) * 1e3, 3)},
    }
    _log.info("request", extra=fields(**{name: value for name, value in line.items() if value != ""}))


def given_id(head: Head) -> bytes:
    """The id that a request brought, even if the rest of its headers cannot be read; empty if there is none."""
    return request_id_of(head.headers).encode("ascii")
