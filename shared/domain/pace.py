"""How many rows run at once: as many as make the most of them a second, found by trying."""

from dataclasses import dataclass, field
from typing import Final

FIRST: Final = 16
# A larger batch is taken if it is about as fast: what each batch costs around the model's run is not in its time.
_WORTH: Final = 0.97
# Each size is measured so often, and the best of them counts: the machine does other things as well.
_RUNS: Final = 4
# Sizes that bring nothing may lie between ones that do, but not many of them.
_PATIENCE: Final = 3
# Between two batches a run can be stopped, so none may take long.
_LONGEST_MS: Final = 2000.0


@dataclass(slots=True)
class Pace:
    """The number of rows for the next batch of a model; doubles while that pays, up to a bound that each call has."""

    _size: int = FIRST
    _best: int = FIRST
    _best_rate: float = 0.0
    _rates: list[float] = field(default_factory=list)
    _idle: int = 0
    _settled: bool = False

    def rows(self, most: int) -> int:
        """Rows for the next batch, 1 to `most`."""
        return max(1, min(self._best if self._settled else self._size, most))

    @property
    def rate(self) -> float:
        """Rows a second at the best size so far; 0 before anything was measured."""
        return self._best_rate

    def note(self, rows: int, ms: float, most: int) -> None:
        """Learn what a batch of `rows` took, where up to `most` could have been run."""
        if self._settled or rows < min(self._size, most):  # the last one of a file says nothing
            return
        self._rates.append(rows / max(ms, 1e-3) * 1e3)
        if len(self._rates) < _RUNS and ms < _LONGEST_MS:
            return
        rate = max(self._rates)
        self._rates.clear()
        if rate >= self._best_rate * _WORTH:
            self._best, self._best_rate, self._idle = rows, max(rate, self._best_rate), 0
        else:
            self._idle += 1
        if self._idle >= _PATIENCE or rows >= most or ms * 2 > _LONGEST_MS:
            self._settled = True
        else:
            self._size = rows * 2

    def too_much(self, rows: int) -> None:
        """Run fewer rows at once from now on: so many did not end in time."""
        self._settled = True
        self._best = max(1, min(self._best, rows // 2))
