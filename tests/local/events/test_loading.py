"""What templates may say of events; all else stops the start by name."""

from pathlib import Path

import pytest

from infra.local.events.specs import EventsSpec
from infra.local.intrinsics import TemplateError
from infra.local.stack import StackSpec
from infra.local.template import load_stack

QUEUE = "{Arn: !GetAtt Queue.Arn, Id: q}"
SCHEDULE = "ScheduleExpression: rate(1 day), FlexibleTimeWindow: {Mode: 'OFF'}"


def load(folder: Path, type_: str, properties: str) -> EventsSpec:
    path = folder / "template.yaml"
    path.write_text(
        "Resources:\n  Queue: {Type: AWS::SQS::Queue}\n  Topic: {Type: AWS::SNS::Topic}\n"
        f"  It: {{Type: {type_}, Properties: {properties}}}\n"
    )
    return load_stack(path).events


def test_the_forms_of_sam_are_read(spec: tuple[StackSpec, Path]) -> None:
    stack_events = spec[0].events
    rules = {rule.logical_id: rule for rule in stack_events.rules}
    (target,) = rules["BatchDropped"].targets
    assert (target.target.kind, target.target.name) == ("function", "Batch")
    assert target.target.dead_letter_queue == "events-Dead"
    assert not rules["SwitchedOff"].enabled
    schedules = {schedule.logical_id: schedule for schedule in stack_events.schedules}
    assert schedules["ClockedTick"].name == "ticks"
    assert not schedules["ClockedStopped"].enabled
    assert {each.target.name for each in stack_events.subscriptions} == {"Listener", "Chosen", "ByBody"}
    kinds = {(each.target.kind, each.prefix, each.suffix) for each in stack_events.notifications}
    assert kinds == {("function", "in/", ".csv"), ("queue", "", ""), ("topic", "copied", "")}


@pytest.mark.parametrize(
    ("properties", "why"),
    [
        (f"{{EventPattern: {{source: [a]}}, EventBusName: other, Targets: [{QUEUE}]}}", "default event bus only"),
        ("{Targets: []}", "needs an EventPattern or a ScheduleExpression"),
        ("{EventPattern: {source: a}}", "EventPattern: .*source"),
        ("{EventPattern: {source: [aws.ec2]}}", "nothing here sends events of aws.ec2"),
        ("{EventPattern: {source: [aws.s3], detail-type: [Object Tags Added]}}", "does not send Object Tags Added"),
        ("{ScheduleExpression: rate(5 seconds)}", "a rate is a number"),
        ("{ScheduleExpression: 'at(2030-01-01T00:00:00)'}", "not of the form"),
        ("{EventPattern: {source: [a]}, Targets: [{Id: a, Arn: 'arn:aws:ecs:r:1:cluster/c'}]}", "is no function or"),
        ("{EventPattern: {source: [a]}, Targets: [{Id: a, Arn: !Ref Topic}]}", "is no function or queue"),
        (
            "{EventPattern: {source: [a]}, Targets: [{Id: a, Arn: !GetAtt Queue.Arn, InputTransformer: {}}]}",
            "does not support InputTransformer",
        ),
        ("{EventPattern: {source: [a]}, Targets: [{Id: a, Arn: !GetAtt Queue.Arn, InputPath: '$.a[0]'}]}", "paths"),
        ("{EventPattern: {source: [a]}, Targets: [{Id: a, Arn: !GetAtt Queue.Arn, Input: no}]}", "JSON is needed"),
        ("{EventPattern: {source: [a]}, Managed: true}", "does not support Managed"),
    ],
)
def test_rules_that_are_not_supported_are_refused(tmp_path: Path, properties: str, why: str) -> None:
    with pytest.raises(TemplateError, match=why):
        load(tmp_path, "AWS::Events::Rule", properties)


@pytest.mark.parametrize(
    ("properties", "why"),
    [
        (f"{{{SCHEDULE}, GroupName: g, Target: {QUEUE}}}", "default group"),
        (f"{{{SCHEDULE}}}", "Target: a schedule needs one"),
        (f"{{{SCHEDULE}, Target: {{Arn: 'arn:aws:scheduler:::aws-sdk:sqs:sendMessage'}}}}", "is no function or queue"),
        (f"{{{SCHEDULE}, Target: {{Arn: !GetAtt Queue.Arn, EcsParameters: {{}}}}}}", "does not support EcsParameters"),
        (f"{{{SCHEDULE}, ScheduleExpressionTimezone: No/Where, Target: {QUEUE}}}", "no time zone"),
        ("{ScheduleExpression: cron(bad), Target: {Arn: !GetAtt Queue.Arn}}", "six fields"),
    ],
)
def test_schedules_that_are_not_supported_are_refused(tmp_path: Path, properties: str, why: str) -> None:
    with pytest.raises(TemplateError, match=why):
        load(tmp_path, "AWS::Scheduler::Schedule", properties.replace(", Id: q", ""))


@pytest.mark.parametrize(
    ("properties", "why"),
    [
        ("{Protocol: sms, TopicArn: !Ref Topic, Endpoint: '1'}", "not by sms"),
        ("{Protocol: sqs, TopicArn: !Ref Topic, Endpoint: 'arn:aws:sqs:us-east-1:1:q'}", "is no queue of this stack"),
        ("{Protocol: lambda, TopicArn: !Ref Topic, Endpoint: !GetAtt Queue.Arn}", "is no function of this stack"),
        ("{Protocol: sqs, TopicArn: 'arn:aws:sns:r:1:t', Endpoint: !GetAtt Queue.Arn}", "is no topic of this stack"),
        ("{Protocol: sqs, TopicArn: !Ref Topic, Endpoint: !GetAtt Queue.Arn, ReplayPolicy: {}}", "ReplayPolicy"),
    ],
)
def test_subscriptions_that_are_not_supported_are_refused(tmp_path: Path, properties: str, why: str) -> None:
    with pytest.raises(TemplateError, match=why):
        load(tmp_path, "AWS::SNS::Subscription", properties)


@pytest.mark.parametrize(
    ("configuration", "why"),
    [
        (
            "{QueueConfigurations: [{Event: 's3:ObjectTagging:*', Queue: !GetAtt Queue.Arn}]}",
            "does not send s3:ObjectT",
        ),
        ("{QueueConfigurations: [{Event: 's3:ObjectCreated:*', Queue: !Ref Topic}]}", "is no queue of this stack"),
        (
            "{QueueConfigurations: [{Event: 's3:ObjectCreated:*', Queue: !GetAtt Queue.Arn,"
            " Filter: {S3Key: {Rules: [{Name: middle, Value: x}]}}}]}",
            "does not support middle",
        ),
        ("{ReplicaConfigurations: []}", "does not support ReplicaConfigurations"),
    ],
)
def test_notifications_that_are_not_supported_are_refused(tmp_path: Path, configuration: str, why: str) -> None:
    with pytest.raises(TemplateError, match=why):
        load(tmp_path, "AWS::S3::Bucket", f"{{NotificationConfiguration: {configuration}}}")


def test_mail_needs_nothing(tmp_path: Path) -> None:
    found = load(tmp_path, "AWS::SNS::Subscription", "{Protocol: email, TopicArn: !Ref Topic, Endpoint: a@b.c}")
    assert found == EventsSpec()
