"""A queue as an event source, by what becomes of its messages."""

import contextlib
import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from aws_lambda_powertools.utilities.parser.models import SqsModel

from tests.functions.test_event_shapes import SAM, shape
from tests.local.event_sources.conftest import Work

EVENTS = """
Shape: {Type: SQS, Properties: {Queue: !GetAtt Shape.Arn}}
Partial:
  Type: SQS
  Properties:
    Queue: !GetAtt Partial.Arn
    MaximumBatchingWindowInSeconds: 1
    FunctionResponseTypes: [ReportBatchItemFailures]
Whole: {Type: SQS, Properties: {Queue: !GetAtt Whole.Arn, BatchSize: 1}}
Filtered:
  Type: SQS
  Properties:
    Queue: !GetAtt Filtered.Arn
    FilterCriteria: {Filters: [{Pattern: '{"body": {"kind": ["a"]}}'}, {Pattern: '{"body": ["plain"]}'}]}
Windowed: {Type: SQS, Properties: {Queue: !GetAtt Windowed.Arn, BatchSize: 100, MaximumBatchingWindowInSeconds: 1}}
Few: {Type: SQS, Properties: {Queue: !GetAtt Few.Arn, BatchSize: 1, ScalingConfig: {MaximumConcurrency: 2}}}
Idle: {Type: SQS, Properties: {Queue: !GetAtt Idle.Arn, Enabled: false}}
"""
QUEUES = "\n".join(
    f"{name}: {{Type: AWS::SQS::Queue, Properties: {{VisibilityTimeout: 60}}}}"
    for name in ("Shape", "Filtered", "Windowed", "Few", "Idle")
)
REDRIVEN = """
Partial:
  Type: AWS::SQS::Queue
  Properties:
    VisibilityTimeout: 60
    RedrivePolicy: {deadLetterTargetArn: !GetAtt Dead.Arn, maxReceiveCount: 2}
Whole:
  Type: AWS::SQS::Queue
  Properties:
    VisibilityTimeout: 60
    RedrivePolicy: {deadLetterTargetArn: !GetAtt Dead.Arn, maxReceiveCount: 2}
Dead: {Type: AWS::SQS::Queue}
"""


@pytest.fixture(scope="module")
def work(started: Callable[..., Work]) -> Work:
    return started("queues", EVENTS, QUEUES + REDRIVEN)


def test_an_event_has_the_shape_of_aws(work: Work, tmp_path: Any) -> None:
    attributes = {
        "Reason": {"DataType": "String", "StringValue": "why"},
        "Bytes": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
    }
    work.send("Shape", "Hello from SQS!", MessageGroupId="acme", MessageAttributes=attributes)
    work.until(lambda: bool(work.events("Shape")))
    ((record,),) = work.events("Shape")

    made = subprocess.run(
        [SAM, "local", "generate-event", "sqs", "receive-message"],
        env={**os.environ, "SAM_CLI_TELEMETRY": "0", "HOME": str(tmp_path)},
        capture_output=True,
        timeout=60,
        check=True,
    )
    (reference,) = json.loads(made.stdout)["Records"]
    added = {"md5OfMessageAttributes", "attributes.MessageGroupId"}
    plain = {**record, "messageAttributes": {}}
    assert {path: type_ for path, type_ in shape(plain).items() if path not in added} == shape(reference)
    assert record["messageAttributes"]["Reason"] == {
        "stringValue": "why",
        "stringListValues": [],
        "binaryListValues": [],
        "dataType": "String",
    }
    assert record["messageAttributes"]["Bytes"]["binaryValue"] == "AP8="
    assert record["eventSourceARN"] == work.arn("Shape")
    (parsed,) = SqsModel.model_validate({"Records": [record]}).Records
    assert (parsed.body, parsed.attributes.MessageGroupId) == ("Hello from SQS!", "acme")
    assert (parsed.attributes.ApproximateReceiveCount, parsed.awsRegion) == ("1", "us-east-1")
    assert parsed.md5OfMessageAttributes


def test_only_what_has_failed_comes_again_and_a_poison_message_ends_among_the_dead(work: Work) -> None:
    poison, once, *fine = work.send("Partial", {"do": "report"}, {"do": "report", "times": 1}, {"n": 1}, {"n": 2})
    work.until(lambda: work.counts("Partial") == (0, 2))
    work.give_back("Partial")
    work.until(lambda: work.counts("Partial") == (0, 1))
    work.give_back("Partial")
    work.until(lambda: work.counts("Dead") == (1, 0))
    dead = work.receive("Dead")
    assert [message["MessageId"] for message in dead] == [poison]
    assert work.counts("Partial") == (0, 0)
    receipts = Counter(record["messageId"] for records in work.events("Partial") for record in records)
    assert receipts == {poison: 2, once: 2, fine[0]: 1, fine[1]: 1}
    work.sqs.purge_queue(QueueUrl=work.queue_url("Dead"))


def test_an_environment_that_is_killed_in_the_middle_loses_no_message(work: Work) -> None:
    work.send("Whole", {"n": 1, "do": "kill", "times": 1}, {"n": 2, "do": "fail", "times": 1}, {"n": 3})
    work.until(lambda: len(work.events("Whole")) == 3 and work.counts("Whole") == (0, 2))
    work.give_back("Whole")
    work.until(lambda: len(work.events("Whole")) == 5 and work.counts("Whole") == (0, 0))
    counts = [body["n"] for body in work.bodies("Whole")]
    assert sorted(counts) == [1, 1, 2, 2, 3]
    assert work.receive("Dead") == []


def test_messages_that_no_filter_lets_pass_are_deleted(work: Work) -> None:
    work.send("Filtered", {"kind": "b"}, {"kind": ["a", "c"], "n": 1}, {"other": 1}, "plain", "not plain", '"plain"')
    work.until(lambda: len(work.events("Filtered")) >= 1 and work.counts("Filtered") == (0, 0))
    bodies = [record["body"] for records in work.events("Filtered") for record in records]
    assert sorted(bodies) == ["plain", '{"kind": ["a", "c"], "n": 1}']


def test_a_window_gathers_more_than_one_receive_gives(work: Work) -> None:
    work.send("Windowed", *({"n": n} for n in range(23)))
    work.until(lambda: work.counts("Windowed") == (0, 0))
    assert sorted(body["n"] for body in work.bodies("Windowed")) == list(range(23))
    assert max(len(records) for records in work.events("Windowed")) > 10


def test_no_more_batches_are_under_way_than_the_mapping_allows(work: Work) -> None:
    work.send("Few", *({"n": n, "sleep": 0.15} for n in range(6)))
    work.until(lambda: work.counts("Few") == (0, 0))
    assert len(work.events("Few")) == 6
    spans = []
    for path in work.folder.glob("*.json"):
        kept = json.loads(path.read_text())
        if kept["event"]["Records"][0]["eventSourceARN"] == work.arn("Few"):
            spans.append((kept["began"], int(path.with_suffix(".ended").read_text())))
    assert max(sum(began <= moment < ended for began, ended in spans) for moment, _ in spans) <= 2


def test_a_mapping_that_is_switched_off_leaves_the_queue_alone(work: Work) -> None:
    work.send("Idle", {"n": 1})
    work.turn(0.2)
    assert (work.events("Idle"), work.counts("Idle")) == ([], (1, 0))


def test_a_throttled_function_gets_its_messages_all_the_same(started: Callable[..., Work]) -> None:
    work = started(
        "throttled",
        "Narrow: {Type: SQS, Properties: {Queue: !GetAtt Narrow.Arn, BatchSize: 1}}",
        "Narrow: {Type: AWS::SQS::Queue, Properties: {VisibilityTimeout: 60}}",
        max_environments=1,
        queue_limit=0,
    )
    work.send("Narrow", *({"n": n, "sleep": 0.1} for n in range(4)))
    work.until(lambda: work.counts("Narrow") == (0, 0))
    assert sorted(body["n"] for body in work.bodies("Narrow")) == [0, 1, 2, 3]


def test_closing_while_it_polls_ends_at_once_and_leaves_later_messages_in_the_queue(
    started: Callable[..., Work],
) -> None:
    work = started(
        "closing",
        "Last: {Type: SQS, Properties: {Queue: !GetAtt Last.Arn}}",
        "Last: {Type: AWS::SQS::Queue, Properties: {VisibilityTimeout: 60}}",
    )
    work.send("Last", {"n": 1})
    work.until(lambda: work.counts("Last") == (0, 0))
    work.turn(0.1)  # long enough to poll again
    work.runner.run(work.sources.close())
    work.send("Last", {"n": 2})
    assert [body["n"] for body in work.bodies("Last")] == [1]


def test_environments_that_are_killed_again_and_again_cost_time_only(started: Callable[..., Work]) -> None:
    work = started(
        "killed",
        "Hard: {Type: SQS, Properties: {Queue: !GetAtt Hard.Arn, BatchSize: 2}}",
        "Hard: {Type: AWS::SQS::Queue}",
        visibility_s=2,
    )
    work.send("Hard", *({"n": n, "sleep": 0.05} for n in range(8)))
    killed: set[int] = set()

    def alive() -> set[int]:
        return {each.pid for each in work.service.status()[0].environments if each.pid is not None} - killed

    for _ in range(3):
        work.until(lambda: bool(alive()))
        for pid in alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            killed.add(pid)
    work.until(lambda: work.counts("Hard") == (0, 0))
    assert {body["n"] for body in work.bodies("Hard")} == set(range(8))
