"""Histograms and summed durations: numbers that are cheap to add to."""

from bisect import bisect_left
from collections.abc import Sequence

# Seconds. The small ones tell a batch on the loop from one in a thread, the large ones end at the longest deadlines.
SECONDS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)


class Histogram:
    """How many values fell into each class: `counts[i]` are those ≤ `bounds[i]`, the last those above all bounds."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, n: int = 1) -> None:
        """Count `value` `n` times."""
        self.counts[bisect_left(self.bounds, value)] += n
        self.sum += value * n

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.counts)


class Duration:
    """How often something was done and how long that took in all, as V2 statistics show it."""

    __slots__ = ("count", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0

    def add(self, seconds: float, n: int = 1) -> None:
        """Count `n` times, which took `seconds` each."""
        self.count += n
        self.seconds += seconds * n

    @property
    def ns(self) -> int:
        """The whole time in nanoseconds."""
        return round(self.seconds * 1e9)
