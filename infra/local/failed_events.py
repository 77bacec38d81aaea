"""Asynchronous invocations that have failed for good, into the queues that the template names for them.

Source: "Using dead-letter queues" and "Capturing records of asynchronous invocations" of the Lambda developer guide. A
dead-letter queue gets the event itself, an on-failure destination a record of the invocation.
"""

import asyncio
import json
import logging
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.local.aws_client import isolated_session, local_client
from infra.local.lambda_service.events import FailedEvent
from infra.local.lambda_service.invocation import VERSION

_log = logging.getLogger(__name__)


class FailedEventQueues:
    """The `FailedEvents` of a stack whose queues are at `aws_url`."""

    def __init__(self, aws_url: str) -> None:
        self._client = local_client(isolated_session(), "sqs", aws_url)

    async def __call__(self, event: FailedEvent) -> None:
        """Send the event to its function's queues."""
        try:
            await asyncio.to_thread(self._send, event)
        except (BotoCoreError, ClientError) as error:
            _log.warning("%s: a failed event is lost: %s", event.function.logical_id, error)

    def _send(self, event: FailedEvent) -> None:
        function = event.function
        if function.dead_letter_queue is not None:
            message = json.loads(event.result.payload).get("errorMessage", "")
            values = {"RequestID": event.result.request_id, "ErrorCode": "200", "ErrorMessage": message[:1024]}
            attributes = {
                name: {"DataType": "Number" if name == "ErrorCode" else "String", "StringValue": value}
                for name, value in values.items()
                if value
            }
            self._put(function.dead_letter_queue, event.payload.decode(), attributes)
        if function.on_failure_queue is not None:
            self._put(function.on_failure_queue, json.dumps(_record(event)), {})

    def _put(self, queue: str, body: str, attributes: dict[str, Any]) -> None:
        url = self._client.get_queue_url(QueueName=queue)["QueueUrl"]
        self._client.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=attributes)


def _record(event: FailedEvent) -> dict[str, Any]:
    return {
        "version": "1.0",
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "requestContext": {
            "requestId": event.result.request_id,
            "functionArn": f"{event.function.arn}:{VERSION}",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": event.attempts,
        },
        "requestPayload": json.loads(event.payload),
        "responseContext": {
            "statusCode": 200,
            "executedVersion": VERSION,
            "functionError": event.result.function_error,
        },
        "responsePayload": json.loads(event.result.payload),
    }
