"""Runs versions in the container behind a SageMaker endpoint."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError, ConnectionClosedError

from shared.adapters.aws import aws_errors, error_code
from shared.adapters.sagemaker_errors import from_client_error
from shared.adapters.sagemaker_wire import attributes_of, decode_answer
from shared.codecs.content.media import SAGEMAKER_BINARY, sagemaker_binary
from shared.codecs.v2 import encode_request, to_wire
from shared.domain.errors import BackendError, BackendTimeout, PayloadTooLarge
from shared.domain.model import ModelVersion
from shared.domain.ports import InferenceContext
from shared.domain.tensors import Tensors

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient

_log = logging.getLogger(__name__)

_WHAT = "The model endpoint"
DEFAULT_TIMEOUTS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
# SageMaker's service model says 6 MiB for requests and answers.
DEFAULT_MAX_BYTES = 6 * 1024 * 1024


class SageMakerBackend:
    """Implements `shared.domain.ports.Backend` with `InvokeEndpoint`, tensors as binary V2.

    botocore has one read timeout for each client, so there is one client for each of `timeouts_s` (seconds, rising),
    made by `client_for(seconds)` when it is first needed. A call uses the shortest that covers its deadline: the
    container, which is told the deadline, answers first, and a dead one is given up at most one step later.
    The clients must not retry: a read timeout means that the time is spent. Only a connection that was closed before
    it answered (a kept one, after a function was frozen) is tried once more, with the time that is left.
    """

    def __init__(
        self,
        client_for: "Callable[[float], SageMakerRuntimeClient]",
        endpoint_name: str,
        *,
        timeouts_s: Sequence[float] = DEFAULT_TIMEOUTS_S,
        max_request_bytes: int = DEFAULT_MAX_BYTES,
        max_response_bytes: int = DEFAULT_MAX_BYTES,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        if not timeouts_s or any(after <= before for before, after in pairwise([0.0, *timeouts_s])):
            raise ValueError("timeouts_s must be positive and rise")
        self._client_for = client_for
        self._endpoint_name = endpoint_name
        self._timeouts_s = tuple(timeouts_s)
        self._max_request_bytes = max_request_bytes
        self._max_response_bytes = max_response_bytes
        self._clock = clock
        self._lock = Lock()
        self._clients: dict[float, SageMakerRuntimeClient] = {}

    def infer(self, version: ModelVersion, inputs: Tensors, context: InferenceContext) -> Tensors:
        """Run the model in the container.

        Raises PayloadTooLarge over `max_request_bytes`, what the container says of the content (BadImage …),
        BackendUnavailable, BackendTimeout, BackendRejected, and BackendError, also for an answer that is not one of
        this version.
        """
        signature = version.signature
        dtypes = {spec.name: spec.dtype for spec in signature.inputs}
        body, header_length = encode_request(to_wire(inputs, dtypes), request_id=context.request_id)
        if len(body) > self._max_request_bytes:
            raise PayloadTooLarge(f"The tensors have {len(body)} bytes; the endpoint takes {self._max_request_bytes}.")
        media_type, answer = self._invoke(version, body, header_length, context)
        rows = next(iter(inputs.values())).shape[0] if signature.batched else None
        return decode_answer(answer, media_type, version, rows)

    def _invoke(
        self, version: ModelVersion, body: bytes, header_length: int, context: InferenceContext
    ) -> tuple[str, bytes]:
        deadline = self._clock() + context.deadline_ms / 1000
        with aws_errors(_WHAT):
            try:
                return self._call(version, body, header_length, context, deadline)
            except ConnectionClosedError:
                _log.info("connection to endpoint %s was closed, trying once more", self._endpoint_name)
                return self._call(version, body, header_length, context, deadline)

    def _call(
        self, version: ModelVersion, body: bytes, header_length: int, context: InferenceContext, deadline: float
    ) -> tuple[str, bytes]:
        left_ms = int((deadline - self._clock()) * 1000)
        if left_ms <= 0:
            raise BackendTimeout("The deadline passed before the model could run.")
        sent = replace(context, deadline_ms=left_ms)
        try:
            answer = self._client(left_ms / 1000).invoke_endpoint(
                EndpointName=self._endpoint_name,
                Body=body,
                ContentType=sagemaker_binary(header_length),
                Accept=SAGEMAKER_BINARY,
                CustomAttributes=attributes_of(version, sent),
            )
        except ClientError as error:
            raise from_client_error(error, version) from error
        with answer["Body"] as stream:
            content = stream.read(self._max_response_bytes + 1)
        if len(content) > self._max_response_bytes:
            raise BackendError(f"The container's answer has more than {self._max_response_bytes} bytes.")
        return answer["ContentType"], content

    def _client(self, seconds: float) -> "SageMakerRuntimeClient":
        timeout = next((step for step in self._timeouts_s if step >= seconds), self._timeouts_s[-1])
        with self._lock:
            if timeout not in self._clients:
                self._clients[timeout] = self._client_for(timeout)
            return self._clients[timeout]


def endpoint_status(client: "SageMakerClient", name: str) -> str:
    """SageMaker's status of an endpoint, such as `InService`; `Missing` if there is none. Raises BackendError.

    The client of this API takes some 100 ms to make (its model is large): make it when readiness is asked for.
    """
    with aws_errors(_WHAT):
        try:
            return client.describe_endpoint(EndpointName=name)["EndpointStatus"]
        except ClientError as error:
            # DescribeEndpoint has no error of its own for this. Source: API reference, "Could not find endpoint".
            if error_code(error) == "ValidationException" and "could not find" in str(error).lower():
                return "Missing"
            raise
