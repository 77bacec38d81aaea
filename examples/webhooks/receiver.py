"""A receiver of webhooks: `WEBHOOK_SECRET=whsec_… python -m examples.webhooks.receiver [PORT]`.

It answers before it does the work, and does nothing twice: an event that is sent again has the same `webhook-id`.
"""

import json
import os
import queue
import sys
import threading
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from examples.webhooks.verify import verify

MAX_BODY = 64 * 1024
# In a real receiver this is a table that outlives the process, with a unique key; a day of ids is enough.
REMEMBERED = 10_000


class Receiver:
    """Takes what is signed, once, and hands it to a thread that works it off."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        self.events: queue.Queue[dict[str, Any]] = queue.Queue(maxsize=1000)

    def take(self, headers: dict[str, str], body: bytes) -> int:
        """The status of the answer: 2xx is taken, anything else is sent again later."""
        if not verify(self._secret, headers, body):
            return 401
        with self._lock:
            if headers["webhook-id"] in self._seen:
                return 200
            try:
                self.events.put_nowait(json.loads(body))
            except queue.Full:
                return 503
            self._seen[headers["webhook-id"]] = None
            if len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
        return 202


def handler_of(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    """The handler of a server for a receiver."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal() or int(length) > MAX_BODY:
                self.send_error(413)
                return
            body = self.rfile.read(int(length))
            self.send_response(receiver.take({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Handler


def main() -> None:
    """Print events until the process is ended."""
    receiver = Receiver(os.environ["WEBHOOK_SECRET"])
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9000
    server = ThreadingHTTPServer(("127.0.0.1", port), handler_of(receiver))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        event = receiver.events.get()
        sys.stdout.write(f"{event['type']}: {json.dumps(event['data'])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
