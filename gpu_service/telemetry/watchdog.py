"""Whether the event loop is late, and whether a batch is stuck."""

import logging
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Iterable
from typing import Protocol, TypeVar

from gpu_service.telemetry.stats import ServerStats

_log = logging.getLogger(__name__)
_INTERVAL_SECONDS = 1.0
_REPORT_SECONDS = 1.0


class Running(Protocol):
    """What is read of a batch that runs in a thread."""

    @property
    def started(self) -> float:
        """Seconds of `time.monotonic`."""


RunningT = TypeVar("RunningT", bound=Running)


class LoopWatch:
    """Samples how much later than asked for the event loop calls a timer: once a second, for the whole container.

    A sample of more than `report_s` seconds is logged: for that long nothing was read, answered or shed.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        stats: ServerStats,
        *,
        interval_s: float = _INTERVAL_SECONDS,
        report_s: float = _REPORT_SECONDS,
    ) -> None:
        self._loop = loop
        self._stats = stats
        self._interval_s = interval_s
        self._report_s = report_s
        self._due = 0.0
        self._timer: TimerHandle | None = None

    def start(self) -> None:
        """Sample from now on; on the event loop."""
        if self._timer is None:
            self._plan()

    def stop(self) -> None:
        """Sample no more; on the event loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _plan(self) -> None:
        self._due = self._loop.time() + self._interval_s
        self._timer = self._loop.call_at(self._due, self._sample)

    def _sample(self) -> None:
        # uvloop rounds timers to milliseconds and may call one a fraction early.
        lag = max(self._loop.time() - self._due, 0.0)
        self._stats.lag(lag)
        if lag > self._report_s:
            _log.warning("the event loop was blocked for %.1f s", lag)
        self._plan()


def stuck(runs: Iterable[RunningT], now: float, limit_s: float) -> list[RunningT]:
    """The runs that began more than `limit_s` seconds before `now`, a time of `time.monotonic`.

    A session cannot be stopped from outside when the device hangs: a container with a stuck run is to be replaced.
    """
    return [run for run in runs if now - run.started > limit_s]
