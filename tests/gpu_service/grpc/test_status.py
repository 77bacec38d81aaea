"""Statuses of errors."""

from collections.abc import Iterator
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpu_service.grpc.status as table
from gpu_service.grpc.hpack import Decoder
from gpu_service.grpc.status import RpcError, Status, failure, percent_encoded, status_of, trailers
from gpu_service.inference.sessions import SessionBusy
from gpu_service.models.errors import AlreadyLoaded, ModelUnavailable, OutOfMemory
from gpu_service.scheduling.errors import CallerGone, DeadlinePassed, Overloaded, TenantOverloaded
from shared.domain.errors import (
    AnswerTooLarge,
    BackendError,
    BackendRejected,
    BatchTooLarge,
    DigestMismatch,
    InsufficientScope,
    InvalidPackage,
    InvalidRequest,
    ModelNotFound,
    PayloadTooLarge,
    SluiceError,
    Unauthenticated,
    VersionConflict,
    VersionNotFound,
    WrongShape,
)

EXPECTED = {
    SluiceError: Status.INTERNAL,
    InvalidRequest: Status.INVALID_ARGUMENT,
    WrongShape: Status.INVALID_ARGUMENT,
    BatchTooLarge: Status.INVALID_ARGUMENT,
    PayloadTooLarge: Status.RESOURCE_EXHAUSTED,
    AnswerTooLarge: Status.RESOURCE_EXHAUSTED,
    AlreadyLoaded: Status.ALREADY_EXISTS,
    Unauthenticated: Status.UNAUTHENTICATED,
    InsufficientScope: Status.PERMISSION_DENIED,
    ModelNotFound: Status.NOT_FOUND,
    VersionNotFound: Status.NOT_FOUND,
    InvalidPackage: Status.FAILED_PRECONDITION,
    VersionConflict: Status.FAILED_PRECONDITION,
    DigestMismatch: Status.DATA_LOSS,
    BackendError: Status.INTERNAL,
    BackendRejected: Status.INTERNAL,
    ModelUnavailable: Status.UNAVAILABLE,
    Overloaded: Status.UNAVAILABLE,
    TenantOverloaded: Status.RESOURCE_EXHAUSTED,
    OutOfMemory: Status.RESOURCE_EXHAUSTED,
    DeadlinePassed: Status.DEADLINE_EXCEEDED,
    CallerGone: Status.CANCELLED,
    SessionBusy: Status.ABORTED,
}


def bare(kind: type[SluiceError]) -> SluiceError:
    error = kind.__new__(kind)
    SluiceError.__init__(error, "detail")
    return error


@pytest.mark.parametrize("kind", EXPECTED)
def test_the_status_of_an_error(kind: type[SluiceError]) -> None:
    assert status_of(bare(kind)) is EXPECTED[kind]


def every(kind: type[SluiceError]) -> Iterator[type[SluiceError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from every(below)


def test_every_branch_of_the_tree_has_its_own_status() -> None:
    for kind in SluiceError.__subclasses__():
        assert kind in table._STATUSES, kind
    for kind in every(SluiceError):
        assert status_of(bare(kind)) is not Status.OK


def test_trailers_say_code_and_when_to_try_again() -> None:
    block = trailers(failure(Overloaded("queue is full: 5 %", retry_after_s=1.5), "id-1"))
    assert Decoder(4096).decode(block) == [
        (b"grpc-status", b"14"),
        (b"grpc-message", b"queue is full: 5 %25"),
        (b"x-sluice-code", b"overloaded"),
        (b"x-request-id", b"id-1"),
        (b"grpc-retry-pushback-ms", b"1500"),
    ]


@given(st.text())
def test_messages_come_back_as_they_were(text: str) -> None:
    encoded = percent_encoded(text)
    assert all(0x20 <= byte < 0x7F for byte in encoded)
    assert unquote(encoded.decode("ascii")) == text.encode("utf-8", "replace").decode("utf-8")


def test_a_long_message_is_cut_between_characters() -> None:
    encoded = percent_encoded("é" * 5000)
    assert len(encoded) <= 2048
    assert set(unquote(encoded.decode("ascii"))) == {"é"}
    assert RpcError(Status.INTERNAL, "x").http == b"200"
