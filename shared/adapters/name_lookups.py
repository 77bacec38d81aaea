"""Looks names up within a time, on threads of its own: the system's resolver has none, and who hangs holds a thread.

What hangs goes on hanging after nobody waits for it any more: some 20 seconds, as the resolver is set up. So the names
of one tenant, which may be as many as it likes, have a few of the threads at a time; more of them wait for these.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Condition
from time import monotonic
from typing import Any, Final

Resolve = Callable[[str, int], Sequence[str]]
"""The addresses of a name, as texts; OSError if it has none."""

# More than ten senders, which each wait for four seconds, can keep hanging.
_THREADS: Final = 64
_OF_A_TENANT: Final = 4


class NameLookups:
    """Lookups by `resolve`: `of_a_tenant` at a time of each tenant, `threads` of all; threads may share one."""

    def __init__(self, resolve: Resolve, *, threads: int = _THREADS, of_a_tenant: int = _OF_A_TENANT) -> None:
        self._resolve = resolve
        self._of_a_tenant = of_a_tenant
        self._pool = ThreadPoolExecutor(threads, "resolve")
        self._freed = Condition()
        self._running: Counter[str] = Counter()

    def __call__(self, tenant: str, host: str, port: int, seconds: float) -> Sequence[str]:
        """The addresses of a name of the tenant's; TimeoutError after `seconds`, else what `resolve` raises."""
        ends = monotonic() + seconds
        with self._freed:
            if not self._freed.wait_for(lambda: self._running[tenant] < self._of_a_tenant, seconds):
                raise TimeoutError("other names of the tenant are still looked up")
            self._running[tenant] += 1

        def ended(_: "Future[Any]") -> None:
            with self._freed:
                self._running[tenant] -= 1
                if not self._running[tenant]:
                    del self._running[tenant]
                self._freed.notify_all()

        asked = self._pool.submit(self._resolve, host, port)
        asked.add_done_callback(ended)
        try:
            return asked.result(max(0.0, ends - monotonic()))
        except TimeoutError:
            asked.cancel()  # if it has not begun
            raise
