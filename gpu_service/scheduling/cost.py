"""How long a batch takes: learned from the batches of one model, one machine and one session.

Sizes fall into classes of powers of two. Each keeps a moving average of its run times; what lies between is told from a
line through the classes, seconds = a + b·rows.
"""

from math import inf

_CLASSES = 25  # up to 2^24 rows
_WEIGHT = 0.1  # of a new run in its class's average
_OUTLIER = 4.0  # a run counts at most as so many times the average: a machine that was busy elsewhere says little
_GAIN = 0.97  # a larger batch must be this much quicker per row, else the smaller one answers sooner
_SHARE, _MOST_SHARE = 0.25, 0.5  # of the time that there is for an answer, for the run of its batch
_HALF = 0.55
_REFIT_RUNS = 32
_EXPLORE_RUNS = 256
_EXPLORE_BATCHES = 3
_PROBE_REFUSALS = 16


class CostModel:
    """Belongs to one thread. Until a first run is known, every batch is predicted to take no time."""

    __slots__ = (
        "_a",
        "_b",
        "_best",
        "_counts",
        "_explored",
        "_exploring",
        "_left",
        "_mean_rows",
        "_refusals",
        "_runs",
        "_seconds",
    )

    def __init__(self) -> None:
        self._seconds = [0.0] * _CLASSES  # the average run time, 0 where a class has no run
        self._mean_rows = [0.0] * _CLASSES
        self._counts = [0] * _CLASSES
        self._a = 0.0
        self._b = 0.0
        self._best = 0
        self._runs = 0
        self._exploring = -1  # a class that is tried again
        self._explored = 0
        self._left = 0
        self._refusals = 0

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from a batch of `rows` (from 1 on) that ran alone in its session for `seconds`."""
        size = (rows - 1).bit_length()
        if size >= _CLASSES:
            return
        self._runs += 1
        count = self._counts[size] = self._counts[size] + 1
        if count == 1:
            self._seconds[size] = max(seconds, 1e-9)
            self._mean_rows[size] = rows
            self._refit()
        else:
            known = self._seconds[size]
            if seconds < known * 0.5:  # no run is quicker than it can be: the average holds one that was held up
                weight = 0.8
            else:
                weight = _WEIGHT if count > 10 else 1 / count
                seconds = min(seconds, known * _OUTLIER)
            self._seconds[size] = known + weight * (seconds - known)
            mean = self._mean_rows[size]
            self._mean_rows[size] = mean + weight * (rows - mean)
            if self._runs % _REFIT_RUNS == 0 or size == self._exploring:
                self._refit()
        if self._exploring >= 0:
            self._left -= 1
            if self._left <= 0:
                self._exploring = -1
        elif self._runs % _EXPLORE_RUNS == 0:
            self._explore()

    def predict(self, rows: int) -> float:
        """Seconds that a batch of `rows` will take; 0 if nothing is known yet."""
        size = (rows - 1).bit_length()
        if size < _CLASSES and self._counts[size]:
            seconds = self._seconds[size] + self._b * (rows - self._mean_rows[size])
            return seconds if seconds > 0.0 else 0.0
        return self._a + self._b * rows

    def best_rows(self, limit: int, seconds: float = inf) -> int:
        """The rows of the batch, at most `limit`, that is quickest per row; of those close to it the smallest.

        The next larger size counts as quicker until it was tried, and now and then a neighbouring size is tried again.
        Where there are so many `seconds` for an answer, it leaves time to wait for others: half of them, or where
        smaller batches are hardly slower three quarters.
        """
        if limit <= 1 or not self._runs:
            return limit
        size = self._best if self._exploring < 0 else self._exploring
        rows: int = 1 << size
        rows = rows if rows < limit else limit
        while rows > 1 and seconds != inf:
            run = self.predict(rows)
            if run <= (_SHARE if self._halves_well(rows) else _MOST_SHARE) * seconds:
                break
            rows //= 2
        return rows

    def _halves_well(self, rows: int) -> bool:
        """Whether half a batch takes about half of its time."""
        return self._a + self._b * (rows // 2) <= _HALF * (self._a + self._b * rows)

    def predicted_finish(self, *, rows: int, waiting: int, running: int, callers: int, limit: int = 1 << 24) -> float:
        """Seconds until a new request of `rows` would have its answer, 0 if nothing is known yet; see `plan`."""
        return sum(self.plan(rows=rows, waiting=waiting, running=running, callers=callers, limit=limit))

    def plan(
        self, *, rows: int, waiting: int, running: int, callers: int, limit: int = 1 << 24, seconds: float = inf
    ) -> tuple[float, float]:
        """Seconds until the run of a new request of `rows` would begin, and those of the run; 0 if nothing is known.

        `waiting` rows are served before it, `running` ones are in sessions now, half done on average; up to `callers`
        batches of at most `limit` rows run side by side. Where it has to wait, others will fill its batch meanwhile.
        There are `seconds` for its answer.
        """
        if not self._runs:
            return 0.0, 0.0
        full = self.best_rows(limit, seconds)
        ahead, rest = divmod(waiting, full)
        if rest + rows > full and rest:  # it does not fit beside the last of those
            ahead, rest = ahead + 1, 0
        wait = ahead * self.predict(full) / callers if ahead else 0.0
        if running:
            wait += self.predict(-(-running // callers)) * (0.5 if running >= callers else 0.5 * running / callers)
        return wait, self.predict(max(rest + rows, full) if wait else rest + rows)

    def may_probe(self) -> bool:
        """Whether a request may run though it is predicted to miss its deadline: once in some calls.

        Only runs correct a prediction. Were all refused because of one slow run, it would stand for ever.
        """
        self._refusals += 1
        return self._refusals % _PROBE_REFUSALS == 0

    def _refit(self) -> None:
        """Find the line through the classes with the least squares of relative errors, and the best class."""
        known = [size for size in range(_CLASSES) if self._counts[size]]
        w = wn = wt = wnn = wnt = 0.0
        for size in known:
            seconds, rows = self._seconds[size], self._mean_rows[size]
            weight = 1.0 / (seconds * seconds)
            w += weight
            wn += weight * rows
            wt += weight * seconds
            wnn += weight * rows * rows
            wnt += weight * rows * seconds
        spread = w * wnn - wn * wn
        slope = (w * wnt - wn * wt) / spread if spread > 1e-9 * w * wnn else wt / wn
        self._b = min(max(slope, 0.0), wnt / wnn)  # neither a negative slope nor, for the line, a negative start
        self._a = max((wt - self._b * wn) / w, 0.0)
        self._best = self._choose(known)

    def _choose(self, known: list[int]) -> int:
        """The smallest class close to the best; the next one if it was never tried: it may be better still."""
        per_row = {size: self._seconds[size] / self._mean_rows[size] for size in known}
        least = min(per_row.values(), default=inf)
        chosen = next(size for size in known if per_row[size] * _GAIN <= least)
        follower = chosen + 1
        return follower if follower < _CLASSES and not self._counts[follower] else chosen

    def _explore(self) -> None:
        """Let the next batches be one class larger, or at the next occasion smaller: machines change."""
        self._explored += 1
        size = self._best + (1 if self._explored % 2 else -1)
        if 0 <= size < _CLASSES:
            self._exploring = size
            self._left = _EXPLORE_BATCHES
            self._counts[size] = min(self._counts[size], 1)  # what is found now weighs as much as what is remembered
