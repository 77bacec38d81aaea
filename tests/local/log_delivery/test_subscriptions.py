from pathlib import Path
from textwrap import dedent

import pytest

from infra.local.resource_types import UnknownResourceType
from infra.local.stack import LogSubscriptionSpec, StackSpec
from infra.local.template import TemplateError, load_stack

SAM = """\
    Transform: AWS::Serverless-2016-10-31
    Globals: {Function: {Runtime: python3.13, CodeUri: ., Handler: h.h, AutoPublishAlias: live}}
    Resources:
      Predict: {Type: AWS::Serverless::Function, Properties: {LoggingConfig: {LogGroup: !Ref Lines}}}
      Admin: {Type: AWS::Serverless::Function, Properties: {LoggingConfig: {LogGroup: !Ref Lines}}}
      Plain: {Type: AWS::Serverless::Function, Properties: {FunctionName: plain}}
      Lines: {Type: AWS::Logs::LogGroup, Properties: {LogGroupName: !Sub "/aws/lambda/${AWS::StackName}/lines"}}
      Telemetry:
        Type: AWS::Serverless::Function
        Properties:
          Events:
            Lines:
              Type: CloudWatchLogs
              Properties: {LogGroupName: !Ref Lines, FilterPattern: '{ $.message = "request" }'}
      Own:
        Type: AWS::Logs::SubscriptionFilter
        Properties:
          FilterName: mine
          LogGroupName: /aws/lambda/plain
          FilterPattern: ""
          DestinationArn: !GetAtt Telemetry.Arn
"""


def loaded(text: str, folder: Path) -> StackSpec:
    path = folder / "template.yaml"
    path.write_text(dedent(text))
    return load_stack(path, stack_name="s")


def test_a_subscription_names_the_functions_of_its_log_group_and_the_one_that_gets_the_lines(tmp_path: Path) -> None:
    stack = loaded(SAM, tmp_path)
    assert sorted(stack.log_subscriptions, key=lambda spec: spec.name) == [
        LogSubscriptionSpec("mine", "/aws/lambda/plain", "", ("Plain",), "Telemetry"),
        LogSubscriptionSpec(
            "s-TelemetryLines", "/aws/lambda/s/lines", '{ $.message = "request" }', ("Predict", "Admin"), "Telemetry"
        ),
    ]
    assert stack.functions["Telemetry"].log_group_name == "/aws/lambda/s-Telemetry"


FUNCTION = """\
    Resources:
      Talk:
        Type: AWS::Lambda::Function
        Properties: {Runtime: python3.13, Handler: h.h, Code: {S3Bucket: local-code, S3Key: .}}
      Hear:
        Type: AWS::Lambda::Function
        Properties: {Runtime: python3.13, Handler: h.h, Code: {S3Bucket: local-code, S3Key: .}}
"""
LINES = """\
      Lines%s:
        Type: AWS::Logs::SubscriptionFilter
        Properties: {LogGroupName: %s, FilterPattern: '%s', DestinationArn: %s}
"""
TALK, HEAR = "/aws/lambda/s-Talk", "!GetAtt Hear.Arn"


@pytest.mark.parametrize(
    ("group", "pattern", "destination", "message"),
    [
        (TALK, "[a, b]", HEAR, r"Lines\.Properties\.FilterPattern: the local runtime cannot use '\[a, b\]'"),
        ("/aws/lambda/nobody", "", HEAR, "no function of this stack writes to /aws/lambda/nobody"),
        ("/aws/lambda/s-Hear", "", HEAR, "Hear cannot be subscribed to the log group that it writes to itself"),
        (TALK, "", "arn:aws:kinesis:us-east-1:000000000000:stream/x", "is no function of this stack"),
        (TALK, "", "arn:aws:lambda:us-east-1:000000000000:function:other", "is no function of this stack"),
        (TALK, "", HEAR + ", RoleArn: role", "is called without a role"),
    ],
)
def test_what_would_be_left_undone_stops_the_start(
    group: str, pattern: str, destination: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(TemplateError, match=message):
        loaded(FUNCTION + LINES % ("", group, pattern, destination), tmp_path)


def test_a_log_group_has_two_subscriptions_at_most(tmp_path: Path) -> None:
    text = FUNCTION + LINES % (1, TALK, "a", HEAR) + LINES % (2, TALK, "b", HEAR)
    assert len(loaded(text, tmp_path).log_subscriptions) == 2
    with pytest.raises(TemplateError, match="has 3 subscriptions; 2 are allowed"):
        loaded(text + LINES % (3, TALK, "c", HEAR), tmp_path)


def test_properties_that_change_what_is_delivered_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownResourceType, match="FieldSelectionCriteria"):
        loaded(FUNCTION + LINES % ("", TALK, "", HEAR + ", FieldSelectionCriteria: x"), tmp_path)
