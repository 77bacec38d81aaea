"""How many retries and hedges are left: when most calls fail, more of them would only add to the load.

Source of the idea: Finagle's `RetryBudget` and the retry throttling of gRPC (gRFC A6): tokens for calls that went well.
"""

from threading import Lock
from typing import Final

_MOST: Final = 10.0
# An environment that has just started may try again, too.
_FIRST: Final = 2.0


class RetryBudget:
    """Tokens: a call that went well brings `budget` of one, a retry or hedge takes one; safe for threads."""

    __slots__ = ("_lock", "_tokens")

    def __init__(self) -> None:
        self._lock = Lock()
        self._tokens = _FIRST

    def succeeded(self, budget: float) -> None:
        """A call went well; at most ten tokens are kept."""
        with self._lock:
            self._tokens = min(_MOST, self._tokens + budget)

    def take(self, budget: float) -> bool:
        """Whether one more call may be made; with a budget of 0 none ever may."""
        with self._lock:
            if budget <= 0 or self._tokens < 1:
                return False
            self._tokens -= 1
            return True
