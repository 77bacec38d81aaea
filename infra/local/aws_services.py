"""The AWS services of the local stack: moto's server, made atomic, with the real functions behind Lambda's Invoke.

Run as `python -m infra.local.aws_services --port 4566 --lambda-url http://127.0.0.1:PORT`. It is ready once
`GET /moto-api/data.json` answers 200. State lives as long as the process.
"""

import argparse
import json
import logging
import os
import re
import signal
from collections.abc import Callable, Iterable
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, cast

import urllib3

from infra.local.stack import ACCOUNT_ID, REGION

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_INVOKE: Final = re.compile(r"/2015-03-31/functions/[^/]+/invocations")
_SCOPE: Final = re.compile(r"Credential=[^/]+/\d+/[^/]+/([^/]+)/aws4_request")
_MAX_INVOKE_BYTES: Final = 6 * 1024 * 1024  # Lambda's limit on a synchronous request
# A forwarded invocation keeps its thread until the function has answered, and that function needs threads, too.
_THREADS: Final = 64
# Lambda lets a function run for 15 minutes, and its service may have requests queueing before that.
_INVOKE_TIMEOUT: Final = urllib3.Timeout(connect=2, read=960)
_HOP_BY_HOP: Final = frozenset({"connection", "content-length", "host", "keep-alive", "transfer-encoding"})


class Atomic:
    """WSGI middleware that gives moto's stores the atomicity that AWS promises.

    moto checks a condition and writes in two steps, changes items in place, and undoes a cancelled transaction after
    the fact. So two writers can both pass a condition, and a reader can see half an update or a transaction that is
    taken back: **reads during a write are not safe**, and every DynamoDB call is serialised, not only the writes. moto
    is pure Python, so the interpreter's own lock serialises its work anyway, and nothing is lost by it. In S3 it is
    the conditional writes (If-None-Match, If-Match) that race, and these with any other write, so writes are
    serialised and reads are not. The two services have a lock each; the other services have none.
    """

    def __init__(self, app: "WSGIApplication") -> None:
        self._app = app
        self._dynamodb = Lock()
        self._s3_writes = Lock()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """WSGI."""
        lock = self._lock(environ)
        if lock is None:
            return self._app(environ, start_response)
        with lock:
            # Drained under the lock: an answer may be rendered while it is iterated.
            return _drained(self._app(environ, start_response))

    def _lock(self, environ: "WSGIEnvironment") -> "Lock | None":
        if environ.get("HTTP_X_AMZ_TARGET", "").startswith("DynamoDB"):
            return self._dynamodb
        if environ["REQUEST_METHOD"] in {"GET", "HEAD", "OPTIONS"} or "HTTP_X_AMZ_TARGET" in environ:
            return None
        scope = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
        # Like moto, take a request without that header (a presigned one) for S3's.
        return self._s3_writes if scope is None or scope[1] == "s3" else None


class LambdaForward:
    """WSGI middleware that passes Lambda's Invoke on to the service that runs the real functions."""

    def __init__(self, app: "WSGIApplication", lambda_url: str) -> None:
        self._app = app
        self._url = lambda_url.rstrip("/")
        self._pool = urllib3.PoolManager(maxsize=64, timeout=_INVOKE_TIMEOUT, retries=False)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """WSGI."""
        # The address as it was sent: a function may be named by its ARN, with its colons encoded.
        target = str(environ.get("REQUEST_URI") or environ["PATH_INFO"])
        path = target.partition("?")[0]
        if environ["REQUEST_METHOD"] != "POST" or _INVOKE.fullmatch(path) is None:
            return self._app(environ, start_response)
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length > _MAX_INVOKE_BYTES:
            message = f"Request must be smaller than {_MAX_INVOKE_BYTES} bytes for the InvokeFunction operation"
            return _lambda_error(start_response, "413 Request Entity Too Large", "RequestTooLargeException", message)
        payload = environ["wsgi.input"].read(length)
        try:
            answer = self._pool.request(
                "POST", self._url + target, body=payload, headers=_headers(environ), redirect=False
            )
        except urllib3.exceptions.HTTPError as error:
            message = f"The local Lambda service at {self._url} does not answer: {error}"
            return _lambda_error(start_response, "500 Internal Server Error", "ServiceException", message)
        headers = [(name, value) for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP]
        headers.append(("Content-Length", str(len(answer.data))))
        start_response(f"{answer.status} {answer.reason or 'OK'}", headers)
        return [answer.data]


def build_app(lambda_url: str, *, atomic: bool = True) -> "WSGIApplication":
    """The whole WSGI application; `atomic=False` is bare moto, for the test that shows what the locks are for."""
    # What moto takes from the environment must be there before its modules are imported.
    os.environ["MOTO_ACCOUNT_ID"] = ACCOUNT_ID
    os.environ["AWS_DEFAULT_REGION"] = REGION
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    class Dispatcher(DomainDispatcherApplication):
        """moto lists the folder of its own modules at every request, a fifth of the time of a DynamoDB call."""

        get_backend_for_host = staticmethod(
            lru_cache(maxsize=256)(DomainDispatcherApplication(create_backend_app).get_backend_for_host)
        )

    def create(service: Any) -> Any:
        backend = create_backend_app(service)
        if service == "sagemaker":
            from moto.sagemaker.models import FakeEndpointConfig

            # moto's list of instance types is years old: it refuses ml.g5 and all that came after.
            FakeEndpointConfig.validate_instance_type = lambda *_: None  # type: ignore[method-assign]
        return backend

    moto_app = cast("WSGIApplication", Dispatcher(create))
    return LambdaForward(Atomic(moto_app) if atomic else moto_app, lambda_url)


def serve(app: "WSGIApplication", port: int, on_bound: Callable[[int], None] | None = None) -> None:
    """Serves `app` on 127.0.0.1 until the process ends.

    Port 0 takes a free one; `on_bound` is told which. Not werkzeug's own server: between two requests of a kept
    connection it throws away what the client has sent already, which is the next request of a fast client.
    """
    from waitress import create_server
    from waitress.channel import HTTPChannel
    from waitress.parser import HTTPRequestParser

    class Parser(HTTPRequestParser):  # type: ignore[misc]  # waitress has no types
        """Waitress waits for ever for a body of no bytes that was announced with `Expect: 100-continue`."""

        def parse_header(self, header_plus: bytes) -> None:
            super().parse_header(header_plus)
            if not self.chunked and not self.content_length:
                self.expect_continue = False

    class Channel(HTTPChannel):  # type: ignore[misc]
        parser_class = Parser

    # A warning for every request that waits a moment for a thread is no news here.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    server = create_server(app, host="127.0.0.1", port=port, threads=_THREADS, backlog=128, ident=None)
    server.channel_class = Channel
    if on_bound is not None:
        on_bound(server.effective_port)
    server.run()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m infra.local.aws_services", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--lambda-url", required=True)
    arguments = parser.parse_args()
    # At once, and without a traceback: nothing here outlives the process.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    serve(build_app(arguments.lambda_url), arguments.port)


def _drained(answer: Iterable[bytes]) -> list[bytes]:
    try:
        return list(answer)
    finally:
        close = getattr(answer, "close", None)
        if close is not None:
            close()


def _headers(environ: "WSGIEnvironment") -> dict[str, str]:
    headers = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): str(value)
        for name, value in environ.items()
        if name.startswith("HTTP_") or (name == "CONTENT_TYPE" and value)
    }
    return {name: value for name, value in headers.items() if name not in _HOP_BY_HOP}


def _lambda_error(start_response: "StartResponse", status: str, code: str, message: str) -> list[bytes]:
    """An error as Lambda's rest-json protocol gives it."""
    body = json.dumps({"Type": "Service", "Message": message}).encode()
    start_response(
        status,
        [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("x-amzn-ErrorType", code),
        ],
    )
    return [body]


if __name__ == "__main__":
    main()
