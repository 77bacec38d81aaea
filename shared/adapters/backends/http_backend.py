"""Runs versions on a server of the Open Inference Protocol, over HTTP.

Sources: Open Inference Protocol, "REST"; Triton Inference Server, "Binary Tensor Data Extension".
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

import numpy as np

from shared.adapters.backends.answers import outputs_of, read_answer, rows_of
from shared.adapters.backends.http_connections import WHO, HttpAnswer, HttpConnections
from shared.adapters.backends.open_inference import metadata_of, parameters_of, visible
from shared.adapters.backends.problems import refusal_of
from shared.codecs.content.media import BINARY, JSON
from shared.codecs.v2 import V2Tensor, encode_request, to_wire
from shared.domain.dtypes import DType
from shared.domain.errors import BackendError, BackendRejected, BackendTimeout, PayloadTooLarge, SluiceError
from shared.domain.model import ModelVersion
from shared.domain.ports import InferenceContext
from shared.domain.tensors import Tensors, bf16_to_fp32

if TYPE_CHECKING:
    from shared.adapters.backends.bearer import BearerToken
    from shared.adapters.backends.open_inference_http import Options

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
_LENGTH = re.compile(r"[0-9]{1,9}")
_MAX_RETRY_AFTER_S: Final = 3600.0


class OpenInferenceHttp:
    """Implements `shared.domain.ports.Backend`. Any number of threads may call it at once."""

    def __init__(self, options: "Options", connections: HttpConnections, token: "BearerToken | None" = None) -> None:
        parts = urlsplit(options.url)
        self._options = options
        self._connections = connections
        self._token = token
        self._path = parts.path.rstrip("/")
        headers = {"Host": parts.netloc, "Accept-Encoding": "identity"}
        headers["Accept"] = f"{BINARY}, {JSON}" if options.binary else JSON
        given = {name.title(): value for name, value in options.headers.items()}
        self._headers: Mapping[str, str] = {**headers, **given}

    def infer(self, version: ModelVersion, inputs: Tensors, context: InferenceContext) -> Tensors:
        """Run the model on the server.

        Raises PayloadTooLarge over `max_request_bytes`, what our container says of the content (BadImage …),
        BackendUnavailable, BackendTimeout, BackendRejected, and BackendError, also for an answer that is not one of
        this version, or to another request.
        """
        deadline = monotonic() + context.deadline_ms / 1000
        request_id = visible(context.request_id)
        body, length = self._body(version, inputs, request_id, context.deadline_ms)
        answer = self._call(version, body, length, context, deadline)
        if answer.status != 200:
            raise self._refusal(answer, version)
        return outputs_of(
            read_answer(answer.body, _header_length(answer), WHO),
            version,
            rows_of(version, inputs),
            request_id=request_id,
            model=self._options.server_model(version),
            model_version=self._options.server_version(version),
            who=WHO,
        )

    def close(self) -> None:
        """Close the connections that are kept."""
        self._connections.close()

    def _body(self, version: ModelVersion, inputs: Tensors, request_id: str, left_ms: int) -> tuple[bytes, int]:
        options = self._options
        tensors = to_wire(inputs, {spec.name: spec.dtype for spec in version.signature.inputs})
        if not options.binary:
            for name, tensor in tensors.items():
                _check_json(name, tensor)
        body, length = encode_request(
            tensors, request_id=request_id, parameters=parameters_of(options, left_ms), binary=options.binary
        )
        if len(body) > options.max_request_bytes:
            raise PayloadTooLarge(f"The tensors have {len(body)} bytes; the backend takes {options.max_request_bytes}.")
        return body, length

    def _call(
        self, version: ModelVersion, body: bytes, length: int, context: InferenceContext, deadline: float
    ) -> HttpAnswer:
        token = self._token() if self._token else ""
        answer = self._connections.call(self._request(version, body, length, context, deadline, token), deadline)
        if answer.status == 401 and self._token and self._token.renewed(token):
            request = self._request(version, body, length, context, deadline, self._token())
            answer = self._connections.call(request, deadline)
        return answer

    def _request(
        self, version: ModelVersion, body: bytes, length: int, context: InferenceContext, deadline: float, token: str
    ) -> bytes:
        left_ms = int((deadline - monotonic()) * 1000)
        if left_ms <= 0:
            raise BackendTimeout("The deadline passed before the model could run.")
        model = quote(self._options.server_model(version), safe="")
        number = self._options.server_version(version)
        path = f"{self._path}/v2/models/{model}{f'/versions/{number}' if number else ''}/infer"
        headers = {**self._headers, **metadata_of(context, left_ms), "Content-Length": str(len(body))}
        headers["Content-Type"] = BINARY if self._options.binary else JSON
        if self._options.binary:
            headers[HEADER_LENGTH] = str(length)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        head = "".join(
            [f"POST {path} HTTP/1.1\r\n", *(f"{name}: {text}\r\n" for name, text in headers.items()), "\r\n"]
        )
        return head.encode("ascii") + body

    def _refusal(self, answer: HttpAnswer, version: ModelVersion) -> SluiceError:
        status = answer.status
        if status in {401, 403, 407}:
            return BackendError(f"{WHO} does not let us in (status {status}).")
        if status < 400:
            return BackendError(f"{WHO} answered with the status {status}, which is no answer to a prediction.")
        # Only what is meant for callers: a server that is none of this protocol may write anything.
        media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = answer.body.decode("utf-8", "replace") if media_type.endswith("json") else ""
        return refusal_of(status, body, version, who=WHO, retry_after_s=_retry_after(answer.headers))


def _header_length(answer: HttpAnswer) -> int | None:
    length = answer.headers.get(HEADER_LENGTH.lower())
    if length is not None:
        if not _LENGTH.fullmatch(length.strip()):
            raise BackendError(f"{WHO} answered with a header length that is no number.")
        return int(length)
    media_type = answer.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if media_type != JSON:
        raise BackendError(f"{WHO} answered with the content type {media_type[:100]!r}.")
    return None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a `Retry-After`, whichever form it has. Source: RFC 9110, section 10.2.3."""
    text = headers.get("retry-after", "").strip()
    if _LENGTH.fullmatch(text):
        return min(float(text), _MAX_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    moment = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max((moment - datetime.now(UTC)).total_seconds(), 0.0), _MAX_RETRY_AFTER_S)


def _check_json(name: str, tensor: V2Tensor) -> None:
    """BackendRejected for what JSON cannot hold: it would arrive as something else."""
    array = tensor.array
    if tensor.dtype is DType.BYTES:
        try:
            for value in array.reshape(-1):
                value.decode("utf-8")
        except UnicodeDecodeError:
            raise BackendRejected(f"The input {name!r} is not UTF-8, and this backend is sent JSON.") from None
    elif tensor.dtype.is_float:
        values = bf16_to_fp32(array) if tensor.dtype is DType.BF16 else array
        if not np.isfinite(values).all():
            raise BackendRejected(f"The input {name!r} holds NaN or infinity, and this backend is sent JSON.")
