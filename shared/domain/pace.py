"""How many rows run at once: as many as make the most of them a second, found by trying."""

from dataclasses import dataclass, field
from typing import Final

FIRST: Final = 16
# A larger batch is taken if it is about as fast: what is read and written around it costs less.
_WORTH: Final = 0.95
# Two sizes take turns, each so often, and the best run of each counts: the machine does other things as well, and what
# slows one size for a while is to slow the other one too.
_RUNS: Final = 4
# Sizes that bring nothing may lie between ones that do, but not many of them.
_PATIENCE: Final = 3
# Between two batches a run can be stopped, so none may take long.
_LONGEST_MS: Final = 2000.0


@dataclass(slots=True)
class Pace:
    """The number of rows for the next batch of a model; doubles while that pays, up to a bound that each call has."""

    _best: int = FIRST
    _tried: int = FIRST * 2
    _best_rates: list[float] = field(default_factory=list)
    _tried_rates: list[float] = field(default_factory=list)
    _rate: float = 0.0
    _idle: int = 0
    _settled: bool = False

    def rows(self, most: int) -> int:
        """Rows for the next batch, 1 to `most`."""
        return max(1, min(self._next, most))

    @property
    def rate(self) -> float:
        """Rows a second at the best size so far; 0 before anything was measured."""
        return self._rate

    def note(self, rows: int, ms: float, most: int) -> None:
        """Learn what a batch of `rows` took, where up to `most` could have been run."""
        if self._settled or rows < min(self._next, most):  # the last one of a file says nothing
            return
        rate = rows / max(ms, 1e-3) * 1e3
        can_grow = rows < most and ms * 2 <= _LONGEST_MS
        if not self._tries:
            self._best_rates.append(rate)
            self._rate = max(self._best_rates)
            self._settled = not can_grow
            return
        self._tried_rates.append(rate)
        if len(self._tried_rates) == _RUNS or ms > _LONGEST_MS:
            self._compare(rows)
            self._settled = self._idle >= _PATIENCE or not can_grow

    def too_much(self, rows: int) -> None:
        """Run fewer rows at once from now on: so many did not end in time."""
        self._settled = True
        self._best = max(1, min(self._best, rows // 2))

    @property
    def _tries(self) -> bool:
        """Whether the larger size is next."""
        return not self._settled and len(self._tried_rates) < len(self._best_rates)

    @property
    def _next(self) -> int:
        return self._tried if self._tries else self._best

    def _compare(self, rows: int) -> None:
        """Take the larger size if it is worth it, and try the next one."""
        rate = max(self._tried_rates)
        if rate >= max(self._best_rates) * _WORTH:
            self._best, self._rate, self._idle = rows, rate, 0
        else:
            self._idle += 1
        self._best_rates.clear()
        self._tried_rates.clear()
        self._tried = rows * 2
