"""Queues of the local AWS services, as a client of SQS sees them."""

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from infra.local.aws_client import isolated_session, local_client
from tests.conftest import ROOT, LocalAws


@pytest.fixture(scope="module")
def sqs(local_aws: LocalAws) -> Any:
    return local_client(isolated_session(), "sqs", local_aws.url, read_timeout_s=30)


def filled(sqs: Any, name: str, groups: dict[str, int], **attributes: str) -> str:
    """A queue with so many messages of each group; its address."""
    url: str = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    bodies = [group for group, count in groups.items() for _ in range(count)]
    for start in range(0, len(bodies), 10):
        entries = [
            {"Id": str(number), "MessageBody": body, "MessageGroupId": body}
            for number, body in enumerate(bodies[start : start + 10])
        ]
        sqs.send_message_batch(QueueUrl=url, Entries=entries)
    return url


def receive(sqs: Any, url: str, **options: Any) -> list[dict[str, Any]]:
    wanted = {"MaxNumberOfMessages": 10, "WaitTimeSeconds": 0, **options}
    messages: list[dict[str, Any]] = sqs.receive_message(QueueUrl=url, **wanted).get("Messages", [])
    return messages


def test_one_tenants_thousand_messages_do_not_hold_up_anothers_one(sqs: Any) -> None:
    url = filled(sqs, "fair", {"many": 1000})
    receive(sqs, url)
    sqs.send_message(QueueUrl=url, MessageBody="one", MessageGroupId="one")
    (message,) = receive(sqs, url, MaxNumberOfMessages=1, MessageSystemAttributeNames=["MessageGroupId"])
    assert (message["Body"], message["Attributes"]) == ("one", {"MessageGroupId": "one"})


def test_two_receivers_never_get_one_message(sqs: Any) -> None:
    url = filled(sqs, "shared", {f"g{number}": 10 for number in range(30)})

    def drain(_: int) -> list[str]:
        seen: list[str] = []
        while messages := receive(sqs, url):
            seen += [message["MessageId"] for message in messages]
        return seen

    with ThreadPoolExecutor(8) as pool:
        seen = Counter(name for names in pool.map(drain, range(8)) for name in names)
    assert (len(seen), max(seen.values())) == (300, 1)


def test_a_message_received_too_often_goes_to_the_dead_letter_queue_as_it_is(sqs: Any) -> None:
    dead = filled(sqs, "the-dead", {})
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = f'{{"deadLetterTargetArn": "{arn}", "maxReceiveCount": 2}}'
    url = filled(sqs, "deadly", {"a": 1, "b": 1}, RedrivePolicy=policy)
    ids = set()
    for _ in range(2):
        for message in receive(sqs, url):
            if message["Body"] == "a":
                ids.add(message["MessageId"])
                sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
            else:
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert receive(sqs, url) == []
    (message,) = receive(sqs, dead, MessageSystemAttributeNames=["All"])
    assert ({message["MessageId"]}, message["Body"], message["Attributes"]["MessageGroupId"]) == (ids, "a", "a")


def test_a_batch_of_changes_has_an_answer_for_each(sqs: Any) -> None:
    url = filled(sqs, "batched", {"a": 2})
    held, gone = (message["ReceiptHandle"] for message in receive(sqs, url))
    sqs.delete_message(QueueUrl=url, ReceiptHandle=gone)
    entries = [
        {"Id": name, "ReceiptHandle": handle, "VisibilityTimeout": 40}
        for name, handle in (("held", held), ("gone", gone), ("wrong", "nonsense"))
    ]
    answer = sqs.change_message_visibility_batch(QueueUrl=url, Entries=entries)
    assert [entry["Id"] for entry in answer["Successful"]] == ["held"]
    assert {entry["Id"]: entry["Code"] for entry in answer["Failed"]} == {
        "gone": "InvalidParameterValue",
        "wrong": "ReceiptHandleIsInvalid",
    }
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=held, VisibilityTimeout=0)
    with pytest.raises(sqs.exceptions.MessageNotInflight):
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=held, VisibilityTimeout=1)


def test_the_counts_tell_where_messages_are(sqs: Any) -> None:
    url = filled(sqs, "counted", {"a": 3})
    sqs.send_message(QueueUrl=url, MessageBody="later", DelaySeconds=600)
    receive(sqs, url, MaxNumberOfMessages=1)
    names = [f"ApproximateNumberOfMessages{what}" for what in ("", "NotVisible", "Delayed")]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    assert [int(found[name]) for name in names] == [2, 1, 1]
    sqs.purge_queue(QueueUrl=url)
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    assert [int(found[name]) for name in names] == [0, 0, 0]


def test_a_fifo_queue_keeps_a_group_back_until_its_first_message_is_done(sqs: Any) -> None:
    attributes = {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
    url = sqs.create_queue(QueueName="lined.fifo", Attributes=attributes)["QueueUrl"]
    for body in ("1", "2"):
        sqs.send_message(QueueUrl=url, MessageBody=body, MessageGroupId="g")
    (first,) = receive(sqs, url, MaxNumberOfMessages=1)
    assert (first["Body"], receive(sqs, url)) == ("1", [])
    sqs.delete_message(QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
    assert [message["Body"] for message in receive(sqs, url)] == ["2"]


def test_a_stream_forgets_its_oldest_records_and_says_so() -> None:
    """In a process of its own, whose streams are small."""
    script = """
from infra.local import moto_streams
moto_streams.MAX_BYTES = 20_000
from infra.local.aws_services import build_app, serve
serve(build_app("http://127.0.0.1:1"), 0, lambda port: print(port, flush=True))
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}"
            dynamodb, streams = (
                local_client(isolated_session(), name, url) for name in ("dynamodb", "dynamodbstreams")
            )
            arn = dynamodb.create_table(
                TableName="t",
                BillingMode="PAY_PER_REQUEST",
                AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
                KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
                StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
            )["TableDescription"]["LatestStreamArn"]
            (shard,) = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
            place = {"StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
            first = streams.get_shard_iterator(**place)["ShardIterator"]
            for start in range(0, 600, 25):
                puts = [{"PutRequest": {"Item": {"id": {"N": str(start + n)}}}} for n in range(25)]
                dynamodb.batch_write_item(RequestItems={"t": puts})
            with pytest.raises(streams.exceptions.TrimmedDataAccessException):
                streams.get_records(ShardIterator=first)
            records = streams.get_records(ShardIterator=streams.get_shard_iterator(**place)["ShardIterator"])
            kept = [int(record["dynamodb"]["Keys"]["id"]["N"]) for record in records["Records"]]
            assert kept == list(range(kept[0], 600))
            assert 0 < kept[0] < 600
            last = streams.get_records(ShardIterator=records["NextShardIterator"])
            assert (last["Records"], last["NextShardIterator"]) == ([], records["NextShardIterator"])
        finally:
            server.kill()
