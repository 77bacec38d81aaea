"""What an asynchronous invocation leaves in queues once its function has failed on it for good."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from infra.local.aws_client import isolated_session, local_client
from infra.local.failed_events import FailedEventQueues
from tests.conftest import LocalAws
from tests.local.lambda_service.conftest import function


def received(sqs: Any, name: str) -> list[dict[str, Any]]:
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    messages: list[dict[str, Any]] = sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
    ).get("Messages", [])
    return messages


def test_a_failed_event_goes_to_the_queues_of_its_function(local_aws: LocalAws, start: Any) -> None:
    sqs = local_client(isolated_session(), "sqs", local_aws.url)
    for name in ("dead-events", "failed-events"):
        sqs.create_queue(QueueName=name)
    fail = function("fail", event_retries=1, dead_letter_queue="dead-events", on_failure_queue="failed-events")
    queues = FailedEventQueues(local_aws.url)
    service = start(fail, function("echo"), event_retry_delays_s=(0.01, 0.01), failed_events=queues)
    accepted = service.invoke("fail", {"a": 1}, invocation_type="Event")
    service.invoke("echo", {"a": 2}, invocation_type="Event")
    service.runner.run(service.service.settle_events(30))

    (dead,) = received(sqs, "dead-events")
    assert json.loads(dead["Body"]) == {"a": 1}
    attributes = {name: facts["StringValue"] for name, facts in dead["MessageAttributes"].items()}
    assert attributes == {"RequestID": accepted.request_id, "ErrorCode": "200", "ErrorMessage": "bad luck"}
    (failed,) = received(sqs, "failed-events")
    record = json.loads(failed["Body"])
    assert record["requestPayload"] == {"a": 1}
    assert record["requestContext"] == {
        "requestId": accepted.request_id,
        "functionArn": "arn:aws:lambda:us-east-1:000000000000:function:stack-fail:$LATEST",
        "condition": "RetriesExhausted",
        "approximateInvokeCount": 2,
    }
    assert record["responsePayload"]["errorType"] == "ValueError"
    assert service.log("fail").count("START") == 2


def test_a_queue_that_is_not_there_loses_the_event_with_a_warning(
    local_aws: LocalAws, start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fail = function("fail", event_retries=0, dead_letter_queue="no-such-queue")
    service = start(fail, failed_events=FailedEventQueues(local_aws.url))
    service.invoke("fail", {}, invocation_type="Event")
    service.runner.run(service.service.settle_events(30))
    assert "fail: a failed event is lost" in caplog.text


def test_closing_gives_up_what_waits_for_its_next_attempt(start: Any, tmp_path: Path) -> None:
    service = start(function("fail"), event_retry_delays_s=(3600.0,))
    service.invoke("fail", {}, invocation_type="Event")
    for _ in range(1000):
        if "END" in service.log("fail"):
            break
        service.runner.run(asyncio.sleep(0.02))
    service.runner.run(service.service.close())
    assert service.log("fail").count("START") == 1
