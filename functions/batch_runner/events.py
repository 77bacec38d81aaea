"""What the batch runner is invoked with: steps from SQS, and objects that S3 tells of.

Sources: Amazon S3 User Guide, "EventBridge event message structure" (keys as they are) and "Event message structure"
(keys percent-encoded, a blank as `+`); AWS Lambda Developer Guide, "Using Lambda with Amazon SQS".
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_plus

import msgspec

from shared.domain.batches import Step
from shared.domain.jobs import JOB_ID, ObjectRef

_ID: Final = re.compile(JOB_ID)


class UnknownEvent(ValueError):
    """The event is none of those that this function is subscribed to."""


class StepBody(msgspec.Struct, frozen=True):
    """The body of a message; `part` is there for the step `part`."""

    job_id: str
    step: Step
    part: int | None = None

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.job_id) or (self.step == "part") != (self.part is not None):
            raise ValueError("not a step of a batch")


@dataclass(frozen=True, slots=True)
class StepMessage:
    """A message of the queue; `attempts` counts how often it was received. `step` is None for one that is not ours."""

    message_id: str
    receipt: str
    attempts: int
    step: StepBody | None
    body: str


@dataclass(frozen=True, slots=True)
class Created:
    """An object that was stored; `event_id` is the event's."""

    ref: ObjectRef
    event_id: str


_body = msgspec.json.Decoder(StepBody)


def read_event(event: Mapping[str, Any]) -> Sequence[StepMessage] | Sequence[Created]:
    """The steps, or the objects; UnknownEvent for anything else."""
    match event:
        case {"detail-type": "Object Created", "detail": {"bucket": {"name": str()}, "object": {"key": str()}}}:
            return [_of_event_bridge(event)]
        case {"Records": [{"eventSource": "aws:sqs"}, *_]}:
            return [_message(record) for record in event["Records"]]
        case {"Records": [{"eventSource": "aws:s3"}, *_]}:
            return [_of_notification(record) for record in event["Records"]]
        case {"Event": "s3:TestEvent"}:
            return list[Created]()
    raise UnknownEvent("The batch runner takes steps from its queue, and objects that S3 tells of.")


def _of_event_bridge(event: Mapping[str, Any]) -> Created:
    found = event["detail"]["object"]
    version_id = found.get("version-id") or None
    return Created(ObjectRef(event["detail"]["bucket"]["name"], found["key"], version_id), str(event.get("id", "")))


def _of_notification(record: Mapping[str, Any]) -> Created:
    found = record["s3"]["object"]
    ref = ObjectRef(record["s3"]["bucket"]["name"], unquote_plus(found["key"]), found.get("versionId") or None)
    request_id = record.get("responseElements", {}).get("x-amz-request-id", "")
    return Created(ref, str(request_id))


def _message(record: Mapping[str, Any]) -> StepMessage:
    try:
        step = _body.decode(record["body"])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        step = None
    attempts = int(record.get("attributes", {}).get("ApproximateReceiveCount", 1))
    return StepMessage(record["messageId"], record["receiptHandle"], attempts, step, record["body"])
