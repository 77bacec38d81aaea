"""What those who run the container ask: `/metrics`."""

from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING

from gpu_service.http.documents import answering_later
from gpu_service.http.exchange import Exchange
from gpu_service.http.router import Router
from gpu_service.inference.pipelines import ServedPipeline
from gpu_service.inference.sessions import SessionStore
from gpu_service.models.memory import MemoryBudget
from gpu_service.models.repository import ModelRepository
from gpu_service.problems import problem_report
from gpu_service.scheduling.executor import Executor
from gpu_service.telemetry.figures import ExecutorFigures, Figures, ModelFigures
from gpu_service.telemetry.metrics import Metrics
from gpu_service.telemetry.stats import ServerStats
from gpu_service.telemetry.watchdog import stuck

if TYPE_CHECKING:
    from gpu_service.models.served_model import ServedModel
    from gpu_service.telemetry.tracing import Tracer


class Reader:
    """Reads the figures of this moment; called on the event loop."""

    def __init__(
        self,
        stats: ServerStats,
        repository: ModelRepository,
        executor: Executor,
        budget: MemoryBudget,
        sessions: SessionStore,
        tracer: "Tracer | None",
        router: Router,
        stuck_seconds: float,
    ) -> None:
        self._stats = stats
        self._repository = repository
        self._executor = executor
        self._budget = budget
        self._sessions = sessions
        self._tracer = tracer
        self._router = router
        self._stuck_seconds = stuck_seconds

    def __call__(self) -> Figures:
        """The figures."""
        models = [_figures(entry.served) for entry in self._repository.entries() if entry.served]
        now = monotonic()
        executors = [
            ExecutorFigures(pool.name, pool.slots, pool.busy, len(stuck(pool.running, now, self._stuck_seconds)))
            for pool in self._executor.pools
        ]
        # Routes count their own answers: that is one step less for each.
        for (route, status), count in self._router.answers().items():
            self._stats.requests[route, str(status)] = count
        dropped = self._tracer.dropped if self._tracer else 0
        sessions = self._sessions
        return Figures(self._stats, models, executors, self._budget.limit, dropped, len(sessions), sessions.nbytes)


def _figures(model: "ServedModel") -> ModelFigures:
    if isinstance(model, ServedPipeline):
        joined = model.joined
        sharing = joined.sharing if joined else None
        return ModelFigures(
            model.key.name,
            model.version_text,
            model.stats,
            running_batches=model.running.count,
            memory_bytes=model.memory_bytes,
            cache_bytes=sharing.cache_bytes if sharing else 0,
        )
    queue = model.queue
    return ModelFigures(
        model.key.name,
        model.version_text,
        model.stats,
        queue_requests=len(queue.fair),
        queue_rows=queue.fair.rows,
        queue_bytes=queue.fair.nbytes,
        running_batches=queue.running_batches,
        memory_bytes=model.memory_bytes,
        cache_bytes=model.sharing.cache_bytes if model.sharing else 0,
    )


def add_routes(router: Router, metrics: Metrics) -> None:
    """The routes of this module."""

    async def scrape(exchange: Exchange) -> None:
        body, media_type = await metrics.scrape(exchange.head.headers.get("accept", ""))
        exchange.answer(HTTPStatus.OK, body, media_type)

    router.add("GET", "/metrics", answering_later(scrape, problem_report))
