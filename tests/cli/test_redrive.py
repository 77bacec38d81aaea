"""`sluice jobs redrive` on the queues and the table of the local AWS services."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from infra.local.aws_client import isolated_session, local_client
from shared.adapters.dynamodb_jobs import DynamoDBJobs
from shared.adapters.sqs_jobs import SqsDeadLetters
from shared.adapters.sqs_messages import Message, SqsMessages
from shared.domain.jobs import Job, JobProblem, new_job_id
from tests.adapters.samples import unique
from tests.cli.conftest import Cli, local_stack
from tests.conftest import LocalAws
from tests.usecases.test_redrive_jobs import job as some_job

PROBLEM = JobProblem("backend_error", "Backend failed", "[red]no[/]")
QUEUES = ("JobsQueue", "JobsDeadLetters", "BatchQueue", "BatchDeadLetters")


@dataclass(frozen=True)
class Operator:
    """The command, with queues of its own and the table of jobs."""

    cli: Cli
    sqs: Any
    jobs: DynamoDBJobs
    queues: dict[str, str]

    def failed(self, **more: Any) -> Job:
        """A job that failed, with its letter."""
        import time

        now = time.time()
        job = some_job(
            "failed",
            **{"job_id": new_job_id(), "created_at": now, "start_by": now, "expires_at": int(now) + 600, **more},
        )
        self.jobs.add(job)
        queue = "BatchDeadLetters" if job.kind == "batch" else "JobsDeadLetters"
        SqsDeadLetters(lambda: self.sqs, self.queues[queue]).send(job, PROBLEM)
        return job

    def bodies(self, queue: str) -> list[str]:
        """The messages that wait."""
        found = self.sqs.receive_message(QueueUrl=self.queues[queue], MaxNumberOfMessages=10, VisibilityTimeout=0)
        return [message["Body"] for message in found.get("Messages", ())]


@pytest.fixture
def operator(down: Cli, local_aws: LocalAws) -> Iterator[Operator]:
    sqs, dynamodb = (local_client(isolated_session(), name, local_aws.url) for name in ("sqs", "dynamodb"))
    queues = {name: sqs.create_queue(QueueName=unique(name))["QueueUrl"] for name in QUEUES}
    table = local_aws.stack.resources["JobsTable"].name
    outputs = {"JobsTableName": table, **{f"{name}Url": url for name, url in queues.items()}}
    down.home.claim()
    down.home.publish(replace(local_stack("http://127.0.0.1:1"), aws_endpoint_url=local_aws.url, outputs=outputs))
    yield Operator(down, sqs, DynamoDBJobs(dynamodb, table), queues)
    down.home.release()


def test_letters_are_shown_and_then_driven_again(operator: Operator) -> None:
    prediction, batch = operator.failed(), operator.failed(kind="batch", tenant="rival")
    dry = operator.cli.json("jobs", "redrive", "--dry-run")
    assert dry["dry_run"] is True
    shown = [(letter["job_id"], letter["tenant"], letter["reason"], letter["outcome"]) for letter in dry["letters"]]
    assert shown == [
        (prediction.job_id, "acme", "backend_error", "queued"),
        (batch.job_id, "rival", "backend_error", "queued"),
    ]
    assert operator.jobs.get("acme", prediction.job_id).state == "failed"
    table = operator.cli("jobs", "redrive", "--dry-run").stdout
    for part in (prediction.job_id, "rival", "[red]no[/]", "would"):
        assert part in table

    done = operator.cli.json("jobs", "redrive")
    assert [letter["outcome"] for letter in done["letters"]] == ["queued", "queued"]
    for job in (prediction, batch):
        again = operator.jobs.get(job.tenant, job.job_id)
        assert (again.state, again.attempts, again.problem) == ("queued", 0, None)
    assert operator.bodies("JobsQueue") == [f'{{"job_id": "{prediction.job_id}"}}']
    assert operator.bodies("BatchQueue") == [f'{{"job_id": "{batch.job_id}", "step": "plan"}}']
    assert "are empty" in operator.cli("jobs", "redrive").stderr


def test_what_nobody_can_read_is_told_with_its_reason_and_left(operator: Operator) -> None:
    url = operator.queues["BatchDeadLetters"]
    for body in ("no JSON", "[]"):
        SqsMessages(lambda: operator.sqs, "", url).bury(
            Message("m-1", "", body), "unreadable_message", "It is no step."
        )
    job = operator.failed(kind="batch")
    found = operator.cli.json("jobs", "redrive")["letters"]
    told = {(each["job_id"], each["reason"], each["detail"], each["outcome"]) for each in found}
    assert told == {
        (None, "unreadable_message", "It is no step.", "unreadable"),
        (job.job_id, "backend_error", "[red]no[/]", "queued"),
    }
    assert sorted(operator.bodies("BatchDeadLetters")) == ["[]", "no JSON"]
    table = operator.cli("jobs", "redrive", env={"COLUMNS": "160"}).stdout
    assert table.count("unreadable_message") == 2


def test_no_more_letters_than_the_limit(operator: Operator) -> None:
    for _ in range(3):
        operator.failed()
    operator.failed(kind="batch")
    assert len(operator.cli.json("jobs", "redrive", "--limit", "2")["letters"]) == 2
    assert len(operator.bodies("JobsDeadLetters")) == 1
    assert len(operator.cli.json("jobs", "redrive", "--limit", "2")["letters"]) == 2
    assert operator.bodies("JobsDeadLetters") == operator.bodies("BatchDeadLetters") == []


def test_a_stack_without_queues_is_told(cli: Cli) -> None:
    result = cli("jobs", "redrive")
    assert (result.exit_code, "JobsDeadLettersUrl" in result.stderr) == (1, True)


def test_a_region_belongs_to_a_stack(cli: Cli) -> None:
    assert cli("jobs", "redrive", "--region", "eu-central-1").exit_code == 2
