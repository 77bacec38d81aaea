"""A Lambda Runtime API with the operations of SnapStart, and AWS's runtime client in a process on it.

Sources: AWS Lambda Developer Guide, "Using the Lambda runtime API"; for `restore/next` and `restore/error`, which that
page does not describe, `awslambdaric.lambda_runtime_client`.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from threading import Condition, Event, Thread
from time import time
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from tests.conftest import ROOT

_PREFIX = "/2018-06-01/runtime/"
_WAIT_S = 60


class RuntimeApi:
    """Runs `handler` in `environment`; `operations` are those that the runtime client has called, in order."""

    def __init__(self, handler: str, environment: Mapping[str, str]) -> None:
        self.operations: list[str] = []
        self.errors: list[str] = []
        self.changed = Condition()
        self.restored = Event()
        self.work: Queue[tuple[dict[str, str], bytes] | None] = Queue()
        self.answers: Queue[Any] = Queue()
        api = self

        class Bound(_Operations):
            runtime = api

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._command = [sys.executable, "-m", "awslambdaric", handler]
        self._environment = {**environment, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._server.server_port}"}
        self._output = b""

    def __enter__(self) -> Self:
        self._thread.start()
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._output = self._process.communicate()[0]
        self.restored.set()
        self.work.put(None)
        self._server.shutdown()
        self._server.server_close()
        if error is not None:
            error.add_note(self._output.decode())

    def wait_for(self, operation: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: operation in self.operations, _WAIT_S), self.operations

    def wait(self) -> int:
        """The exit status of the process, once it has ended."""
        return self._process.wait(_WAIT_S)

    def restore(self) -> None:
        """Let the process go on, as if it had been restored."""
        self.restored.set()

    def invoke(self, event: Mapping[str, Any], *, trace_id: str) -> Any:
        """The answer of the handler."""
        headers = {
            "Lambda-Runtime-Aws-Request-Id": str(uuid4()),
            "Lambda-Runtime-Deadline-Ms": str(int((time() + 30) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:000000000000:function:predict:1",
            "Lambda-Runtime-Trace-Id": trace_id,
        }
        self.work.put((headers, json.dumps(event).encode()))
        return self.answers.get(timeout=_WAIT_S)

    def log_lines(self) -> list[dict[str, Any]]:
        """The lines that the process has written."""
        return [json.loads(line) for line in self._output.splitlines()]


class _Operations(BaseHTTPRequestHandler):
    runtime: RuntimeApi
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with suppress(ConnectionError):  # the process was ended while it waited
            super().handle()

    def do_GET(self) -> None:
        operation = self._record()
        if operation == "restore/next":
            self.runtime.restored.wait(_WAIT_S)
            self._answer(200, {}, b"")
        elif (work := self.runtime.work.get(timeout=_WAIT_S)) is not None:
            self._answer(200, *work)
        else:
            self._answer(410, {}, b"{}")

    def do_POST(self) -> None:
        operation = self._record()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"null")
        if operation.endswith("/error"):
            self.runtime.errors.append(body["errorType"])
        else:
            self.runtime.answers.put(body)
        self._answer(202, {}, b"{}")

    def _record(self) -> str:
        operation = self.path.removeprefix(_PREFIX)
        with self.runtime.changed:
            self.runtime.operations.append(operation)
            self.runtime.changed.notify_all()
        return operation

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keeps the output of the tests quiet."""
