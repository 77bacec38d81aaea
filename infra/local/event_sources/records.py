"""The records that functions get of messages and of changed items, and the filters over them.

Sources: "Using Lambda with Amazon SQS", "Using AWS Lambda with Amazon DynamoDB" and "Control which events Lambda sends
to your function" of the Lambda developer guide; `sam local generate-event` makes the same.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from infra.local.event_pattern import EventMatcher, compile_event_pattern
from infra.local.lambda_service.invocation import MAX_REQUEST_BYTES
from infra.local.stack import REGION

_HEAD: Final = b'{"Records":['
_TAIL: Final = b"]}"
# Lambda's event has version 1.1 of what the stream itself has in version 1.0.
_STREAM_EVENT_VERSION: Final = "1.1"


@dataclass(frozen=True, slots=True)
class Record:
    """One record; `identifier` is what `itemIdentifier` names it by, `encoded` is its JSON."""

    identifier: str
    document: Mapping[str, Any]
    encoded: bytes


def of_message(message: Mapping[str, Any], queue_arn: str) -> Record:
    """The record of a message as ReceiveMessage gives it."""
    document = {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message.get("Attributes", {}),
        "messageAttributes": {name: _attribute(value) for name, value in message.get("MessageAttributes", {}).items()},
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": REGION,
    }
    if "MD5OfMessageAttributes" in message:
        document["md5OfMessageAttributes"] = message["MD5OfMessageAttributes"]
    return Record(document["messageId"], document, msgspec.json.encode(document))


def of_change(change: Mapping[str, Any], stream_arn: str) -> Record:
    """The record of a change as GetRecords gives it; binary values are Base64 in both."""
    facts = dict(change["dynamodb"])
    facts["ApproximateCreationDateTime"] = int(facts["ApproximateCreationDateTime"])
    document = {
        "eventID": change["eventID"],
        "eventName": change["eventName"],
        "eventVersion": _STREAM_EVENT_VERSION,
        "eventSource": "aws:dynamodb",
        "awsRegion": change["awsRegion"],
        "dynamodb": facts,
        "eventSourceARN": stream_arn,
    }
    if "userIdentity" in change:
        document["userIdentity"] = change["userIdentity"]
    return Record(facts["SequenceNumber"], document, msgspec.json.encode(document))


def event(records: Iterable[Record]) -> bytes:
    """The JSON of one event."""
    return _HEAD + b",".join(record.encoded for record in records) + _TAIL


def events(records: Iterable[Record]) -> Iterator[tuple[list[Record], bytes]]:
    """The records in as few events as Lambda's limit on a payload allows: for each, its records and its JSON."""
    part: list[Record] = []
    size = 0
    for record in records:
        if part and len(_HEAD) + size + len(record.encoded) + len(part) + len(_TAIL) > MAX_REQUEST_BYTES:
            yield part, event(part)
            part, size = [], 0
        part.append(record)
        size += len(record.encoded)
    if part:
        yield part, event(part)


def message_filter(patterns: Sequence[Mapping[str, Any]]) -> Callable[[Record], bool]:
    """Whether a message's record passes: it matches one of the patterns, or there is none.

    A body that is a JSON object or array is one to the patterns, too; a pattern for one of these does not match text.
    """
    matchers = [(compile_event_pattern(pattern), isinstance(pattern.get("body"), Mapping)) for pattern in patterns]

    def passes(record: Record) -> bool:
        body = _json_body(record.document["body"])
        event = record.document if body is None else {**record.document, "body": body}
        return any(matches(event) and not (needs_json and body is None) for matches, needs_json in matchers)

    return passes if matchers else lambda _: True


def change_filter(patterns: Sequence[Mapping[str, Any]]) -> Callable[[Record], bool]:
    """Whether a change's record passes: it matches one of the patterns, or there is none."""
    matchers: list[EventMatcher] = [compile_event_pattern(pattern) for pattern in patterns]
    return lambda record: not matchers or any(matches(record.document) for matches in matchers)


def _attribute(value: Mapping[str, Any]) -> dict[str, Any]:
    # The two lists are not in use at AWS either.
    attribute: dict[str, Any] = {"stringListValues": [], "binaryListValues": [], "dataType": value["DataType"]}
    for ours, theirs in (("stringValue", "StringValue"), ("binaryValue", "BinaryValue")):
        if theirs in value:
            attribute[ours] = value[theirs]
    return attribute


def _json_body(text: str) -> Any:
    if text.lstrip()[:1] not in {"{", "["}:
        return None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
