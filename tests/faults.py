"""A proxy on loopback in front of an AWS endpoint (or any HTTP server) that fails as it is told, and counts calls.

    with FaultProxy(local_aws.url) as proxy:
        dynamodb = client("dynamodb", session=aws_session, endpoint_url=proxy.url, read_timeout=0.5, retries=0)
        proxy.fail(THROTTLED, operation="UpdateItem", table=local_aws.stack.resources["LimitsTable"].name)
        ...                                              # calls that match are throttled, all others pass
        proxy.fail(delayed(0.2), times=1)                # the next call of any kind waits, then passes
        proxy.heal()                                     # all calls pass
        assert proxy.calls["UpdateItem"] == 3            # what arrived, failed or not

Faults: `THROTTLED`, `throttled("ThrottlingException")`, `BROKEN` (500), `answers(status, body)`, `delayed(seconds)`,
`CLOSED` (the connection ends without an answer, and nothing was done), `LOST` (the call is done, its answer is not
given), `SILENT` (no answer ever, the connection stays open). The rule that was added last and matches decides.

An operation is the last part of `X-Amz-Target` (`UpdateItem`, `GetSecretValue`) where there is one, else the HTTP
method (`GET` for S3 or a JWKS). A table is any that the body names, in batches and transactions, too. `path` is the
start of the path, for services that have one (S3: `/bucket/key`). A call that is passed on to a server that is gone
ends like `CLOSED`.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from io import BytesIO
from threading import Lock, Thread
from types import TracebackType
from typing import Any, Self

from aiohttp import ClientConnectionError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web
from yarl import URL

_HOP_BY_HOP = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding", "expect"})
_MAX_BODY = 64 * 1024 * 1024
_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a call: it waits, is then passed on or not, and is answered with what is given here or not."""

    delay_s: float = 0.0
    passes: bool = False
    status: int = 0
    body: bytes = b""
    closes: bool = False
    hangs: bool = False


def throttled(code: str = "ProvisionedThroughputExceededException") -> Fault:
    """DynamoDB's answer to more calls than it takes."""
    return _refusal(400, code, "The level of configured provisioned throughput for the table was exceeded.")


def answers(status: int, body: bytes = b"") -> Fault:
    """An answer without asking the server."""
    return Fault(status=status, body=body)


def delayed(seconds: float) -> Fault:
    """The server's own answer, late."""
    return Fault(delay_s=seconds, passes=True)


def _refusal(status: int, code: str, message: str) -> Fault:
    body = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": message})
    return Fault(status=status, body=body.encode())


THROTTLED = throttled()
BROKEN = _refusal(500, "InternalServerError", "The request could not be processed because of an internal failure.")
CLOSED = Fault(closes=True)
LOST = Fault(passes=True, closes=True)
SILENT = Fault(hangs=True)


@dataclass(slots=True)
class _Rule:
    fault: Fault
    operation: str | None
    table: str | None
    path: str
    times: int | None

    def takes(self, operation: str, tables: frozenset[str], path: str) -> bool:
        return (
            self.times != 0
            and self.operation in {None, operation}
            and (self.table is None or self.table in tables)
            and path.startswith(self.path)
        )


class FaultProxy:
    """A context manager; `url` is where clients go, `calls` counts what came by operation. All methods: any thread."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream.rstrip("/")
        self._rules: list[_Rule] = []
        self._lock = Lock()
        self._ready: Future[int] = Future()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = Thread(target=self._run, name="fault-proxy", daemon=True)
        self.calls: Counter[str] = Counter()
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._ready.result(_PATIENCE_S)}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_PATIENCE_S)

    def fail(
        self,
        fault: Fault,
        *,
        operation: str | None = None,
        table: str | None = None,
        path: str = "",
        times: int | None = None,
    ) -> None:
        """Do this to calls that match, to the next `times` of them or to all until `heal`."""
        with self._lock:
            self._rules.insert(0, _Rule(fault, operation, table, path, times))

    def heal(self) -> None:
        """Let all calls pass that come from now on; what hangs goes on hanging."""
        with self._lock:
            self._rules.clear()

    def _fault_of(self, operation: str, tables: frozenset[str], path: str) -> Fault | None:
        with self._lock:
            self.calls[operation] += 1
            rule = next((rule for rule in self._rules if rule.takes(operation, tables, path)), None)
            if rule is None:
                return None
            if rule.times is not None:
                rule.times -= 1
            return rule.fault

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self._serve())
            except Exception as error:  # handed to the thread that waits for the address
                if self._ready.done():
                    raise
                self._ready.set_exception(error)

    async def _serve(self) -> None:
        async with ClientSession(
            auto_decompress=False,
            connector=TCPConnector(limit=128),
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=_PATIENCE_S),
        ) as upstream:

            async def handle(request: web.BaseRequest) -> web.StreamResponse:
                return await self._answer(request, upstream)

            server = web.Server(handle, access_log=None)
            runner = web.ServerRunner(server, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self._ready.set_result(runner.addresses[0][1])
            await self._end.wait()
            await runner.cleanup()

    async def _answer(self, request: web.BaseRequest, upstream: ClientSession) -> web.StreamResponse:
        if (request.content_length or 0) > _MAX_BODY:
            return web.Response(status=413)
        # Not `request.read()`: a bare request of aiohttp takes 1 MiB at most.
        body = await request.content.read()
        operation = request.headers.get("X-Amz-Target", request.method).rpartition(".")[2]
        fault = self._fault_of(operation, _tables(body), request.path) or Fault(passes=True)
        if fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        if fault.hangs:
            await self._end.wait()
        answer = await self._pass_on(request, body, upstream) if fault.passes else None
        if fault.closes or fault.hangs or (fault.passes and answer is None):
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if answer is not None:
            return answer
        return web.Response(status=fault.status, body=fault.body, content_type="application/x-amz-json-1.0")

    async def _pass_on(self, request: web.BaseRequest, body: bytes, upstream: ClientSession) -> web.Response | None:
        try:
            async with upstream.request(
                request.method,
                URL(self._upstream + request.raw_path, encoded=True),
                headers=_end_to_end(request.headers),
                data=BytesIO(body) if body else None,
                skip_auto_headers=("Content-Type",),
                allow_redirects=False,
            ) as answer:
                content = await answer.read()
                headers = _end_to_end(answer.headers)
                if request.method == "HEAD" and "Content-Length" in answer.headers:
                    headers["Content-Length"] = answer.headers["Content-Length"]
                return web.Response(status=answer.status, headers=headers, body=content)
        except (ClientConnectionError, TimeoutError):
            return None


def _end_to_end(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}


def _tables(body: bytes) -> frozenset[str]:
    """The tables that a call of DynamoDB names; none for bodies of other services."""
    if not body.startswith(b"{"):
        return frozenset()
    try:
        document: Any = json.loads(body)
    except ValueError:
        return frozenset()
    found = {document["TableName"]} if "TableName" in document else set()
    match document.get("RequestItems"):
        case dict() as by_table:
            found.update(by_table)
    match document.get("TransactItems"):
        case list() as items:
            found.update(part["TableName"] for item in items for part in item.values() if "TableName" in part)
    return frozenset(found)
