"""Receivers of webhooks on loopback: HTTP servers in threads that answer as they are told, and remember."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Mapping[str, str], bytes]


@dataclass(frozen=True)
class Got:
    """A request; header names are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Receiver:
    """`answers` are given in turn, the last one from then on; `hold` makes each wait for `release`."""

    url: str = ""
    answers: list[Answer] = field(default_factory=lambda: [(204, {}, b"")])
    got: list[Got] = field(default_factory=list)
    hold: bool = False
    release: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, request: Got) -> Answer:
        with self._lock:
            self.got.append(request)
            answer = self.answers[min(len(self.got), len(self.answers)) - 1]
        self.arrived.set()
        if self.hold:
            self.release.wait(30)
        return answer


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, sent, content = receiver.take(Got(self.path, headers, body))
            try:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **sent}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                self.close_connection = True  # the sender did not wait

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Keep the test's output clean."""

    return Handler


@contextmanager
def receiving(wrap: Callable[[Any], Any] | None = None) -> Iterator[Receiver]:
    """A receiver that answers 204 until told otherwise; `wrap` makes its socket one of TLS."""
    receiver = Receiver()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(receiver)) as http:
        http.daemon_threads = True
        if wrap is not None:
            http.socket = wrap(http.socket)
        receiver.url = f"{'http' if wrap is None else 'https'}://127.0.0.1:{http.server_address[1]}/hook"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield receiver
        finally:
            receiver.release.set()
            http.shutdown()
            thread.join()
