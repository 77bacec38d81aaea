"""Runs versions on a server of the Open Inference Protocol, over gRPC.

Sources: Open Inference Protocol, "GRPC"; gRPC, "Status codes and their use in gRPC", "Keepalive", and the channel
arguments of its C core (`grpc_types.h`).
"""

import os
from collections.abc import Mapping
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import grpc

from shared.adapters.backends.answers import outputs_of, rows_of
from shared.adapters.backends.open_inference import metadata_of, parameters_of, visible
from shared.adapters.backends.problems import MAX_DETAIL, known_problem
from shared.codecs.protobuf.client import decode_infer_response, encode_infer_request
from shared.codecs.v2 import to_wire
from shared.domain.errors import (
    BackendError,
    BackendRejected,
    BackendTimeout,
    BackendUnavailable,
    InvalidRequest,
    PayloadTooLarge,
    SluiceError,
)
from shared.domain.model import ModelVersion
from shared.domain.ports import InferenceContext
from shared.domain.tensors import Tensors

if TYPE_CHECKING:
    from shared.adapters.backends.bearer import BearerToken
    from shared.adapters.backends.open_inference_grpc import Options

WHO: Final = "The model server"
METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"

_Code = grpc.StatusCode
# Our error for each status, where the server does not say more. What BackendUnavailable stands for was not run.
MAPPED: Final[Mapping[grpc.StatusCode, type[BackendError]]] = {
    _Code.OK: BackendError,  # an RPC that failed has another one
    _Code.CANCELLED: BackendError,
    _Code.UNKNOWN: BackendError,
    _Code.INVALID_ARGUMENT: BackendRejected,
    _Code.DEADLINE_EXCEEDED: BackendTimeout,
    _Code.NOT_FOUND: BackendRejected,
    _Code.ALREADY_EXISTS: BackendRejected,
    _Code.PERMISSION_DENIED: BackendError,
    _Code.RESOURCE_EXHAUSTED: BackendUnavailable,
    _Code.FAILED_PRECONDITION: BackendRejected,
    _Code.ABORTED: BackendError,
    _Code.OUT_OF_RANGE: BackendRejected,
    _Code.UNIMPLEMENTED: BackendError,
    _Code.INTERNAL: BackendError,
    _Code.UNAVAILABLE: BackendUnavailable,
    _Code.DATA_LOSS: BackendError,
    _Code.UNAUTHENTICATED: BackendError,
}
# The server's own failures: a code of ours that blames the request does not count beside them.
_SERVER: Final = frozenset({_Code.INTERNAL, _Code.UNKNOWN, _Code.DATA_LOSS})
_TOO_LARGE: Final = "larger than max"  # grpc's own words for a message over the limit
_MAX_RETRY_AFTER_S: Final = 3600.0


class OpenInferenceGrpc:
    """Implements `shared.domain.ports.Backend` with the unary ModelInfer. Any number of threads may call it at once.

    One channel is kept. It is made by the first call, and anew in a process that was forked since: gRPC's threads and
    sockets do not survive that.
    """

    def __init__(self, options: "Options", token: "BearerToken | None" = None) -> None:
        self._options = options
        self._token = token
        self._lock = Lock()
        self._channel: grpc.Channel | None = None
        self._made_in = 0
        self._call: grpc.UnaryUnaryMultiCallable[bytes, bytes] | None = None

    def infer(self, version: ModelVersion, inputs: Tensors, context: InferenceContext) -> Tensors:
        """Run the model on the server.

        Raises PayloadTooLarge over `max_message_bytes`, what our container says of the content (BadImage …),
        BackendUnavailable, BackendTimeout, BackendRejected, and BackendError, also for an answer that is not one of
        this version, or to another request.
        """
        deadline = monotonic() + context.deadline_ms / 1000
        request_id = visible(context.request_id)
        message = self._message(version, inputs, request_id, context.deadline_ms)
        received = self._answer(message, context, deadline, version)
        try:
            answer = decode_infer_response(received)
        except InvalidRequest as error:
            raise BackendError(f"{WHO}'s answer breaks the inference protocol: {error.detail}") from error
        return outputs_of(
            answer,
            version,
            rows_of(version, inputs),
            request_id=request_id,
            model=self._options.server_model(version),
            model_version=self._options.server_version(version),
            who=WHO,
        )

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        with self._lock:
            channel, self._channel, self._call = self._channel, None, None
        if channel is not None:
            channel.close()

    def _message(self, version: ModelVersion, inputs: Tensors, request_id: str, left_ms: int) -> bytes:
        options = self._options
        message = encode_infer_request(
            options.server_model(version),
            options.server_version(version),
            request_id,
            to_wire(inputs, {spec.name: spec.dtype for spec in version.signature.inputs}),
            parameters_of(options, left_ms),
        )
        if len(message) > options.max_message_bytes:
            raise PayloadTooLarge(
                f"The tensors have {len(message)} bytes; the backend takes {options.max_message_bytes}."
            )
        return message

    def _answer(self, message: bytes, context: InferenceContext, deadline: float, version: ModelVersion) -> bytes:
        token = self._token() if self._token else ""
        try:
            return self._send(message, context, deadline, token)
        except grpc.RpcError as error:
            refused = error.code() is _Code.UNAUTHENTICATED and self._token is not None
            if not refused or self._token is None or not self._token.renewed(token):
                raise error_of(error, version) from error
        try:
            return self._send(message, context, deadline, self._token())
        except grpc.RpcError as error:
            raise error_of(error, version) from error

    def _send(self, message: bytes, context: InferenceContext, deadline: float, token: str) -> bytes:
        left_s = deadline - monotonic()
        left_ms = int(left_s * 1000)
        if left_ms <= 0:
            raise BackendTimeout("The deadline passed before the model could run.")
        sent = {**self._options.headers, **metadata_of(context, left_ms)}
        if token:
            sent["authorization"] = f"Bearer {token}"
        metadata = tuple((name.lower(), text) for name, text in sent.items())
        try:
            return self._connected()(message, timeout=left_s, metadata=metadata)
        except ValueError as error:  # grpc's word for a channel that was closed by another thread
            raise BackendUnavailable(f"{WHO} was let go of.") from error

    def _connected(self) -> "grpc.UnaryUnaryMultiCallable[bytes, bytes]":
        with self._lock:
            if self._call is None or self._made_in != os.getpid():
                self._channel = self._new_channel()
                self._made_in = os.getpid()
                self._call = self._channel.unary_unary(METHOD)
            return self._call

    def _new_channel(self) -> grpc.Channel:
        options = self._options
        arguments: list[tuple[str, int | str]] = [
            ("grpc.max_receive_message_length", options.max_message_bytes),
            ("grpc.max_send_message_length", options.max_message_bytes),
            ("grpc.keepalive_time_ms", options.keepalive_ms),
            ("grpc.keepalive_timeout_ms", 10_000),
            # Whoever calls retries, within a budget.
            ("grpc.enable_retries", 0),
            # A server that comes back is found within a second; this is also the time that connecting may take.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", options.connect_timeout_ms),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            # No channel shares this one's connection.
            ("grpc.use_local_subchannel_pool", 1),
            # Identity only: nobody asks for compressed answers, which could grow without bound.
            ("grpc.compression_enabled_algorithms_bitset", 1),
            # The function's environment may name a proxy for other calls.
            ("grpc.enable_http_proxy", 0),
        ]
        if options.authority:
            arguments.append(("grpc.default_authority", options.authority))
        if options.tls:
            return grpc.secure_channel(options.target, grpc.ssl_channel_credentials(), options=arguments)
        return grpc.insecure_channel(options.target, options=arguments)


def error_of(error: grpc.RpcError, version: ModelVersion) -> SluiceError:
    """The error to raise in place of gRPC's."""
    code = error.code()
    said = str(error.details() or "")
    metadata: Any = error.trailing_metadata() or ()
    trailers = {name: value for name, value in metadata if isinstance(value, str)}
    retry_after_s = _retry_after(trailers.get("grpc-retry-pushback-ms", ""))
    problem = {"code": trailers.get("x-sluice-code", ""), "detail": said}
    known = known_problem(problem, version, fault_of_request=code not in _SERVER, who=WHO, retry_after_s=retry_after_s)
    if known is not None:
        return known
    if code is _Code.RESOURCE_EXHAUSTED and _TOO_LARGE in said:
        return BackendError(f"{WHO}'s answer, or what it was sent, is over the limit of a message.")
    kind = MAPPED.get(code, BackendError)
    name = code.name if isinstance(code, grpc.StatusCode) else "UNKNOWN"
    if kind is BackendRejected:
        return kind(f"{WHO} refused the request ({name}): {said[:MAX_DETAIL]}")
    if kind is BackendUnavailable:
        return kind(f"{WHO} cannot be reached, or cannot answer now ({name}).", retry_after_s=retry_after_s)
    if kind is BackendTimeout:
        return kind(f"{WHO} did not answer in time.")
    return kind(f"{WHO} failed the call ({name}).")


def _retry_after(milliseconds: str) -> float | None:
    return min(int(milliseconds) / 1000, _MAX_RETRY_AFTER_S) if milliseconds.isdecimal() else None
