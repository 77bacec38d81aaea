import json
from typing import Any

from aws_lambda_powertools.utilities.parser.models import SnsModel

from tests.local.events.conftest import Stack


def publish(stack: Stack, message: str, **more: Any) -> str:
    sns = stack.client("sns")
    found = sns.publish(TopicArn=stack.spec.resources["News"].ref, Message=message, **more)
    return str(found["MessageId"])


def notices(stack: Stack, function: str, message_id: str) -> list[dict[str, Any]]:
    records = [event["Records"][0] for event in stack.got(function) if "Records" in event]
    return [record for record in records if record["Sns"]["MessageId"] == message_id]


def test_a_message_reaches_the_function_in_sns_s_form(stack: Stack) -> None:
    attributes = {
        "kind": {"DataType": "String", "StringValue": "plain"},
        "size": {"DataType": "Number", "StringValue": "5"},
        "raw": {"DataType": "Binary", "BinaryValue": b"\x00\x01"},
    }
    message_id = publish(stack, "hello", Subject="about", MessageAttributes=attributes)
    stack.settle()
    (record,) = notices(stack, "Listener", message_id)
    parsed = SnsModel.model_validate({"Records": [record]}).Records[0]
    (subscription,) = [each for each in stack.spec.events.subscriptions if each.target.name == "Listener"]
    assert (parsed.EventSubscriptionArn, parsed.EventVersion) == (subscription.arn, "1.0")
    assert (parsed.Sns.Subject, parsed.Sns.Message) == ("about", "hello")
    assert parsed.Sns.TopicArn == "arn:aws:sns:us-east-1:000000000000:events-News"
    assert record["Sns"]["MessageAttributes"] == {
        "kind": {"Type": "String", "Value": "plain"},
        "size": {"Type": "Number", "Value": "5"},
        "raw": {"Type": "Binary", "Value": "AAE="},
    }
    assert notices(stack, "Chosen", message_id) == []


def test_filters_choose_by_attributes_or_by_the_body(stack: Stack) -> None:
    urgent = {"kind": {"DataType": "String", "StringValue": "urgent"}}
    by_attribute = publish(stack, "text", MessageAttributes=urgent)
    by_body = publish(stack, json.dumps({"kind": "urgency"}))
    stack.settle()
    for function, wanted, other in (("Chosen", by_attribute, by_body), ("ByBody", by_body, by_attribute)):
        assert len(notices(stack, function, wanted)) == 1
        assert notices(stack, function, other) == []


def test_a_message_may_have_a_form_for_functions(stack: Stack) -> None:
    message = json.dumps({"default": "for all", "lambda": "for functions"})
    message_id = publish(stack, message, MessageStructure="json")
    stack.settle()
    (record,) = notices(stack, "Listener", message_id)
    assert (record["Sns"]["Message"], record["Sns"]["Subject"]) == ("for functions", None)
    assert record["Sns"]["MessageAttributes"] == {}


def test_queues_get_the_message_raw_or_wrapped(stack: Stack) -> None:
    binary = {"raw": {"DataType": "Binary", "BinaryValue": b"\x00\x01"}}
    message_id = publish(stack, "to queues", MessageAttributes=binary)
    (raw,) = [message for message in stack.messages("Raw") if message["Body"] == "to queues"]
    assert raw["MessageAttributes"]["raw"]["BinaryValue"] == b"\x00\x01"
    wrapped = [json.loads(message["Body"]) for message in stack.messages("Wrapped")]
    assert [each["Message"] for each in wrapped if each["MessageId"] == message_id] == ["to queues"]


def test_providing_the_stack_again_subscribes_nobody_twice(stack: Stack) -> None:
    from infra.local.resources import provision

    provision(stack.spec, stack.aws_url, on_progress=lambda _: None)
    message_id = publish(stack, "once")
    stack.settle()
    assert len(notices(stack, "Listener", message_id)) == 1
