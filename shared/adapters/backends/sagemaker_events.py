"""Calls of a SageMaker endpoint whose answers come as a stream of events.

Source: botocore's service model `sagemaker-runtime`, InvokeEndpointWithResponseStream. The answer of one prediction is
one document, so its parts are joined: nothing of a stream that breaks off is given.
"""

from typing import TYPE_CHECKING, Any

from botocore.eventstream import EventStreamBuffer, ParserError
from botocore.exceptions import ClientError
from urllib3.exceptions import HTTPError, ReadTimeoutError

from shared.adapters.backends.problems import problem_in
from shared.adapters.backends.sagemaker_realtime import SageMakerBackend
from shared.domain.errors import BackendError, BackendTimeout

if TYPE_CHECKING:
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient


class SageMakerStreamBackend(SageMakerBackend):
    """As `SageMakerBackend`, with `InvokeEndpointWithResponseStream`; the deadline is looked at between the parts."""

    def _invoke(
        self, client: "SageMakerRuntimeClient", arguments: dict[str, Any], deadline: float
    ) -> tuple[str, bytes]:
        answer = client.invoke_endpoint_with_response_stream(**arguments)
        events: Any = answer["Body"]
        try:
            return answer["ContentType"], self._joined(events, deadline)
        except ClientError:  # an exception event, which the caller tells apart
            raise
        except ReadTimeoutError as error:
            raise BackendTimeout("The stream stopped, and the time is up.") from error
        except (HTTPError, OSError) as error:
            raise BackendError("The stream broke off.") from error
        except ParserError as error:
            raise BackendError("The stream is damaged.") from error
        finally:
            events.close()

    def _joined(self, events: Any, deadline: float) -> bytes:
        content, messages = bytearray(), EventStreamBuffer()
        # Not botocore's own iterator: of a ModelStreamError it drops the ErrorCode.
        for chunk in events._raw_stream.stream():
            messages.add_data(chunk)
            for message in messages:
                content += _part(message)
                if len(content) > self._max_response_bytes:
                    raise self._too_large()
            if self._clock() > deadline:
                raise BackendTimeout("The stream did not end in time.")
        return bytes(content)


def _part(message: Any) -> bytes:
    """The bytes of a PayloadPart, none of another event; ClientError for an exception."""
    headers: dict[str, Any] = message.headers
    if headers.get(":message-type") == "event":
        content: bytes = message.payload if headers.get(":event-type") == "PayloadPart" else b""
        return content
    members = problem_in(message.payload.decode("utf-8", "replace"))
    code = str(headers.get(":exception-type") or headers.get(":error-code") or "InternalStreamFailure")
    error: Any = {"Error": {"Code": code, "Message": str(members.get("Message", ""))}, **members}
    raise ClientError(error, "InvokeEndpointWithResponseStream")
