"""A table's stream as an event source, by what the function gets of the changes."""

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from aws_lambda_powertools.utilities.parser.models import (
    DynamoDBStreamLambdaOnFailureDestinationModel,
    DynamoDBStreamModel,
)

from infra.local.event_sources.calls import AwsCalls
from infra.local.event_sources.records import Record, of_change
from infra.local.event_sources.sources import EventSources
from infra.local.event_sources.specs import StreamSourceSpec
from infra.local.event_sources.stream_batches import StreamBatches
from tests.functions.test_event_shapes import SAM, shape
from tests.local.event_sources.conftest import Work

TABLE = """
{name}:
  Type: AWS::DynamoDB::Table
  Properties:
    BillingMode: PAY_PER_REQUEST
    AttributeDefinitions: [{{AttributeName: id, AttributeType: S}}]
    KeySchema: [{{AttributeName: id, KeyType: HASH}}]
    StreamSpecification: {{StreamViewType: NEW_AND_OLD_IMAGES}}
"""
NAMES = ("Plain", "Ordered", "Partial", "Split", "Filtered", "Early", "Late")
TABLES = "".join(TABLE.format(name=name) for name in NAMES) + "Lost: {Type: AWS::SQS::Queue}\n"


def stream(name: str, properties: str = "", position: str = "TRIM_HORIZON") -> str:
    more = f", {properties}" if properties else ""
    given = f"Stream: !GetAtt {name}.StreamArn, StartingPosition: {position}{more}"
    return f"{name}: {{Type: DynamoDB, Properties: {{{given}}}}}\n"


EVENTS = (
    stream("Plain")
    + stream("Ordered", "BatchSize: 3, MaximumBatchingWindowInSeconds: 1")
    + stream("Partial", "MaximumBatchingWindowInSeconds: 1, FunctionResponseTypes: [ReportBatchItemFailures]")
    + stream(
        "Split",
        "MaximumBatchingWindowInSeconds: 1, BisectBatchOnFunctionError: true, MaximumRetryAttempts: 1,"
        " DestinationConfig: {OnFailure: {Type: SQS, Destination: !GetAtt Lost.Arn}}",
    )
    + stream("Filtered", """FilterCriteria: {Filters: [{Pattern: '{"eventName": ["INSERT"]}'}]}""")
)


@pytest.fixture(scope="module")
def work(started: Callable[..., Work]) -> Work:
    return started("streams", EVENTS, TABLES)


def flat(events: list[list[str]]) -> list[str]:
    return [key for keys in events for key in keys]


def test_an_event_has_the_shape_of_aws(work: Work, tmp_path: Any) -> None:
    table = work.stack.resources["Plain"].name
    for item in ({"id": {"S": "a"}, "n": {"N": "1"}}, {"id": {"S": "a"}, "raw": {"B": b"\x00\xff"}}):
        work.dynamodb.put_item(TableName=table, Item=item)
    work.dynamodb.delete_item(TableName=table, Key={"id": {"S": "a"}})
    work.until(lambda: len(flat(work.keys("Plain"))) == 3)
    records = [record for event in work.events("Plain") for record in event]
    assert [record["eventName"] for record in records] == ["INSERT", "MODIFY", "REMOVE"]

    made = subprocess.run(
        [SAM, "local", "generate-event", "dynamodb", "update"],
        env={**os.environ, "SAM_CLI_TELEMETRY": "0", "HOME": str(tmp_path)},
        capture_output=True,
        timeout=60,
        check=True,
    )
    for record, reference in zip(records, json.loads(made.stdout)["Records"], strict=True):
        for image in ("Keys", "NewImage", "OldImage"):
            assert (image in record["dynamodb"]) == (image in reference["dynamodb"])
            record["dynamodb"].pop(image, None)
            reference["dynamodb"].pop(image, None)
        assert shape(record) == shape(reference)
        assert record["eventVersion"] == "1.1"
        assert record["eventSourceARN"] == f"{work.arn('Plain')}/stream/2026-01-01T00:00:00.000"
    assert work.dynamodb.describe_table(TableName=table)["Table"]["LatestStreamArn"] == records[0]["eventSourceARN"]
    whole = [record for event in work.events("Plain") for record in event]
    parsed = DynamoDBStreamModel.model_validate({"Records": whole}).Records
    assert parsed[1].dynamodb.NewImage == {"id": "a", "raw": "AP8="}
    assert parsed[1].dynamodb.OldImage == {"id": "a", "n": 1}


def test_what_changes_nothing_is_no_record_and_what_makes_an_item_is_one(work: Work) -> None:
    table = work.stack.resources["Plain"].name
    before = len(flat(work.keys("Plain")))

    def update(value: str) -> None:
        work.dynamodb.update_item(
            TableName=table,
            Key={"id": {"S": "made"}},
            UpdateExpression="SET v = :v",
            ExpressionAttributeValues={":v": {"S": value}},
        )

    for value in ("1", "1", "2"):
        update(value)
    broken = {"TableName": table, "Key": {"id": {"S": "no"}}, "ConditionExpression": "attribute_exists(id)"}
    with pytest.raises(work.dynamodb.exceptions.TransactionCanceledException):
        work.dynamodb.transact_write_items(
            TransactItems=[{"Put": {"TableName": table, "Item": {"id": {"S": "undone"}}}}, {"ConditionCheck": broken}]
        )
    work.put("Plain", "after")
    work.until(lambda: "after" in flat(work.keys("Plain")))
    records = [record for event in work.events("Plain") for record in event][before:]
    facts = [(record["eventName"], record["dynamodb"]["NewImage"].get("v")) for record in records]
    assert facts == [("INSERT", {"S": "1"}), ("MODIFY", {"S": "2"}), ("INSERT", None)]
    numbers = [int(record["dynamodb"]["SequenceNumber"]) for record in records]
    assert numbers == sorted(set(numbers))


def test_a_batch_that_fails_is_retried_and_nothing_overtakes_it(work: Work) -> None:
    for number in range(7):
        work.put("Ordered", f"k{number}", **({"do": "fail", "times": 2} if number == 1 else {}))
    work.until(lambda: "k6" in flat(work.keys("Ordered")))
    events = work.keys("Ordered")
    retried = next(keys for keys in events if "k1" in keys)
    assert events.count(retried) == 3
    done = [keys for index, keys in enumerate(events) if keys not in events[index + 1 :]]
    assert flat(done) == [f"k{number}" for number in range(7)]
    assert max(len(keys) for keys in events) == 3


def test_a_report_of_failures_has_the_batch_go_on_with_the_first_of_them(work: Work) -> None:
    orders: list[dict[str, Any]] = [{}, {"do": "report", "times": 1}, {}, {"do": "report", "times": 2}]
    for number, order in enumerate(orders):
        work.put("Partial", f"k{number}", **order)
    # What follows the first failure comes again, done or not: [k0, k1, k2, k3], [k1, k2, k3], [k3]
    work.until(lambda: Counter(flat(work.keys("Partial")))["k3"] == 3)
    assert Counter(flat(work.keys("Partial"))) == {"k0": 1, "k1": 2, "k2": 2, "k3": 3}
    assert work.keys("Partial")[-1] == ["k3"]


def test_a_poison_record_is_singled_out_and_told_of(work: Work) -> None:
    for number in range(6):
        work.put("Split", f"k{number}", **({"do": "fail"} if number == 4 else {}))
    work.until(lambda: work.counts("Lost") == (1, 0) and "k5" in flat(work.keys("Split")))
    assert flat(work.keys("Split"))[-1] == "k5"
    assert work.keys("Split").count(["k4"]) == 2
    (message,) = work.receive("Lost")
    work.sqs.purge_queue(QueueUrl=work.queue_url("Lost"))
    told = DynamoDBStreamLambdaOnFailureDestinationModel.model_validate_json(message["Body"])
    assert told.request_context.condition == "RetryAttemptsExhausted"
    assert told.response_context.function_error == "Unhandled"
    info = told.ddb_stream_batch_info
    (poison,) = next(event for event in work.events("Split") if len(event) == 1 and "k4" in str(event))
    assert info.batch_size == 1
    assert info.start_sequence_number == info.end_sequence_number == poison["dynamodb"]["SequenceNumber"]
    assert info.stream_arn == poison["eventSourceARN"]


def test_records_that_no_filter_lets_pass_are_left_out(work: Work) -> None:
    for _ in range(2):
        work.put("Filtered", "a")
        work.put("Filtered", "a", n=1)
        work.put("Filtered", "b")
    work.until(lambda: len(flat(work.keys("Filtered"))) >= 2)
    work.turn(0.1)
    assert flat(work.keys("Filtered")) == ["a", "b"]


def test_a_mapping_begins_where_it_is_told_to(started: Callable[..., Work]) -> None:
    events = stream("Early") + stream("Late", position="LATEST")
    work = started("positions", events, TABLES, specs=())
    for name in ("Early", "Late"):
        work.put(name, "before")

    async def begin() -> EventSources:
        sources = EventSources(work.stack.event_sources, work.service, work.url)
        await sources.start()
        return sources

    sources = work.runner.run(begin())
    try:
        for name in ("Early", "Late"):
            work.put(name, "after")
        work.until(lambda: all("after" in flat(work.keys(name)) for name in ("Early", "Late")))
    finally:
        work.runner.run(sources.close())
    assert flat(work.keys("Early")) == ["before", "after"]
    assert flat(work.keys("Late")) == ["after"]


def test_records_that_are_too_old_are_given_up_and_told_of(work: Work) -> None:
    (spec,) = (each for each in work.stack.event_sources if each.name == "WorkSplit")
    assert isinstance(spec, StreamSourceSpec)

    def change(number: int, age_s: int) -> Record:
        facts = {
            "Keys": {"id": {"S": f"old{number}"}},
            "SequenceNumber": str(number),
            "ApproximateCreationDateTime": time.time() - age_s,
        }
        made = {"eventID": f"e{number}", "eventName": "INSERT", "awsRegion": "us-east-1", "dynamodb": facts}
        return of_change(made, spec.stream_arn)

    async def deliver() -> None:
        async with AwsCalls(work.url) as calls:
            batches = StreamBatches(replace(spec, max_age_s=60), work.service, calls)
            await batches.deliver("shard", [change(1, 90), change(2, 70), change(3, 0)])

    work.runner.run(deliver())
    assert work.keys("Split")[-1] == ["old3"]
    (message,) = work.receive("Lost")
    told = json.loads(message["Body"])
    assert (told["requestContext"]["condition"], told["requestContext"]["approximateInvokeCount"]) == (
        "RecordAgeExceeded",
        0,
    )
    info = told["DDBStreamBatchInfo"]
    assert (info["startSequenceNumber"], info["endSequenceNumber"], info["batchSize"]) == ("1", "2", 2)
