"""Statuses of gRPC, and which one an error of ours has.

Source: gRPC, "Status codes and their use in gRPC", "gRPC over HTTP2" (`Status-Message`), "gRPC Retry Design"
(`grpc-retry-pushback-ms`).
"""

from collections.abc import Mapping
from enum import IntEnum

from gpu_service.grpc.hpack import Header, literals
from gpu_service.inference.sessions import SessionBusy
from gpu_service.models.errors import AlreadyLoaded, OutOfMemory
from gpu_service.scheduling.errors import CallerGone, Overloaded, TenantOverloaded
from shared.domain.errors import (
    AnswerTooLarge,
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    Conflict,
    DigestMismatch,
    InvalidPackage,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    Refused,
    SluiceError,
    TooManyRequests,
    Unauthenticated,
    VersionConflict,
)

# Clients take 8 KiB of metadata in all.
_MAX_MESSAGE_BYTES = 2048
_PLAIN = frozenset(range(0x20, 0x7F)) - {0x25}


class Status(IntEnum):
    """The canonical codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


# The nearest class of an error's ancestors counts.
_STATUSES: Mapping[type[SluiceError], Status] = {
    SluiceError: Status.INTERNAL,
    AlreadyLoaded: Status.ALREADY_EXISTS,
    AnswerTooLarge: Status.RESOURCE_EXHAUSTED,
    BackendError: Status.INTERNAL,
    BackendTimeout: Status.DEADLINE_EXCEEDED,
    BackendUnavailable: Status.UNAVAILABLE,
    CallerGone: Status.CANCELLED,
    Conflict: Status.ALREADY_EXISTS,
    DigestMismatch: Status.DATA_LOSS,
    InvalidPackage: Status.FAILED_PRECONDITION,
    InvalidRequest: Status.INVALID_ARGUMENT,
    NotFound: Status.NOT_FOUND,
    OutOfMemory: Status.RESOURCE_EXHAUSTED,
    PayloadTooLarge: Status.RESOURCE_EXHAUSTED,
    Refused: Status.PERMISSION_DENIED,
    SessionBusy: Status.ABORTED,
    TenantOverloaded: Status.RESOURCE_EXHAUSTED,
    TooManyRequests: Status.RESOURCE_EXHAUSTED,
    Unauthenticated: Status.UNAUTHENTICATED,
    VersionConflict: Status.FAILED_PRECONDITION,
}


class RpcError(Exception):
    """An RPC fails; `headers` go along with the status, `http` is HTTP's own status where nothing was sent before."""

    def __init__(self, status: Status, detail: str, headers: tuple[Header, ...] = (), http: bytes = b"200") -> None:
        super().__init__(detail)
        self.http = http
        self.status = status
        self.detail = detail
        self.headers = headers


def status_of(error: SluiceError) -> Status:
    """The status of an error."""
    return next(_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES)


def failure(error: SluiceError, request_id: str = "") -> RpcError:
    """The RPC's failure for one of our errors: its detail, its code, and when to try again if that is known."""
    headers: list[Header] = [(b"x-sluice-code", error.code.encode("ascii"))]
    if request_id:
        headers.append((b"x-request-id", request_id.encode("ascii")))
    if isinstance(error, Overloaded):
        headers.append((b"grpc-retry-pushback-ms", b"%d" % max(1, round(error.retry_after_s * 1000))))
    return RpcError(status_of(error), error.detail, tuple(headers))


def trailers(error: RpcError) -> bytes:
    """The block that ends a failed RPC."""
    status = (b"grpc-status", b"%d" % error.status)
    return literals([status, (b"grpc-message", percent_encoded(error.detail)), *error.headers])


def percent_encoded(text: str) -> bytes:
    """A message as a header may hold it, cut where it would be too long for a client's bound on metadata."""
    parts: list[bytes] = []
    left = _MAX_MESSAGE_BYTES
    for character in text:
        raw = character.encode("utf-8", "replace")
        part = raw if len(raw) == 1 and raw[0] in _PLAIN else b"".join(b"%%%02X" % byte for byte in raw)
        left -= len(part)
        if left < 0:
            break
        parts.append(part)
    return b"".join(parts)
