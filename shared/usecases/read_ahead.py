"""An iterator that works on a thread of its own while what it gave is used."""

from collections.abc import Iterator
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_WAIT_S: Final = 0.1
# A thread that comes back from the model waits at most so long for the interpreter while rows are read; Python's own
# 5 ms are as long as a batch takes.
SWITCH_S: Final = 0.0005


class ReadAhead(Generic[T]):
    """At most `depth` items wait beside the one that is made; used in a `with`, whose end stops the thread."""

    def __init__(self, items: Iterator[T], depth: int = 2) -> None:
        self._items = items
        self._queue: Queue[tuple[bool, T | None, BaseException | None]] = Queue(depth)
        self._stop = Event()
        self._thread = Thread(target=self._work, name="read ahead", daemon=True)

    def __enter__(self) -> Iterator[T]:
        self._thread.start()
        return self._taken()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._queue.get_nowait()
            except Empty:
                self._thread.join(_WAIT_S)

    def _taken(self) -> Iterator[T]:
        while True:
            more, item, error = self._queue.get()
            if error is not None:
                raise error
            if not more:
                return
            yield item  # type: ignore[misc]  # None only where T has it

    def _work(self) -> None:
        try:
            for item in self._items:
                if not self._put((True, item, None)):
                    return
        except BaseException as error:  # noqa: BLE001  # raised where the items are used
            self._put((False, None, error))
        else:
            self._put((False, None, None))

    def _put(self, entry: tuple[bool, T | None, BaseException | None]) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(entry, timeout=_WAIT_S)
            except Full:
                continue
            return True
        return False
