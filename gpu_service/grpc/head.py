"""What the headers of an RPC say; equal headers have one head, made once.

Source: gRPC, "gRPC over HTTP2", "Requests".
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gpu_service.grpc.hpack import Header
from gpu_service.grpc.status import RpcError, Status, failure
from gpu_service.inference.calls import call_of
from gpu_service.inference.request import Call
from shared.domain.errors import SluiceError, VersionNotFound

if TYPE_CHECKING:
    from gpu_service.grpc.methods import Method

_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNITS_MS: Mapping[str, float] = {"H": 3_600_000, "M": 60_000, "S": 1000, "m": 1, "u": 1e-3, "n": 1e-6}
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_ENCODINGS = ("identity", "gzip", "deflate")
_MAX_CALLS = 64


class Malformed(Exception):
    """The headers are no request of HTTP/2: the stream is reset."""


class Head:
    """Method and metadata; `refusal` says why the RPC cannot be served, `timeout_ms` is the time left when sent."""

    __slots__ = ("_calls", "call", "encoding", "method", "path", "refusal", "strict", "timeout_ms")

    def __init__(self, headers: list[Header] | None, methods: "Mapping[str, Method]") -> None:
        self.method: Method | None = None
        self.path = ""
        self.refusal: RpcError | None = None
        self.timeout_ms: float | None = None
        self.encoding = "identity"
        self.strict = False
        self.call = Call()
        self._calls: dict[tuple[str, str], Call] = {}
        if headers is None:
            self.refusal = RpcError(Status.RESOURCE_EXHAUSTED, "The metadata is larger than the limit.")
            return
        try:
            self._read(_fields(headers), methods)
        except RpcError as error:
            self.refusal = error
        except SluiceError as error:
            self.refusal = failure(error)

    def call_of(self, model: str, version: str, elapsed_ms: float = 0.0) -> Call:
        """The call of a request that comes `elapsed_ms` after the headers; VersionNotFound."""
        if self.call.deadline_ms is None:
            elapsed_ms = 0.0
        elif elapsed_ms:
            return self._new_call(model, version, elapsed_ms)
        call = self._calls.get((model, version))
        if call is None:
            call = self._new_call(model, version, elapsed_ms)
            if len(self._calls) < _MAX_CALLS:
                self._calls[model, version] = call
        return call

    def _new_call(self, model: str, version: str, elapsed_ms: float) -> Call:
        number: int | None = None
        if version:
            if not _VERSION.fullmatch(version):
                raise VersionNotFound(f"A version is a positive integer, not {version[:20]!r}.")
            number = int(version)
        base = self.call
        left = base.deadline_ms
        return Call(
            model or base.model,
            number if number is not None else base.version,
            deadline_ms=left - elapsed_ms if left is not None else None,
            priority=base.priority,
            tenant=base.tenant,
            request_id=base.request_id,
            traceparent=base.traceparent,
            session=base.session,
        )

    def _read(self, fields: dict[str, str], methods: "Mapping[str, Method]") -> None:
        self.path = fields[":path"]
        content_type = fields.get("content-type", "")
        if not content_type.startswith("application/grpc") or content_type[16:17] not in ("", "+", ";"):
            detail = f"The content type must be application/grpc, not {content_type[:100]!r}."
            raise RpcError(Status.INTERNAL, detail, http=b"415")
        self.method = methods.get(self.path)
        if self.method is None:
            raise RpcError(Status.UNIMPLEMENTED, f"There is no method {self.path[:200]}.")
        self.encoding = fields.get("grpc-encoding", "identity")
        if self.encoding not in _ENCODINGS:
            offer = ((b"grpc-accept-encoding", ",".join(_ENCODINGS).encode("ascii")),)
            detail = f"The message encoding {self.encoding[:50]!r} is not read here."
            raise RpcError(Status.UNIMPLEMENTED, detail, offer)
        self.strict = fields.get("triton_grpc_error", "") == "true"
        self.call = call_of(fields)
        if "grpc-timeout" in fields:
            timeout = _TIMEOUT.fullmatch(fields["grpc-timeout"])
            if timeout is None:
                raise RpcError(Status.INTERNAL, "grpc-timeout must be up to eight digits and a unit.")
            self.timeout_ms = int(timeout[1]) * _UNITS_MS[timeout[2]]
            own = self.call.deadline_ms
            self.call.deadline_ms = self.timeout_ms if own is None else min(own, self.timeout_ms)


def _fields(headers: list[Header]) -> dict[str, str]:
    """The headers by name, once they are a request's; Malformed otherwise. Source: RFC 9113, section 8.3.1."""
    fields: dict[str, str] = {}
    regular = False
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name.startswith(":"):
            if regular or name in fields or name not in (":method", ":scheme", ":path", ":authority"):
                raise Malformed(f"pseudo-header {name[:50]!r}")
        else:
            regular = True
            if not name or name != name.lower() or name in ("connection", "transfer-encoding", "upgrade"):
                raise Malformed(f"header {name[:50]!r}")
        fields[name] = f"{fields[name]},{value}" if name in fields else value
    if fields.get(":method") != "POST" or not fields.get(":path") or ":scheme" not in fields:
        raise Malformed("not a POST request with a path")
    return fields
