"""For how long received messages of a queue are nobody else's."""

from collections.abc import Sequence
from typing import Any, Final

from shared.adapters.aws import aws_errors
from shared.domain.errors import BackendUnavailable

_WHAT: Final = "The queue"
_AT_ONCE: Final = 10  # Source: Amazon SQS API, ChangeMessageVisibilityBatch
_LONGEST_S: Final = 43_200  # 12 hours
_GONE: Final = frozenset({"ReceiptHandleIsInvalid", "InvalidParameterValue", "MessageNotInflight"})


class SqsVisibility:
    """Changes the visibility of messages by their receipt handles; raises BackendError."""

    def __init__(self, client: Any, queue_url: str) -> None:
        self._client = client
        self._url = queue_url

    def set(self, receipts: Sequence[str], seconds: float) -> None:
        """Hide messages for so many seconds from now on; one call for each ten.

        A message that is gone, or received anew by another, stays as it is: its handle is worth nothing any more.
        """
        hidden_s = max(0, min(_LONGEST_S, round(seconds)))
        for start in range(0, len(receipts), _AT_ONCE):
            entries = [
                {"Id": str(number), "ReceiptHandle": receipt, "VisibilityTimeout": hidden_s}
                for number, receipt in enumerate(receipts[start : start + _AT_ONCE])
            ]
            with aws_errors(_WHAT):
                answer = self._client.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)
            failed = [each for each in answer.get("Failed", ()) if each.get("Code", "").rpartition(".")[2] not in _GONE]
            if failed:
                raise BackendUnavailable(f"{_WHAT} did not change the visibility of {len(failed)} messages.")
