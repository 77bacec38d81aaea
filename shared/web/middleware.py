"""What surrounds every request: its id, its log line, and an answer to what nobody expected."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.domain.cost import RequestCosts, usd_text
from shared.domain.errors import SluiceError
from shared.web.deprecation import DEPRECATED, Deprecations
from shared.web.metrics import RequestMetrics
from shared.web.problems import problem
from shared.web.requests import RequestRecord, begin, header, record_of, route_of, speaks_v2

_MAX_DIGITS = 15

AwsCallCounts = Callable[[], Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Observed:
    """What a function's lines tell beside the requests themselves.

    `calls` counts the AWS calls since `start_calls`, `items` those of DynamoDB's operations for many at once. With
    `costs` each answer says what it cost.
    """

    metrics: RequestMetrics = field(default_factory=lambda: RequestMetrics(""))
    start_calls: Callable[[], None] = lambda: None
    calls: AwsCallCounts = dict
    items: AwsCallCounts = dict
    costs: RequestCosts | None = None
    deprecated: Deprecations = field(default_factory=lambda: DEPRECATED)


class RequestMiddleware:
    """Outermost middleware of ours, plain ASGI; writes one log line a request."""

    def __init__(self, app: ASGIApp, log: logging.Logger, observed: Observed) -> None:
        self._app = app
        self._log = log
        self._observed = observed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request, mark its answer with `X-Request-Id` and what was gathered for it, log it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = perf_counter()
        self._observed.start_calls()
        record = begin(scope)
        status, bytes_out = 0, 0
        cost: int | None = None

        async def send_marked(message: Message) -> None:
            nonlocal status, bytes_out, cost
            if message["type"] == "http.response.start":
                status, cost = message["status"], self._cost(record, start)
                message["headers"] = [*message["headers"], *self._headers(scope, record, start, cost)]
            else:
                bytes_out += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, send_marked)
        except Exception:
            record.log["code"] = SluiceError.code
            self._log.exception("unexpected error", extra={"fields": {"request_id": record.request_id}})
            if status:  # half an answer is out: there is nothing sound left to send
                raise
            answer = problem(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                code=SluiceError.code,
                title=SluiceError.title,
                detail="The request failed on our side. Its id leads to the log.",
                request_id=record.request_id,
                v2=speaks_v2(scope),
            )
            await answer(scope, receive, send_marked)
        self._write(scope, status, bytes_out, (perf_counter() - start) * 1e3, cost)

    def _cost(self, record: RequestRecord, start: float) -> int | None:
        """The request's cost until its headers are written; what comes after that is some tenths of a millisecond."""
        observed = self._observed
        if observed.costs is None:
            return None
        ms = (perf_counter() - start) * 1e3
        return observed.costs.nusd(ms, observed.calls(), observed.items(), record.instance_share_nusd)

    def _headers(
        self, scope: Scope, record: RequestRecord, start: float, cost: int | None
    ) -> list[tuple[bytes, bytes]]:
        headers = {"x-request-id": record.request_id, **record.headers}
        if record.steps:
            steps = {**record.steps, "total": (perf_counter() - start) * 1e3}
            headers["server-timing"] = ", ".join(f"{name};dur={ms:.3f}" for name, ms in steps.items())
        if cost is not None and self._observed.costs is not None:
            headers["x-sluice-cost-usd"] = usd_text(cost)
            headers["x-sluice-prices-date"] = self._observed.costs.prices_date
        if self._observed.deprecated and (route := scope.get("route")) is not None:
            deprecation = self._observed.deprecated.get(f"{scope['method']} {route.path}")
            headers |= deprecation.headers() if deprecation else {}
        return [(name.lower().encode("latin-1"), text.encode("latin-1", "replace")) for name, text in headers.items()]

    def _write(self, scope: Scope, status: int, bytes_out: int, total_ms: float, cost: int | None) -> None:
        record = record_of(scope)
        length = header(scope, b"content-length")
        calls = self._observed.calls()
        fields = {
            "request_id": record.request_id,
            "route": route_of(scope),
            "status": status,
            "code": "ok",
            # The door, which reads the body, knows better. A line that cannot be written would count for no quota.
            "bytes_in": int(length) if length and length.isdecimal() and len(length) <= _MAX_DIGITS else 0,
            "bytes_out": bytes_out,
            "ms": round(total_ms, 3),
            "cold_start": scope["app"].state.cold,
            **record.log,
        }
        if record.steps:
            fields["steps_ms"] = {name: round(ms, 3) for name, ms in record.steps.items()}
        if calls:
            fields["aws_calls"] = calls
        if cost is not None:
            fields["cost_nusd"] = cost
        self._observed.metrics.add(fields)
        scope["app"].state.cold = False
        level = logging.ERROR if status >= 500 else logging.INFO
        if self._log.isEnabledFor(level):
            # As `Logger.log` does, but for the search of the stack for who called it.
            extra = {"fields": fields}
            self._log.handle(self._log.makeRecord(self._log.name, level, "", 0, "request", (), None, extra=extra))
