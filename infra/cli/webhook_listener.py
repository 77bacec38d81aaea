"""`sluice webhooks listen`: a receiver on this machine that verifies events and prints them."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import typer

from infra.cli.api_client import Api
from infra.cli.output import USAGE, Failure, console, messages, plain
from infra.cli.times import time_text
from infra.cli.webhooks import create
from shared.domain.webhook_signature import secret_of, verified

_HOST: Final = "127.0.0.1"
# Far over any event, see `shared.domain.webhook_events`.
_MAX_BODY: Final = 64 * 1024
_TIMEOUT_S: Final = 10.0


@dataclass
class Listener:
    """Prints the events that are verified; `left` is after how many it ends, None for never."""

    secret: bytes = b""
    as_json: bool = False
    left: int | None = None
    done: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, headers: Mapping[str, str], body: bytes) -> int:
        """The status of the answer."""
        if not verified(self.secret, headers, body, time.time()):
            messages.print("A request that is not signed with the secret of this webhook was refused.", style="yellow")
            return 401
        with self._lock:
            self._show(headers["webhook-id"], json.loads(body))
            if self.left is not None:
                self.left -= 1
                if self.left <= 0:
                    self.done.set()
        return 204

    def _show(self, message_id: str, event: dict[str, Any]) -> None:
        if self.as_json:
            typer.echo(json.dumps({"id": message_id, **event}))
            return
        data = event["data"]
        when, model = time_text(event["timestamp"]), data.get("model", {}).get("name", "")
        told = (when, event["type"], data.get("job_id", ""), model)
        console.print(plain("  ".join(part for part in told if part)), markup=False, soft_wrap=True)


def _handler(listener: Listener) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _TIMEOUT_S

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal() or int(length) > _MAX_BODY:
                self.send_error(413)
                return
            body = self.rfile.read(int(length))
            self.send_response(listener.take({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of http.server
            """Nothing but events is printed."""

    return Handler


def listening(
    listener: Listener, port: int, secret: str | None, api: Callable[[], Api], events: list[str] | None
) -> None:
    """Serve on a port until the listener has had enough; without a secret, of a webhook that is there for so long."""
    try:
        server = ThreadingHTTPServer((_HOST, port), _handler(listener))
    except OSError as error:
        raise Failure(f"Port {port} cannot be listened on: {error.strerror}. Try another --port.") from None
    with server:
        server.daemon_threads = True
        address = f"http://{_HOST}:{server.server_address[1]}/"
        if secret is not None:
            listener.secret = _given(secret)
            _serve(server, listener, address)
            return
        found = api()
        with _ended_like_ctrl_c():
            made = create(found, address, events, "sluice webhooks listen")
            listener.secret = secret_of(made["secret"])
            try:
                _serve(server, listener, address)
            finally:
                found.delete("v1", "webhooks", made["webhook_id"])


@contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """Whoever ends the process or closes its terminal means the same as Ctrl-C: no webhook may stay behind."""
    if threading.current_thread() is not threading.main_thread():  # which signals are for
        yield
        return
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _given(text: str) -> bytes:
    try:
        secret = secret_of(text)
    except ValueError:
        secret = b""
    if not secret:
        raise Failure("--secret takes what `sluice webhooks add` showed: whsec_ and base64.", exit_code=USAGE)
    return secret


def _serve(server: ThreadingHTTPServer, listener: Listener, address: str) -> None:
    """Answer until there were events enough, or the user ends it."""
    messages.print(f"Listening on {address}; Ctrl-C ends it.", markup=False, style="dim")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        listener.done.wait()
    except KeyboardInterrupt:
        messages.print("Ended.", style="dim")
    finally:
        server.shutdown()
        thread.join()
