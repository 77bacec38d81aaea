"""Requests that are not read to their end: the answer is given at once and the connection ended."""

from http import HTTPStatus
from typing import Self

from gpu_service.http.responses import prefix
from gpu_service.problems import MEDIA_TYPE, problem_document


class Refusal(Exception):
    """Raised from inside the parser; `reason` is a short name for the counters."""

    def __init__(self, status: HTTPStatus, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail

    def response(self, common: bytes, request_id: str) -> bytes:
        """The bytes of the whole answer."""
        problem = problem_document(self.status, self.reason, self.status.phrase, self.detail, request_id)
        retry = b"\r\nRetry-After: 1" if self.status is HTTPStatus.SERVICE_UNAVAILABLE else b""
        if request_id:
            retry += f"\r\nX-Request-Id: {request_id}".encode("ascii")
        length = b"%d" % len(problem.body)
        head = prefix(problem.status, MEDIA_TYPE) + length + retry + common
        return b"%b\r\nConnection: close\r\n\r\n%b" % (head, problem.body)

    @classmethod
    def malformed(cls) -> Self:
        """What came is no HTTP."""
        return cls(HTTPStatus.BAD_REQUEST, "malformed_http", "This is not a valid HTTP/1.1 request.")

    @classmethod
    def bad_host(cls) -> Self:
        """Whom the request is for cannot be told, or could be told in two ways."""
        detail = "An HTTP/1.1 request must have exactly one Host header, with a host name and perhaps a port."
        return cls(HTTPStatus.BAD_REQUEST, "malformed_http", detail)

    @classmethod
    def head_too_large(cls, limit: int) -> Self:
        """Too many or too long headers."""
        detail = f"The request line and headers have more than {limit} bytes."
        return cls(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", detail)

    @classmethod
    def body_too_large(cls, announced: int | None, limit: int) -> Self:
        """A body over the limit, announced or found so."""
        size = f"{announced} bytes; the limit is" if announced is not None else "more bytes than the limit of"
        detail = f"The body has {size} {limit}."
        return cls(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "payload_too_large", detail)

    @classmethod
    def too_slow(cls, seconds: float) -> Self:
        """A request that does not get on."""
        detail = f"The request did not arrive within {seconds:g} seconds."
        return cls(HTTPStatus.REQUEST_TIMEOUT, "request_timeout", detail)

    @classmethod
    def too_many_connections(cls) -> Self:
        """At the limit of connections."""
        detail = "As many connections as may be are open."
        return cls(HTTPStatus.SERVICE_UNAVAILABLE, "too_many_connections", detail)

    @classmethod
    def busy(cls) -> Self:
        """At the limit of bytes that are being read."""
        detail = "The bodies that are being read at this moment take all the memory that they may."
        return cls(HTTPStatus.SERVICE_UNAVAILABLE, "too_many_bytes", detail)
