"""Messages and dead letters of jobs, in queues of the local AWS services."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.session import Session

from shared.adapters.aws import client
from shared.adapters.sqs_jobs import SqsDeadLetters, SqsJobs
from shared.domain.errors import BackendError, BackendUnavailable
from shared.domain.jobs import Job, JobProblem, JobRequest
from tests.adapters.samples import unique
from tests.conftest import LocalAws

JOB = Job("1" * 32, "prediction", "acme", "key", "pair", JobRequest(None, {}), 1, 2, 3, "request", attempts=3)


@dataclass(frozen=True)
class Queue:
    sqs: Any
    url: str

    def received(self) -> list[dict[str, Any]]:
        found = self.sqs.receive_message(
            QueueUrl=self.url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], AttributeNames=["All"]
        )
        return list(found.get("Messages", ()))


@pytest.fixture
def queue(local_aws: LocalAws, aws_session: Session) -> Queue:
    """A queue of this test alone."""
    sqs = client("sqs", session=aws_session, endpoint_url=local_aws.url)
    return Queue(sqs, sqs.create_queue(QueueName=unique("jobs"))["QueueUrl"])


def test_a_message_names_the_job_and_its_tenant_is_the_group(queue: Queue) -> None:
    jobs = SqsJobs(lambda: queue.sqs, queue.url)
    assert jobs.waiting() == 0
    jobs.send("acme", "1" * 32)
    jobs.send("other", "2" * 32, delay_s=0.0)
    assert jobs.waiting() == 2
    messages = queue.received()
    assert {message["Body"] for message in messages} == {json.dumps({"job_id": digit * 32}) for digit in "12"}
    assert sorted(message["Attributes"]["MessageGroupId"] for message in messages) == ["acme", "other"]
    assert jobs.waiting() == 0  # a worker has them


def test_a_delayed_message_waits(queue: Queue) -> None:
    jobs = SqsJobs(lambda: queue.sqs, queue.url)
    jobs.send("acme", "1" * 32, delay_s=9999.0)
    assert (queue.received(), jobs.waiting()) == ([], 0)


@pytest.mark.parametrize(
    ("detail", "kept"),
    [
        ("It broke.", "It broke."),
        ("", None),
        ("ü" * 2000, "ü" * 512),
        ("a\x00b\x1fc\ud800\uffff\td", "a\ufffdb\ufffdc\ufffd\ufffd\td"),
    ],
)
def test_a_dead_letter_has_the_reason_beside_the_message(queue: Queue, detail: str, kept: str | None) -> None:
    SqsDeadLetters(lambda: queue.sqs, queue.url).send(JOB, JobProblem("job_crashed", "Job crashed", detail))
    (letter,) = queue.received()
    assert json.loads(letter["Body"]) == {"job_id": JOB.job_id}
    attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    expected = {"Reason": "job_crashed", "Attempts": "3"} | ({} if kept is None else {"Detail": kept})
    assert attributes == expected
    assert letter["MessageAttributes"]["Attempts"]["DataType"] == "Number"


@pytest.mark.parametrize(
    "call",
    [
        lambda make, url: SqsJobs(make, url).send("acme", "1" * 32),
        lambda make, url: SqsJobs(make, url).waiting(),
        lambda make, url: SqsDeadLetters(make, url).send(JOB, JobProblem("c", "t", "d")),
    ],
)
def test_a_queue_that_is_away_or_unknown_is_told_so(
    call: Callable[..., object], queue: Queue, aws_session: Session, free_port: int
) -> None:
    away = client("sqs", session=aws_session, endpoint_url=f"http://127.0.0.1:{free_port}", retries=0)
    with pytest.raises(BackendUnavailable):
        call(lambda: away, queue.url)
    with pytest.raises(BackendError):
        call(lambda: queue.sqs, f"{queue.url}-unknown")


def test_a_client_is_made_once_and_only_when_needed(queue: Queue) -> None:
    made: list[Any] = []

    def make() -> Any:
        made.append(queue.sqs)
        return queue.sqs

    jobs = SqsJobs(make, queue.url)
    assert not made
    jobs.send("acme", "1" * 32)
    jobs.waiting()
    assert len(made) == 1
