"""The log lines of jobs: a job counts for usage, cost, experiments and variants as a request does."""

import logging
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any, Final

import msgspec

from shared.adapters.aws_calls import AwsCalls
from shared.bootstrap.settings import FunctionSettings, architecture
from shared.domain.cost import RequestCosts
from shared.domain.endpoint.target import Target
from shared.domain.endpoint.traffic import Exposure
from shared.domain.errors import SluiceError
from shared.domain.jobs import Job
from shared.usecases.job_endings import Ended
from shared.usecases.prediction import Prediction
from shared.web.metrics import RequestMetrics
from shared.web.origin import note, note_route

ROUTE: Final = "job"


class JobLines:
    """Implements `shared.usecases.job_endings.Meter`: one line for each job that ends here, one job at a time."""

    def __init__(self, settings: FunctionSettings, calls: AwsCalls, log: logging.Logger) -> None:
        # No gateway takes part.
        prices = msgspec.structs.replace(settings.prices, http_request=0.0)
        self._costs = RequestCosts(prices, settings.memory_mb, architecture()) if settings.memory_mb else None
        self._calls = calls
        self._log = log
        self._metrics = RequestMetrics(settings.metrics_namespace)
        self._cold = True
        self._started = perf_counter()
        self._line: dict[str, Any] = {}

    def begin(self) -> None:
        """A job begins: nothing was called for it yet."""
        self._calls.start()
        self._started = perf_counter()
        self._line = {}

    def routed(self) -> Callable[[Target, Exposure | None], None]:
        """What notes where this job goes: what fails there counts for that variant and that arm."""
        return partial(note_route, self._line)

    def cost(self, made: Prediction | None, instances_nusd: float) -> int | None:
        """The cost until now, the write that ends the job included."""
        del made
        if self._costs is None:
            return None
        calls = self._calls.counts()
        calls["dynamodb.UpdateItem"] = calls.get("dynamodb.UpdateItem", 0) + 1
        return self._costs.nusd(self._ms(), calls, self._calls.items(), instances_nusd)

    def ended(self, ended: Ended) -> None:
        """Write the line of a job that has ended."""
        job, outcome, made = ended.job, ended.outcome, ended.made
        status = 200 if ended.error is None else _status(ended.error)
        fields: dict[str, Any] = {
            "request_id": job.request_id,
            "route": ROUTE,
            "status": status,
            "code": "ok" if ended.error is None else ended.error.code,
            "tenant": job.tenant,
            "key_id": job.key_id,
            "model": job.model,
            "target": f"job:{job.job_id}",
            "bytes_in": ended.bytes_in,
            "bytes_out": 0 if outcome.result is None else outcome.result.size,
            "ms": round(self._ms(), 3),
            "cold_start": self._cold,
            **_where(job),
            **self._line,
        }
        if job.attempts > 1:
            fields["job_attempts"] = job.attempts
        if made is not None:
            note(fields, made)
            fields["steps_ms"] = {name: round(ms, 3) for name, ms in made.timings_ms.items()}
        if calls := self._calls.counts():
            fields["aws_calls"] = calls
        if outcome.cost_nusd is not None:
            fields["cost_nusd"] = outcome.cost_nusd
        self._metrics.add(fields)
        self._cold = False
        self._log.log(logging.ERROR if status >= 500 else logging.INFO, "request", extra={"fields": fields})

    def _ms(self) -> float:
        return (perf_counter() - self._started) * 1e3


def _status(error: SluiceError) -> int:
    from shared.web.problems import status_of  # brings Starlette, which jobs that succeed do without

    return int(status_of(type(error)))


def _where(job: Job) -> dict[str, Any]:
    """What is known of a job that ran elsewhere."""
    known = {"version": job.version, "variant": job.variant, "backend": job.backend}
    return {name: value for name, value in known.items() if value is not None}
