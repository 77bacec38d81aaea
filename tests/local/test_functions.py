"""What a template says of its functions' logs and asynchronous invocations."""

from pathlib import Path
from textwrap import dedent

import pytest

from infra.local.stack import FunctionSpec
from infra.local.template import TemplateError, load_stack

SAM = """\
    Transform: AWS::Serverless-2016-10-31
    Globals: {Function: {Runtime: python3.13, CodeUri: ., Handler: h.h, AutoPublishAlias: live}}
    Resources:
      Dead: {Type: AWS::SQS::Queue}
      Failed: {Type: AWS::SQS::Queue, Properties: {QueueName: failed}}
      News: {Type: AWS::SNS::Topic}
      Plain: {Type: AWS::Serverless::Function}
      Telemetry: {Type: AWS::Serverless::Function, Properties: {%s}}
"""


def telemetry(properties: str, folder: Path) -> FunctionSpec:
    path = folder / "template.yaml"
    path.write_text(dedent(SAM % properties))
    functions = load_stack(path, stack_name="s").functions
    plain = functions["Plain"]
    assert (plain.event_retries, plain.dead_letter_queue, plain.on_failure_queue) == (2, None, None)
    return functions["Telemetry"]


def test_a_dead_letter_queue_is_the_functions(tmp_path: Path) -> None:
    function = telemetry("DeadLetterQueue: {Type: SQS, TargetArn: !GetAtt Dead.Arn}", tmp_path)
    assert (function.event_retries, function.dead_letter_queue, function.on_failure_queue) == (2, "s-Dead", None)


def test_retries_and_a_destination_come_from_the_invoke_configuration(tmp_path: Path) -> None:
    failure = "DestinationConfig: {OnFailure: {Type: SQS, Destination: !GetAtt Failed.Arn}}"
    function = telemetry(f"EventInvokeConfig: {{MaximumRetryAttempts: 0, {failure}}}", tmp_path)
    assert (function.event_retries, function.dead_letter_queue, function.on_failure_queue) == (0, None, "failed")


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ("DeadLetterQueue: {Type: SNS, TargetArn: !Ref News}", "sends failed events to queues only"),
        (
            "EventInvokeConfig: {DestinationConfig: {OnFailure: {Type: SNS, Destination: !Ref News}}}",
            "sends failed events to queues only",
        ),
        (
            "EventInvokeConfig: {DestinationConfig: {OnSuccess: {Type: SQS, Destination: !GetAtt Dead.Arn}}}",
            "has no OnSuccess destinations",
        ),
    ],
)
def test_what_would_go_nowhere_stops_the_start(properties: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=message):
        telemetry(properties, tmp_path)
