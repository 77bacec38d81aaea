"""What `/metrics` shows at one moment, as the event loop knows it.

The event loop fills a `Figures`, which costs it about a microsecond a model; the text is made from it in a thread.
"""

from collections.abc import Sequence
from typing import NamedTuple

from gpu_service.telemetry.stats import ModelStats, ServerStats


class ModelFigures(NamedTuple):
    """One served version: its counters, what waits, what runs, and the bytes that it takes."""

    name: str
    version: str
    stats: ModelStats
    queue_requests: int = 0
    queue_rows: int = 0
    queue_bytes: int = 0
    running_batches: int = 0
    memory_bytes: int = 0
    cache_bytes: int = 0


class ExecutorFigures(NamedTuple):
    """The threads for one kind of device: how many there are, how many are busy, and what `watchdog.stuck` found."""

    name: str
    slots: int
    busy: int
    stuck: int = 0


class Figures(NamedTuple):
    """All of it. `memory_budget_bytes` bounds the models' bytes; None where there is no bound.

    `sessions` are those that are open, `session_bytes` those of the state that is kept for them.
    """

    server: ServerStats
    models: Sequence[ModelFigures] = ()
    executors: Sequence[ExecutorFigures] = ()
    memory_budget_bytes: int | None = None
    traces_dropped: int = 0
    sessions: int = 0
    session_bytes: int = 0
