"""Answers that begin before they are whole: JSON Lines, line by line as the rows are done.

SageMaker's InvokeEndpointWithResponseStream hands chunks of an answer on as they come. A long request is cut into
pieces, which batches take up beside those of others; the lines come in the order of the rows.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING

from gpu_service.content.answers import AnswerFormat
from gpu_service.http.exchange import Exchange
from gpu_service.inference.request import Call, Decoded, InferenceRequest
from gpu_service.logs import fields
from gpu_service.problems import MEDIA_TYPE, problem_of
from shared.domain.errors import SluiceError
from shared.domain.signature import Signature
from shared.domain.validation import Inputs

if TYPE_CHECKING:
    from gpu_service.inference.dataplane import DataPlane
    from gpu_service.models.served_model import ServedModel

_log = logging.getLogger(__name__)

PIECE_ROWS = 32
# Pieces of one request that are queued at once: enough to keep two executors busy, few enough to stop soon.
_PIECES_AHEAD = 4


def is_long(decoded: Decoded, signature: Signature) -> bool:
    """Whether a request is worth being answered in pieces."""
    if not signature.batched or not all(signature.has_rows(spec) for spec in signature.inputs):
        return False
    return any(array.ndim and array.shape[0] > PIECE_ROWS for array in decoded.inputs.tensors.values())


class StreamedPrediction:
    """One exchange whose answer is streamed."""

    def __init__(self, dataplane: "DataPlane", exchange: Exchange, answer: AnswerFormat) -> None:
        self._dataplane = dataplane
        self._exchange = exchange
        self._answer = answer
        self._begun = False

    async def run(self, call: Call, decoded: Decoded) -> None:
        """Answer. An error before the first line is a problem document; after it the connection breaks off."""
        exchange = self._exchange
        tasks: deque[asyncio.Task[InferenceRequest]] = deque()
        try:
            pieces = _pieces(decoded)
            while True:
                while len(tasks) < _PIECES_AHEAD and (piece := next(pieces, None)) is not None:
                    tasks.append(asyncio.create_task(self._dataplane.infer(call, _given(piece))))
                if not tasks:
                    break
                await self._send(await tasks[0])
                tasks.popleft()
            exchange.end_stream()
        except Exception as error:  # noqa: BLE001 - answered, and logged where it is not the caller's fault
            self._failed(error)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, request: InferenceRequest) -> None:
        if request.result is None:
            raise AssertionError("infer raises the error of a request without result")
        model = request.model
        body, media_type, _ = self._answer.encode(model.key, model.signature, request.result, request.decoded)
        if not self._begun:
            self._begun = True
            self._exchange.start_stream(HTTPStatus.OK, media_type)
        await self._exchange.send(body)

    def _failed(self, error: Exception) -> None:
        exchange = self._exchange
        request_id = exchange.request_id.decode("ascii")
        if not isinstance(error, SluiceError | ConnectionResetError):
            _log.error("unexpected error", extra=fields(request_id=request_id), exc_info=error)
        if self._begun:
            exchange.break_off()
            return
        if not isinstance(error, SluiceError):
            error = SluiceError("The container failed to answer.")
        problem = problem_of(error, request_id)
        exchange.answer(problem.status, problem.body, MEDIA_TYPE, problem.headers)


def _given(piece: Decoded) -> "Callable[[ServedModel], Decoded]":
    return lambda _model: piece


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
