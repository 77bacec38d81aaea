"""The container's HTTP doors: SageMaker's `/ping` and `/invocations`.

Source: Amazon SageMaker Developer Guide, "Use Your Own Inference Code with Hosting Services".
"""

import logging
from http import HTTPStatus
from time import perf_counter
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from gpu_service.calls import REQUEST_ID_HEADER, Caller, call_of, caller_of
from gpu_service.dataplane import Call, DataPlane
from gpu_service.logs import fields
from gpu_service.payloads import Reply, codec_for
from gpu_service.problems import problem, problem_of
from shared.codecs.json_documents import JsonLimits
from shared.domain.errors import PayloadTooLarge, SluiceError

_log = logging.getLogger(__name__)


def create_app(dataplane: DataPlane, limits: JsonLimits) -> Starlette:
    """The ASGI application; `limits.max_bytes` bounds every body."""
    doors = Doors(dataplane, limits)
    return Starlette(
        routes=[
            Route("/ping", doors.ping, methods=["GET"]),
            Route("/invocations", doors.invocations, methods=["POST"]),
        ],
        exception_handlers={HTTPException: _not_routed},
    )


class Doors:
    """Translates between HTTP and the data plane."""

    def __init__(self, dataplane: DataPlane, limits: JsonLimits) -> None:
        self._dataplane = dataplane
        self._limits = limits

    async def ping(self, request: Request) -> Response:
        """200 once every model that was given at start is served; 503 says what is missing."""
        del request
        readiness = self._dataplane.repository.readiness()
        document = {
            "status": "ready" if readiness.ready else "failed" if readiness.failed else "loading",
            "reason": readiness.reason,
            "models": [{"name": key.name, "version": key.version} for key in readiness.models],
            "failed": readiness.failed,
        }
        status = HTTPStatus.OK if readiness.ready else HTTPStatus.SERVICE_UNAVAILABLE
        return Response(orjson.dumps(document), status_code=status.value, media_type="application/json")

    async def invocations(self, request: Request) -> Response:
        """Predict; every outcome is one line in the log."""
        start = perf_counter()
        caller = caller_of(request.headers)
        call = Call()
        code = ""
        try:
            call = call_of(request.headers)
            reply = await self._predict(request, call)
            response = Response(reply.body, media_type=reply.media_type)
        except SluiceError as error:
            code = error.code
            response = problem_of(error, caller.request_id)
            if response.status_code >= 500 and error.__cause__ is not None:
                _log.error("prediction failed", extra=fields(request_id=caller.request_id), exc_info=error)
        except ClientDisconnect:
            code = "client_disconnected"
            response = Response(status_code=HTTPStatus.BAD_REQUEST.value)  # nobody is there to read it
        except Exception:  # noqa: BLE001 - logged; no traceback may reach a caller
            code = SluiceError.code
            _log.exception("unexpected error", extra=fields(request_id=caller.request_id))
            response = problem_of(SluiceError("The container failed to answer."), caller.request_id)
        response.headers[REQUEST_ID_HEADER] = caller.request_id
        _log_request(caller, call, response.status_code, code, perf_counter() - start)
        return response

    async def _predict(self, request: Request, call: Call) -> Reply:
        body = await self._body(request)
        return await self._dataplane.infer(call, codec_for(request.headers.get("content-type", ""), body, self._limits))

    async def _body(self, request: Request) -> bytes:
        limit = self._limits.max_bytes
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            raise PayloadTooLarge(f"The body has {announced} bytes; the limit is {limit}.")
        chunks: list[bytes] = []
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise PayloadTooLarge(f"The body has more than {limit} bytes.")
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _not_routed(request: Request, error: Exception) -> Response:
    status = HTTPStatus(error.status_code if isinstance(error, HTTPException) else 500)
    code = "method_not_allowed" if status is HTTPStatus.METHOD_NOT_ALLOWED else "no_such_route"
    detail = f"{request.method} {request.url.path[:200]} is not served here."
    request_id = caller_of(request.headers).request_id
    response = problem(status, code=code, title=status.phrase, detail=detail, request_id=request_id)
    response.headers.update(getattr(error, "headers", None) or {})
    return response


def _log_request(caller: Caller, call: Call, status: int, code: str, seconds: float) -> None:
    line: dict[str, Any] = {
        "request_id": caller.request_id,
        "tenant": caller.tenant,
        "traceparent": caller.traceparent,
        "model": call.key.name if call.key else call.model,
        "version": call.key.version if call.key else call.version,
        "status": status,
        "code": code,
        "rows": call.rows,
        "ms": {**call.steps_ms, "total": round(seconds * 1e3, 3)},
    }
    _log.info("request", extra=fields(**{name: value for name, value in line.items() if value not in ("", None)}))
