"""Calls that block, given up at their deadline.

A socket may hang whatever timeout it has, so a call runs on a thread of its own and only its result is waited for. What
is abandoned runs on until its socket lets go: a bound for each backend keeps dead ones from taking all threads.
"""

import logging
from collections.abc import Callable
from contextvars import copy_context
from queue import Empty, SimpleQueue
from threading import Lock, Thread, current_thread
from time import perf_counter
from typing import Any, Final, Generic, TypeVar

from shared.domain.errors import BackendTimeout, Overloaded

_log = logging.getLogger(__name__)

T = TypeVar("T")

_PER_BACKEND: Final = 8
_IDLE: Final = 8
_THREADS: Final = 128


class Call(Generic[T]):
    """A call under way; once it has ended, `error` or else `value` is what came of it, after `ms` milliseconds."""

    __slots__ = (
        "_abandoned",
        "_context",
        "_done",
        "_ended",
        "_function",
        "_late",
        "backend",
        "brief",
        "error",
        "ms",
        "value",
    )

    def __init__(
        self,
        backend: str,
        function: Callable[[], T],
        done: "SimpleQueue[Call[T]]",
        late: Callable[["Call[T]"], None] | None,
        *,
        brief: bool,
    ) -> None:
        self.backend = backend
        self.brief = brief
        self.value: T | None = None
        self.error: BaseException | None = None
        self.ms = 0.0
        self._function: Callable[[], T] | None = function
        # What it calls counts for the request that asked, and for no later one if it is given up.
        self._context = copy_context()
        self._done: SimpleQueue[Call[T]] | None = done
        self._late = late
        self._abandoned = False
        self._ended = False

    def result(self) -> T:
        """The value; raises the error. Asked once: the error goes, and with it the frames that it holds."""
        error = self.error
        if error is None:
            return self.value  # type: ignore[return-value]  # T may be optional itself
        self.error = None
        try:
            raise error
        finally:
            del error


class DeadlineRunner:
    """Runs functions on daemon threads, which are kept for the next ones; safe for threads.

    At most `per_backend` calls of one backend are under way at once, the abandoned ones among them, and `threads` of
    all; `idle` threads are kept. `brief` calls, which are given so little time that most may be abandoned, have half of
    both: others always find some.
    """

    def __init__(self, *, per_backend: int = _PER_BACKEND, idle: int = _IDLE, threads: int = _THREADS) -> None:
        self._per_backend = per_backend
        self._most_idle = idle
        self._threads = threads
        self._lock = Lock()
        self._idle: list[SimpleQueue[Call[Any]]] = []
        self._under_way: dict[str, int] = {}
        self._brief: dict[str, int] = {}
        self._busy = 0
        self._busy_brief = 0

    def run(
        self,
        backend: str,
        function: Callable[[], T],
        deadline_s: float,
        *,
        late: Callable[[Call[T]], None] | None = None,
        brief: bool = False,
    ) -> T:
        """What `function` gives or raises within `deadline_s` seconds, else BackendTimeout at that moment.

        `late` is told of a call that ends after it was given up. Raises Overloaded if too many calls are under way.
        """
        if deadline_s <= 0:
            raise BackendTimeout(f"No time was left to call {backend}.")
        done: SimpleQueue[Call[T]] = SimpleQueue()
        call = self.start(backend, function, done, late=late, brief=brief)
        try:
            done.get(timeout=deadline_s)
        except Empty:
            if self.abandon(call):
                raise BackendTimeout(f"{backend} did not answer within {deadline_s * 1e3:.0f} ms.") from None
        return call.result()

    def start(
        self,
        backend: str,
        function: Callable[[], T],
        done: "SimpleQueue[Call[T]]",
        *,
        late: Callable[[Call[T]], None] | None = None,
        brief: bool = False,
    ) -> Call[T]:
        """Start a call, which is put into `done` when it ends, unless it was abandoned before; raises Overloaded."""
        call = Call(backend, function, done, late, brief=brief)
        with self._lock:
            self._enter(call)
            worker = self._idle.pop() if self._idle else None
        if worker is not None:
            worker.put(call)
            return call
        worker = SimpleQueue()
        worker.put(call)
        try:
            Thread(target=self._work, args=(worker,), name=f"call {backend}", daemon=True).start()
        except RuntimeError as error:
            with self._lock:
                self._leave(call)
            raise Overloaded("This environment cannot start another thread.") from error
        return call

    def abandon(self, call: Call[Any]) -> bool:
        """Wait for a call no longer; False if it has ended: then what came of it is there."""
        with self._lock:
            if call._ended:
                return False
            call._abandoned = True
            return True

    def under_way(self, backend: str) -> int:
        """Calls of a backend that have not ended."""
        return self._under_way.get(backend, 0)

    def _work(self, worker: "SimpleQueue[Call[Any]]") -> None:
        thread = current_thread()
        kept = True
        while kept:
            call = worker.get()
            thread.name = f"call {call.backend}"
            _run(call)
            kept = self._end(call, worker)
            # Until the next call comes, nothing of this one may be held.
            del call

    def _end(self, call: Call[Any], worker: "SimpleQueue[Call[Any]]") -> bool:
        """Hand over what came of a call; whether the worker is kept."""
        done, late = call._done, call._late
        call._done = call._late = None
        with self._lock:
            call._ended = True
            abandoned = call._abandoned
            if not abandoned:
                # Before the result is handed over: who gets it may have the next call at once.
                kept = self._rest(call, worker)
        if not abandoned:
            if done is not None:
                done.put(call)
            return kept
        if late is not None:
            try:
                late(call)
            except Exception:  # noqa: BLE001  # nobody waits for it any more
                _log.exception("a late result of %s could not be noted", call.backend)
        call.error = None
        with self._lock:
            return self._rest(call, worker)

    def _rest(self, call: Call[Any], worker: "SimpleQueue[Call[Any]]") -> bool:
        self._leave(call)
        if len(self._idle) >= self._most_idle:
            return False
        self._idle.append(worker)
        return True

    def _enter(self, call: Call[Any]) -> None:
        backend = call.backend
        under_way = self._under_way.get(backend, 0)
        if under_way >= self._per_backend or self._busy >= self._threads:
            raise Overloaded(f"{under_way} calls of {backend} are under way and do not end.")
        if call.brief:
            brief = self._brief.get(backend, 0)
            if brief >= max(1, self._per_backend // 2) or self._busy_brief >= max(1, self._threads // 2):
                raise Overloaded(f"{brief} calls of {backend} with a short deadline are under way and do not end.")
            self._brief[backend] = brief + 1
            self._busy_brief += 1
        self._under_way[backend] = under_way + 1
        self._busy += 1

    def _leave(self, call: Call[Any]) -> None:
        self._busy -= 1
        _count_down(self._under_way, call.backend)
        if call.brief:
            self._busy_brief -= 1
            _count_down(self._brief, call.backend)


def _count_down(counts: dict[str, int], key: str) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


def _run(call: Call[Any]) -> None:
    function, call._function = call._function, None
    started = perf_counter()
    try:
        if function is not None:
            call.value = call._context.run(function)
    except BaseException as error:  # noqa: BLE001  # raised where the result is waited for
        call.error = error
    call.ms = (perf_counter() - started) * 1e3
