"""What has to be done every few seconds while a batch of messages is worked off: on a thread of its own."""

import logging
from collections.abc import Callable
from threading import Event, Thread
from types import TracebackType
from typing import Final, Self

_log = logging.getLogger(__name__)

_PATIENCE_S: Final = 3.0


class Heartbeat:
    """Calls `beat` every `every_s` seconds within the block; what ends before that costs no call."""

    def __init__(self, beat: Callable[[], None], every_s: float) -> None:
        self._beat = beat
        self._every_s = every_s
        self._ended = Event()
        self._thread = Thread(target=self._work, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A beat whose call hangs is not waited for to its end: the answer is due, and it does no harm later on.
        self._ended.set()
        self._thread.join(_PATIENCE_S)

    def _work(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                self._beat()
            except Exception:  # noqa: BLE001  # this thread must go on as long as its batch does
                _log.exception("a heartbeat failed: the next one tries again")
