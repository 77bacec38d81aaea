"""The log lines of steps: a part counts for usage and cost as a request does."""

import logging
from time import perf_counter
from typing import Any, Final

import msgspec

from shared.adapters.aws_calls import AwsCalls
from shared.bootstrap.data_plane import DataPlane
from shared.bootstrap.settings import FunctionSettings, architecture
from shared.domain.batch_ports import StepRecord
from shared.domain.cost import RequestCosts
from shared.domain.endpoint.config import EndpointConfig
from shared.domain.errors import SluiceError
from shared.web.metrics import RequestMetrics

ROUTE: Final = "batch"


class StepLines:
    """One line a step, one step at a time."""

    def __init__(self, settings: FunctionSettings, plane: DataPlane, calls: AwsCalls, log: logging.Logger) -> None:
        # No gateway takes part.
        prices = msgspec.structs.replace(settings.prices, http_request=0.0)
        self._costs = RequestCosts(prices, settings.memory_mb, architecture()) if settings.memory_mb else None
        self._plane = plane
        self._calls = calls
        self._log = log
        self._metrics = RequestMetrics(settings.metrics_namespace)
        self._cold = True
        self._started = perf_counter()

    def begin(self) -> None:
        """A step begins: nothing was called for it yet."""
        self._calls.start()
        self._started = perf_counter()

    def cost(self, record: StepRecord) -> int:
        """What the step has cost until now in 10⁻⁹ US dollars; 0 where nobody knows the function's memory."""
        if self._costs is None:
            return 0
        return self._costs.nusd(self._ms(), self._calls.counts(), self._calls.items(), self._instances(record))

    def ended(self, step: str, part: int | None, record: StepRecord) -> None:
        """Write the step's line: `request` for rows that were predicted, and `batch step` for what is around them."""
        job, error = record.job, record.error
        if job is None:
            return
        status = 200 if error is None else _status(error)
        fields: dict[str, Any] = {
            "request_id": job.request_id,
            "route": ROUTE,
            "status": status,
            "code": "ok" if error is None else error.code,
            "tenant": job.tenant,
            "key_id": job.key_id,
            "model": job.model,
            "target": f"job:{job.job_id}",
            "step": step,
            "bytes_in": record.bytes_in,
            "bytes_out": record.bytes_out,
            "ms": round(self._ms(), 3),
            "cold_start": self._cold,
            "cost_nusd": self.cost(record),
        }
        given = {
            "part": part,
            "version": record.version,
            "variant": record.variant,
            "backend": record.backend,
            "rows": record.rows,
            "rows_failed": record.failed or None,
            "aws_calls": self._calls.counts() or None,
            "reason": None if error is None else error.detail,
        }
        fields |= {name: value for name, value in given.items() if value is not None and name != "reason"}
        if given["reason"] is not None:
            fields["detail"] = given["reason"]
        self._cold = False
        predicted = record.rows is not None
        if predicted:
            self._metrics.add(fields)
        level = logging.ERROR if status >= 500 else logging.INFO
        self._log.log(level, "request" if predicted else "batch step", extra={"fields": fields})

    def _instances(self, record: StepRecord) -> float:
        if record.backend is None or record.job is None:
            return 0.0
        stored = self._plane.endpoints(record.job.model).stored
        config = EndpointConfig(record.job.model) if stored is None else stored.config
        return self._plane.prices.instances_nusd(record.backend, config, record.backend_ms)

    def _ms(self) -> float:
        return (perf_counter() - self._started) * 1e3


def _status(error: SluiceError) -> int:
    from shared.web.problems import status_of  # brings Starlette, which steps that succeed do without

    return int(status_of(type(error)))
