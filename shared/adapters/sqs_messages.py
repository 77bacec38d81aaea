"""Messages of a queue that a function has received: how long they stay hidden, and where unreadable ones go."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from shared.adapters.aws import aws_errors
from shared.adapters.sqs_queue import letter_attributes

_WHAT: Final = "The queue of jobs"
_DEAD: Final = "The queue of failed jobs"
_MOST_AT_ONCE: Final = 10
_MOST_HIDDEN_S: Final = 43_200
_MOST_BODY: Final = 200_000


@dataclass(frozen=True, slots=True)
class Message:
    """A message as Lambda hands it on; `received` counts how often it was received, this time included.

    `group` is the one whose turn it was, empty if nobody gave it one.
    """

    message_id: str
    receipt: str
    body: str
    received: int = 1
    group: str = ""


class SqsMessages:
    """The queue at `queue_url`, and that for what nobody can read; the client is made for the first call."""

    def __init__(self, client: Callable[[], Any], queue_url: str, dead_letters_url: str) -> None:
        self._make = client
        self._url = queue_url
        self._dead_letters_url = dead_letters_url

    @cached_property
    def _client(self) -> Any:
        return self._make()

    def hide(self, messages: Sequence[Message], seconds: float) -> int:
        """Let messages come back in so many seconds; one call for ten. How many could not be changed.

        Raises BackendError. A message that was deleted, or has come back already, is one that could not.
        """
        visibility = min(_MOST_HIDDEN_S, max(0, round(seconds)))
        failed = 0
        for first in range(0, len(messages), _MOST_AT_ONCE):
            part = messages[first : first + _MOST_AT_ONCE]
            entries = [
                {"Id": str(at), "ReceiptHandle": message.receipt, "VisibilityTimeout": visibility}
                for at, message in enumerate(part)
            ]
            with aws_errors(_WHAT):
                answer = self._client.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)
            failed += len(answer.get("Failed", ()))
        return failed

    def send_again(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Put new messages in the place of these, which nobody has received yet; two calls for ten.

        Those that stay as they were. Raises BackendError: some may be there twice then, which does no harm.
        """
        stay: list[Message] = []
        for first in range(0, len(messages), _MOST_AT_ONCE):
            part = messages[first : first + _MOST_AT_ONCE]
            entries = [
                {"Id": str(at), "MessageBody": message.body, "MessageGroupId": message.group or message.message_id}
                for at, message in enumerate(part)
            ]
            with aws_errors(_WHAT):
                answer = self._client.send_message_batch(QueueUrl=self._url, Entries=entries)
                sent = [int(done["Id"]) for done in answer.get("Successful", ())]
                stay += [message for at, message in enumerate(part) if at not in sent]
                if sent:
                    # Or they would come back as well, and become more each time.
                    self._client.delete_message_batch(
                        QueueUrl=self._url,
                        Entries=[{"Id": str(at), "ReceiptHandle": part[at].receipt} for at in sent],
                    )
        return stay

    def bury(self, message: Message, code: str, detail: str) -> None:
        """Put a message that nobody can read among the dead letters, as it was; raises BackendError."""
        with aws_errors(_DEAD):
            self._client.send_message(
                QueueUrl=self._dead_letters_url,
                MessageBody=message.body[:_MOST_BODY] or json.dumps(None),
                MessageGroupId=message.message_id,
                MessageAttributes=letter_attributes(code, detail, message.received),
            )
