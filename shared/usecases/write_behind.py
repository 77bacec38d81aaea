"""Calls made in order on a thread of their own, beside those that follow."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, ParamSpec, Self

P = ParamSpec("P")


class WriteBehind(Generic[P]):
    """Calls `write`, one call beside its caller at most; used in a `with`, whose end waits for the last one.

    What a call raises is raised by the next one, or at the end unless something else was raised by then.
    """

    def __init__(self, write: Callable[P, object]) -> None:
        self._write = write
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write behind")
        self._last: Future[object] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._thread.shutdown()
        if kind is None:
            self._wait()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Begin a call once the one before it has ended."""
        self._wait()
        self._last = self._thread.submit(self._write, *args, **kwargs)

    def _wait(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            last.result()
