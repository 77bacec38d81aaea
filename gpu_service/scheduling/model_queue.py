"""The requests that wait for one model: admission at its end, batches at its head."""

import logging
from asyncio import Future, get_running_loop
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from gpu_service.scheduling.cost import CostModel
from gpu_service.scheduling.errors import CallerGone, DeadlinePassed, Overloaded, TenantOverloaded
from gpu_service.scheduling.fair_queue import FairQueue
from gpu_service.scheduling.margin import WaitMargin

if TYPE_CHECKING:
    from gpu_service.inference.request import InferenceRequest
    from gpu_service.models.served_model import ServedModel
    from gpu_service.scheduling.executor import Executor
    from gpu_service.telemetry.stats import ModelStats

_log = logging.getLogger(__name__)

_MAX_BATCH_BYTES = 256 * 1024 * 1024
# What is predicted to be done just in time is as often late: work that was begun for nothing.
_RUN_MARGIN = 1.25


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Bounds of one model's queue; a tenant alone may fill it, but with others waiting has at most `tenant_share`."""

    max_requests: int = 1024
    max_bytes: int = 512 * 1024 * 1024
    tenant_share: float = 0.5


@dataclass(frozen=True, slots=True)
class Batching:
    """What one batch of a model may hold, how long it may run, and how many run side by side.

    `inline` says that the model's run time depends on the rows only and that it needs no device: then short batches
    may run on the event loop. `wide` says that it has a session that uses every core.
    """

    max_rows: int
    max_bytes: int = _MAX_BATCH_BYTES
    max_seconds: float = 0.25
    callers: int = 1
    inline: bool = False
    wide: bool = False


class ModelQueue:
    """Belongs to the event loop."""

    __slots__ = (
        "_begun",
        "_drained",
        "_executor",
        "_limits",
        "batching",
        "cost",
        "fair",
        "inline_from",
        "margin",
        "model",
        "ready",
        "running_batches",
        "running_rows",
        "stats",
        "virtual_time",
    )

    def __init__(
        self, executor: "Executor", batching: Batching, cost: CostModel, limits: QueueLimits, stats: "ModelStats"
    ) -> None:
        self.model: ServedModel  # set by the model that the queue is given to
        self._executor = executor
        self._limits = limits
        self._drained: list[Future[None]] = []
        self._begun = 0.0  # when the youngest batch was taken
        self.batching = batching
        self.cost = cost
        self.stats = stats
        self.fair: FairQueue[InferenceRequest] = FairQueue()
        self.inline_from = 0.0
        self.margin = WaitMargin()
        self.ready = False
        self.running_batches = 0
        self.running_rows = 0
        self.virtual_time = 0.0

    def submit(self, request: "InferenceRequest") -> None:
        """Queue a request; Overloaded, TenantOverloaded or DeadlinePassed if it is refused."""
        fair, limits = self.fair, self._limits
        # A request has at least one row: as long as few rows wait, few requests do.
        if (
            request.deadline != inf
            or 2 * fair.rows > limits.max_requests
            or fair.nbytes + request.nbytes > limits.max_bytes
        ):
            self._admit(request)
        fair.push(request)
        if not self.ready:
            self._executor.wake(self)

    def _admit(self, request: "InferenceRequest") -> None:
        fair, limits = self.fair, self._limits
        if len(fair) >= limits.max_requests or fair.nbytes + request.nbytes > limits.max_bytes:
            raise Overloaded(
                "The queue of this model is full.", retry_after_s=self._wait(request.tenant, request.priority, 1)
            )
        if len(fair) * 2 > limits.max_requests:
            share = limits.tenant_share * limits.max_requests
            if fair.tenants > 1 and fair.tenant_requests(request.tenant) >= share:
                detail = "This tenant has its share of this model's queue, and others wait too."
                raise TenantOverloaded(detail, retry_after_s=self._wait(request.tenant, request.priority, 1))
        if request.deadline != inf:
            request.lead, request.begins_by = self.check_deadline(
                request.deadline, request.tenant, request.priority, request.rows
            )

    def check_room(self, tenant: str, priority: int) -> None:
        """Raise Overloaded if as many requests wait as may."""
        if len(self.fair) >= self._limits.max_requests:
            raise Overloaded("The queue of this model is full.", retry_after_s=self._wait(tenant, priority, 1))

    def check_deadline(self, deadline: float, tenant: str, priority: int, rows: int = 1) -> tuple[float, float]:
        """Raise DeadlinePassed or Overloaded if a request of this kind would not be answered by `deadline`.

        Before a body is decoded it is asked for one row: to refuse must cost far less than to serve. Returns the
        request's `lead` and `begins_by`.
        """
        now = monotonic()
        left = deadline - now
        if left <= 0:
            raise DeadlinePassed("The caller's deadline had passed when the request came.")
        wait, run = self._plan(tenant, priority, rows, left)
        longest = wait * self.margin.factor
        if longest + run * _RUN_MARGIN <= left:
            # Only a wait that comes close to its limit says how far such ones can be trusted.
            return run, now + longest if 2 * longest > left else 0.0
        # While something runs the prediction is corrected by that; else one that is wrong would stand for ever.
        if self.idle and self.cost.may_probe():
            return 0.0, 0.0
        detail = f"The answer would take {(wait + run) * 1e3:.0f} ms; the deadline leaves {left * 1e3:.0f} ms."
        raise Overloaded(detail, retry_after_s=max(wait + run - left, 0.0))

    def _wait(self, tenant: str, priority: int, rows: int) -> float:
        """Seconds until such a request would be answered, as far as can be told."""
        return sum(self._plan(tenant, priority, rows, inf))

    def _plan(self, tenant: str, priority: int, rows: int, seconds: float) -> tuple[float, float]:
        """Seconds until its run would begin, and those that it would take, where there are `seconds` for both."""
        fair, batching = self.fair, self.batching
        waiting = fair.rows_ahead(tenant, priority) if fair else 0
        wait, run = self.cost.plan(
            rows=rows,
            waiting=waiting,
            running=self.running_rows,
            callers=batching.callers,
            limit=batching.max_rows,
            seconds=seconds,
        )
        if self.running_batches >= batching.callers:
            # Even the youngest batch takes longer than it should: as much longer again, as far as can be told.
            should = self.cost.predict(-(-self.running_rows // self.running_batches))
            wait = max(wait, monotonic() - self._begun - should)
        return wait, run

    @property
    def seconds_to_answer(self) -> float:
        """The whole time that the caller of the next request gave for its answer. Needs one that waits."""
        first = self.fair.first
        return first.deadline - first.arrived

    def take(self, max_rows: int) -> "list[InferenceRequest]":
        """The requests of the next batch; those that nobody needs any more are answered and left out."""
        now = monotonic()
        taken, dropped = self.fair.take(now, max_rows, self.batching.max_bytes)
        for request in dropped:
            self.drop(request)
        if dropped and self._drained:
            self._wake_waiters()
        if taken:
            self._begun = now
            self.running_batches += 1
            self.running_rows += sum(request.rows for request in taken)
            begins_by = taken[0].begins_by
            if begins_by:
                self.margin.learn(kept=now <= begins_by)
        return taken

    def sweep(self, now: float) -> None:
        """Answer the waiting requests whose deadline has passed, or would have before they were answered."""
        for request in self.fair.remove_expired(now):
            self.drop(request)
        if self._drained:
            self._wake_waiters()

    def drop(self, request: "InferenceRequest") -> None:
        """Answer a request that did not run, or whose run is of no use any more."""
        if request.begins_by and not request.started and not request.cancelled:
            self.margin.learn(kept=False)
        if request.cancelled:
            request.error = CallerGone("The caller has gone.")
        elif request.deadline > monotonic():
            detail = "The answer would have come after the deadline: the requests ahead took longer than expected."
            request.error = Overloaded(detail, retry_after_s=request.lead)
        else:
            request.error = DeadlinePassed("The caller's deadline passed before the model answered.")
        self._answer(request)

    def finished(self, requests: "list[InferenceRequest]") -> None:
        """A batch of `take` has its results or errors: answer what has not been answered."""
        self.running_batches -= 1
        for request in requests:
            self.running_rows -= request.rows
            if not request.answered:
                self._answer(request)
        if self._drained:
            self._wake_waiters()

    def _answer(self, request: "InferenceRequest") -> None:
        request.answered = True
        if not request.finished:
            request.finished = monotonic()
        try:
            request.done(request)
        except Exception:  # noqa: BLE001 - logged; it must not spread
            # One caller's answer that cannot be given must not keep the others of the batch from theirs.
            _log.exception("an answer could not be given")

    def _wake_waiters(self) -> None:
        if self.idle:
            for waiter in self._drained:
                if not waiter.done():
                    waiter.set_result(None)
            self._drained.clear()

    @property
    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        return not self.running_batches and not self.fair

    async def drained(self) -> None:
        """Return once nothing waits or runs."""
        while self.fair or self.running_batches:
            waiter: Future[None] = get_running_loop().create_future()
            self._drained.append(waiter)
            await waiter
