"""Queues and what works them off: how long messages are hidden, where they go in the end, who is told."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from infra.local.intrinsics import holds
from infra.local.parameters import resolve_parameters
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
BOUNDED = ("JobMemory", "JobConcurrency", "JobAgeAlarmSeconds")


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


@pytest.mark.parametrize("timeout", TIMEOUTS)
def test_lambda_takes_every_mapping_of_a_queue_whatever_the_parameters_say(timeout: str) -> None:
    """Lambda refuses a queue that hides messages for less than the function may take; SQS hides none for over 12 h."""
    resources = resolved({"JobTimeout": timeout})
    queues = {arn_of(queue): queue for queue in of_type(resources, "AWS::SQS::Queue").values()}
    functions = {function.ref: function for function in of_type(resources, "AWS::Lambda::Function").values()}
    mapped = []
    for mapping in of_type(resources, "AWS::Lambda::EventSourceMapping").values():
        if queue := queues.get(mapping.properties["EventSourceArn"]):
            function = functions[mapping.properties["FunctionName"]].properties
            assert int(function["Timeout"]) <= int(queue.properties["VisibilityTimeout"]) <= 12 * 3600
            # The mapping is the bound: with a reservation below it, messages would count as received that nobody saw.
            assert "ReservedConcurrentExecutions" not in function
            mapped.append(queue.logical_id)
    assert sorted(mapped) == sorted(QUEUES)


def test_workers_can_be_set_to_what_aws_takes_and_alarms_to_what_can_come() -> None:
    """Source: AWS Lambda Developer Guide, "Lambda quotas" and "Configuring scaling behavior for SQS event sources"."""
    parameters = source()["Parameters"]
    assert {int(timeout) for timeout in TIMEOUTS} == {int(key) for key in source()["Mappings"]["JobTimeouts"]}
    assert max(map(int, TIMEOUTS)) <= 900
    bounds = {name: (parameters[name]["MinValue"], parameters[name]["MaxValue"]) for name in BOUNDED}
    assert bounds["JobMemory"] == (512, 10_240)
    assert bounds["JobConcurrency"] == (2, 1000)
    # No message gets older than its queue keeps it.
    kept = [queue.properties["MessageRetentionPeriod"] for queue in of_type(resolved(), "AWS::SQS::Queue").values()]
    assert bounds["JobAgeAlarmSeconds"][1] < min(kept)


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
        "arn:*:s3:::theirs/in/*",
        "arn:*:s3:::others/data/year/*",
    }


@pytest.mark.parametrize("text", ["theirs/in", "theirs/*/", "theirs/in?/", "theirs/${aws:username}/", "theirs//"])
def test_places_of_inputs_are_whole_and_without_patterns(text: str) -> None:
    with pytest.raises(TemplateError, match="InputPrefixes must match"):
        resolve_parameters(source()["Parameters"], {"InputPrefixes": text}, "sluice")


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("theirs/in/", True),
        ("theirs/in/,others/,theirs/out/", True),
        ("", False),
        # The permission for an empty one would open every bucket.
        ("theirs/in/,", False),
        (",theirs/in/", False),
        ("theirs/in/,,others/", False),
        ("theirs/in/, ,,others/", False),
        (",", False),
    ],
)
def test_a_list_of_inputs_with_an_empty_place_opens_nothing(text: str, given: bool) -> None:
    class Given:
        def ref(self, name: str, where: str) -> Any:
            return resolve_parameters(source()["Parameters"], {name: text}, where)[name]

        def unasked(self, *_: str) -> Any:
            raise AssertionError("the condition is about the parameter alone")

        attribute = condition = mapping = unasked

    assert holds(source()["Conditions"]["HasInputPrefixes"], Given(), "Conditions") is given


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
    assert ("IteratorAge", resources["WebhookSenderFunction"].ref) in watched


@pytest.mark.parametrize("parameters", [{}, WHOLE], ids=["defaults", "container with a queue"])
def test_errors_of_what_events_call_are_told_of(parameters: Mapping[str, str]) -> None:
    resources = resolved(parameters)
    functions = of_type(resources, "AWS::Lambda::Function")
    # Callers of these see the error themselves, and it is counted with their answers; CodeDeploy is such a caller.
    called = {name for name in functions if f"{name}Aliaslive" in resources} | {"ReleaseCheckFunction"}
    watched = [
        alarm.properties["Dimensions"][0]["Value"]
        for alarm in of_type(resources, "AWS::CloudWatch::Alarm").values()
        if alarm.properties.get("MetricName") == "Errors" and len(alarm.properties["Dimensions"]) == 1
    ]
    assert sorted(watched) == sorted(functions[name].ref for name in functions.keys() - called)
    assert ("AsyncResultFunction" in functions) == ("ContainerAsyncMaxInstances" in parameters)
