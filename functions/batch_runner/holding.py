"""The hold on a step's message, and on its job: both are renewed on a thread while the step runs."""

import logging
from collections.abc import Callable
from threading import Event, Thread
from time import monotonic
from typing import Final

from shared.domain.batch_ports import Stopped
from shared.domain.errors import SluiceError

_log = logging.getLogger(__name__)

# A killed worker's message comes back after so long.
VISIBLE_S: Final = 30.0
BEAT_S: Final = 5.0


class MessageHold:
    """Implements `shared.domain.batch_ports.Held`, in a `with`; `hide` hides the message for so many seconds.

    `ends` is a moment of `time.monotonic`.
    """

    def __init__(self, hide: Callable[[float], None], ends: float, *, beat_s: float = BEAT_S) -> None:
        self._hide = hide
        self._ends = ends
        self._beat_s = beat_s
        self._still_ours: Callable[[], bool] = lambda: True
        self._lost = False
        self._over = Event()
        self._thread = Thread(target=self._work, name="hold", daemon=True)

    def __enter__(self) -> "MessageHold":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def keep(self, still_ours: Callable[[], bool]) -> None:
        """See `Held`."""
        self._still_ours = still_ours

    def check(self) -> None:
        """See `Held`."""
        if self._lost:
            raise Stopped("the job has ended, or is another worker's", later=False)
        if self.left_s() <= 0:
            raise Stopped("the worker has no time left", later=True)

    def left_s(self) -> float:
        """See `Held`."""
        return self._ends - monotonic()

    def _work(self) -> None:
        while not self._over.wait(self._beat_s):
            try:
                self._hide(VISIBLE_S)
                if not self._still_ours():
                    self._lost = True
            except SluiceError as error:
                # Six beats fit into one visibility: the next one may do.
                _log.warning("a step's hold is not renewed", extra={"fields": {"reason": error.detail}})
            except Exception:  # noqa: BLE001  # the thread must go on: the step is stopped by its own end
                _log.exception("a step's hold is not renewed")
