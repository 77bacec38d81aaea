"""One request of a pipeline on its way through the queues of its steps.

Each step is a request of the container's own in the queue of that step's model. There it shares batches with the steps
of other requests and with those who call the model itself, and is held to the same rules: fairness between tenants,
the caller's deadline, values checked with the batch, a batch that fails run again in halves.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from gpu_service.inference.request import InferenceRequest
from gpu_service.scheduling.errors import CallerGone
from shared.codecs.content.decoded import Decoded
from shared.domain.errors import BackendError, SluiceError
from shared.domain.pipeline import (
    Pipeline,
    Plan,
    PlannedStep,
    inputs_of,
    locate_in,
    outputs_of,
    plan_of,
    step_error,
)
from shared.domain.tensors import Tensors
from shared.domain.validation import Inputs, check_values

if TYPE_CHECKING:
    from gpu_service.models.served_model import Holds, ServedModel
    from gpu_service.telemetry.stats import ModelStats
    from shared.adapters.onnx.outputs import Output
    from shared.domain.input_checker import InputChecker

_log = logging.getLogger(__name__)


class StepRequest(InferenceRequest):
    """A step of `run`: cancelled once that is over or its caller has gone, and due when it is."""

    __slots__ = ("planned", "run")

    def __init__(self, run: "PipelineRun", planned: PlannedStep, model: "ServedModel", inputs: Inputs) -> None:
        parent = run.request
        self.run = run
        self.planned = planned
        self.arrived = self.decoded_at = monotonic()
        self.started = self.finished = 0.0
        self.priority = parent.priority
        self.tenant = parent.tenant
        self.request_id = parent.request_id
        self.traceparent = parent.traceparent
        self.done = run.step_done
        self.context = None
        self.model = model
        self.inputs = model.checker(inputs)
        self.locate = inputs.locate
        self.outputs = planned.outputs
        self.decoded = Decoded(inputs, planned.outputs)
        self.rows = model.checker.rows(self.inputs)
        self.nbytes = sum(array.nbytes for array in self.inputs.values())
        self.shape_key = model.plan.shape_key(self.inputs)
        self.lead = self.begins_by = 0.0
        self.answered = False
        self.result = None
        self.error = None

    @property
    def cancelled(self) -> bool:  # type: ignore[override]
        """Whether nobody needs this step any more."""
        return self.run.over or self.run.request.cancelled

    @property
    def deadline(self) -> float:  # type: ignore[override]
        """The caller's."""
        return self.run.request.deadline


@dataclass(frozen=True, slots=True)
class Joined:
    """A pipeline and the served models that are its steps, by name; `outputs` are what its signature promises."""

    pipeline: Pipeline
    steps: "Mapping[str, ServedModel]"
    checker: "InputChecker"
    outputs: "Mapping[str, Output]"
    plan: Plan


class PipelineQueue:
    """What the doors know of a model's queue, for a pipeline: it holds nothing itself. Belongs to the event loop.

    `running` counts the requests that are on their way.
    """

    __slots__ = ("_joined", "running", "stats")

    def __init__(self, joined: Joined, running: "Holds", stats: "ModelStats") -> None:
        self._joined = joined
        self.running = running
        self.stats = stats

    @property
    def idle(self) -> bool:
        """Whether every step would begin at once."""
        return all(model.queue.idle for model in self._joined.steps.values())

    def check_deadline(self, deadline: float, tenant: str, priority: int, rows: int = 1) -> tuple[float, float]:
        """Raise DeadlinePassed or Overloaded unless every step would be done by `deadline`; as `ModelQueue` has it."""
        return self.admit(self._joined.plan, deadline, tenant, priority, rows), 0.0

    def admit(self, plan: Plan, deadline: float, tenant: str, priority: int, rows: int) -> float:
        """The seconds that the steps of `plan` run for, on the longest way through them; raises if that is too long.

        Each step has to be done early enough for what follows it. Raises DeadlinePassed and Overloaded.
        """
        after: dict[str, float] = {}
        longest = 0.0
        for planned in reversed(plan):
            step = planned.step
            model = self._joined.steps[step.name]
            rest = after.get(step.name, 0.0)
            if model.sharing is None:  # else it may be answered from a cache
                try:
                    model.queue.check_room(tenant, priority)
                    if deadline != inf:
                        rest += model.queue.check_deadline(deadline - rest, tenant, priority, rows)[0]
                except SluiceError as error:
                    raise step_error(step, error) from error
            longest = max(longest, rest)
            for name in planned.after:
                after[name] = max(after.get(name, 0.0), rest)
        return longest

    def submit(self, request: InferenceRequest) -> None:
        """Begin with the steps that need outer inputs alone.

        Raises InvalidRequest and its subclasses for values that the signature does not allow, and what the steps'
        queues raise, with the step named.
        """
        joined = self._joined
        if not joined.checker.values_fit(request.inputs):
            check_values(request.inputs, joined.checker.signature, request.locate)
        plan = plan_of(joined.pipeline, request.outputs) if request.outputs else joined.plan
        self.admit(plan, request.deadline, request.tenant, request.priority, request.rows)
        PipelineRun(self, joined, plan, request).begin()


class PipelineRun:
    """The steps of one request: each begins when what it needs is there, side by side where they can."""

    __slots__ = ("_begun", "_joined", "_plan", "_queue", "_results", "over", "request")

    def __init__(self, queue: PipelineQueue, joined: Joined, plan: Plan, request: InferenceRequest) -> None:
        self._queue = queue
        self._joined = joined
        self._plan = plan
        self._results: dict[str, Tensors] = {}
        self._begun: set[str] = set()
        self.request = request
        self.over = False

    def begin(self) -> None:
        """Queue the first steps; raises what their queues raise, and then nothing of it runs."""
        self._hold()
        try:
            self._go_on()
        except BaseException:
            self._end()
            raise

    def step_done(self, done: InferenceRequest) -> None:
        """A step has its result or its error: go on, or answer."""
        if not isinstance(done, StepRequest):
            raise TypeError("only steps come back from the queues")
        step, error = done.planned.step, done.error
        code = "" if error is None else error.code
        done.model.stats.request(code, 0.0, 0.0, done.finished - done.decoded_at)
        if self.over:
            return
        if not self.request.started:
            self.request.started = done.started
        if error is not None or done.result is None:
            self._fail(step_error(step, error or BackendError("It gave no result.")))
            return
        self._results[step.name] = done.result
        try:
            if len(self._results) == len(self._plan):
                self._succeed()
            else:
                self._go_on()
        except SluiceError as failure:
            self._fail(failure)
        except Exception as failure:  # noqa: BLE001 - logged; the caller must get an answer
            _log.exception("a pipeline failed")
            self._fail(BackendError(f"The pipeline could not be run: {type(failure).__name__}."))

    def _go_on(self) -> None:
        """Queue every step that has all that it needs; raises what their queues raise."""
        ready = [
            planned
            for planned in self._plan
            if planned.step.name not in self._begun and planned.after <= self._results.keys()
        ]
        request = self.request
        if self._begun and ready:
            if request.cancelled:
                raise CallerGone("The caller has gone.")
            rest = tuple(planned for planned in self._plan if planned.step.name not in self._begun)
            self._queue.admit(rest, request.deadline, request.tenant, request.priority, request.rows)
        for planned in ready:
            self._begun.add(planned.step.name)
            try:
                self._queue_step(planned)
            except SluiceError as error:
                raise step_error(planned.step, error) from error

    def _queue_step(self, planned: PlannedStep) -> None:
        step, model = planned.step, self._joined.steps[planned.step.name]
        given = Inputs(inputs_of(step, self.request.inputs, self._results), locate_in(step, self.request.locate))
        request = StepRequest(self, planned, model, given)
        (model.sharing or model.queue).submit(request)

    def _succeed(self) -> None:
        request = self.request
        result = outputs_of(self._joined.pipeline, request.outputs, self._results)
        rows = request.rows if self._joined.checker.signature.batched else None
        for name, array in result.items():
            self._joined.outputs[name].check(array, rows)
        now = monotonic()
        self._queue.stats.batch([request], request.started, now, request.rows)
        request.result = result
        self._answer()

    def _fail(self, error: SluiceError) -> None:
        self.request.error = error
        self._answer()

    def _answer(self) -> None:
        request = self.request
        self._end()
        request.answered = True
        request.finished = monotonic()
        try:
            request.done(request)
        except Exception:  # noqa: BLE001 - logged; it must not spread
            # One caller's answer that cannot be given must not keep the others of the step's batch from theirs.
            _log.exception("an answer could not be given")

    def _models(self) -> "Iterable[ServedModel]":
        return (self._joined.steps[planned.step.name] for planned in self._plan)

    def _hold(self) -> None:
        """Keep the steps' models in memory between two steps, when nothing of this waits in their queues."""
        self._queue.running.take()
        for model in self._models():
            model.holds.take()

    def _end(self) -> None:
        self.over = True
        self._queue.running.give()
        for model in self._models():
            model.holds.give()
