"""The queues of jobs in SQS. The tenant is the message group, which makes a standard queue a fair one.

A message says only which job is to be looked at: `{"job_id": …}`. Source: Amazon SQS Developer Guide, "Fair queues".
"""

import json
from typing import Final

from shared.adapters.aws import aws_errors
from shared.adapters.sqs_queue import SqsQueue, letter_attributes
from shared.domain.jobs import Job, JobProblem

_WHAT: Final = "The queue of jobs"
_DEAD: Final = "The queue of failed jobs"
_MOST_DELAY_S: Final = 900


class SqsJobs(SqsQueue):
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


class SqsDeadLetters(SqsQueue):
    """Implements `shared.domain.ports.DeadLetters`: the message that stood for the job, with the reason beside it."""

    def send(self, job: Job, problem: JobProblem) -> None:
        """One SendMessage."""
        with aws_errors(_DEAD):
            self._client.send_message(
                QueueUrl=self._url,
                MessageBody=json.dumps({"job_id": job.job_id}),
                MessageGroupId=job.tenant,
                MessageAttributes=letter_attributes(problem.code, problem.detail, job.attempts),
            )
