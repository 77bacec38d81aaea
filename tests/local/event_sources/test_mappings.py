"""What mappings of a template become, and what is refused."""

import re
from pathlib import Path
from typing import Any

import pytest

from infra.local.event_sources.specs import QueueSourceSpec, StreamSourceSpec
from infra.local.intrinsics import TemplateError
from infra.local.resource_types import UnknownResourceType
from tests.local.event_sources.conftest import TEMPLATE, indented, load

RESOURCES = """
Fast: {Type: AWS::SQS::Queue, Properties: {VisibilityTimeout: 1}}
Slow: {Type: AWS::SQS::Queue}
Lined: {Type: AWS::SQS::Queue, Properties: {FifoQueue: true}}
News: {Type: AWS::SNS::Topic}
Still:
  Type: AWS::DynamoDB::Table
  Properties:
    BillingMode: PAY_PER_REQUEST
    AttributeDefinitions: [{AttributeName: id, AttributeType: S}]
    KeySchema: [{AttributeName: id, KeyType: HASH}]
Moving:
  Type: AWS::DynamoDB::Table
  Properties:
    BillingMode: PAY_PER_REQUEST
    AttributeDefinitions: [{AttributeName: id, AttributeType: S}]
    KeySchema: [{AttributeName: id, KeyType: HASH}]
    StreamSpecification: {StreamViewType: NEW_IMAGE}
"""


def sources(folder: Path, events: str, function: str = "") -> Any:
    """The specs of the events of a function, which may have further properties."""
    text = TEMPLATE.replace("      Events:\n", f"{indented(function, 6) if function else ''}      Events:\n")
    return load(text + indented(events, 8) + indented(RESOURCES, 2), folder, "made").event_sources


def queue(properties: str) -> str:
    return f"E: {{Type: SQS, Properties: {{{properties}}}}}"


def stream(properties: str) -> str:
    return f"E: {{Type: DynamoDB, Properties: {{{properties}}}}}"


def test_a_queue_becomes_a_source_with_all_that_the_template_says_of_it(tmp_path: Path) -> None:
    properties = """Queue: !GetAtt Slow.Arn, BatchSize: 50, MaximumBatchingWindowInSeconds: 5, FunctionResponseTypes:
      [ReportBatchItemFailures], ScalingConfig: {MaximumConcurrency: 7}, FilterCriteria: {Filters: [{Pattern:
      '{"body": {"a": [1]}}'}]}"""
    assert sources(tmp_path, queue(re.sub(r"\s+", " ", properties)), "AutoPublishAlias: live") == (
        QueueSourceSpec(
            name="WorkE",
            queue="made-Slow",
            queue_arn="arn:aws:sqs:us-east-1:000000000000:made-Slow",
            function="Work",
            batch_size=50,
            window_s=5,
            filters=({"body": {"a": [1]}},),
            reports_failures=True,
            max_concurrency=7,
        ),
    )


def test_a_stream_becomes_a_source_with_all_that_the_template_says_of_it(tmp_path: Path) -> None:
    properties = """Stream: !GetAtt Moving.StreamArn, StartingPosition: LATEST, BatchSize: 5, MaximumRetryAttempts: 0,
      MaximumRecordAgeInSeconds: 60, BisectBatchOnFunctionError: true, ParallelizationFactor: 2, DestinationConfig:
      {OnFailure: {Type: SQS, Destination: !GetAtt Slow.Arn}}"""
    assert sources(tmp_path, stream(re.sub(r"\s+", " ", properties))) == (
        StreamSourceSpec(
            name="WorkE",
            table="made-Moving",
            stream_arn="arn:aws:dynamodb:us-east-1:000000000000:table/made-Moving/stream/2026-01-01T00:00:00.000",
            function="Work",
            from_start=False,
            batch_size=5,
            max_retries=0,
            max_age_s=60,
            bisects=True,
            on_failure_queue="made-Slow",
        ),
    )


def test_what_is_not_said_has_lambdas_defaults(tmp_path: Path) -> None:
    (of_queue,) = sources(tmp_path, queue("Queue: !GetAtt Slow.Arn"))
    assert (of_queue.batch_size, of_queue.window_s, of_queue.reports_failures, of_queue.max_concurrency) == (
        10,
        0,
        False,
        None,
    )
    (of_stream,) = sources(tmp_path, stream("Stream: !GetAtt Moving.StreamArn, StartingPosition: TRIM_HORIZON"))
    assert (of_stream.batch_size, of_stream.max_retries, of_stream.max_age_s, of_stream.from_start) == (
        100,
        None,
        None,
        True,
    )
    assert sources(tmp_path, queue("Queue: !GetAtt Slow.Arn, Enabled: false")) == ()


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (queue("Queue: !GetAtt Fast.Arn"), "Queue visibility timeout: 1 seconds is less than Function timeout: 20"),
        (queue("Queue: 'arn:aws:sqs:us-east-1:000000000000:other'"), "other is no AWS::SQS::Queue of this stack"),
        (queue("Queue: !GetAtt Slow.Arn, BatchSize: 11"), "MaximumBatchingWindowInSeconds of at least 1"),
        (queue("Queue: !GetAtt Slow.Arn, BatchSize: 0"), "a number from 1 to 10000"),
        (queue("Queue: !GetAtt Lined.Arn, BatchSize: 11"), "a number from 1 to 10 is"),
        (queue("Queue: !GetAtt Slow.Arn, ScalingConfig: {MaximumConcurrency: 1}"), "a number from 2 to 1000"),
        (queue("Queue: !GetAtt Slow.Arn, FunctionResponseTypes: [All]"), "there is no All"),
        (
            queue("""Queue: !GetAtt Slow.Arn, FilterCriteria: {Filters: [{Pattern: '{"body": 1}'}]}"""),
            "the pattern.body",
        ),
        (stream("Stream: !GetAtt Still.StreamArn, StartingPosition: LATEST"), "Still has no StreamSpecification"),
        (stream("Stream: !GetAtt Moving.StreamArn, StartingPosition: AT_TIMESTAMP"), "LATEST or TRIM_HORIZON"),
        (
            stream("Stream: !GetAtt Moving.StreamArn, StartingPosition: LATEST, MaximumRecordAgeInSeconds: 5"),
            "-1, or 60 to 604800",
        ),
        (
            stream(
                "Stream: !GetAtt Moving.StreamArn, StartingPosition: LATEST,"
                " DestinationConfig: {OnFailure: {Type: SNS, Destination: !Ref News}}"
            ),
            "in queues only",
        ),
        (
            "E: {Type: Kinesis, Properties: {Stream: 'arn:aws:kinesis:us-east-1:000000000000:stream/s',"
            " StartingPosition: LATEST}}",
            "polls queues and streams of tables only",
        ),
    ],
)
def test_what_lambda_or_the_local_runtime_cannot_do_is_refused(tmp_path: Path, event: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message) as raised:
        sources(tmp_path, event)
    assert "Resources.WorkE.Properties." in str(raised.value)


def test_a_property_that_would_have_no_effect_is_named(tmp_path: Path) -> None:
    given = "Stream: !GetAtt Moving.StreamArn, StartingPosition: LATEST, TumblingWindowInSeconds: 10"
    with pytest.raises(UnknownResourceType, match="TumblingWindowInSeconds"):
        sources(tmp_path, stream(given))
