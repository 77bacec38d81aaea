"""The Lambda Invoke API over HTTP, for AWS's own clients, and a status page for `sluice status`.

Source: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html. Signatures are accepted unread.
"""

import base64
import binascii
import json
import uuid
from typing import cast

import msgspec
from aiohttp import web

from infra.local.lambda_service.body import read_body
from infra.local.lambda_service.errors import (
    InvalidParameterValueError,
    InvalidRequestContentError,
    LambdaApiError,
    RequestTooLargeError,
    ResourceNotFoundError,
)
from infra.local.lambda_service.invocation import MAX_REQUEST_BYTES, VERSION
from infra.local.lambda_service.service import INVOCATION_TYPES, InvocationType, LambdaService

_STATUS = {"RequestResponse": 200, "Event": 202, "DryRun": 204}


def create_app(service: LambdaService) -> web.Application:
    """`POST /2015-03-31/functions/{name}/invocations` and `GET /_sluice/status` over one service."""
    routes = _Routes(service)
    app = web.Application(handler_args={"auto_decompress": False})
    app.router.add_post("/2015-03-31/functions/{name}/invocations", routes.invoke)
    app.router.add_get("/_sluice/status", routes.status)
    return app


class _Routes:
    def __init__(self, service: LambdaService) -> None:
        self._service = service

    async def status(self, _request: web.Request) -> web.Response:
        functions = [status.as_document() for status in self._service.status()]
        return web.Response(body=msgspec.json.encode({"functions": functions}), content_type="application/json")

    async def invoke(self, request: web.Request) -> web.Response:
        try:
            return await self._invoke(request)
        except LambdaApiError as error:
            return _error_response(error)
        except ConnectionError:  # the client has gone away in the middle of its request; nobody hears this answer
            return web.Response(status=400)

    async def _invoke(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        qualifier = request.query.get("Qualifier", VERSION)
        if qualifier != VERSION:
            raise ResourceNotFoundError(f"Function not found: {self._service.find(name).arn}:{qualifier}")
        invocation_type = request.headers.get("X-Amz-Invocation-Type", "RequestResponse")
        if invocation_type not in INVOCATION_TYPES:
            raise InvalidParameterValueError(f"Unknown invocation type: {invocation_type!r}")
        payload = await read_body(request, MAX_REQUEST_BYTES)
        if payload is None:
            raise RequestTooLargeError(
                f"Request must be smaller than {MAX_REQUEST_BYTES} bytes for the InvokeFunction operation"
            )
        result = await self._service.invoke(
            name,
            _checked_json(payload),
            client_context=_client_context(request.headers.get("X-Amz-Client-Context")),
            trace_id=request.headers.get("X-Amzn-Trace-Id"),
            invocation_type=cast("InvocationType", invocation_type),
        )
        headers = {"x-amzn-RequestId": result.request_id, "X-Amz-Executed-Version": result.executed_version}
        if result.function_error is not None:
            headers["X-Amz-Function-Error"] = result.function_error
        if request.headers.get("X-Amz-Log-Type") == "Tail" and invocation_type == "RequestResponse":
            headers["X-Amz-Log-Result"] = base64.b64encode(result.log_tail).decode("ascii")
        status = _STATUS[invocation_type]
        return web.Response(status=status, body=result.payload, headers=headers, content_type="application/json")


def _checked_json(payload: bytes) -> bytes:
    if payload:
        try:
            msgspec.json.decode(payload, type=msgspec.Raw)
        except msgspec.DecodeError as error:
            raise InvalidRequestContentError(f"Could not parse request body into json: {error}") from error
    return payload


def _client_context(header: str | None) -> str | None:
    """The header's Base64 JSON as JSON text in ASCII, which is what goes into the Runtime API's header."""
    if not header:
        return None
    try:
        return json.dumps(json.loads(base64.b64decode(header, validate=True)))
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestContentError(
            f"Client context must be a valid Base64-encoded JSON object: {error}"
        ) from error


def _error_response(error: LambdaApiError) -> web.Response:
    body = {"Type": error.fault, "Message": str(error), "message": str(error)}
    if error.reason is not None:
        body["Reason"] = error.reason
    headers = {"x-amzn-RequestId": str(uuid.uuid4()), "x-amzn-errortype": error.code}
    if error.status == 429:
        headers["Retry-After"] = "1"
    return web.Response(
        status=error.status, body=msgspec.json.encode(body), headers=headers, content_type="application/json"
    )
