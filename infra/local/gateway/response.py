"""What the client gets: the function's answer of payload format 2.0, or the gateway's own errors."""

import base64
import binascii
from typing import Any

import msgspec
from aiohttp import web
from multidict import CIMultiDict

_BY_THE_GATEWAY = frozenset({"connection", "content-length", "date", "keep-alive", "transfer-encoding", "upgrade"})
_LINE_BREAKS = ("\r", "\n", "\0")

# API Gateway's own answers, `{"message": …}`; there is nothing else in their bodies.
BAD_REQUEST = (400, "Bad Request")
NOT_FOUND = (404, "Not Found")
UNAUTHORIZED = (401, "Unauthorized")
FORBIDDEN = (403, "Forbidden")
BODY_TOO_LARGE = (413, "Request Entity Too Large")
HEAD_TOO_LARGE = (431, "Request Header Fields Too Large")
TOO_MANY_REQUESTS = (429, "Too Many Requests")
INTERNAL_ERROR = (500, "Internal Server Error")
UNAVAILABLE = (503, "Service Unavailable")


class MalformedResponseError(Exception):
    """The function returned a `statusCode`, but not an answer that API Gateway understands."""


class _Answer(msgspec.Struct):
    status: int | str = msgspec.field(name="statusCode")
    headers: dict[str, str | int | float | bool] | None = None
    cookies: list[str] | None = None
    body: str | None = None
    is_base64: bool = msgspec.field(name="isBase64Encoded", default=False)


class _Probe(msgspec.Struct):
    status: msgspec.Raw | msgspec.UnsetType = msgspec.field(name="statusCode", default=msgspec.UNSET)


_probe = msgspec.json.Decoder(_Probe)
_answer = msgspec.json.Decoder(_Answer)


def gateway_error(error: tuple[int, str], request_id: str) -> web.Response:
    """One of the gateway's own answers."""
    status, message = error
    return web.Response(
        status=status,
        body=msgspec.json.encode({"message": message}),
        headers={"Content-Type": "application/json", "apigw-requestid": request_id},
    )


def function_response(payload: bytes, request_id: str) -> web.Response:
    """The HTTP response that a function's answer stands for.

    An answer that is no object with a `statusCode` is itself the body of a 200 of type `application/json`.

    Raises:
        MalformedResponseError: API Gateway answers 500.

    """
    try:
        inferred = _probe.decode(payload).status is msgspec.UNSET
    except msgspec.DecodeError:  # not an object
        inferred = True
    if inferred:
        headers = {"Content-Type": "application/json", "apigw-requestid": request_id}
        return web.Response(body=payload, headers=headers)
    try:
        answer = _answer.decode(payload)
        status = int(answer.status)
        body = _body(answer)
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        raise MalformedResponseError(str(error)) from error
    if not 200 <= status <= 599:
        raise MalformedResponseError(f"status {status}")
    return web.Response(status=status, body=body, headers=_headers(answer, request_id))


def _body(answer: _Answer) -> bytes:
    if answer.body is None:
        return b""
    return base64.b64decode(answer.body, validate=True) if answer.is_base64 else answer.body.encode("utf-8")


def _headers(answer: _Answer, request_id: str) -> CIMultiDict[str]:
    headers: CIMultiDict[str] = CIMultiDict()
    for name, value in (answer.headers or {}).items():
        if name.lower() not in _BY_THE_GATEWAY:
            headers[_checked(name)] = _checked(_text(value))
    for cookie in answer.cookies or ():
        headers.add("Set-Cookie", _checked(cookie))
    headers.setdefault("Content-Type", "text/plain; charset=utf-8")
    headers["apigw-requestid"] = request_id
    return headers


def _checked(text: str) -> str:
    if any(character in text for character in _LINE_BREAKS):
        raise MalformedResponseError("a header has a line break")
    return text


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
