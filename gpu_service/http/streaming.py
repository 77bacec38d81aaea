"""Answers that begin before they are whole: JSON Lines, line by line as the rows are done.

SageMaker's InvokeEndpointWithResponseStream hands chunks of an answer on as they come. A long request is cut into
pieces, which batches take up beside those of others; the lines come in the order of the rows.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING

from gpu_service.http.exchange import Exchange
from gpu_service.inference.request import Call, InferenceRequest
from gpu_service.logs import fields
from gpu_service.models.errors import ModelEvicted
from gpu_service.problems import MEDIA_TYPE, problem_of
from gpu_service.scheduling.errors import CallerGone
from shared.codecs.content.answers import AnswerFormat
from shared.codecs.content.decoded import Decoded
from shared.domain.errors import SluiceError
from shared.domain.signature import Signature
from shared.domain.validation import Inputs

if TYPE_CHECKING:
    from gpu_service.inference.dataplane import DataPlane
    from gpu_service.models.served_model import ServedModel

Observe = Callable[[InferenceRequest, Exchange, str, float], None]

_log = logging.getLogger(__name__)

PIECE_ROWS = 32
# Pieces of one request that are queued at once: enough to keep two executors busy, few enough to stop soon.
_PIECES_AHEAD = 4


def is_long(decoded: Decoded, signature: Signature) -> bool:
    """Whether a request is worth being answered in pieces, and can be cut: all its inputs have the same rows."""
    if not signature.batched or not all(signature.has_rows(spec) for spec in signature.inputs):
        return False
    rows = {array.shape[:1] for array in decoded.inputs.tensors.values()}
    return len(rows) == 1 and rows.pop() > (PIECE_ROWS,)


class StreamedPrediction:
    """One exchange whose answer is streamed.

    It stands in for the queued request of its exchange: setting `cancelled` ends it.
    """

    def __init__(self, dataplane: "DataPlane", exchange: Exchange, answer: AnswerFormat, observe: Observe) -> None:
        self._dataplane = dataplane
        self._exchange = exchange
        self._answer = answer
        self._observe = observe
        self._begun = False
        self._first: InferenceRequest | None = None
        self._rows = 0
        self._encode_s = 0.0
        self._task: asyncio.Task[None] | None = None
        exchange.request = self

    @property
    def cancelled(self) -> bool:
        """Whether the caller has gone."""
        return self._exchange.gone

    @cancelled.setter
    def cancelled(self, gone: bool) -> None:
        if gone and self._task is not None:
            self._task.cancel()

    async def run(self, call: Call, model: "ServedModel", decoded: Decoded, arrived: float) -> None:
        """Answer. An error before the first line is a problem document; after it the answer lacks its end."""
        decoded_at = monotonic()
        self._task = asyncio.current_task()
        exchange = self._exchange
        code = ""
        try:
            await self._answer_all(_Pieces(self._dataplane, call, model, decoded, arrived))
        except asyncio.CancelledError:
            code = CallerGone.code
            exchange.break_off()
        except Refused as refused:
            code = self._failed(refused.error)
            self._tell(code, arrived, decoded_at)
            return  # it is counted where it was refused
        except Exception as error:  # noqa: BLE001 - answered, and logged where it is not the caller's fault
            code = self._failed(error)
        self._tell(code, arrived, decoded_at)
        model.stats.request(code, decoded_at - arrived, self._encode_s, monotonic() - arrived)

    def _tell(self, code: str, arrived: float, decoded_at: float) -> None:
        """Observers see one request: the first piece, with the times and rows of the whole."""
        self._exchange.request = None
        request = self._first
        if request is not None:
            request.arrived, request.decoded_at, request.rows = arrived, decoded_at, self._rows
            self._observe(request, self._exchange, code, monotonic())

    async def _answer_all(self, pieces: "_Pieces") -> None:
        try:
            while (request := await pieces.next()) is not None:
                await self._send(request)
        finally:
            pieces.cancel()
        self._exchange.end_stream()

    async def _send(self, request: InferenceRequest) -> None:
        self._first = self._first or request
        self._first.finished = request.finished
        if request.result is None:
            raise request.error or AssertionError("a request that is done has a result or an error")
        began = monotonic()
        model = request.model
        body, media_type, _ = self._answer.encode(model.key, model.signature, request.result, request.decoded)
        self._encode_s += monotonic() - began
        if not self._begun:
            self._begun = True
            self._exchange.start_stream(HTTPStatus.OK, media_type)
        self._rows += request.rows
        await self._exchange.send(body)

    def _failed(self, error: Exception) -> str:
        """Answer with an error; its code."""
        exchange = self._exchange
        if isinstance(error, ConnectionResetError):
            exchange.break_off()
            return CallerGone.code
        request_id = exchange.request_id.decode("ascii")
        if not isinstance(error, SluiceError):
            _log.error("unexpected error", extra=fields(request_id=request_id), exc_info=error)
            error = SluiceError("The container failed to answer.")
        if self._begun:
            exchange.break_off()
        else:
            problem = problem_of(error, request_id)
            exchange.answer(problem.status, problem.body, MEDIA_TYPE, problem.headers)
        return error.code


class Refused(Exception):
    """A piece did not get into the queue."""

    def __init__(self, error: SluiceError) -> None:
        super().__init__(error.detail)
        self.error = error


class _Pieces:
    """The pieces of one request, in their order; some are queued ahead of the one that is waited for."""

    def __init__(
        self, dataplane: "DataPlane", call: Call, model: "ServedModel", decoded: Decoded, arrived: float
    ) -> None:
        self._dataplane = dataplane
        # All pieces go to the version that took the first one, whatever is loaded meanwhile.
        self._call = Call(
            model.key.name,
            model.key.version,
            priority=call.priority,
            tenant=call.tenant,
            request_id=call.request_id,
            traceparent=call.traceparent,
        )
        self._ends = None if call.deadline_ms is None else arrived + call.deadline_ms / 1000
        self._rest = _pieces(decoded)
        self._queued: deque[tuple[InferenceRequest, asyncio.Future[None]]] = deque()

    async def next(self) -> InferenceRequest | None:
        """The next piece, once it is done; None after the last. Raises Refused."""
        while len(self._queued) < _PIECES_AHEAD and (piece := next(self._rest, None)) is not None:
            try:
                self._queued.append(await self._submit(piece))
            except SluiceError as error:
                raise Refused(error) from error
        if not self._queued:
            return None
        await self._queued[0][1]
        return self._queued.popleft()[0]

    def cancel(self) -> None:
        """Run nothing further."""
        for request, _ in self._queued:
            if not request.answered:
                request.cancelled = True

    async def _submit(self, piece: Decoded) -> tuple[InferenceRequest, asyncio.Future[None]]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._ends is not None:
            self._call.deadline_ms = (self._ends - monotonic()) * 1000
        try:
            request = self._dataplane.submit(self._call, lambda _: piece, _resolve, done)
        except ModelEvicted:
            await self._dataplane.ensure(self._call)
            request = self._dataplane.submit(self._call, lambda _: piece, _resolve, done)
        return request, done


def _resolve(request: InferenceRequest) -> None:
    if not request.context.done():
        request.context.set_result(None)


def _pieces(decoded: Decoded) -> Iterator[Decoded]:
    """The request in pieces of at most `PIECE_ROWS` rows; what is wrong is named by its place in the whole."""
    tensors = decoded.inputs.tensors
    rows = max(len(array) for array in tensors.values())
    for start in range(0, rows, PIECE_ROWS):
        part = {name: array[start : start + PIECE_ROWS] for name, array in tensors.items()}
        locate = _Offset(decoded.inputs, start)
        yield Decoded(Inputs(part, locate), decoded.outputs, decoded.id, decoded.parameters)


class _Offset:
    """Places of a piece as places of the whole."""

    __slots__ = ("_inputs", "_start")

    def __init__(self, inputs: Inputs, start: int) -> None:
        self._inputs = inputs
        self._start = start

    def __call__(self, name: str, index: tuple[int, ...]) -> str:
        shifted = (index[0] + self._start, *index[1:]) if index else index
        return self._inputs.locate(name, shifted)
