"""One prediction, whatever the transport: pick the model, decode, check, queue."""

from asyncio import Future, get_running_loop
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any

from gpu_service.inference.request import LEAST_PRIORITY, Call, InferenceRequest
from gpu_service.inference.sessions import Session
from gpu_service.models.errors import ModelEvicted
from gpu_service.models.manager import ModelManager
from gpu_service.models.repository import ModelRepository
from gpu_service.models.served_model import ServedModel
from shared.codecs.content.decoded import Decoded, check_outputs, whole_parameter
from shared.domain.errors import SluiceError

Decode = Callable[[ServedModel], Decoded]
Done = Callable[[InferenceRequest], None]


class DataPlane:
    """Serves the models of a repository; belongs to the event loop."""

    def __init__(self, repository: ModelRepository, manager: ModelManager) -> None:
        self.repository = repository
        self._get = repository.get
        self._manager = manager

    def find(self, call: Call, now: float) -> ServedModel:
        """The model that a call is for; raises as `ModelRepository.get`."""
        model = self._get(call.model, call.version)
        model.last_used = now
        return model

    def accept(
        self,
        call: Call,
        model: ServedModel,
        decoded: Decoded,
        arrived: float,
        done: Done,
        context: Any = None,
        session: Session | None = None,
    ) -> InferenceRequest:
        """Queue a request; `done` is called with it once it has its result or error, never before this returns.

        With a `session` the model goes on from its state, and the result holds the next one. Raises InvalidRequest and
        its subclasses for what does not fit the model, BackendUnavailable (Overloaded among them) and DeadlinePassed:
        `done` is not called then.
        """
        inputs = model.checker(decoded.inputs)
        if decoded.outputs:
            check_outputs(decoded.outputs, model.signature.output_names)
        nbytes = 0
        for array in inputs.values():
            nbytes += array.nbytes
        rows, key = model.checker.rows(inputs), model.plan.shape_key(inputs)
        request = InferenceRequest(call, model, decoded, inputs, rows, nbytes, key, arrived, done, context)
        if session is not None:
            request.inputs = session.with_state(inputs, rows)
            request.outputs = session.outputs_with_state(decoded.outputs or model.signature.output_names)
        if decoded.parameters:
            _apply(decoded.parameters, request)
        sharing = model.sharing
        if sharing is None:
            model.queue.submit(request)
        else:
            sharing.submit(request)
        return request

    def submit(self, call: Call, decode: Decode, done: Done, context: Any = None) -> InferenceRequest:
        """`find`, decode and `accept`; raises what these raise."""
        arrived = monotonic()
        model = self.find(call, arrived)
        try:
            return self.accept(call, model, decode(model), arrived, done, context)
        except SluiceError as error:
            model.stats.refused(error.code)
            raise

    async def ensure(self, call: Call) -> None:
        """Have the model of `call` in memory again: to be awaited when `submit` has raised ModelEvicted.

        Raises what `ModelManager.ensure` raises.
        """
        deadline = inf if call.deadline_ms is None else monotonic() + call.deadline_ms / 1000
        await self._manager.ensure(call.model, call.version, deadline)

    async def infer(self, call: Call, decode: Decode) -> InferenceRequest:
        """The finished request; raises its error. Cancelling the task cancels the request."""
        answer: Future[InferenceRequest] = get_running_loop().create_future()

        def done(request: InferenceRequest) -> None:
            if not answer.done():
                answer.set_result(request)

        try:
            request = self.submit(call, decode, done)
        except ModelEvicted:
            await self.ensure(call)
            request = self.submit(call, decode, done)
        try:
            await answer
        finally:
            if not request.answered:
                request.cancelled = True
        if request.error is not None:
            raise request.error
        return request


def _apply(parameters: Any, request: InferenceRequest) -> None:
    """The protocol's own parameters: `timeout` in microseconds and `priority`, of which 0 means the default.

    Source: Triton Inference Server, "Schedule Policy Extension".
    """
    timeout = whole_parameter(parameters, "timeout", 2**63)
    if timeout:
        request.deadline = min(request.deadline, request.arrived + timeout / 1e6)
    priority = whole_parameter(parameters, "priority", LEAST_PRIORITY)
    if priority:
        request.priority = priority
