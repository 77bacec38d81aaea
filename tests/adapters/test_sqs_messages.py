"""Messages that were received: hidden for longer, and put away where they cannot be read."""

from dataclasses import replace
from typing import Any

import pytest

from infra.local.aws_client import isolated_session, local_client
from shared.adapters.sqs_messages import Message, SqsMessages
from shared.domain.errors import BackendError, BackendUnavailable
from tests.adapters.samples import unique
from tests.conftest import LocalAws


@pytest.fixture(scope="module")
def sqs(local_aws: LocalAws) -> Any:
    return local_client(isolated_session(), "sqs", local_aws.url)


@pytest.fixture
def urls(sqs: Any) -> tuple[str, str]:
    return tuple(sqs.create_queue(QueueName=unique("messages"))["QueueUrl"] for _ in range(2))


def received(sqs: Any, url: str) -> list[Message]:
    found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=600).get("Messages", [])
    return [Message(each["MessageId"], each["ReceiptHandle"], each["Body"]) for each in found]


def test_messages_come_back_when_they_are_told_to(sqs: Any, urls: tuple[str, str]) -> None:
    messages = SqsMessages(lambda: sqs, *urls)
    for at in range(14):
        sqs.send_message(QueueUrl=urls[0], MessageBody=str(at))
    hidden = received(sqs, urls[0]) + received(sqs, urls[0])
    assert len(hidden) == 14
    assert not received(sqs, urls[0])
    assert messages.hide(hidden, 0) == 0  # more than one call takes
    assert len(received(sqs, urls[0]) + received(sqs, urls[0])) == 14
    assert messages.hide([], 30) == 0


def test_what_is_not_received_cannot_be_hidden(sqs: Any, urls: tuple[str, str]) -> None:
    assert SqsMessages(lambda: sqs, *urls).hide([Message("m", "no-such-receipt", "")], 30) == 1


def test_new_messages_take_the_place_of_those_that_are_sent_again(sqs: Any, urls: tuple[str, str]) -> None:
    for at in range(12):
        sqs.send_message(QueueUrl=urls[0], MessageBody=str(at), MessageGroupId="acme")
    before = [replace(each, group="acme") for each in received(sqs, urls[0]) + received(sqs, urls[0])]
    messages = SqsMessages(lambda: sqs, *urls)
    assert messages.send_again(before) == []
    assert messages.hide(before, 0) == 12  # they are gone
    found = [
        each
        for _ in range(2)
        for each in sqs.receive_message(QueueUrl=urls[0], MaxNumberOfMessages=10, AttributeNames=["All"])["Messages"]
    ]
    assert sorted(each["Body"] for each in found) == sorted(each.body for each in before)
    assert {each["Attributes"]["MessageGroupId"] for each in found} == {"acme"}
    assert {each["Attributes"]["ApproximateReceiveCount"] for each in found} == {"1"}
    assert messages.send_again([]) == []


def test_an_unreadable_message_is_put_away_as_it_was(sqs: Any, urls: tuple[str, str]) -> None:
    message = Message("m" * 36, "receipt", '{"not": "ours"}', received=3)
    SqsMessages(lambda: sqs, *urls).bury(message, "unreadable_message", "It names no job.")
    (letter,) = sqs.receive_message(QueueUrl=urls[1], MessageAttributeNames=["All"])["Messages"]
    assert letter["Body"] == message.body
    assert {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()} == {
        "Reason": "unreadable_message",
        "Detail": "It names no job.",
        "Attempts": "3",
    }


def test_errors_of_the_queue_are_ours(sqs: Any, urls: tuple[str, str]) -> None:
    with pytest.raises(BackendError):
        SqsMessages(lambda: sqs, urls[0], urls[1] + "-gone").bury(Message("m", "r", ""), "code", "detail")
    away = local_client(isolated_session(), "sqs", "http://127.0.0.1:9")
    with pytest.raises(BackendUnavailable):
        SqsMessages(lambda: away, "http://127.0.0.1:9/q", "").hide([Message("m", "r", "")], 30)
