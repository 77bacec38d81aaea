"""Steps of runs as messages: `{"job_id": …, "step": "plan"|"part"|"finish", "part": n}`, the tenant as their group."""

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final

from shared.adapters.aws import aws_errors
from shared.domain.batches import Step
from shared.domain.errors import BackendUnavailable
from shared.domain.jobs import Job

_WHAT: Final = "The queue of batches"
_AT_ONCE: Final = 10  # messages of one call. Source: Amazon SQS API, SendMessageBatch
_TRIES: Final = 3
_DEPTHS: Final = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")


class SqsBatchSteps:
    """Implements `shared.domain.batch_ports.BatchQueue`; `client` makes the client when it is first needed."""

    def __init__(self, client: Callable[[], Any], queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def send(self, job: Job, step: Step, parts: Iterable[int] = ()) -> None:
        """One call for each ten messages; those that the queue did not take are sent again."""
        left = iter(parts) if step == "part" else iter((None,))
        while chunk := list(islice(left, _AT_ONCE)):
            self._send([_body(job, step, part) for part in chunk], job.tenant)

    def quiet(self) -> bool:
        """One call; the numbers are what SQS knows of itself, some seconds old."""
        with aws_errors(_WHAT):
            found = self._client().get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=list(_DEPTHS))
        waiting, taken = (int(found["Attributes"].get(name, 0)) for name in _DEPTHS)
        return waiting == 0 and taken <= 1

    def _send(self, bodies: Sequence[str], tenant: str) -> None:
        for _ in range(_TRIES):
            entries = [
                {"Id": str(number), "MessageBody": body, "MessageGroupId": tenant} for number, body in enumerate(bodies)
            ]
            with aws_errors(_WHAT):
                answer = self._client().send_message_batch(QueueUrl=self._queue_url, Entries=entries)
            bodies = [bodies[int(failed["Id"])] for failed in answer.get("Failed", ())]
            if not bodies:
                return
        raise BackendUnavailable(f"{_WHAT} does not take all messages now.")


def _body(job: Job, step: Step, part: int | None) -> str:
    document: dict[str, Any] = {"job_id": job.job_id, "step": step}
    if part is not None:
        document["part"] = part
    return json.dumps(document)
