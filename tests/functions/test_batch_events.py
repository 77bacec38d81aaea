"""What the batch runner is invoked with, held against the models of Powertools."""

import json

import pytest
from aws_lambda_powertools.utilities.data_classes import S3EventBridgeNotificationEvent, SQSEvent

from functions.batch_runner.events import Created, StepMessage, UnknownEvent, read_event
from shared.domain.jobs import ObjectRef
from tests.functions.batch_house import created, sqs_event

JOB = "0" * 31 + "1"
MESSAGE = {
    "MessageId": "m-1",
    "ReceiptHandle": "r-1",
    "Body": json.dumps({"job_id": JOB, "step": "part", "part": 7}),
    "MD5OfBody": "0" * 32,
    "Attributes": {
        "ApproximateReceiveCount": "2",
        "SentTimestamp": "1545082649183",
        "SenderId": "AIDAIENQZJOLO23YVJ4VO",
        "ApproximateFirstReceiveTimestamp": "1545082649185",
    },
}


def test_an_object_is_read_as_powertools_reads_it() -> None:
    event = created("data", "batch/in/acme/tumor/night.csv", "v1")
    theirs = S3EventBridgeNotificationEvent(event)
    (found,) = read_event(event)
    assert isinstance(found, Created)
    assert found.ref == ObjectRef(theirs.detail.bucket.name, theirs.detail.object.key, theirs.detail.object.version_id)
    assert found.event_id == theirs.get_id


def test_a_step_is_read_as_powertools_reads_it() -> None:
    event = sqs_event(MESSAGE)
    (theirs,) = SQSEvent(event).records
    (found,) = read_event(event)
    assert isinstance(found, StepMessage)
    assert (found.message_id, found.receipt) == (theirs.message_id, theirs.receipt_handle)
    assert found.attempts == int(theirs.attributes.approximate_receive_count) == 2
    assert found.step is not None
    assert (found.step.job_id, found.step.step, found.step.part) == (JOB, "part", 7)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{}",
        '{"job_id": "1", "step": "plan"}',
        json.dumps({"job_id": JOB, "step": "part"}),
        json.dumps({"job_id": JOB, "step": "plan", "part": 1}),
        json.dumps({"job_id": JOB, "step": "dance"}),
    ],
)
def test_a_message_that_is_no_step_has_none(body: str) -> None:
    (found,) = read_event(sqs_event({**MESSAGE, "Body": body}))
    assert isinstance(found, StepMessage)
    assert found.step is None


@pytest.mark.parametrize("event", [{}, {"Records": []}, {"detail-type": "Object Deleted", "detail": {}}])
def test_other_events_are_refused(event: dict[str, object]) -> None:
    with pytest.raises(UnknownEvent):
        read_event(event)


def test_the_test_event_of_notifications_is_nothing() -> None:
    assert read_event({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "data"}) == []
