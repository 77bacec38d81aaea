"""Calls of a SageMaker asynchronous endpoint, through objects in S3.

Source: botocore's service model `sagemaker-runtime`, InvokeEndpointAsync, and "Asynchronous inference" of the SageMaker
developer guide.
"""

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import ceil
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError, ConnectionClosedError

from shared.adapters.backends.async_objects import AsyncObjects, Found
from shared.adapters.backends.sagemaker_async import MAX_INLINE_BYTES, MIN_TTL_S, Options
from shared.adapters.backends.sagemaker_clients import SteppedClients
from shared.adapters.backends.sagemaker_errors import from_client_error, from_failure, is_garbage, runtime_errors
from shared.adapters.backends.sagemaker_wire import Sent, attributes_of, decode_answer, encode
from shared.codecs.content.media import SAGEMAKER_BINARY
from shared.domain.errors import BackendError, BackendTimeout, InvalidRequest, SluiceError
from shared.domain.model import ModelVersion
from shared.domain.ports import InferenceContext
from shared.domain.tensors import Tensors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AsyncInvocation:
    """An invocation that SageMaker took on: `s3://` addresses of what it will write, and of what was written for it.

    `failure_location` is None for an endpoint without a path for failures, `input_location` for inputs in the call.
    """

    output_location: str
    failure_location: str | None
    inference_id: str
    input_location: str | None = None


class SageMakerAsyncBackend:
    """Implements `shared.domain.ports.Backend` by waiting for the answer; jobs use the steps of it by themselves."""

    def __init__(
        self,
        runtime_for: "Callable[[float], SageMakerRuntimeClient]",
        s3_for: "Callable[[float], S3Client]",
        bucket: str,
        options: Options,
        *,
        clock: Callable[[], float] = monotonic,
        pause: Callable[[float], None] = sleep,
    ) -> None:
        self._runtime = SteppedClients(runtime_for, options.timeouts_s)
        self._objects = AsyncObjects(SteppedClients(s3_for, options.timeouts_s), bucket, options.max_response_bytes)
        self._options = options
        self._clock = clock
        self._pause = pause

    def infer(self, version: ModelVersion, inputs: Tensors, context: InferenceContext) -> Tensors:
        """Submit, wait for the answer until the deadline, and remove the objects.

        Raises what `submit` and `result` do, and BackendTimeout when there is no answer in time: what has not begun by
        then finds its input gone, and what is answered later is removed by the bucket's life cycle.
        """
        deadline = self._clock() + context.deadline_ms / 1000
        sent = self._encode(version, inputs, context)
        invocation = self._submit(version, sent, context, deadline)
        read: Found | None = None
        try:
            with runtime_errors():
                read = self._wait(invocation, deadline)
        finally:
            self._objects.remove(invocation.input_location, read.location if read else None)
        return self._outputs(read, version, invocation, sent.rows, context.request_id)

    def submit(
        self, version: ModelVersion, inputs: Tensors, context: InferenceContext, reference: str | None = None
    ) -> AsyncInvocation:
        """Hand the prediction to SageMaker's queue, with `context.deadline_ms` as the time for all of it.

        `reference` is the invocation's InferenceId, which notices tell; without one it is made up. Raises
        PayloadTooLarge over `max_request_bytes`, BackendUnavailable, BackendTimeout, BackendError.
        """
        deadline = self._clock() + context.deadline_ms / 1000
        return self._submit(version, self._encode(version, inputs, context), context, deadline, reference)

    def result(
        self, version: ModelVersion, invocation: AsyncInvocation, rows: int | None, *, request_id: str = ""
    ) -> Tensors | None:
        """The outputs, None if there is no answer yet. `rows` is as for `decode_answer`.

        Raises what the container said of the content, BackendUnavailable, BackendTimeout, BackendRejected and
        BackendError.
        """
        with runtime_errors():
            found = self._look(invocation, self._options.timeouts_s[-1])
        return None if found is None else self._outputs(found, version, invocation, rows, request_id)

    def hand_in(
        self, version: ModelVersion, inputs: Tensors, context: InferenceContext, reference: str
    ) -> Mapping[str, str]:
        """Implements `shared.domain.ports.AsyncBackend`: `submit`, with the invocation as texts."""
        made = asdict(self.submit(version, inputs, context, reference))
        return {name: value for name, value in made.items() if value is not None}

    def fetch(self, version: ModelVersion, ticket: Mapping[str, str], rows: int | None) -> Tensors | SluiceError | None:
        """Implements `shared.domain.ports.AsyncBackend`: as `result`, of what `hand_in` gave."""
        invocation = AsyncInvocation(
            ticket["output_location"],
            ticket.get("failure_location"),
            ticket["inference_id"],
            ticket.get("input_location"),
        )
        with runtime_errors():
            found = self._look(invocation, self._options.timeouts_s[-1])
        if found is None:
            return None
        try:
            return self._outputs(found, version, invocation, rows, "")
        except (InvalidRequest, BackendError) as error:
            return error

    def discard(self, invocation: AsyncInvocation) -> None:
        """Remove the objects of an invocation; what cannot be removed is left to the bucket's life cycle."""
        self._objects.remove(invocation.input_location, invocation.output_location, invocation.failure_location)

    def close(self) -> None:
        """Close the connections."""
        self._runtime.close()
        self._objects.close()

    # ------------------------------------------------------------ inside
    def _encode(self, version: ModelVersion, inputs: Tensors, context: InferenceContext) -> Sent:
        return encode(version, inputs, context, self._options.max_request_bytes)

    def _submit(
        self,
        version: ModelVersion,
        sent: Sent,
        context: InferenceContext,
        deadline: float,
        reference: str | None = None,
    ) -> AsyncInvocation:
        left_s = self._left(deadline)
        client = self._runtime.get(left_s)
        location: str | None = None
        with runtime_errors():
            if self._fits(client, sent.body):
                body: dict[str, Any] = {"Body": sent.body}
            else:
                location = self._objects.put(sent, context.tenant, left_s)
                body = {"InputLocation": location}
            # Names of answers may be made of it, and a request's id can be a caller's: theirs must not meet.
            named = reference or secrets.token_hex(16)
            try:
                return self._invoke(client, version, sent, context, deadline, {**body, "InferenceId": named})
            except BaseException:
                self._objects.remove(location)
                raise

    def _invoke(
        self,
        client: "SageMakerRuntimeClient",
        version: ModelVersion,
        sent: Sent,
        context: InferenceContext,
        deadline: float,
        body: dict[str, Any],
    ) -> AsyncInvocation:
        left_s = self._left(deadline)
        arguments = {
            "EndpointName": self._options.endpoint,
            "ContentType": sent.content_type,
            "Accept": SAGEMAKER_BINARY,
            "CustomAttributes": attributes_of(version, context.within(int(left_s * 1000))),
            "RequestTTLSeconds": min(max(ceil(left_s), MIN_TTL_S), self._options.request_ttl_s),
            "InvocationTimeoutSeconds": min(ceil(left_s), self._options.invocation_timeout_s),
            **body,
        }
        try:
            answer = self._again(lambda: client.invoke_endpoint_async(**arguments))
        except ClientError as error:
            raise from_client_error(error, version) from error
        return AsyncInvocation(
            answer["OutputLocation"],
            answer.get("FailureLocation") or None,
            body["InferenceId"],
            body.get("InputLocation"),
        )

    def _again(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except ConnectionClosedError as error:  # a kept connection, after a function was frozen
            if is_garbage(error):
                raise
            _log.info("connection to endpoint %s was closed, trying once more", self._options.endpoint)
            return call()

    def _fits(self, client: "SageMakerRuntimeClient", body: bytes) -> bool:
        if not self._options.inline or len(body) > MAX_INLINE_BYTES:
            return False
        shape: Any = client.meta.service_model.operation_model("InvokeEndpointAsync").input_shape
        return "Body" in shape.members  # not so in older versions of botocore

    def _wait(self, invocation: AsyncInvocation, deadline: float) -> Found:
        pause_s = self._options.poll_min_ms / 1000
        while (found := self._look(invocation, max(deadline - self._clock(), 0))) is None:
            left_s = deadline - self._clock()
            if left_s <= 0:
                raise BackendTimeout("The endpoint's queue did not come to the request in time.")
            self._pause(min(pause_s, left_s))
            pause_s = min(pause_s * 1.5, self._options.poll_max_ms / 1000)
        return found

    def _look(self, invocation: AsyncInvocation, left_s: float) -> Found | None:
        return self._objects.first_of(invocation.output_location, invocation.failure_location, left_s=left_s)

    def _outputs(
        self, found: Found, version: ModelVersion, invocation: AsyncInvocation, rows: int | None, request_id: str
    ) -> Tensors:
        if found.location != invocation.output_location:
            raise from_failure(found.content, version)
        if len(found.content) > self._options.max_response_bytes:
            raise BackendError(f"The container's answer has more than {self._options.max_response_bytes} bytes.")
        return decode_answer(found.content, found.media_type, version, rows, request_id)

    def _left(self, deadline: float) -> float:
        left_s = deadline - self._clock()
        if left_s < 0.001:
            raise BackendTimeout("The deadline passed before the model could run.")
        return left_s
