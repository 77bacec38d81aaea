"""What happened in the AWS services and is for functions: kept until the supervisor has fetched it.

It lives in the process of the AWS services, as their stores do: what is in it is lost only with them. The supervisor
asks for what comes after the last entry that it has dealt with (`GET /_sluice/events?after=N&wait=SECONDS`), so an
answer that gets lost is given again.
"""

import json
from collections import deque
from collections.abc import Iterable, Mapping
from threading import Condition
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from infra.local.aws_forward import service_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PATH: Final = "/_sluice/events"
MAX_WAITING: Final = 100_000
MAX_WAITING_BYTES: Final = 256 * 1024 * 1024
_BATCH: Final = 100
_BATCH_BYTES: Final = 4 * 1024 * 1024
_MAX_WAIT_S: Final = 20.0
# None: a presigned request, which is S3's.
_SOURCES: Final = frozenset({"events", "s3", "sns", None})


class Outbox:
    """Records in the order in which they came; safe to use from several threads."""

    def __init__(self, max_waiting: int = MAX_WAITING, max_bytes: int = MAX_WAITING_BYTES) -> None:
        self._max_waiting = max_waiting
        self._max_bytes = max_bytes
        self._entries: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._last = 0
        self._arrived = Condition()

    @property
    def is_full(self) -> bool:
        """Whether no more should be taken on; what is put nevertheless is kept."""
        return len(self._entries) >= self._max_waiting or self._bytes >= self._max_bytes

    def put(self, record: Mapping[str, Any]) -> None:
        """Keep a record, which must be JSON."""
        data = json.dumps(record).encode()
        with self._arrived:
            self._last += 1
            self._entries.append((self._last, data))
            self._bytes += len(data)
            self._arrived.notify_all()

    def read(self, after: int, wait_s: float) -> tuple[int, list[bytes]]:
        """Records after number `after`, and the number of the last of them; those up to `after` are dropped.

        Waits up to `wait_s` for the first one.
        """
        with self._arrived:
            while self._entries and self._entries[0][0] <= after:
                self._bytes -= len(self._entries.popleft()[1])
            if not self._entries:
                self._arrived.wait(wait_s)
            found: list[bytes] = []
            last, size = after, 0
            for number, data in self._entries:
                if len(found) == _BATCH or size >= _BATCH_BYTES:
                    break
                last = number
                found.append(data)
                size += len(data)
            return last, found


class EventFeed:
    """WSGI middleware: the door to an outbox, and the answer "slow down" to new writes while it is full."""

    def __init__(self, app: "WSGIApplication", outbox: Outbox) -> None:
        self._app = app
        self._outbox = outbox

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """WSGI."""
        if environ["PATH_INFO"] == PATH:
            return self._read(environ, start_response)
        if (
            self._outbox.is_full
            and environ["REQUEST_METHOD"] in {"PUT", "POST", "DELETE"}
            and service_of(environ) in _SOURCES
        ):
            # As S3 says it; any client tries again after a 503.
            body = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
            return _answer(start_response, "503 Slow Down", "application/xml", body)
        return self._app(environ, start_response)

    def _read(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        asked = parse_qs(environ.get("QUERY_STRING", ""))
        after, wait_s = int(asked.get("after", ["0"])[0]), float(asked.get("wait", ["0"])[0])
        last, records = self._outbox.read(after, min(wait_s, _MAX_WAIT_S))
        body = b'{"last":%d,"records":[%s]}' % (last, b",".join(records))
        return _answer(start_response, "200 OK", "application/json", body)


def _answer(start_response: "StartResponse", status: str, content_type: str, body: bytes) -> list[bytes]:
    start_response(status, [("Content-Type", content_type), ("Content-Length", str(len(body)))])
    return [body]
