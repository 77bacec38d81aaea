"""What surrounds every request: its id, its log line, and an answer to what nobody expected."""

import logging
from http import HTTPStatus
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.domain.errors import SluiceError
from shared.web.problems import problem
from shared.web.requests import begin, header, record_of, route_of


class RequestMiddleware:
    """Outermost middleware of ours, plain ASGI; writes one log line a request."""

    def __init__(self, app: ASGIApp, log: logging.Logger) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request, mark its answer with `X-Request-Id`, log it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = perf_counter()
        record = begin(scope)
        id_header = (b"x-request-id", record.request_id.encode("latin-1", "replace"))
        status, bytes_out = 0, 0

        async def send_marked(message: Message) -> None:
            nonlocal status, bytes_out
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], id_header]
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
            )
            await answer(scope, receive, send_marked)
        self._write(scope, status, bytes_out, (perf_counter() - start) * 1e3)

    def _write(self, scope: Scope, status: int, bytes_out: int, total_ms: float) -> None:
        record = record_of(scope)
        length = header(scope, b"content-length")
        fields = {
            "request_id": record.request_id,
            "route": route_of(scope),
            "status": status,
            "code": "ok",
            "bytes_in": int(length) if length and length.isdecimal() else 0,
            "bytes_out": bytes_out,
            "ms": round(total_ms, 3),
            "cold_start": scope["app"].state.cold,
            **record.log,
        }
        scope["app"].state.cold = False
        self._log.log(logging.ERROR if status >= 500 else logging.INFO, "request", extra={"fields": fields})
