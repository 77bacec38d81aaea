"""SageMaker Runtime's InvokeEndpoint on this machine, in front of containers that SageMaker could host.

It passes what SageMaker passes and nothing else, so that what works here does not rely on a header, a payload or a
time that SageMaker would not give. Sources: botocore's service model `sagemaker-runtime` (2017-05-13), and "How
containers serve requests" of the SageMaker developer guide.
"""

import re
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from aiohttp import web

from infra.local.stack import ACCOUNT_ID, REGION

# InvokeEndpointInput → container. Content-Type and Accept go with them.
REQUEST_HEADERS: Final = (
    "Content-Type",
    "Accept",
    "X-Amzn-SageMaker-Custom-Attributes",
    "X-Amzn-SageMaker-Target-Model",
    "X-Amzn-SageMaker-Target-Variant",
    "X-Amzn-SageMaker-Inference-Id",
    "X-Amzn-SageMaker-Session-Id",
    "X-Amzn-SageMaker-Inference-Component",
    "X-Amzn-SageMaker-Enable-Explanations",
)
# Container → InvokeEndpointOutput.
RESPONSE_HEADERS: Final = (
    "Content-Type",
    "X-Amzn-SageMaker-Custom-Attributes",
    "X-Amzn-SageMaker-New-Session-Id",
    "X-Amzn-SageMaker-Closed-Session-Id",
)
MAX_PAYLOAD_BYTES: Final = 6 * 1024 * 1024
CONTAINER_TIMEOUT_S: Final = 60.0
_ATTRIBUTES: Final = "X-Amzn-SageMaker-Custom-Attributes"
_VISIBLE_ASCII: Final = re.compile(r"[\x21-\x7e]{0,1024}")
_MAX_MESSAGE: Final = 2048  # the service model's shape `Message`
_MAX_CONNECTIONS: Final = 256
# Shorter than servers keep an idle connection (uvicorn: 5 s), so that a request never meets one that is closing.
_KEEP_ALIVE_S: Final = 3.0
_TIMED_OUT: Final = (
    "Your invocation timed out while waiting for a response from container primary. Review the latency metrics for each"
    " container in Amazon CloudWatch, resolve the issue, and try again."
)

_SESSION: Final = web.AppKey("session", aiohttp.ClientSession)


def create_app(
    endpoints: Mapping[str, str],
    *,
    variant: str = "main",
    max_payload_bytes: int = MAX_PAYLOAD_BYTES,
    timeout_s: float = CONTAINER_TIMEOUT_S,
) -> web.Application:
    """The front for `endpoints`, which maps an endpoint's name to its container's base URL.

    `variant` is the production variant that every endpoint is said to have. `max_payload_bytes` bounds requests and
    answers; `timeout_s` is the container's time for an answer.
    """
    app = web.Application(client_max_size=max_payload_bytes + 1)
    front = _Front(endpoints, variant, max_payload_bytes, timeout_s)
    app.cleanup_ctx.append(_client_session)
    app.router.add_post("/endpoints/{endpoint}/invocations", front.handle)
    app.router.add_route("*", "/{path:.*}", _unknown_operation)
    return app


class _ServiceError(Exception):
    """An error of the service model, with its wire form."""

    def __init__(self, status: int, code: str, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.fields = {"Message": message[:_MAX_MESSAGE], **fields}

    def response(self) -> web.Response:
        return web.json_response(self.fields, status=self.status, headers={"x-amzn-ErrorType": self.code})


class _Front:
    def __init__(self, endpoints: Mapping[str, str], variant: str, max_payload_bytes: int, timeout_s: float) -> None:
        self._endpoints = endpoints
        self._variant = variant
        self._max_payload_bytes = max_payload_bytes
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, connect=2)

    async def handle(self, request: web.Request) -> web.Response:
        try:
            return await self._invoke(request, request.app[_SESSION])
        except _ServiceError as error:
            return error.response()

    async def _invoke(self, request: web.Request, session: aiohttp.ClientSession) -> web.Response:
        endpoint = request.match_info["endpoint"]
        base_url = self._endpoints.get(endpoint)
        if base_url is None:
            raise _validation_error(f"Endpoint {endpoint} of account {ACCOUNT_ID} not found.")
        headers = _passed(request.headers, REQUEST_HEADERS)
        self._check(headers, request.content_length)
        try:
            payload = await request.read()
        except web.HTTPRequestEntityTooLarge as error:  # sent in chunks, so known only now
            raise self._too_large() from error
        try:
            return await self._forward(session, endpoint, f"{base_url.rstrip('/')}/invocations", headers, payload)
        except TimeoutError as error:
            raise _model_error(endpoint, 0, _TIMED_OUT) from error
        except aiohttp.ClientConnectorError as error:
            raise _ServiceError(503, "ServiceUnavailable", f"The container of {endpoint} is not reachable.") from error
        except aiohttp.ClientError as error:
            raise _model_error(endpoint, 0, f"The container broke off: {error}") from error

    def _check(self, headers: Mapping[str, str], content_length: int | None) -> None:
        if _VISIBLE_ASCII.fullmatch(headers.get(_ATTRIBUTES, "")) is None:
            raise _validation_error("CustomAttributes must be at most 1024 visible US-ASCII characters.")
        variant = headers.get("X-Amzn-SageMaker-Target-Variant", self._variant)
        if variant != self._variant:
            raise _validation_error(f"Variant {variant} was not found; the endpoint has {self._variant}.")
        if content_length is not None and content_length > self._max_payload_bytes:
            raise self._too_large()

    async def _forward(
        self, session: aiohttp.ClientSession, endpoint: str, url: str, headers: Mapping[str, str], payload: bytes
    ) -> web.Response:
        async with session.post(
            url, data=payload, headers=headers, timeout=self._timeout, allow_redirects=False
        ) as answer:
            body = await _read_bounded(answer.content, self._max_payload_bytes)
            status = answer.status
            back = _passed(answer.headers, RESPONSE_HEADERS)
        if body is None:
            raise _model_error(endpoint, status, f"The response is larger than {self._max_payload_bytes} bytes.")
        if not HTTPStatus(200) <= status < HTTPStatus(300):
            raise _model_error(endpoint, status, body.decode("utf-8", "replace"))
        if _VISIBLE_ASCII.fullmatch(back.get(_ATTRIBUTES, "")) is None:
            raise _model_error(
                endpoint, status, "The custom attributes are not 1024 visible US-ASCII characters at most."
            )
        back["x-Amzn-Invoked-Production-Variant"] = self._variant
        return web.Response(body=body, headers=back)

    def _too_large(self) -> _ServiceError:
        return _validation_error(
            "1 validation error detected: Value at 'body' failed to satisfy constraint: Member must have length less"
            f" than or equal to {self._max_payload_bytes}"
        )


async def _client_session(app: web.Application) -> AsyncIterator[None]:
    connector = aiohttp.TCPConnector(limit=_MAX_CONNECTIONS, keepalive_timeout=_KEEP_ALIVE_S)
    # A header that the caller did not send must not reach the container because this client likes to send it.
    added = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
    async with aiohttp.ClientSession(connector=connector, skip_auto_headers=added) as session:
        app[_SESSION] = session
        yield


async def _unknown_operation(request: web.Request) -> web.Response:
    message = f"{request.method} {request.path} is not supported by the local SageMaker Runtime."
    return _ServiceError(404, "UnknownOperationException", message).response()


def _passed(headers: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    return {name: headers[name] for name in names if name in headers}


async def _read_bounded(content: aiohttp.StreamReader, limit: int) -> bytes | None:
    """The whole body; None as soon as it is longer than `limit`."""
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


def _validation_error(message: str) -> _ServiceError:
    return _ServiceError(400, "ValidationError", message)


def _model_error(endpoint: str, original_status: int, original_message: str) -> _ServiceError:
    whose = "client" if 400 <= original_status < 500 else "server"
    log_stream = f"arn:aws:logs:{REGION}:{ACCOUNT_ID}:log-group:/aws/sagemaker/Endpoints/{endpoint}"
    return _ServiceError(
        424,
        "ModelError",
        f'Received {whose} error ({original_status}) from primary with message "{original_message}".'
        f" See the log group /aws/sagemaker/Endpoints/{endpoint} in account {ACCOUNT_ID} for more information.",
        OriginalStatusCode=original_status,
        OriginalMessage=original_message[:_MAX_MESSAGE],
        LogStreamArn=log_stream,
    )
