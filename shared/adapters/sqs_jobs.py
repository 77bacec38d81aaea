"""The queues of jobs in SQS. The tenant is the message group, which makes a standard queue a fair one.

A message says only which job is to be looked at: `{"job_id": …}`. Source: Amazon SQS Developer Guide, "Fair queues".
"""

import json
import re
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

from shared.adapters.aws import aws_errors
from shared.domain.jobs import Job, JobProblem

_WHAT: Final = "The queue of jobs"
_DEAD: Final = "The queue of failed jobs"
_MOST_DELAY_S: Final = 900
_MOST_DETAIL: Final = 1024
# What SQS refuses in texts, beside surrogates, which UTF-8 cannot have. Source: SQS API Reference, "SendMessage".
_REFUSED = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Queue:
    """A queue; the client, which takes some 50 ms to make, is made for the first call."""

    def __init__(self, client: Callable[[], Any], queue_url: str) -> None:
        self._make = client
        self._url = queue_url

    @cached_property
    def _client(self) -> Any:
        return self._make()


class SqsJobs(_Queue):
    """Implements `shared.domain.ports.JobQueue`."""

    def send(self, tenant: str, job_id: str, *, delay_s: float = 0.0) -> None:
        """One SendMessage."""
        with aws_errors(_WHAT):
            self._client.send_message(
                QueueUrl=self._url,
                MessageBody=json.dumps({"job_id": job_id}),
                MessageGroupId=tenant,
                **({"DelaySeconds": min(_MOST_DELAY_S, round(delay_s))} if delay_s > 0 else {}),
            )

    def waiting(self) -> int:
        """One GetQueueAttributes: an approximate number, which may be a minute old."""
        name = "ApproximateNumberOfMessages"
        with aws_errors(_WHAT):
            found = self._client.get_queue_attributes(QueueUrl=self._url, AttributeNames=[name])
        return int(found["Attributes"][name])


class SqsDeadLetters(_Queue):
    """Implements `shared.domain.ports.DeadLetters`: the message that stood for the job, with the reason beside it."""

    def send(self, job: Job, problem: JobProblem) -> None:
        """One SendMessage, with the attributes `Reason` (a code), `Detail` (1 KB at most) and `Attempts`."""
        texts = {"Reason": problem.code, "Detail": _detail(problem.detail)}
        with aws_errors(_DEAD):
            self._client.send_message(
                QueueUrl=self._url,
                MessageBody=json.dumps({"job_id": job.job_id}),
                MessageGroupId=job.tenant,
                MessageAttributes={
                    **{name: {"DataType": "String", "StringValue": text} for name, text in texts.items() if text},
                    "Attempts": {"DataType": "Number", "StringValue": str(job.attempts)},
                },
            )


def _detail(text: str) -> str:
    """The text as an attribute may have it: SQS counts bytes."""
    return _REFUSED.sub("\ufffd", text).encode()[:_MOST_DETAIL].decode(errors="ignore")
