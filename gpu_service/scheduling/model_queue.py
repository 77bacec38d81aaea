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

if TYPE_CHECKING:
    from gpu_service.inference.request import InferenceRequest
    from gpu_service.models.served_model import ServedModel
    from gpu_service.scheduling.executor import Executor
    from gpu_service.telemetry.stats import ModelStats

_log = logging.getLogger(__name__)

_MAX_BATCH_BYTES = 256 * 1024 * 1024
# What is predicted to be done just in time is as often late: work that was begun for nothing.
_MARGIN = 1.25


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
        "_drained",
        "_executor",
        "_limits",
        "batching",
        "cost",
        "fair",
        "inline_from",
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
        self.batching = batching
        self.cost = cost
        self.stats = stats
        self.fair: FairQueue[InferenceRequest] = FairQueue()
        self.inline_from = 0.0
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
            self.check_deadline(request.deadline, request.tenant, request.priority, request.rows)

    def check_deadline(self, deadline: float, tenant: str, priority: int, rows: int = 1) -> None:
        """Raise DeadlinePassed or Overloaded if a request of this kind would not be answered by `deadline`.

        Before a body is decoded it is asked for one row: to refuse must cost far less than to serve.
        """
        left = deadline - monotonic()
        if left <= 0:
            raise DeadlinePassed("The caller's deadline had passed when the request came.")
        wait = self._wait(tenant, priority, rows)
        # While something runs the prediction is corrected by that; else one that is wrong would stand for ever.
        if wait * _MARGIN > left and not (self.idle and self.cost.may_probe()):
            detail = f"The answer would take {wait * 1e3:.0f} ms; the deadline leaves {left * 1e3:.0f} ms."
            raise Overloaded(detail, retry_after_s=max(wait - left, 0.0))

    def _wait(self, tenant: str, priority: int, rows: int) -> float:
        """Seconds until such a request would be answered, as far as can be told."""
        fair, batching = self.fair, self.batching
        waiting = fair.rows_ahead(tenant, priority) if fair else 0
        return self.cost.predicted_finish(
            rows=rows,
            waiting=waiting,
            running=self.running_rows,
            callers=batching.callers,
            limit=batching.max_rows,
        )

    def take(self, max_rows: int) -> "list[InferenceRequest]":
        """The requests of the next batch; those that nobody needs any more are answered and left out."""
        taken, dropped = self.fair.take(monotonic(), max_rows, self.batching.max_bytes)
        for request in dropped:
            self.drop(request)
        if dropped and self._drained:
            self._wake_waiters()
        if taken:
            self.running_batches += 1
            self.running_rows += sum(request.rows for request in taken)
        return taken

    def sweep(self, now: float) -> None:
        """Answer the waiting requests whose deadline has passed."""
        for request in self.fair.remove_expired(now):
            self.drop(request)
        if self._drained:
            self._wake_waiters()

    def drop(self, request: "InferenceRequest") -> None:
        """Answer a request that did not run, or whose run is of no use any more."""
        if request.cancelled:
            request.error = CallerGone("The caller has gone.")
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
