"""WSGI middlewares that pass calls on: Lambda's Invoke to the real functions, whole services to another endpoint."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import IO, TYPE_CHECKING, Final

import urllib3

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_INVOKE: Final = re.compile(r"/2015-03-31/functions/[^/]+/invocations")
_SCOPE: Final = re.compile(r"Credential=[^/]+/\d+/[^/]+/([^/]+)/aws4_request")
_SCOPE_OF_URL: Final = re.compile(r"(?:^|&)X-Amz-Credential=[^&]+%2F([^%&]+)%2Faws4_request")
_MAX_INVOKE_BYTES: Final = 6 * 1024 * 1024  # Lambda's limit on a synchronous request
# Lambda lets a function run for 15 minutes, and its service may have requests queueing before that.
_INVOKE_TIMEOUT: Final = urllib3.Timeout(connect=2, read=960)
_SERVICE_TIMEOUT: Final = urllib3.Timeout(connect=2, read=120)
_HOP_BY_HOP: Final = frozenset({"connection", "content-length", "host", "keep-alive", "transfer-encoding"})


def service_of(environ: "WSGIEnvironment") -> str | None:
    """The service that a call is signed for (`dynamodb`, `s3`) in a header or its query; None if it is not signed."""
    in_header = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    scope = in_header or _SCOPE_OF_URL.search(environ.get("QUERY_STRING", ""))
    return scope[1] if scope else None


class ForwardInvoke:
    """Passes Lambda's Invoke on to the service that runs the real functions."""

    def __init__(self, app: "WSGIApplication", lambda_url: str) -> None:
        self._app = app
        self._target = _Target(lambda_url, _INVOKE_TIMEOUT)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """WSGI."""
        if environ["REQUEST_METHOD"] != "POST" or _INVOKE.fullmatch(_address(environ).partition("?")[0]) is None:
            return self._app(environ, start_response)
        if _length(environ) > _MAX_INVOKE_BYTES:
            message = f"Request must be smaller than {_MAX_INVOKE_BYTES} bytes for the InvokeFunction operation"
            return _error(start_response, "413 Request Entity Too Large", "RequestTooLargeException", message)
        return self._target.pass_on(environ, start_response)


class ForwardServices:
    """Passes whole services on to other endpoints: `services` maps `dynamodb`, `s3` and the like to their addresses."""

    def __init__(self, app: "WSGIApplication", services: Mapping[str, str]) -> None:
        self._app = app
        self._targets = {service: _Target(url, _SERVICE_TIMEOUT) for service, url in services.items()}

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """WSGI."""
        target = self._targets.get(service_of(environ) or "")
        return target.pass_on(environ, start_response) if target else self._app(environ, start_response)


class _Target:
    def __init__(self, url: str, timeout: urllib3.Timeout) -> None:
        self._url = url.rstrip("/")
        self._pool = urllib3.PoolManager(maxsize=64, timeout=timeout, retries=False)

    def pass_on(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        length = _length(environ)
        body: IO[bytes] = environ["wsgi.input"]
        headers = _headers(environ) | {"Content-Length": str(length)}
        try:
            answer = self._pool.request(
                environ["REQUEST_METHOD"],
                self._url + _address(environ),
                body=body if length else None,
                headers=headers,
                redirect=False,
                decode_content=False,
            )
        except urllib3.exceptions.HTTPError as error:
            message = f"{self._url} does not answer: {error}"
            return _error(start_response, "500 Internal Server Error", "ServiceException", message)
        passed = [(name, value) for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP]
        # A HEAD has no body, and its length is the object's.
        size = answer.headers.get("Content-Length") if environ["REQUEST_METHOD"] == "HEAD" else None
        passed.append(("Content-Length", size or str(len(answer.data))))
        start_response(f"{answer.status} {answer.reason or 'OK'}", passed)
        return [answer.data]


def _address(environ: "WSGIEnvironment") -> str:
    """Path and query as they were sent: a function may be named by its ARN, with its colons encoded."""
    return str(environ.get("REQUEST_URI") or environ["PATH_INFO"])


def _length(environ: "WSGIEnvironment") -> int:
    return int(environ.get("CONTENT_LENGTH") or 0)


def _headers(environ: "WSGIEnvironment") -> dict[str, str]:
    headers = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): str(value)
        for name, value in environ.items()
        if name.startswith("HTTP_") or (name == "CONTENT_TYPE" and value)
    }
    # The body is here already. Whoever signed with a `Host` did so for this address; only with it does a presigned
    # request hold elsewhere.
    dropped = {*_HOP_BY_HOP, "expect"} - ({"host"} if _SCOPE_OF_URL.search(environ.get("QUERY_STRING", "")) else set())
    return {name: value for name, value in headers.items() if name not in dropped}


def _error(start_response: "StartResponse", status: str, code: str, message: str) -> list[bytes]:
    """An error as the rest-json protocol gives it."""
    body = json.dumps({"Type": "Service", "Message": message}).encode()
    start_response(
        status,
        [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("x-amzn-ErrorType", code)],
    )
    return [body]
