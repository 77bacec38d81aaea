"""The sender as its composition root makes it: real stores and queues, real receivers, events as AWS sends them."""

import base64
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from aws_lambda_powertools.utilities.parser.models import DynamoDBStreamModel, SqsModel
from botocore.session import Session

from functions.webhook_sender import bootstrap
from functions.webhook_sender.events import Failures
from functions.webhook_sender.settings import Settings
from infra.local.stack import REGION
from shared.adapters.aws import client
from shared.adapters.dynamodb_deliveries import DynamoDBDeliveries
from shared.adapters.dynamodb_webhooks import DynamoDBWebhooks
from shared.adapters.job_items import item_of
from shared.adapters.sqs_webhooks import SqsDeadDeliveries, SqsDeliveries
from shared.adapters.webhook_client import WebhookClient
from shared.adapters.webhook_seal import WebhookSeal
from shared.domain.jobs import Job, JobProblem, JobRequest, JobResult, new_job_id
from shared.domain.settings import SettingsError, load
from shared.domain.webhook_signature import secret_of, verified
from shared.domain.webhooks import Delivery
from shared.usecases.deliver_webhooks import SendDelivery
from shared.usecases.manage_webhooks import ManageWebhooks, NewSecret
from tests.adapters.samples import unique
from tests.conftest import ROOT, LocalAws
from tests.functions.conftest import LogLines
from tests.receivers import Receiver, receiving

pytestmark = pytest.mark.usefixtures("keep_loggers")


@dataclass
class Sender:
    """The function, a tenant of its own, and what is behind it."""

    environment: dict[str, str]
    manage: ManageWebhooks
    deliveries: DynamoDBDeliveries
    webhooks: DynamoDBWebhooks
    sqs: Any
    tenant: str
    handler: Any

    @property
    def queue_url(self) -> str:
        return self.environment["SLUICE_WEBHOOKS_QUEUE_URL"]

    @property
    def dead_url(self) -> str:
        return self.environment["SLUICE_WEBHOOKS_DEAD_LETTERS_URL"]

    def webhook(self, url: str, tenant: str | None = None) -> NewSecret:
        return self.manage.create(tenant or self.tenant, url)

    def tell(self, *jobs: Job) -> Failures:
        event = {"Records": [stream_record(job, at) for at, job in enumerate(jobs, 1)]}
        DynamoDBStreamModel.model_validate(event)
        return self.call(event)

    def messages(self) -> list[dict[str, Any]]:
        """What is in the queue, as the event source hands it on."""
        found = self.sqs.receive_message(
            QueueUrl=self.queue_url, MaxNumberOfMessages=10, AttributeNames=["All"], MessageAttributeNames=["All"]
        )
        return [queue_record(message) for message in found.get("Messages", ())]

    def send(self, records: list[dict[str, Any]] | None = None) -> Failures:
        event = {"Records": self.messages() if records is None else records}
        if event["Records"]:
            SqsModel.model_validate(event)
        failures = self.call(event)
        failed = {each["itemIdentifier"] for each in failures["batchItemFailures"]}
        for record in event["Records"]:
            if record["messageId"] not in failed:  # as the event source does
                self.sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=record["receiptHandle"])
        return failures

    def call(self, event: Mapping[str, Any]) -> Failures:
        failures: Failures = self.handler(event, None)
        return failures

    def waiting(self) -> tuple[int, int]:
        """Messages of the queue that can be received, and those that are hidden."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])

    def only(self, webhook_id: str) -> Delivery:
        (delivery,) = self.deliveries.list(webhook_id, limit=10).deliveries
        return delivery


@pytest.fixture
def sender(
    local_aws: LocalAws, aws_session: Session, monkeypatch: pytest.MonkeyPatch, log_lines: LogLines
) -> Iterator[Sender]:
    aws = {
        "AWS_ENDPOINT_URL": local_aws.url,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    for name, value in aws.items():
        monkeypatch.setenv(name, value)
    stores = {name: resource.name for name, resource in local_aws.stack.resources.items()}
    sqs, dynamodb, secrets = (
        client("sqs", session=aws_session, endpoint_url=local_aws.url),
        client("dynamodb", session=aws_session, endpoint_url=local_aws.url),
        client("secretsmanager", session=aws_session, endpoint_url=local_aws.url),
    )
    environment = {
        "SLUICE_WEBHOOKS_TABLE": stores["WebhooksTable"],
        "SLUICE_DELIVERIES_TABLE": stores["DeliveriesTable"],
        "SLUICE_WEBHOOKS_QUEUE_URL": sqs.create_queue(QueueName=unique("webhooks"))["QueueUrl"],
        "SLUICE_WEBHOOKS_DEAD_LETTERS_URL": sqs.create_queue(QueueName=unique("dead"))["QueueUrl"],
        "SLUICE_WEBHOOK_KEY_ARN": stores["WebhookKey"],
        "SLUICE_WEBHOOK_ALLOW_LOOPBACK": "true",
        "SLUICE_WEBHOOK_TIMEOUT_S": "5",
        "SLUICE_WEBHOOK_THREADS": "4",
    }
    key = secrets.get_secret_value(SecretId=stores["WebhookKey"])["SecretString"].encode()
    webhooks = DynamoDBWebhooks(dynamodb, stores["WebhooksTable"], WebhookSeal(lambda: key))
    deliveries = DynamoDBDeliveries(dynamodb, stores["DeliveriesTable"])
    queue = SqsDeliveries(lambda: sqs, environment["SLUICE_WEBHOOKS_QUEUE_URL"])
    manage = ManageWebhooks(webhooks, deliveries, queue, allow_loopback=True)
    handler = bootstrap.build(environment)
    log = logging.getLogger("functions.webhook_sender")
    log.addHandler(log_lines)
    yield Sender({**environment, **aws}, manage, deliveries, webhooks, sqs, unique("t"), handler)
    log.removeHandler(log_lines)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def finished(tenant: str, **more: Any) -> Job:
    now = time.time()
    made: dict[str, Any] = {
        "job_id": new_job_id(),
        "kind": "prediction",
        "tenant": tenant,
        "key_id": "k" * 16,
        "model": "tumor",
        "request": JobRequest(None, {"content-type": "application/json"}, b"SECRET INPUT"),
        "created_at": now - 5,
        "start_by": now,
        "expires_at": int(now) + 1000,
        "request_id": "r",
        "state": "succeeded",
        "started_at": now - 3,
        "finished_at": round(now - 1, 3),
        "version": 2,
        "variant": "main",
        "backend": "function",
        "rows_total": 3,
        "rows_done": 3,
        "result": JobResult("application/json", 17, (), b"SECRET PREDICTION"),
    }
    return Job(**{**made, **more})


def stream_record(job: Job, number: int) -> dict[str, Any]:
    return {
        "eventID": f"{number:032x}",
        "eventName": "MODIFY",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": REGION,
        "dynamodb": {
            "ApproximateCreationDateTime": 1_800_000_000.0,
            "Keys": {"job_id": {"S": job.job_id}},
            "NewImage": json.loads(json.dumps(item_of(job), default=lambda raw: base64.b64encode(raw).decode())),
            "SequenceNumber": str(number),
            "SizeBytes": 100,
            "StreamViewType": "NEW_IMAGE",
        },
        "eventSourceARN": f"arn:aws:dynamodb:{REGION}:000000000000:table/jobs/stream/2026-11-21T00:00:00.000",
    }


def queue_record(message: Mapping[str, Any]) -> dict[str, Any]:
    attributes = {
        name: {"stringValue": value["StringValue"], "dataType": value["DataType"]}
        for name, value in message.get("MessageAttributes", {}).items()
    }
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": attributes,
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:{REGION}:000000000000:webhooks",
        "awsRegion": REGION,
    }


def test_a_finished_job_reaches_its_receiver(sender: Sender, receiver: Receiver, log_lines: LogLines) -> None:
    made = sender.webhook(receiver.url)
    job = finished(sender.tenant)
    assert sender.tell(job) == {"batchItemFailures": []}
    assert sender.send() == {"batchItemFailures": []}
    (got,) = receiver.got
    assert verified(secret_of(made.text), got.headers, got.body, time.time())
    told = json.loads(got.body)
    assert (told["type"], told["data"]["job_id"]) == ("job.succeeded", job.job_id)
    assert told["data"]["progress"] == {"rows_done": 3, "rows_total": 3}
    assert b"SECRET" not in got.body
    delivery = sender.only(made.webhook.webhook_id)
    assert (delivery.state, delivery.attempts[0].status, delivery.delivery_id) == (
        "delivered",
        204,
        got.headers["webhook-id"],
    )
    assert sender.waiting() == (0, 0)
    (line,) = [line for line in log_lines.lines if line["message"] == "delivery"]
    assert (line["tenant"], line["state"], line["status"]) == (sender.tenant, "delivered", 204)
    assert made.text not in log_lines.text
    assert receiver.url not in log_lines.text


def test_records_that_come_twice_have_one_effect(sender: Sender, receiver: Receiver) -> None:
    sender.webhook(receiver.url)
    job = finished(sender.tenant, state="failed", result=None, problem=JobProblem("job_crashed", "Crashed", "…"))
    sender.tell(job, job)
    sender.tell(job)
    while records := sender.messages():
        sender.send(records)
    sender.tell(job)
    assert sender.messages() == []
    assert len(receiver.got) == 1
    assert json.loads(receiver.got[0].body)["data"]["problem"] == {"code": "job_crashed"}


def test_a_stream_goes_on_from_the_first_record_that_failed(
    sender: Sender, receiver: Receiver, log_lines: LogLines
) -> None:
    made = sender.webhook(receiver.url)
    jobs = [finished(sender.tenant) for _ in range(3)]
    running = replace(finished(sender.tenant), state="running", finished_at=None)
    queue = sender.environment["SLUICE_WEBHOOKS_QUEUE_URL"]
    broken = bootstrap.build({**sender.environment, "SLUICE_WEBHOOKS_QUEUE_URL": f"{queue}-absent"})
    records = [stream_record(job, at) for at, job in enumerate([running, *jobs], 1)]
    nonsense = {**records[0], "dynamodb": {"SequenceNumber": "9", "NewImage": {"state": {"S": "failed"}}}}
    removed = {**records[0], "eventName": "REMOVE"}
    event = {"Records": [nonsense, removed, *records]}
    # The item is written and its message is not: told again, the message is sent.
    assert broken(event, None) == {"batchItemFailures": [{"itemIdentifier": "2"}]}
    assert sender.only(made.webhook.webhook_id).state == "pending"
    assert sender.call(event) == {"batchItemFailures": []}
    assert "record left out" in log_lines.text
    sender.send()
    assert {json.loads(got.body)["data"]["job_id"] for got in receiver.got} == {job.job_id for job in jobs}
    assert len(receiver.got) == 3


def test_what_fails_comes_again_when_it_is_due(sender: Sender, receiver: Receiver) -> None:
    made = sender.webhook(receiver.url)
    receiver.answers = [(500, {"Retry-After": "3000"}, b"not now")]
    sender.tell(finished(sender.tenant))
    (record,) = sender.messages()
    assert sender.send([record]) == {"batchItemFailures": [{"itemIdentifier": record["messageId"]}]}
    delivery = sender.only(made.webhook.webhook_id)
    assert (delivery.state, delivery.tries, delivery.attempts[0].said) == ("pending", 1, "not now")
    assert delivery.next_at == pytest.approx(time.time() + 3000, abs=60)
    assert sender.waiting() == (0, 1)
    # Once more at the wrong time: nothing is sent, and it goes on waiting.
    assert sender.send([record]) == {"batchItemFailures": [{"itemIdentifier": record["messageId"]}]}
    assert len(receiver.got) == 1


def test_a_receiver_that_hangs_does_not_hold_up_its_neighbours(sender: Sender, receiver: Receiver) -> None:
    with receiving() as silent:
        silent.hold = True
        sender.webhook(silent.url)
        other = unique("t")
        sender.webhook(receiver.url, other)
        sender.tell(finished(sender.tenant), finished(other))
        records = sender.messages()
        assert len(records) == 2
        answers: list[Failures] = []
        sending = threading.Thread(target=lambda: answers.append(sender.send(records)))
        sending.start()
        assert silent.arrived.wait(30)
        assert receiver.arrived.wait(30)  # while the other one is still waited for
        assert answers == []
        silent.release.set()
        sending.join()
        assert answers == [{"batchItemFailures": []}]


def test_the_last_failure_leaves_a_letter_and_a_letter_can_be_driven_back(sender: Sender, receiver: Receiver) -> None:
    made = sender.webhook(receiver.url)
    receiver.answers = [*([(500, {}, b"no")] * 10), (204, {}, b"")]
    sender.tell(finished(sender.tenant))
    (record,) = sender.messages()
    body = json.loads(record["body"])
    now = time.time()
    days = SendDelivery(
        sender.webhooks,
        sender.deliveries,
        SqsDeadDeliveries(lambda: sender.sqs, sender.dead_url),
        WebhookClient(allow_loopback=True),
        now=lambda: now,
    )
    for _ in range(10):
        now += days(body["tenant"], body["webhook_id"], body["delivery_id"]).again_s or 0
    delivery = sender.only(made.webhook.webhook_id)
    assert (delivery.state, delivery.reason, delivery.tries) == ("dead", "http_500", 10)
    sender.sqs.delete_message(QueueUrl=sender.queue_url, ReceiptHandle=record["receiptHandle"])
    (letter,) = sender.sqs.receive_message(
        QueueUrl=sender.dead_url, AttributeNames=["All"], MessageAttributeNames=["All"]
    )["Messages"]
    assert json.loads(letter["Body"]) == body
    assert letter["MessageAttributes"]["Reason"]["StringValue"] == "http_500"
    # As SQS's redrive does: the message with its attributes goes back to the queue.
    sender.sqs.send_message(
        QueueUrl=sender.queue_url,
        MessageBody=letter["Body"],
        MessageAttributes={"Reason": letter["MessageAttributes"]["Reason"]},
    )
    assert sender.send() == {"batchItemFailures": []}
    assert sender.only(made.webhook.webhook_id).state == "delivered"
    assert len(receiver.got) == 11


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"tenant": 1, "webhook_id": "a", "delivery_id": "b"}'])
def test_a_message_that_is_none_of_ours_goes_its_way_alone(
    sender: Sender, receiver: Receiver, log_lines: LogLines, body: str
) -> None:
    sender.webhook(receiver.url)
    sender.tell(finished(sender.tenant))
    (record,) = sender.messages()
    poison = {**record, "messageId": "poison", "body": body}
    assert sender.call({"Records": [poison, record]}) == {"batchItemFailures": [{"itemIdentifier": "poison"}]}
    assert len(receiver.got) == 1
    assert "left for the dead letters" in log_lines.text


def test_what_nobody_foresaw_fails_alone(sender: Sender, receiver: Receiver, log_lines: LogLines) -> None:
    sender.webhook(receiver.url)
    sender.tell(finished(sender.tenant))
    (record,) = sender.messages()
    broken = {name: value for name, value in record.items() if name != "body"} | {"messageId": "x", "body": None}
    del broken["receiptHandle"]
    answer = sender.call({"Records": [broken, record]})
    assert answer == {"batchItemFailures": [{"itemIdentifier": "x"}]}
    assert len(receiver.got) == 1
    assert "delivery failed" in log_lines.text


def test_no_event_is_no_work(sender: Sender) -> None:
    assert sender.call({"Records": []}) == {"batchItemFailures": []}
    assert sender.call({}) == {"batchItemFailures": []}


_SENDS = """
import json, os, sys
from functions.webhook_sender.bootstrap import build
build(os.environ)(json.load(sys.stdin), None)
"""


def test_a_sender_that_is_killed_loses_nothing(sender: Sender, receiver: Receiver) -> None:
    made = sender.webhook(receiver.url)
    receiver.hold = True
    sender.tell(finished(sender.tenant))
    (record,) = sender.messages()
    with subprocess.Popen(
        [sys.executable, "-c", _SENDS],
        cwd=ROOT,
        env={**os.environ, **sender.environment, "SLUICE_WEBHOOK_TIMEOUT_S": "20"},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps({"Records": [record]}).encode())
        process.stdin.close()
        try:
            assert receiver.arrived.wait(60)
        finally:
            os.kill(process.pid, signal.SIGKILL)
    receiver.release.set()
    receiver.hold = False
    held = sender.only(made.webhook.webhook_id)
    assert (held.state, held.tries, held.attempts[0].error) == ("pending", 1, "interrupted")
    # The message comes again; before the claim is over nothing is sent, and after it the delivery is.
    assert sender.call({"Records": [record]})["batchItemFailures"] != []
    assert len(receiver.got) == 1
    later = SendDelivery(
        sender.webhooks,
        sender.deliveries,
        SqsDeadDeliveries(lambda: sender.sqs, sender.dead_url),
        WebhookClient(allow_loopback=True),
        now=lambda: time.time() + 61,
    )
    assert later(sender.tenant, held.webhook_id, held.delivery_id).again_s is None
    assert sender.only(made.webhook.webhook_id).state == "delivered"
    assert [got.headers["webhook-id"] for got in receiver.got] == [held.delivery_id] * 2


def test_settings() -> None:
    with pytest.raises(SettingsError, match="SLUICE_WEBHOOKS_TABLE"):
        load(Settings, {})
    stores = (
        "WEBHOOKS_TABLE",
        "DELIVERIES_TABLE",
        "WEBHOOKS_QUEUE_URL",
        "WEBHOOKS_DEAD_LETTERS_URL",
        "WEBHOOK_KEY_ARN",
    )
    given = {f"SLUICE_{store}": "x" for store in stores}
    assert not load(Settings, given).webhook_allow_loopback
    for name, value in (("SLUICE_WEBHOOK_ALLOW_LOOPBACK", "perhaps"), ("SLUICE_WEBHOOK_TIMEOUT_S", "60")):
        with pytest.raises(SettingsError, match=name):
            load(Settings, {**given, name: value})
