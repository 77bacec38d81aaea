"""The AWS services of the local stack: moto's server, made atomic, with the real functions behind Lambda's Invoke.

Run as `python -m infra.local.aws_services --port 4566 --lambda-url http://127.0.0.1:PORT`. It is ready once
`GET /moto-api/data.json` answers 200. State lives as long as the process.
"""

import argparse
import io
import json
import logging
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, cast

from infra.local import moto_fair_queues, moto_streams, moto_transactions
from infra.local.aws_forward import ForwardInvoke, ForwardServices, service_of
from infra.local.events import taps
from infra.local.events.outbox import EventFeed, Outbox
from infra.local.presigned import Presigned
from infra.local.stack import ACCOUNT_ID, REGION

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_WAIT_HEADER: Final = f"HTTP_{moto_streams.WAIT_HEADER.upper().replace('-', '_')}"
# A forwarded invocation keeps its thread until the function has answered, and that function needs threads, too.
_THREADS: Final = 64


class StreamWaits:
    """WSGI middleware that keeps GetRecords until there are some, for those who ask for it with a header.

    DynamoDB has no such thing: its readers ask again four times a second, which on one machine is work for nothing.
    """

    def __init__(self, app: "WSGIApplication") -> None:
        self._app = app

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """WSGI."""
        limit = environ.get(_WAIT_HEADER)
        if limit is not None and environ.get("HTTP_X_AMZ_TARGET") == moto_streams.GET_RECORDS:
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            environ["wsgi.input"] = io.BytesIO(body)
            moto_streams.wait_for_records(json.loads(body)["ShardIterator"], float(limit))
        return self._app(environ, start_response)


class Atomic:
    """WSGI middleware that gives moto's stores the atomicity that AWS promises.

    moto checks a condition and writes in two steps, changes items in place, and undoes a cancelled transaction after
    the fact. So two writers can both pass a condition, and a reader can see half an update or a transaction that is
    taken back: **reads during a write are not safe**, and every DynamoDB call is serialised, not only the writes. moto
    is pure Python, so the interpreter's own lock serialises its work anyway, and nothing is lost by it. In S3 it is
    the conditional writes (If-None-Match, If-Match) that race, and these with any other write, so writes are
    serialised and reads are not. The two services have a lock each; queues have one each (`moto_fair_queues`), and
    the other services have none.
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
        # Like moto, take a request that is not signed in its header (a presigned one) for S3's.
        return self._s3_writes if service_of(environ) in {None, "s3"} else None


def build_app(
    lambda_url: str,
    *,
    services: Mapping[str, str] | None = None,
    atomic: bool = True,
    outbox: Outbox | None = None,
) -> "WSGIApplication":
    """The whole WSGI application; `services` are those that another endpoint has, with its address.

    `outbox` keeps the events of S3, SNS and EventBridge for whoever fetches them; without it nobody gets them.
    `atomic=False` is bare moto, for the test that shows what the locks are for.
    """
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
        if service == "dynamodb":
            moto_transactions.install()
            moto_streams.install()
        if service == "sqs":
            moto_fair_queues.install()
        taps.install(service, outbox)
        return backend

    moto_app = cast("WSGIApplication", Dispatcher(create))
    own = ForwardServices(StreamWaits(Atomic(moto_app)) if atomic else moto_app, services or {})
    app = ForwardInvoke(Presigned(own), lambda_url)
    return EventFeed(app, outbox) if outbox is not None else app


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
    parser.add_argument("--service", action="append", default=[], metavar="NAME=URL", help="a service elsewhere")
    parser.add_argument("--events", action="store_true", help="keep events until they are fetched")
    arguments = parser.parse_args()
    # At once, and without a traceback: nothing here outlives the process.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    services = dict(service.split("=", 1) for service in arguments.service)
    outbox = Outbox() if arguments.events else None
    serve(build_app(arguments.lambda_url, services=services, outbox=outbox), arguments.port)


def _drained(answer: Iterable[bytes]) -> list[bytes]:
    try:
        return list(answer)
    finally:
        close = getattr(answer, "close", None)
        if close is not None:
            close()


if __name__ == "__main__":
    main()
