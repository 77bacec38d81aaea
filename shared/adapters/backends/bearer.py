"""A bearer token that lies in Secrets Manager."""

import re
from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Final

from shared.domain.errors import BackendError

_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,8192}")
# However often a server refuses the token: each reading costs money and time.
_READ_AGAIN_S: Final = 10.0


class BearerToken:
    """Read when it is first needed, and again once a server refuses it; `secret` makes a new reader of the secret."""

    def __init__(self, secret: Callable[[], Callable[[], bytes]], *, clock: Callable[[], float] = monotonic) -> None:
        self._secret = secret
        self._clock = clock
        self._lock = Lock()
        self._reader: Callable[[], bytes] | None = None
        self._read_at = 0.0

    def __call__(self) -> str:
        """The token; raises BackendError if there is none."""
        with self._lock:
            if self._reader is None:
                self._reader, self._read_at = self._secret(), self._clock()
            reader = self._reader
        token = reader().decode("utf-8", "replace").strip()
        if not _TOKEN.fullmatch(token):
            raise BackendError("The secret for the model server holds no bearer token.")
        return token

    def renewed(self, refused: str) -> bool:
        """Whether there is, or may be, another token than the one that was refused; it is read by the next call."""
        with self._lock:
            due = self._clock() - self._read_at >= _READ_AGAIN_S
            if due:
                self._reader = None
        return due or self() != refused
