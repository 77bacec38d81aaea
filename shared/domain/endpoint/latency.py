"""How long a version takes on a backend, as this environment has seen it."""

from collections.abc import Callable
from math import sqrt
from time import monotonic

from shared.domain.model import ModelVersion

# The weight of the newest call: the last twenty or so count.
_NEWEST = 0.1
# Standard deviations above the mean: about the 95th percentile of what is roughly normal.
_MARGIN = 2.0
_MOST = 1024
# Fewer calls than this say nothing against a backend.
_ENOUGH = 3
# What is older says nothing: a backend that was too slow for every request would never be asked again.
_FORGOTTEN_S = 60.0


class _Line:
    """Exponentially weighted least squares of milliseconds over rows, and the spread around the line."""

    __slots__ = ("at_s", "count", "mean_ms", "mean_rows", "rows_ms", "rows_rows", "spread")

    def __init__(self, rows: int, ms: float, at_s: float) -> None:
        self.at_s = at_s
        self.count = 1
        self.mean_rows = float(rows)
        self.mean_ms = ms
        self.rows_rows = 0.0
        self.rows_ms = 0.0
        self.spread = (ms / 4) ** 2  # nothing is known of it yet

    def add(self, rows: int, ms: float, at_s: float) -> None:
        self.at_s = at_s
        self.count += 1
        newest = max(_NEWEST, 1 / self.count)
        error = ms - self.at(rows)
        self.spread += newest * (error * error - self.spread)
        by_rows, by_ms = rows - self.mean_rows, ms - self.mean_ms
        keep = 1 - newest
        self.mean_rows += newest * by_rows
        self.mean_ms += newest * by_ms
        self.rows_rows = keep * (self.rows_rows + newest * by_rows * by_rows)
        self.rows_ms = keep * (self.rows_ms + newest * by_rows * by_ms)

    def was_start(self, ms: float) -> bool:
        """Whether the only call before this one was slow since it loaded the model."""
        return self.count == 1 and ms < self.mean_ms / 2

    def at(self, rows: int) -> float:
        slope = max(0.0, self.rows_ms / self.rows_rows) if self.rows_rows > 0 else 0.0
        return max(0.0, self.mean_ms + slope * (rows - self.mean_rows))


class Latencies:
    """Learns from calls that went well; holds at most 1024 pairs of backend and version, the oldest go first.

    Used by one environment's threads: a lost update costs one observation. What was seen last a minute ago is
    forgotten. `clock` gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lines: dict[tuple[str, str, int], _Line] = {}

    def note(self, backend: str, version: ModelVersion, rows: int, ms: float) -> None:
        """One call of `rows` instances that took `ms` milliseconds."""
        key = (backend, version.model, version.version)
        now = self._clock()
        line = self._lines.get(key)
        if line is not None and now - line.at_s < _FORGOTTEN_S and not line.was_start(ms):
            line.add(rows, ms, now)
            return
        if line is None and len(self._lines) >= _MOST:
            self._lines.pop(next(iter(self._lines)), None)
        self._lines[key] = _Line(rows, ms, now)

    def expected_ms(self, backend: str, version: ModelVersion, rows: int) -> float | None:
        """What such a call rarely exceeds, in milliseconds (about the 95th percentile); None if nothing is known."""
        line = self._line(backend, version)
        return None if line is None else line.at(rows) + _MARGIN * sqrt(line.spread)

    def least_ms(
        self, backend: str, version: ModelVersion, rows: int, *, within_s: float = _FORGOTTEN_S
    ) -> float | None:
        """What such a call hardly ever stays below, in milliseconds; None if too little is known to say so.

        `within_s`: nothing is known either if no call was seen for so many seconds.
        """
        line = self._line(backend, version, within_s)
        return None if line is None or line.count < _ENOUGH else line.at(rows) - _MARGIN * sqrt(line.spread)

    def usual_ms(self, backend: str, version: ModelVersion, rows: int) -> float | None:
        """What such calls took on average when they were seen last, however long ago that is; None if never.

        Of more rows than usual, at least proportionally more is granted.
        """
        line = self._lines.get((backend, version.model, version.version))
        if line is None:
            return None
        return max(line.at(rows), line.mean_ms * rows / line.mean_rows if rows > line.mean_rows > 0 else 0.0)

    def is_settled(self, backend: str, version: ModelVersion) -> bool:
        """Whether enough calls were seen for their spread to mean something."""
        line = self._line(backend, version)
        return line is not None and line.count >= _ENOUGH

    def _line(self, backend: str, version: ModelVersion, within_s: float = _FORGOTTEN_S) -> _Line | None:
        line = self._lines.get((backend, version.model, version.version))
        return None if line is None or self._clock() - line.at_s >= min(within_s, _FORGOTTEN_S) else line
