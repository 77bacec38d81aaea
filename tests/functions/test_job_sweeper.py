"""The sweeper as its composition root makes it, on tables and queues of its own in the local AWS services."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING, Any

import pytest
from botocore.session import Session

from functions.job_sweeper import bootstrap
from infra.local.stack import REGION
from shared.adapters.aws import client
from shared.adapters.dynamodb_jobs import DynamoDBJobs
from shared.domain.errors import BackendError
from shared.domain.jobs import KEPT_S, MAX_ATTEMPTS, Job, JobRequest, new_job_id
from shared.usecases.sweep_jobs import Swept
from tests.adapters.samples import unique
from tests.conftest import LocalAws
from tests.functions.conftest import LogLines
from tests.functions.support import LambdaContextStub

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.usefixtures("keep_loggers")
EVENT = {"version": "0", "source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}
CONTEXT = LambdaContextStub(left_ms=60_000)


@dataclass(frozen=True)
class World:
    """A stack's table and queues, and what the template gives the sweeper of them."""

    dynamodb: "DynamoDBClient"
    sqs: Any
    environment: Mapping[str, str]

    @property
    def jobs(self) -> DynamoDBJobs:
        return DynamoDBJobs(self.dynamodb, self.environment["SLUICE_JOBS_TABLE"])

    def add(self, **changes: Any) -> str:
        now = time() - 300
        values: dict[str, Any] = {
            "job_id": new_job_id(now),
            "kind": "prediction",
            "tenant": "acme",
            "key_id": "key",
            "model": "pair",
            "request": JobRequest(None, {}, inline=b"{}"),
            "created_at": now,
            "start_by": now + 86_400,
            "expires_at": int(now) + KEPT_S,
            "request_id": "request",
            "due_at": now + 60,
        }
        made = Job(**{**values, **changes})
        self.jobs.add(made)
        return made.job_id

    def messages(self, variable: str) -> list[dict[str, Any]]:
        found = self.sqs.receive_message(
            QueueUrl=self.environment[variable], MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        )
        return list(found.get("Messages", ()))

    def sent(self, variable: str) -> list[dict[str, Any]]:
        return [json.loads(message["Body"]) for message in self.messages(variable)]


@pytest.fixture
def world(local_aws: LocalAws, aws_session: Session, monkeypatch: pytest.MonkeyPatch) -> World:
    for name, value in {
        "AWS_ENDPOINT_URL": local_aws.url,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    table = unique("jobs")
    dynamodb = client("dynamodb", session=aws_session, endpoint_url=local_aws.url)
    properties = local_aws.stack.resources["JobsTable"].properties
    keys = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
    dynamodb.create_table(TableName=table, **{key: properties[key] for key in keys})
    sqs = client("sqs", session=aws_session, endpoint_url=local_aws.url)
    urls = {
        f"SLUICE_{name}_URL": sqs.create_queue(QueueName=unique("queue"))["QueueUrl"]
        for name in ("JOBS_QUEUE", "JOBS_DEAD_LETTERS", "BATCH_QUEUE", "BATCH_DEAD_LETTERS")
    }
    return World(dynamodb, sqs, {"POWERTOOLS_SERVICE_NAME": "sweeper", "SLUICE_JOBS_TABLE": table, **urls})


def test_a_sweep_sends_what_is_missing_and_ends_what_is_over(world: World) -> None:
    lost, batch, young = world.add(), world.add(kind="batch"), world.add(due_at=time() + 999)
    held = {"state": "running", "owner": "one", "lease_until": time() - 9}
    killed, crashed = world.add(**held, attempts=1), world.add(**held, attempts=MAX_ATTEMPTS)
    handler = bootstrap.build(world.environment)
    done = handler(EVENT, CONTEXT)
    assert {name: count for name, count in done.items() if count} == {
        "jobs": 4,
        "sent": 2,
        "requeued": 1,
        "crashed": 1,
        "complete": True,
    }
    assert sorted(body["job_id"] for body in world.sent("SLUICE_JOBS_QUEUE_URL")) == sorted([lost, killed])
    assert world.sent("SLUICE_BATCH_QUEUE_URL") == [{"job_id": batch, "step": "plan"}]
    (letter,) = world.messages("SLUICE_JOBS_DEAD_LETTERS_URL")
    assert json.loads(letter["Body"]) == {"job_id": crashed}
    assert letter["MessageAttributes"]["Reason"]["StringValue"] == "job_crashed"
    states = {job_id: world.jobs.get("acme", job_id).state for job_id in (lost, killed, crashed, young)}
    assert states == {lost: "queued", killed: "queued", crashed: "failed", young: "queued"}
    assert handler(EVENT, CONTEXT)["jobs"] == 0


def test_a_sweep_writes_one_line(log: logging.Logger, log_lines: LogLines) -> None:
    def sweep(seconds: float) -> Swept:
        assert seconds == 48.0  # most of the time that it has
        return Swept(jobs=2, sent=1, waiting=1, complete=False)

    done = bootstrap.sweeper(sweep, log)(EVENT, CONTEXT)
    (line,) = log_lines.lines
    assert (line["message"], line["level"], line["jobs"], line["sent"]) == ("jobs swept", "WARNING", 2, 1)
    assert done["complete"] is False


def test_without_its_table_a_sweep_fails_and_so_is_seen(world: World) -> None:
    handler = bootstrap.build({**world.environment, "SLUICE_JOBS_TABLE": "absent"})
    with pytest.raises(BackendError):
        handler(EVENT, CONTEXT)
