"""Calls of a SageMaker real-time endpoint, and what is known of one."""

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from time import monotonic
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError, ConnectionClosedError

from shared.adapters.aws import aws_errors, error_code
from shared.adapters.backends.sagemaker_clients import DEFAULT_MAX_BYTES, DEFAULT_TIMEOUTS_S, SteppedClients
from shared.adapters.backends.sagemaker_errors import from_client_error, is_garbage, runtime_errors
from shared.adapters.backends.sagemaker_wire import attributes_of, decode_answer, encode, inference_id
from shared.codecs.content.media import SAGEMAKER_BINARY
from shared.domain.errors import BackendError, BackendTimeout
from shared.domain.model import ModelVersion
from shared.domain.ports import InferenceContext
from shared.domain.tensors import Tensors

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 256 * 1024


class SageMakerBackend:
    """Implements `shared.domain.ports.Backend` with `InvokeEndpoint`, tensors as binary V2.

    A call uses the client with the shortest read timeout that covers its deadline: the container, which is told the
    deadline, answers first, and a dead one is given up at most one step later. The clients must not retry: a read
    timeout means that the time is spent. Only a connection that was closed before it answered (a kept one, after a
    function was frozen) is tried once more, with the time that is left. `target` are further arguments of the call.
    """

    def __init__(
        self,
        client_for: "Callable[[float], SageMakerRuntimeClient]",
        endpoint_name: str,
        *,
        target: dict[str, str] | None = None,
        timeouts_s: Sequence[float] = DEFAULT_TIMEOUTS_S,
        max_request_bytes: int = DEFAULT_MAX_BYTES,
        max_response_bytes: int = DEFAULT_MAX_BYTES,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._clients = SteppedClients(client_for, timeouts_s)
        self._endpoint_name = endpoint_name
        self._target = target or {}
        self._max_request_bytes = max_request_bytes
        self._max_response_bytes = max_response_bytes
        self._clock = clock

    def infer(self, version: ModelVersion, inputs: Tensors, context: InferenceContext) -> Tensors:
        """Run the model in the container.

        Raises PayloadTooLarge over `max_request_bytes`, what the container says of the content (BadImage …),
        BackendUnavailable, BackendTimeout, BackendRejected, and BackendError, also for an answer that is not one of
        this version.
        """
        sent = encode(version, inputs, context, self._max_request_bytes)
        arguments = {
            "EndpointName": self._endpoint_name,
            "Body": sent.body,
            "ContentType": sent.content_type,
            "Accept": SAGEMAKER_BINARY,
            "InferenceId": inference_id(context.request_id),
            **self._target,
        }
        deadline = self._clock() + context.deadline_ms / 1000
        with runtime_errors():
            try:
                media_type, answer = self._call(version, arguments, context, deadline)
            except ConnectionClosedError as error:
                if is_garbage(error):
                    raise
                _log.info("connection to endpoint %s was closed, trying once more", self._endpoint_name)
                media_type, answer = self._call(version, arguments, context, deadline)
        return decode_answer(answer, media_type, version, sent.rows, context.request_id)

    def close(self) -> None:
        """Close the connections."""
        self._clients.close()

    def _call(
        self, version: ModelVersion, arguments: dict[str, Any], context: InferenceContext, deadline: float
    ) -> tuple[str, bytes]:
        left_ms = int((deadline - self._clock()) * 1000)
        if left_ms <= 0:
            raise BackendTimeout("The deadline passed before the model could run.")
        attributes = attributes_of(version, context.within(left_ms))
        client = self._clients.get(left_ms / 1000)
        try:
            return self._invoke(client, {**arguments, "CustomAttributes": attributes}, deadline)
        except ClientError as error:
            raise from_client_error(error, version) from error

    def _invoke(
        self, client: "SageMakerRuntimeClient", arguments: dict[str, Any], deadline: float
    ) -> tuple[str, bytes]:
        """Content type and body of the answer."""
        answer = client.invoke_endpoint(**arguments)
        content = bytearray()
        with closing(answer["Body"]) as stream:
            # The read timeout is that of one look at the socket: a container that drips could take any time.
            for chunk in stream.iter_chunks(_CHUNK_BYTES):
                content += chunk
                if len(content) > self._max_response_bytes:
                    raise self._too_large()
                if self._clock() > deadline:
                    raise BackendTimeout("The container did not end its answer in time.")
        return answer["ContentType"], bytes(content)

    def _too_large(self) -> BackendError:
        return BackendError(f"The container's answer has more than {self._max_response_bytes} bytes.")


def endpoint_status(client: "SageMakerClient", name: str) -> str:
    """SageMaker's status of an endpoint, such as `InService`; `Missing` if there is none. Raises BackendError.

    The client of this API takes some 100 ms to make (its model is large): make it when readiness is asked for.
    """
    with aws_errors("The model endpoint"):
        try:
            return client.describe_endpoint(EndpointName=name)["EndpointStatus"]
        except ClientError as error:
            # DescribeEndpoint has no error of its own for this. Source: API reference, "Could not find endpoint".
            if error_code(error) == "ValidationException" and "could not find" in str(error).lower():
                return "Missing"
            raise
