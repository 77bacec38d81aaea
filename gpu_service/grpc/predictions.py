"""ModelInfer and ModelStreamInfer: from the bytes of a message to the bytes of its answer.

Sources: Open Inference Protocol, "GRPC"; Triton Inference Server, "ModelStreamInfer" (errors travel in the stream;
`triton_grpc_error` asks for a status instead; `triton_final_response` marks the last answer to a request).
"""

import logging
from collections import deque
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any

from gpu_service.grpc.methods import SERVICE
from gpu_service.grpc.status import RpcError, Status, failure
from gpu_service.inference.request import Call, InferenceRequest
from gpu_service.logs import fields
from gpu_service.models.errors import ModelEvicted
from gpu_service.telemetry.tracing import grpc_operation
from shared.codecs.content.decoded import Decoded
from shared.codecs.protobuf.inference_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from shared.codecs.protobuf.quick import Frame, Frames
from shared.codecs.protobuf.tensors import decode_infer_request, encode_infer_response, read_infer_request, varint
from shared.domain.errors import SluiceError

if TYPE_CHECKING:
    import asyncio

    from gpu_service.grpc.stream import Stream
    from gpu_service.inference.dataplane import DataPlane
    from gpu_service.telemetry.tracing import Tracer
    from shared.domain.signature import Signature

_log = logging.getLogger(__name__)

MAX_IN_FLIGHT = 128
"""Requests of one stream that are on their way or answered and not yet taken."""

_NO_MESSAGE = ModelInferRequest()
_INFER_RESPONSE = b"\x12"  # ModelStreamInferResponse: field 2, length-delimited
_ASKS_FOR_FINAL = "triton_enable_empty_final_response"


class InferDoor:
    """What the requests of all streams share."""

    def __init__(
        self,
        dataplane: "DataPlane",
        new_request_id: Callable[[], str],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        *,
        tracer: "Tracer | None" = None,
        access_log: bool = False,
    ) -> None:
        self.dataplane = dataplane
        self.new_request_id = new_request_id
        self.spawn = spawn
        self.tracer = tracer
        self.access_log = access_log
        self.frames = Frames()
        self.observed = access_log or tracer is not None
        self.operation = grpc_operation(f"{SERVICE}/ModelInfer")
        self.stream_operation = grpc_operation(f"{SERVICE}/ModelStreamInfer")

    def infer(self, stream: "Stream", data: bytes) -> None:
        """Serve ModelInfer."""
        Inference(self, stream).begin(data)

    def converse(self, stream: "Stream") -> "InferStream":
        """Serve ModelStreamInfer."""
        return InferStream(self, stream)


class Inference:
    """One request of a unary RPC."""

    __slots__ = ("call", "data", "door", "frame", "message", "request", "stream")

    def __init__(self, door: InferDoor, stream: "Stream") -> None:
        self.door = door
        self.stream = stream
        self.data = b""
        self.frame: Frame | None = None
        self.message = _NO_MESSAGE
        self.call = stream.head.call
        self.request: InferenceRequest | None = None

    def begin(self, data: bytes) -> None:
        """Read the message and queue it."""
        self.stream.begun()
        try:
            self.data = data
            self.frame = frame = self.door.frames.find(data)
            if frame is not None:
                self.call = self._call(frame.model, frame.version)
            else:
                self.message = message = read_infer_request(data)
                self.call = self._call(message.model_name, message.model_version)
            self._submit()
        except ModelEvicted:
            self.door.spawn(self._again())
        except Exception as error:  # noqa: BLE001 - told apart and logged by `_failure`
            self._refused(error)

    def _call(self, model: str, version: str) -> Call:
        return self.stream.head.call_of(model, version)

    def _submit(self) -> None:
        arrived = monotonic()
        call, dataplane = self.call, self.door.dataplane
        model = dataplane.find(call, arrived)
        try:
            if call.deadline_ms is not None and not model.queue.idle:
                model.queue.check_deadline(arrived + call.deadline_ms / 1000, call.tenant, call.priority)
            decoded = self._decoded(model.signature)
            self._queued(dataplane.accept(call, model, decoded, arrived, self._done))
        except SluiceError as error:
            model.stats.refused(error.code)
            raise

    def _decoded(self, signature: "Signature") -> Decoded:
        frame, data = self.frame, self.data
        self.data = b""
        if frame is not None:
            if frame.signature is signature:
                return frame.decode(data)
            # Another version of the model has taken its place.
            self.door.frames.forget(data)
            self.message = read_infer_request(data)
        decoded = decode_infer_request(self.message, signature)
        self.door.frames.learn(data, decoded, signature)
        return decoded

    def _queued(self, request: InferenceRequest) -> None:
        self.request = self.stream.request = request

    async def _again(self) -> None:
        """The model is here no longer: have it loaded, then queue the request."""
        try:
            await self.door.dataplane.ensure(self.call)
            if self.stream.closed:
                self.stream.finished()
                return
            self._submit()
        except Exception as error:  # noqa: BLE001 - told apart and logged by `_failure`
            self._refused(error)

    def _done(self, request: InferenceRequest) -> None:
        began = monotonic()
        self.request = None
        self.stream.finished()
        failed: RpcError | None = None
        code = ""
        error: Exception | None = request.error
        if error is None:
            try:
                self._answer(self._encoded(request))
            except Exception as unexpected:  # noqa: BLE001 - logged by `_failure`
                error = unexpected
        if error is not None:
            failed, code = self._failure(error)
            self._fail(failed)
        now = monotonic()
        model = request.model
        model.stats.request(code, request.decoded_at - request.arrived, now - began, now - request.arrived)
        if self.door.observed:
            self._observe(request, Status.OK if failed is None else failed.status, code, now)

    def _encoded(self, request: InferenceRequest) -> bytes:
        outputs = request.result
        if outputs is None:
            raise AssertionError("a request that is done has its result or its error")
        if request.outputs:
            outputs = {name: outputs[name] for name in request.outputs}
        model = request.model
        return encode_infer_response(model.key.name, model.version_text, request.decoded.id, outputs, model.signature)

    def _refused(self, error: Exception) -> None:
        """The request did not get into the queue."""
        self.stream.finished()
        failed, code = self._failure(error)
        self._fail(failed)
        door = self.door
        if door.access_log:
            _log.info("request", extra=fields(request_id=self.call.request_id, status=failed.status.name, code=code))
        if door.tracer is not None:
            now = monotonic()
            about = {"request_id": self.call.request_id, "traceparent": self.call.traceparent}
            door.tracer.refused(self._operation, failed.status.name, now, now, code=code, **about)

    def _failure(self, error: Exception) -> tuple[RpcError, str]:
        """What the caller is told of an error, and the error's code."""
        request_id = self.call.request_id or self.door.new_request_id()
        if not isinstance(error, SluiceError):
            _log.error("unexpected error", extra=fields(request_id=request_id), exc_info=error)
            error = SluiceError("The container failed to answer.")
        elif error.__cause__ is not None:
            _log.error("prediction failed", extra=fields(request_id=request_id), exc_info=error)
        return failure(error, request_id), error.code

    def _answer(self, response: bytes) -> None:
        self.stream.reply(response)

    def _fail(self, error: RpcError) -> None:
        self.stream.fail(error)

    @property
    def _operation(self) -> Any:
        return self.door.operation

    def _observe(self, request: InferenceRequest, status: Status, code: str, now: float) -> None:
        key = request.model.key
        if self.door.tracer is not None:
            version = request.model.version_text
            about = {"model": key.name, "version": version, "code": code}
            self.door.tracer.record(request, self._operation, status.name, now, **about)
        if self.door.access_log:
            moments = (request.arrived, request.decoded_at, request.started, request.finished, now)
            steps = zip(("decode", "queue", "run", "encode"), moments[:-1], moments[1:], strict=True)
            line = {
                "request_id": request.request_id,
                "tenant": request.tenant,
                "traceparent": request.traceparent,
                "model": key.name,
                "version": key.version,
                "status": status.name,
                "code": code,
                "rows": request.rows,
                "ms": {step: round((end - start) * 1e3, 3) for step, start, end in steps if start and end},
            }
            _log.info("request", extra=fields(**{name: value for name, value in line.items() if value != ""}))


class InferStream:
    """One ModelStreamInfer: answers in the order of the requests, so that those without an id can be told apart."""

    __slots__ = ("_door", "_draining", "_ended", "_resuming", "_stream", "_timer", "_waiting", "opened")

    def __init__(self, door: InferDoor, stream: "Stream") -> None:
        self.opened = monotonic()
        self._door = door
        self._stream = stream
        self._waiting: deque[StreamedInference] = deque()
        self._ended = False
        self._draining = False
        self._resuming = False
        self._timer: asyncio.TimerHandle | None = None
        left = stream.head.timeout_ms
        if left is not None:
            self._timer = stream.connection.server.loop.call_later(left / 1000, self._expired)

    def message(self, data: bytes) -> None:
        """A request has come."""
        inference = StreamedInference(self._door, self._stream, self)
        self._waiting.append(inference)
        inference.begin(data)
        self._stream.paused = self._busy(MAX_IN_FLIGHT)

    def ended(self) -> None:
        """The last request has come."""
        self._ended = True
        self._finish()

    def taken(self) -> None:
        """An answer has gone out: go on reading once half of the places are free."""
        if self._stream.paused and not self._resuming and not self._busy(MAX_IN_FLIGHT // 2):
            self._resuming = True
            self._stream.connection.server.loop.call_soon(self._resume)

    def abandoned(self) -> None:
        """Nobody waits for the answers."""
        if self._timer is not None:
            self._timer.cancel()
        for inference in self._waiting:
            if inference.request is not None:
                inference.request.cancelled = True
        self._waiting.clear()

    def drain(self) -> None:
        """The server stops."""
        self._draining = True
        self._finish()

    def flush(self) -> None:
        """Send the answers that no earlier request holds back."""
        waiting, stream = self._waiting, self._stream
        while waiting and waiting[0].answer is not None and not stream.closed:
            stream.send(waiting.popleft().answer or b"")
        self._finish()

    def broken(self, error: RpcError) -> None:
        """End with a status, as the client asked for."""
        self._stream.fail(error)

    def _busy(self, limit: int) -> bool:
        return len(self._waiting) + self._stream.backlog >= limit

    def _finish(self) -> None:
        if self._waiting:
            return
        if self._ended:
            self._stream.finish()
        elif self._draining:
            self._stream.fail(RpcError(Status.UNAVAILABLE, "The server is stopping: connect anew."))

    def _resume(self) -> None:
        self._resuming = False
        if not self._stream.closed:
            self._stream.resume()

    def _expired(self) -> None:
        self._stream.fail(RpcError(Status.DEADLINE_EXCEEDED, "The deadline of the stream has passed."))


class StreamedInference(Inference):
    """One request of a stream; `answer` is the message that answers it, once there is one."""

    __slots__ = ("_conversation", "answer")

    def __init__(self, door: InferDoor, stream: "Stream", conversation: InferStream) -> None:
        super().__init__(door, stream)
        self._conversation = conversation
        self.answer: bytes | None = None

    def _call(self, model: str, version: str) -> Call:
        elapsed_ms = (monotonic() - self._conversation.opened) * 1000
        return self.stream.head.call_of(model, version, elapsed_ms=elapsed_ms)

    def _queued(self, request: InferenceRequest) -> None:
        # Not the stream's own request: it has many, which the conversation cancels.
        self.request = request

    def _encoded(self, request: InferenceRequest) -> bytes:
        response = super()._encoded(request)
        if request.decoded.parameters.get(_ASKS_FOR_FINAL) is True:
            final = ModelInferResponse()
            final.parameters["triton_final_response"].bool_param = True
            response += final.SerializeToString()  # fields may come in any order
        return response

    def _answer(self, response: bytes) -> None:
        self.answer = b"".join((_INFER_RESPONSE, varint(len(response)), response))
        self._conversation.flush()

    def _fail(self, error: RpcError) -> None:
        if self.stream.head.strict:
            self._conversation.broken(error)
            return
        name = self.message.model_name if self.frame is None else self.frame.model
        about = ModelInferResponse(id=self.message.id, model_name=name)
        failed = ModelStreamInferResponse(error_message=error.detail, infer_response=about)
        self.answer = failed.SerializeToString()
        self._conversation.flush()

    @property
    def _operation(self) -> Any:
        return self.door.stream_operation
