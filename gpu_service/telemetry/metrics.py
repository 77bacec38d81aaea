"""`/metrics`: the text that Prometheus scrapes, in its own format or in OpenMetrics.

`docs/container-metrics.md` lists every metric. prometheus_client is imported by the first scrape: until then it would
only take memory.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from gpu_service.telemetry.families import add_histogram, counter, gauge, histogram_family, label, pause
from gpu_service.telemetry.figures import ExecutorFigures, Figures, ModelFigures
from gpu_service.telemetry.gpu import Gpu, GpuSampler, find_reader
from gpu_service.telemetry.measures import Duration, Histogram
from gpu_service.telemetry.memory import pss_bytes
from gpu_service.telemetry.stats import ModelStats, ServerStats

if TYPE_CHECKING:
    from prometheus_client import Metric

_OPENMETRICS = "application/openmetrics-text"
_MODEL = ("model", "version")
_ROW_BOUNDS = tuple(2**n for n in range(13))
# The steps of a request in their order, named as the documentation of the container's speed names them.
_STEPS: tuple[tuple[str, Callable[[ModelStats], Histogram]], ...] = (
    ("parse", lambda stats: stats.decode_time),
    ("queue", lambda stats: stats.queue_time),
    ("batch", lambda stats: stats.merge_time),
    ("run", lambda stats: stats.run_time),
    ("encode", lambda stats: stats.encode_time),
    ("total", lambda stats: stats.total_time),
)


class Metrics:
    """Answers scrapes, one after the other; `figures` is called on the event loop."""

    def __init__(self, figures: Callable[[], Figures], gpus: GpuSampler | None = None) -> None:
        self._figures = figures
        self._gpus = gpus
        self._lock = asyncio.Lock()

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """The body and its Content-Type."""
        async with self._lock:
            return await asyncio.to_thread(self._render, accept, self._figures())

    def _render(self, accept: str, figures: Figures) -> tuple[bytes, str]:
        if self._gpus is None:
            self._gpus = GpuSampler(find_reader())
        return render(accept, figures, self._gpus.sample())


def render(accept: str, figures: Figures, gpus: Sequence[Gpu] = ()) -> tuple[bytes, str]:
    """The body and its Content-Type: OpenMetrics if `accept` names it, else Prometheus' text; in any thread."""
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Collector(figures, gpus))
    # The rest of the header (versions, ways of escaping) would choose among forms in which our names are the same.
    encode, content_type = choose_encoder(_OPENMETRICS if _OPENMETRICS in accept else "")
    return encode(registry), content_type


class _Collector:
    """Makes the families of one scrape; see prometheus_client, "Custom Collectors"."""

    def __init__(self, figures: Figures, gpus: Sequence[Gpu]) -> None:
        self._figures = figures
        self._gpus = gpus

    def describe(self) -> Iterable["Metric"]:
        """Nothing: one collector cannot clash with itself, and the registry need not collect to find out."""
        return ()

    def collect(self) -> Iterator["Metric"]:
        figures = self._figures
        models = [((label(model.name), label(model.version)), model) for model in figures.models]
        for families in (
            _answers(models),
            _steps(models),
            _sharing(models),
            _model_state(models),
            _executors(figures.executors),
            _server(figures.server),
            _memory(figures),
            _gpus(self._gpus),
        ):
            yield from families


_Models = list[tuple[tuple[str, str], ModelFigures]]


def _answers(models: _Models) -> Iterator["Metric"]:
    yield counter(
        "requests",
        "Answered requests by error code, ok for success.",
        (*_MODEL, "code"),
        [
            ((*labels, code or "ok"), count)
            for labels, model in models
            for code, count in model.stats.codes.copy().items()
        ],
    )
    yield counter(
        "refused",
        "Requests that never got into the queue, by error code: shed, or invalid.",
        (*_MODEL, "code"),
        [((*labels, code), count) for labels, model in models for code, count in model.stats.refusals.copy().items()],
    )


def _steps(models: _Models) -> Iterator["Metric"]:
    steps = histogram_family(
        "step_seconds", "Time by step; batch and run count batches, the rest requests.", (*_MODEL, "step")
    )
    for labels, model in models:
        for step, times in _STEPS:
            add_histogram(steps, (*labels, step), times(model.stats))
        pause()
    yield steps
    rows = histogram_family("batch_rows", "Rows of the batches that ran.", _MODEL)
    for labels, model in models:
        add_histogram(rows, labels, _rows(model.stats.batches.copy(), model.stats.inference_count))
    yield rows


def _sharing(models: _Models) -> Iterator["Metric"]:
    yield counter(
        "cache_lookups",
        "Looks into the response cache.",
        (*_MODEL, "result"),
        [((*labels, "hit"), model.stats.cache_hit.count) for labels, model in models]
        + [((*labels, "miss"), model.stats.cache_miss.count) for labels, model in models],
    )
    yield counter(
        "joined",
        "Requests answered by an identical one in flight.",
        _MODEL,
        [(labels, model.stats.joins) for labels, model in models],
    )


_MODEL_STATE: tuple[tuple[str, str, Callable[[ModelFigures], int]], ...] = (
    ("queue_requests", "Requests that wait.", lambda model: model.queue_requests),
    ("queue_rows", "Rows that wait.", lambda model: model.queue_rows),
    ("queue_bytes", "Bytes of the tensors that wait.", lambda model: model.queue_bytes),
    ("running_batches", "Batches that run.", lambda model: model.running_batches),
    ("model_memory_bytes", "Memory that unloading the model would give back.", lambda model: model.memory_bytes),
    ("cache_bytes", "Bytes in the response cache.", lambda model: model.cache_bytes),
)


def _model_state(models: _Models) -> Iterator["Metric"]:
    for name, text, read in _MODEL_STATE:
        yield gauge(name, text, _MODEL, [(labels, read(model)) for labels, model in models])
    yield gauge("models_loaded", "Versions of models that are served.", (), [((), len(models))])


def _executors(executors: Sequence[ExecutorFigures]) -> Iterator["Metric"]:
    names = ("executor",)
    slots = [((executor.name,), executor.slots) for executor in executors]
    yield gauge("executor_slots", "Batches that may run side by side.", names, slots)
    busy = [((executor.name,), executor.busy) for executor in executors]
    yield gauge("executor_busy_slots", "Slots that are taken.", names, busy)
    stuck = [((executor.name,), executor.stuck) for executor in executors]
    yield gauge("executor_stuck_batches", "Batches that run for longer than any may.", names, stuck)


def _server(server: ServerStats) -> Iterator["Metric"]:
    yield counter(
        "answers",
        "Answers by route and status.",
        ("route", "status"),
        [((label(route), label(status)), count) for (route, status), count in server.requests.copy().items()],
    )
    yield gauge("requests_in_flight", "Requests read and not yet answered.", (), [((), server.in_flight)])
    yield gauge("connections_open", "Open connections.", ("transport",), _by_name(server.connections))
    yield counter("connections", "Connections accepted.", ("transport",), _by_name(server.connections_total))
    yield counter("received_bytes", "Bytes read from callers.", (), [((), server.bytes_in)])
    yield counter("sent_bytes", "Bytes written to callers.", (), [((), server.bytes_out)])
    yield counter("sheds", "Refused before the model was known, by reason.", ("reason",), _by_name(server.sheds))
    lag = histogram_family("event_loop_lag_seconds", "How late the event loop was, sampled once a second.", ())
    add_histogram(lag, (), server.loop_lag, always=True)
    yield lag


def _memory(figures: Figures) -> Iterator["Metric"]:
    pss = pss_bytes()
    text = "Memory of the process, shared pages by their share."
    yield gauge("memory_pss_bytes", text, (), [] if pss is None else [((), pss)])
    budget = figures.memory_budget_bytes
    text = "What the models may take in all."
    yield gauge("memory_budget_bytes", text, (), [] if budget is None else [((), budget)])
    yield gauge("sessions", "Sessions that are open.", (), [((), figures.sessions)])
    yield gauge("session_bytes", "Bytes of state that is kept for them.", (), [((), figures.session_bytes)])
    yield counter("traces_dropped", "Traces lost to a full queue.", (), [((), figures.traces_dropped)])


def _gpus(gpus: Sequence[Gpu]) -> Iterator["Metric"]:
    names = ("gpu", "uuid")
    told: tuple[tuple[str, str, Callable[[Gpu], float | None]], ...] = (
        ("gpu_utilization_ratio", "Share of the time in which a kernel ran, 0 to 1.", lambda gpu: gpu.utilization),
        ("gpu_memory_used_bytes", "Device memory in use, by all processes.", lambda gpu: gpu.memory_used_bytes),
        ("gpu_memory_total_bytes", "Device memory.", lambda gpu: gpu.memory_total_bytes),
    )
    for name, text, read in told:
        values = [((gpu.number, gpu.uuid), value) for gpu in gpus if (value := read(gpu)) is not None]
        yield gauge(name, text, names, values)


def _rows(batches: dict[int, Duration], rows: int) -> Histogram:
    """Batch sizes by powers of two, which the classes of `ModelStats.batches` never straddle."""
    histogram = Histogram(_ROW_BOUNDS)
    for size, duration in batches.items():
        histogram.observe(size, duration.count)
    histogram.sum = rows
    return histogram


def _by_name(counts: dict[str, int]) -> list[tuple[tuple[str], int]]:
    return [((label(name),), count) for name, count in counts.copy().items()]
