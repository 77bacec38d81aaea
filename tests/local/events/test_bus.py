import json
from typing import Any

from aws_lambda_powertools.utilities.parser.models import EventBridgeModel

from tests.local.events.conftest import Stack


def put(stack: Stack, detail: Any, source: str = "shop", **more: Any) -> dict[str, Any]:
    entry = {"Source": source, "DetailType": "order", "Detail": json.dumps(detail), **more}
    answer: dict[str, Any] = stack.client("events").put_events(Entries=[entry])
    return answer


def test_an_event_of_a_function_reaches_all_targets_of_the_rule_that_it_matches(stack: Stack) -> None:
    (entry,) = put(stack, {"id": "bus-1", "amount": 11}, Resources=["arn:aws:r"], Time=1_700_000_000)["Entries"]
    put(stack, {"id": "bus-1", "amount": 9})
    put(stack, {"id": "bus-1", "amount": 12}, source="another")
    stack.settle()
    (event,) = [each for each in stack.got("Listener") if each.get("detail", {}).get("id") == "bus-1"]
    parsed = EventBridgeModel.model_validate(event)
    assert (parsed.id, parsed.source, parsed.detail_type) == (entry["EventId"], "shop", "order")
    assert (parsed.account, parsed.region, parsed.resources) == ("000000000000", "us-east-1", ["arn:aws:r"])
    assert event["time"] == "2023-11-14T22:13:20Z"
    assert event["detail"] == {"id": "bus-1", "amount": 11}
    assert [json.loads(each["Body"]) for each in stack.messages("Work") if "bus-1" in each["Body"]] == [
        {"id": "bus-1", "amount": 11}
    ]
    assert [each["Body"] for each in stack.messages("Fixed")] == ['{"fixed": true}']


def test_what_cannot_be_handed_over_goes_to_the_dead_letters_of_the_target(stack: Stack) -> None:
    sqs = stack.client("sqs")
    name = stack.spec.resources["Broken"].name
    stack.messages("Dead")
    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=name)["QueueUrl"])
    put(stack, {"id": "bus-2", "amount": 11})
    stack.settle()
    sqs.create_queue(QueueName=name)
    (dead,) = stack.messages("Dead")
    assert json.loads(dead["Body"])["detail"]["id"] == "bus-2"
    attributes = {name: facts["StringValue"] for name, facts in dead["MessageAttributes"].items()}
    assert attributes["RULE_ARN"] == "arn:aws:events:us-east-1:000000000000:rule/events-Orders"
    assert attributes["TARGET_ARN"].endswith(":events-Broken")
    assert "NonExistentQueue" in attributes["ERROR_CODE"] + attributes["ERROR_MESSAGE"]


def test_names_of_aws_s_own_sources_and_broken_entries_are_refused(stack: Stack) -> None:
    answer = put(stack, {}, source="aws.s3")
    assert answer["FailedEntryCount"] == 1
    assert answer["Entries"][0]["ErrorCode"] == "NotAuthorizedForSource"
    broken = {"Source": "shop", "DetailType": "order", "Detail": "{"}
    fine = {"Source": "shop", "DetailType": "order", "Detail": '{"id": "bus-3", "amount": 20}'}
    answer = stack.client("events").put_events(Entries=[broken, fine])
    assert (answer["FailedEntryCount"], "EventId" in answer["Entries"][1]) == (1, True)
    stack.settle()
    assert [event for event in stack.got("Listener") if event.get("detail", {}).get("id") == "bus-3"]


def test_events_wait_for_whoever_fetches_them(stack: Stack) -> None:
    """Nothing moves in the supervisor while this test does not wait; writers are not held up by that."""
    numbers = range(40)
    client = stack.client("events")
    details = [json.dumps({"id": "bus-4", "amount": 100, "number": number}) for number in numbers]
    entries = [{"Source": "shop", "DetailType": "order", "Detail": detail} for detail in details]
    for start in numbers[::10]:
        assert client.put_events(Entries=entries[start : start + 10])["FailedEntryCount"] == 0
    stack.settle()
    found = [
        event["detail"]["number"] for event in stack.got("Listener") if event.get("detail", {}).get("id") == "bus-4"
    ]
    assert sorted(found) == list(numbers)
