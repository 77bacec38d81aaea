"""A dead-letter queue of jobs, as the workers fill it and the operator reads it."""

import json
import time
from typing import Any

import pytest

from infra.local.aws_client import isolated_session, local_client
from shared.adapters.sqs_dead_letters import SqsDeadLetterQueue
from shared.adapters.sqs_jobs import SqsDeadLetters
from shared.domain.jobs import JobProblem
from tests.adapters.samples import unique
from tests.conftest import LocalAws
from tests.usecases.test_redrive_jobs import job


@pytest.fixture
def sqs(local_aws: LocalAws) -> Any:
    return local_client(isolated_session(), "sqs", local_aws.url)


@pytest.fixture
def url(sqs: Any) -> str:
    return str(sqs.create_queue(QueueName=unique("dead"))["QueueUrl"])


def test_a_letter_tells_of_its_job_and_why_it_failed(sqs: Any, url: str) -> None:
    failed = job("failed")
    SqsDeadLetters(lambda: sqs, url).send(failed, JobProblem("backend_error", "Backend failed", "größe"))
    queue = SqsDeadLetterQueue(sqs, url)
    (found,) = queue.receive(10)
    assert (found.job_id, found.reason, found.detail, found.attempts) == (failed.job_id, "backend_error", "größe", 5)
    assert abs(found.sent_at - time.time()) < 60
    assert queue.receive(10) == []  # it is being looked at
    queue.release(found)
    (again,) = queue.receive(10)
    queue.remove(again)
    assert queue.receive(10) == []


@pytest.mark.parametrize(
    "body",
    ["", "no JSON", "[]", "7", "null", '{"job_id": 7}', '{"job_id": "../x"}', '{"job": "x"}', "[" * 5000],
)
def test_what_is_none_of_ours_names_no_job(sqs: Any, url: str, body: str) -> None:
    sqs.send_message(QueueUrl=url, MessageBody=body or " ")
    (found,) = SqsDeadLetterQueue(sqs, url).receive(1)
    assert (found.job_id, found.reason, found.attempts) == (None, None, None)


def test_what_sqs_put_aside_has_no_reason(sqs: Any, url: str) -> None:
    job_id = job("queued").job_id
    attributes = {"Attempts": {"DataType": "String", "StringValue": "many"}}
    for _ in range(12):
        sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"job_id": job_id}), MessageAttributes=attributes)
    queue = SqsDeadLetterQueue(sqs, url)
    letters = [*queue.receive(100), *queue.receive(100)]
    assert [(each.job_id, each.reason, each.attempts) for each in letters] == [(job_id, None, None)] * 12


def test_what_a_function_failed_at_has_lambda_s_own_reason(sqs: Any, url: str) -> None:
    texts = {"RequestID": "r", "ErrorCode": "200", "ErrorMessage": "The store of jobs is away."}
    attributes = {name: {"DataType": "String", "StringValue": text} for name, text in texts.items()}
    sqs.send_message(QueueUrl=url, MessageBody='{"detail-type": "Object Created"}', MessageAttributes=attributes)
    (found,) = SqsDeadLetterQueue(sqs, url).receive(1)
    assert (found.job_id, found.reason, found.detail) == (None, "function_failed", "The store of jobs is away.")
