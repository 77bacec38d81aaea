"""One batch: check, merge, run, split; a batch that fails is run again in halves, so that one bad row fails alone."""

import logging
from time import monotonic
from typing import TYPE_CHECKING

from gpu_service.scheduling.batch import Batch
from gpu_service.scheduling.errors import DeadlinePassed
from shared.domain.errors import BackendError, BackendTimeout, SluiceError
from shared.domain.validation import check_values

if TYPE_CHECKING:
    from gpu_service.execution.cancel import Cancel
    from gpu_service.inference.request import InferenceRequest
    from gpu_service.models.served_model import ServedModel

_log = logging.getLogger(__name__)


class BatchRun:
    """A batch on its way through a session. `run` may be called in any thread, and never raises."""

    __slots__ = ("cancel", "clean", "model", "requests", "run_began", "run_seconds", "started", "wide")

    def __init__(
        self, model: "ServedModel", requests: "list[InferenceRequest]", *, wide: bool, cancel: "Cancel | None"
    ) -> None:
        self.model = model
        self.requests = requests
        self.wide = wide
        self.cancel = cancel
        self.started = monotonic()
        self.run_began = 0.0
        self.run_seconds = 0.0
        self.clean = True  # one run of all its rows: what the cost model can learn from

    @property
    def rows(self) -> int:
        """Rows of all its requests."""
        return sum(request.rows for request in self.requests)

    def run(self) -> None:
        """Give every request its result or its error."""
        for request in self.requests:
            request.started = self.started
        self._run(self.requests)
        now = monotonic()
        for request in self.requests:
            request.finished = now

    def _run(self, requests: "list[InferenceRequest]") -> None:
        try:
            batch = Batch(requests, self.model.plan)
            if not self.model.checker.values_fit(batch.tensors):
                self.clean = False
                fitting = [request for request in requests if self._fits(request)]
                if len(fitting) < len(requests):
                    if fitting:
                        self._run(fitting)
                    return
            start = monotonic()
            outputs = self.model.loaded.run(batch.tensors, batch.outputs, wide=self.wide, cancel=self.cancel)
            self.run_began = self.run_began or start
            self.run_seconds += monotonic() - start
            batch.split(outputs)
        except SluiceError as error:
            self._failed(requests, error)
        except Exception as error:  # noqa: BLE001 - logged; an executor's thread must outlive any model
            _log.exception("a batch failed")
            self._failed(requests, BackendError(f"The model could not be run: {type(error).__name__}."))

    def _fits(self, request: "InferenceRequest") -> bool:
        try:
            check_values(request.inputs, self.model.signature, request.locate)
        except SluiceError as error:
            request.error = error
            return False
        return True

    def _failed(self, requests: "list[InferenceRequest]", error: SluiceError) -> None:
        """Try again in halves, unless time is up or it is known who fails."""
        self.clean = False
        if len(requests) == 1 or isinstance(error, BackendTimeout):
            for request in requests:
                request.result = None
                request.error = error
            return
        now = monotonic()
        alive = [request for request in requests if not request.cancelled and request.deadline > now]
        for request in requests:
            request.result = None
            if request.cancelled or request.deadline <= now:
                request.error = DeadlinePassed("The caller's deadline passed before the model answered.")
        middle = (len(alive) + 1) // 2
        for half in (alive[:middle], alive[middle:]):
            if half:
                self._run(half)
