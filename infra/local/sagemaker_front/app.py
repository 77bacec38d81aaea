"""SageMaker Runtime on this machine, in front of containers that SageMaker could host.

It passes what SageMaker passes and nothing else, so that what works here does not rely on a header, a payload or a
time that SageMaker would not give.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import aiohttp
from aiohttp import web

from infra.local.sagemaker_front import event_stream
from infra.local.sagemaker_front.async_invocations import MAX_ANSWER_BYTES, QUEUE_LIMIT, AsyncInvocations
from infra.local.sagemaker_front.async_results import AsyncResults
from infra.local.sagemaker_front.container_call import answering, call, client_session
from infra.local.sagemaker_front.endpoints import Endpoints
from infra.local.sagemaker_front.wire import (
    INVOKED_VARIANT,
    REQUEST_HEADERS,
    ServiceError,
    check_attributes,
    passed,
    too_large,
    validation_error,
)

MAX_PAYLOAD_BYTES: Final = 6 * 1024 * 1024
CONTAINER_TIMEOUT_S: Final = 60.0
STREAM_TIMEOUT_S: Final = 480.0
_STREAM_ACCEPT: Final = "X-Amzn-SageMaker-Accept"
_TARGET_CONTAINER: Final = "X-Amzn-SageMaker-Target-Container-Hostname"
_PART_BYTES: Final = 64 * 1024

_SESSION: Final = web.AppKey("session", aiohttp.ClientSession)
_QUEUES: Final = web.AppKey("queues", AsyncInvocations)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create_app(
    endpoints: Endpoints,
    aws_url: str,
    *,
    max_payload_bytes: int = MAX_PAYLOAD_BYTES,
    timeout_s: float = CONTAINER_TIMEOUT_S,
    stream_timeout_s: float = STREAM_TIMEOUT_S,
    max_async_bytes: int = MAX_ANSWER_BYTES,
    queue_limit: int = QUEUE_LIMIT,
) -> web.Application:
    """The front for `endpoints`; `aws_url` is where asynchronous ones find S3 and SNS.

    `max_payload_bytes` bounds requests and answers; `timeout_s` is the container's time for an answer, and
    `stream_timeout_s` that for one in parts. `max_async_bytes` bounds the answers of asynchronous endpoints, and
    `queue_limit` what waits for one of them.
    """
    app = web.Application(client_max_size=max_payload_bytes + 1)
    front = _Front(endpoints, max_payload_bytes, timeout_s, stream_timeout_s)

    async def running(app: web.Application) -> AsyncIterator[None]:
        async with client_session() as session:
            waiting = AsyncInvocations(
                endpoints,
                AsyncResults(aws_url),
                session,
                queue_limit=queue_limit,
                max_answer_bytes=max_async_bytes,
            )
            async with waiting as queues:
                app[_SESSION] = session
                app[_QUEUES] = queues
                yield

    app.cleanup_ctx.append(running)
    app.router.add_post("/endpoints/{endpoint}/invocations", _answered(front.invoke))
    app.router.add_post("/endpoints/{endpoint}/invocations-response-stream", _answered(front.invoke_in_parts))
    app.router.add_post("/endpoints/{endpoint}/async-invocations", _answered(front.invoke_later))
    app.router.add_route("*", "/{path:.*}", _unknown_operation)
    return app


class _Front:
    def __init__(self, endpoints: Endpoints, max_payload_bytes: int, timeout_s: float, stream_timeout_s: float) -> None:
        self._endpoints = endpoints
        self._max_payload_bytes = max_payload_bytes
        self._timeout_s = timeout_s
        self._stream_timeout_s = stream_timeout_s

    async def invoke(self, request: web.Request) -> web.StreamResponse:
        """InvokeEndpoint."""
        endpoint = self._endpoints.real_time(request.match_info["endpoint"])
        headers = self._headers(request)
        variant = endpoint.variant_for(headers)
        payload = await self._payload(request)
        answer = await call(
            request.app[_SESSION],
            endpoint,
            headers,
            payload,
            timeout_s=self._timeout_s,
            max_bytes=self._max_payload_bytes,
        )
        return web.Response(body=answer.body, headers={**answer.headers, INVOKED_VARIANT: variant})

    async def invoke_in_parts(self, request: web.Request) -> web.StreamResponse:
        """InvokeEndpointWithResponseStream: what the container sends, in parts as they come."""
        endpoint = self._endpoints.real_time(request.match_info["endpoint"])
        headers = self._headers(request)
        headers.pop("Accept", None)
        if accept := request.headers.get(_STREAM_ACCEPT):
            headers["Accept"] = accept
        variant = endpoint.variant_for(headers)
        payload = await self._payload(request)
        sent = answering(
            request.app[_SESSION],
            endpoint,
            headers,
            payload,
            timeout_s=self._stream_timeout_s,
            max_bytes=self._max_payload_bytes,
        )
        async with sent as (answer, back):
            back["X-Amzn-SageMaker-Content-Type"] = back.pop("Content-Type", "")
            response = web.StreamResponse(
                headers={**back, INVOKED_VARIANT: variant, "Content-Type": event_stream.CONTENT_TYPE}
            )
            await response.prepare(request)
            async for message in _messages(answer):
                await response.write(message)
            await response.write_eof()
        return response

    async def invoke_later(self, request: web.Request) -> web.StreamResponse:
        """InvokeEndpointAsync."""
        endpoint = self._endpoints.asynchronous(request.match_info["endpoint"])
        check_attributes(request.headers)
        invocation = request.app[_QUEUES].submit(endpoint, request.headers, await self._payload(request))
        headers = {"X-Amzn-SageMaker-OutputLocation": invocation.output_location}
        if invocation.failure_location:
            headers["X-Amzn-SageMaker-FailureLocation"] = invocation.failure_location
        return web.json_response({"InferenceId": invocation.inference_id}, status=202, headers=headers)

    def _headers(self, request: web.Request) -> dict[str, str]:
        headers = passed(request.headers, REQUEST_HEADERS)
        check_attributes(headers)
        if _TARGET_CONTAINER in request.headers:
            raise validation_error("TargetContainerHostname is for endpoints with several containers.")
        return headers

    async def _payload(self, request: web.Request) -> bytes:
        if request.content_length is not None and request.content_length > self._max_payload_bytes:
            raise too_large(self._max_payload_bytes)
        try:
            return await request.read()
        except web.HTTPRequestEntityTooLarge as error:  # sent in chunks, so known only now
            raise too_large(self._max_payload_bytes) from error


async def _messages(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The container's answer as events; what breaks it off is the last of them, since the status is sent already."""
    try:
        async for chunk in answer.content.iter_chunked(_PART_BYTES):
            yield event_stream.payload_part(chunk)
    except TimeoutError:
        yield _broken("ModelInvocationTimeExceeded", "The model did not end its answer in time.")
    except aiohttp.ClientError as error:
        yield _broken("StreamBroken", f"The connection to the model was closed: {error}")


def _broken(code: str, message: str) -> bytes:
    return event_stream.exception("ModelStreamError", {"Message": message, "ErrorCode": code})


def _answered(handler: _Handler) -> _Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except ServiceError as error:
            return error.response()

    return handle


async def _unknown_operation(request: web.Request) -> web.Response:
    message = f"{request.method} {request.path} is not supported by the local SageMaker Runtime."
    return ServiceError(404, "UnknownOperationException", message).response()
