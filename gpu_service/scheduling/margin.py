"""How far predictions of the time in the queue are to be trusted: learned from the waits that they led to.

A prediction knows nothing of the other models on the same cores, of what the machine does elsewhere, or of batches that
grow late. What is refused at once can be sent to another server; what is refused once its time is over cannot.
"""

_LEAST = 1.25  # what is predicted to begin just in time as often begins too late
_FIRST = 1.5
_MOST = 3.0
# Of the waits that were planned close to their limit, this share may turn out longer than they were expected to be.
_MISSES = 0.005
_STEP = 0.05


class WaitMargin:
    """Belongs to one thread. `factor` is how many times its prediction a wait is expected to take at most.

    It follows a quantile of what was seen: a step up for each wait that took longer, a far smaller one down for each
    other, in balance where the share of misses is the one wanted.
    Source: Robbins, Monro, "A Stochastic Approximation Method" (Annals of Mathematical Statistics 22, 1951).
    """

    __slots__ = ("factor",)

    def __init__(self) -> None:
        self.factor = _FIRST

    def learn(self, *, kept: bool) -> None:
        """A wait that was planned close to its limit is over; `kept` if it took no longer than expected at most."""
        if kept:
            self.factor = max(self.factor * (1.0 - _STEP * _MISSES), _LEAST)
        else:
            self.factor = min(self.factor * (1.0 + _STEP), _MOST)
