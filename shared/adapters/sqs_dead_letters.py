"""Dead-letter queues of jobs in SQS, for those who drive them again."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared.adapters.aws import aws_errors
from shared.domain.dead_letters import HELD_S, DeadLetter
from shared.domain.jobs import JOB_ID

_WHAT: Final = "The dead-letter queue"
_MOST: Final = 10  # of one call
_FAILED: Final = "function_failed"


class SqsDeadLetterQueue:
    """Implements `shared.domain.ports.DeadLetterQueue`."""

    def __init__(self, client: Any, queue_url: str) -> None:
        self._client = client
        self._url = queue_url

    def receive(self, limit: int) -> Sequence[DeadLetter]:
        """One ReceiveMessage, which waits a second: without that SQS asks only some of its servers."""
        with aws_errors(_WHAT):
            found = self._client.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=min(_MOST, limit),
                VisibilityTimeout=HELD_S,
                WaitTimeSeconds=1,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["SentTimestamp"],
            )
        return [_letter(message) for message in found.get("Messages", ())]

    def remove(self, letter: DeadLetter) -> None:
        """One DeleteMessage."""
        with aws_errors(_WHAT):
            self._client.delete_message(QueueUrl=self._url, ReceiptHandle=letter.handle)

    def release(self, letter: DeadLetter) -> None:
        """One ChangeMessageVisibility."""
        with aws_errors(_WHAT):
            self._client.change_message_visibility(QueueUrl=self._url, ReceiptHandle=letter.handle, VisibilityTimeout=0)


def _letter(message: Mapping[str, Any]) -> DeadLetter:
    attributes = message.get("MessageAttributes", {})
    texts = {name: str(value.get("StringValue", "")) for name, value in attributes.items()}
    attempts = texts.get("Attempts", "")
    # Lambda itself puts aside the events that a function failed at. Source: AWS Lambda Developer Guide, "Adding a
    # dead-letter queue", "Dead-letter queue message attributes".
    reason = texts.get("Reason") or (_FAILED if "ErrorMessage" in texts else None)
    return DeadLetter(
        handle=message["ReceiptHandle"],
        body=message["Body"],
        job_id=_job_id(message["Body"]),
        sent_at=int(message["Attributes"]["SentTimestamp"]) / 1000,
        reason=reason,
        detail=texts.get("Detail") or texts.get("ErrorMessage"),
        attempts=int(attempts) if re.fullmatch(r"[0-9]{1,9}", attempts) else None,
    )


def _job_id(body: str) -> str | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    found = document.get("job_id") if isinstance(document, dict) else None
    return found if isinstance(found, str) and re.fullmatch(JOB_ID, found) else None
