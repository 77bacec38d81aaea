"""Queues and what works them off: how long messages are hidden, where they go in the end, who is told."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from infra.local.stack_scope import ResolvedResource
from infra.local.template import TemplateError, load_stack
from shared.domain.jobs import FINISHED, KEPT_S, LEASE_S, MAX_ATTEMPTS
from tests.template.support import COMBINATIONS, TEMPLATE, listed, of_type, resolved, source, statements

# Each queue that has work: its dead letters and the function that works it off.
QUEUES = {
    "JobsQueue": ("JobsDeadLetters", "JobWorkerFunction"),
    "BatchQueue": ("BatchDeadLetters", "BatchRunnerFunction"),
    "WebhooksQueue": ("WebhooksDeadLetters", "WebhookSenderFunction"),
}
DEAD_LETTERS = {dead_letters for dead_letters, _ in QUEUES.values()} | {"TelemetryFailures"}
WHOLE = COMBINATIONS["container with a queue"]
TIMEOUTS = source()["Parameters"]["JobTimeout"]["AllowedValues"]


def arn_of(queue: ResolvedResource) -> str:
    return f"arn:aws:sqs:us-east-1:000000000000:{queue.name}"


def mapping_of(resources: Mapping[str, ResolvedResource], arn: str) -> Mapping[str, Any]:
    mappings = of_type(resources, "AWS::Lambda::EventSourceMapping").values()
    (found,) = [mapping.properties for mapping in mappings if mapping.properties["EventSourceArn"] == arn]
    return found


@pytest.mark.parametrize("logical_id", sorted({*QUEUES, *DEAD_LETTERS}))
def test_a_queue_is_encrypted_and_keeps_its_messages_long_enough(logical_id: str) -> None:
    queues = of_type(resolved(), "AWS::SQS::Queue")
    assert queues.keys() == {*QUEUES, *DEAD_LETTERS}
    queue = queues[logical_id].properties
    assert queue["SqsManagedSseEnabled"] is True
    # Dead letters are kept as long as SQS can; the time of a message goes on when it gets there.
    assert queue["MessageRetentionPeriod"] == (14 if logical_id in DEAD_LETTERS else 4) * 86_400
    assert ("RedrivePolicy" in queue) == (logical_id in QUEUES)
    # Fair queues are standard ones: a message group must not hold up the rest of its tenant.
    assert "FifoQueue" not in queue


@pytest.mark.parametrize("timeout", TIMEOUTS)
@pytest.mark.parametrize("logical_id", QUEUES)
def test_a_message_is_hidden_for_as_long_as_lambda_may_try(logical_id: str, timeout: str) -> None:
    """Source: AWS Lambda Developer Guide, "Using Lambda with Amazon SQS": six times the timeout."""
    resources = resolved({"JobTimeout": timeout})
    queue = resources[logical_id].properties
    dead_letters, function = QUEUES[logical_id]
    assert queue["VisibilityTimeout"] == 6 * int(resources[function].properties["Timeout"])
    assert queue["RedrivePolicy"]["deadLetterTargetArn"] == arn_of(resources[dead_letters])
    # By then the code has given up a message by its own count, and said why.
    assert queue["RedrivePolicy"]["maxReceiveCount"] > 2 * MAX_ATTEMPTS


@pytest.mark.parametrize("logical_id", QUEUES)
def test_a_queue_is_worked_off_message_by_message_by_one_function(logical_id: str) -> None:
    resources = resolved()
    queue, (_, function) = resources[logical_id], QUEUES[logical_id]
    mapping = mapping_of(resources, arn_of(queue))
    assert mapping["FunctionName"] == resources[function].ref
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert 2 <= int(mapping["ScalingConfig"]["MaximumConcurrency"]) <= 1000
    # Over ten a window is needed, in which a small load would wait.
    assert mapping["BatchSize"] <= 10
    role = resources[f"{function}Role"]
    allowed = {
        action
        for statement in statements(role)
        if arn_of(queue) in listed(statement["Resource"])
        for action in listed(statement["Action"])
    }
    assert {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"} <= allowed


def test_workers_are_as_many_as_asked_for() -> None:
    resources = resolved({"JobConcurrency": "77"})
    for logical_id in ("JobsQueue", "BatchQueue"):
        mapping = mapping_of(resources, arn_of(resources[logical_id]))
        assert mapping["ScalingConfig"] == {"MaximumConcurrency": "77"}
    with pytest.raises(TemplateError, match="JobConcurrency must be at least 2"):
        load_stack(TEMPLATE, parameters={"JobConcurrency": "1"})


def test_a_worker_has_time_for_a_lease() -> None:
    assert min(map(int, TIMEOUTS)) >= 2 * LEASE_S
    with pytest.raises(TemplateError, match="JobTimeout must be one of"):
        load_stack(TEMPLATE, parameters={"JobTimeout": "120"})


def test_what_ended_is_told_from_the_stream_of_jobs() -> None:
    resources = resolved()
    table, sender = resources["JobsTable"], resources["WebhookSenderFunction"]
    assert table.properties["StreamSpecification"] == {"StreamViewType": "NEW_IMAGE"}
    (mapping,) = [
        found.properties
        for found in of_type(resources, "AWS::Lambda::EventSourceMapping").values()
        if ":dynamodb:" in found.properties["EventSourceArn"]
    ]
    assert f"table/{table.name}/stream/" in mapping["EventSourceArn"]
    assert mapping["FunctionName"] == sender.ref
    # LATEST leaves out what ends while the mapping is made.
    assert mapping["StartingPosition"] == "TRIM_HORIZON"
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    # One record that fails does not hold up a shard for longer than a stream keeps it.
    assert mapping["BisectBatchOnFunctionError"] is True
    assert 60 <= mapping["MaximumRecordAgeInSeconds"] <= 86_400
    failed = mapping["DestinationConfig"]["OnFailure"]["Destination"]
    assert failed == arn_of(resources["WebhooksDeadLetters"])
    (pattern,) = [json.loads(each["Pattern"]) for each in mapping["FilterCriteria"]["Filters"]]
    assert set(pattern["dynamodb"]["NewImage"]["state"]["S"]) == FINISHED
    # Jobs that TTL takes away have ended long ago.
    assert "REMOVE" not in pattern["eventName"]


def test_what_functions_fail_on_when_nobody_waits_for_them_is_kept() -> None:
    resources = resolved(WHOLE)
    for function, queue in (
        ("AsyncResultFunction", "JobsDeadLetters"),
        ("BatchRunnerFunction", "BatchDeadLetters"),
        ("TelemetryFunction", "TelemetryFailures"),
    ):
        assert resources[function].properties["DeadLetterConfig"] == {"TargetArn": arn_of(resources[queue])}
        role = resources[f"{function}Role"]
        sends = [item["Resource"] for item in statements(role) if "sqs:SendMessage" in listed(item["Action"])]
        assert arn_of(resources[queue]) in [resource for found in sends for resource in listed(found)]


def test_notices_of_asynchronous_invocations_reach_their_function_where_there_are_any() -> None:
    without = resolved(COMBINATIONS["container"])
    assert not {name for name in without if name.startswith("AsyncResult")}
    resources = resolved(WHOLE)
    function = resources["AsyncResultFunction"]
    topics = {
        subscription.properties["TopicArn"]
        for subscription in of_type(resources, "AWS::SNS::Subscription").values()
        if subscription.properties["Protocol"] == "lambda"
    }
    config = resources["Container.AsyncEndpointConfig"].properties["AsyncInferenceConfig"]["OutputConfig"]
    assert topics == set(config["NotificationConfig"].values())
    permissions = [
        found.properties
        for found in of_type(resources, "AWS::Lambda::Permission").values()
        if found.properties["Principal"] == "sns.amazonaws.com"
    ]
    assert {(found["FunctionName"], found["SourceArn"]) for found in permissions} == {
        (function.ref, topic) for topic in topics
    }


def test_dropped_objects_start_batches_and_nothing_else_of_the_bucket_does() -> None:
    resources = resolved()
    bucket = resources["DataBucket"]
    assert bucket.properties["NotificationConfiguration"] == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}
    (rule,) = of_type(resources, "AWS::Events::Rule").values()
    assert rule.properties["EventPattern"] == {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {"bucket": {"name": [bucket.ref]}, "object": {"key": [{"prefix": "batch/in/"}]}},
    }
    (target,) = rule.properties["Targets"]
    assert target["Arn"].endswith(f":function:{resources['BatchRunnerFunction'].ref}")


def test_the_sweep_comes_each_minute_in_any_number_of_stacks() -> None:
    (schedule,) = of_type(resolved(), "AWS::Scheduler::Schedule").values()
    assert schedule.properties["ScheduleExpression"] == "rate(1 minute)"
    # A name of ours would be that of all stacks of the Region.
    assert "Name" not in schedule.properties
    assert KEPT_S > 60


@pytest.mark.parametrize(
    "function",
    ["PredictFunction", "ApiFunction", "JobWorkerFunction", "AsyncResultFunction", "BatchRunnerFunction"],
)
def test_inputs_in_other_buckets_may_be_read_where_they_are_named_and_there_only(function: str) -> None:
    def places(parameters: Mapping[str, str]) -> set[str]:
        role = resolved({**WHOLE, **parameters})[f"{function}Role"]
        found = [item for item in statements(role) if "s3:GetObject" in listed(item["Action"])]
        resources = {resource for item in found for resource in listed(item["Resource"])}
        return {resource for resource in resources if "sluice-" not in resource}

    assert places({}) == set()
    assert places({"InputPrefixes": COMBINATIONS["inputs in other buckets"]["InputPrefixes"]}) == {
        "arn:aws:s3:::theirs/in/*",
        "arn:aws:s3:::others/data/year/*",
    }
    with pytest.raises(TemplateError, match="InputPrefixes must match"):
        load_stack(TEMPLATE, parameters={"InputPrefixes": "theirs/in"})


def test_alarms_watch_every_queue_and_what_works_it_off() -> None:
    resources = resolved({"JobAgeAlarmSeconds": "120", "JobDepthAlarmMessages": "7"})
    watched: dict[tuple[str, str], Any] = {}
    for alarm in of_type(resources, "AWS::CloudWatch::Alarm").values():
        for dimension in alarm.properties.get("Dimensions", []):
            watched[alarm.properties["MetricName"], dimension["Value"]] = alarm.properties["Threshold"]
    for logical_id, (dead_letters, function) in QUEUES.items():
        name = resources[logical_id].name
        # A delivery waits in its queue for its next attempt: the age of a message is no trouble there.
        aged = watched.get(("ApproximateAgeOfOldestMessage", name))
        assert aged == (None if logical_id == "WebhooksQueue" else "120")
        assert watched["ApproximateNumberOfMessagesVisible", name] == "7"
        assert watched["ApproximateNumberOfMessagesVisible", resources[dead_letters].name] == 1
        assert ("Errors", resources[function].ref) in watched
    assert ("Errors", resources["JobSweeperFunction"].ref) in watched
    assert ("IteratorAge", resources["WebhookSenderFunction"].ref) in watched
