"""Where moto tells of its events: writes of objects, messages to topics, entries of the event bus.

moto has a place for each of these, but serves only its own mock of Lambda from there, leaves fields out, and says
nothing of versions that are deleted. So the places are taken over, and leave a record in the outbox. Without an outbox
the events are dropped, as by an AWS without functions.
"""

import functools
import itertools
import time
import uuid
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from infra.local.events.outbox import Outbox
from infra.local.stack import ACCOUNT_ID, REGION

if TYPE_CHECKING:
    from moto.events.models import EventsBackend
    from moto.s3.models import FakeBucket, S3Backend
    from moto.sns.models import Subscription

_CREATED: Final = "s3:ObjectCreated:"
_SEQUENCE: Final = itertools.count(time.time_ns())


def install(service: str, outbox: Outbox | None) -> None:
    """Take over the places of `service` (`s3`, `sns`, `events`), once its modules may be imported."""
    if service in _TAPS:
        _TAPS[service](outbox)


def _s3(outbox: Outbox | None) -> None:
    from moto.s3 import notifications
    from moto.s3.models import S3Backend

    def send_event(_account_id: str, event_name: str, bucket: "FakeBucket", key: Any) -> None:
        name = str(getattr(event_name, "value", event_name))
        # moto tells of an upload in parts twice, first as of a PUT.
        is_told_twice = name == f"{_CREATED}Put" and key.multipart is not None
        if not name.startswith(_CREATED) or is_told_twice:
            return
        if outbox is not None and bucket.notification_configuration is not None:
            version = key.version_id if bucket.is_versioned else None
            facts = {"size": key.size, "etag": key.etag.strip('"'), "version": version}
            outbox.put(_object(name.removeprefix("s3:"), bucket, key.name, facts))

    delete_object = _original(S3Backend.delete_object)

    @functools.wraps(delete_object)
    def deleting(
        backend: "S3Backend", bucket_name: str, key_name: str, version_id: str | None = None, bypass: bool = False
    ) -> tuple[bool, dict[str, Any]]:
        done, meta = delete_object(backend, bucket_name, key_name, version_id, bypass)
        bucket = backend.get_bucket(bucket_name)
        if done and outbox is not None and bucket.notification_configuration is not None:
            is_marker = bucket.is_versioned and version_id is None
            name = "ObjectRemoved:DeleteMarkerCreated" if is_marker else "ObjectRemoved:Delete"
            version = meta.get("version-id") if bucket.is_versioned else None
            outbox.put(_object(name, bucket, key_name, {"version": version}))
        return done, meta

    notifications.send_event = send_event  # type: ignore[assignment]
    S3Backend.delete_object = deleting  # type: ignore[assignment, method-assign]


def _object(name: str, bucket: "FakeBucket", key: str, facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "object",
        "name": name,
        "bucket": bucket.name,
        "key": key,
        "at": _now(),
        "sequencer": f"{next(_SEQUENCE):018X}",
        "request_id": uuid.uuid4().hex[:16].upper(),
        **{name: value for name, value in facts.items() if value is not None},
    }


def _sns(outbox: Outbox | None) -> None:
    from moto.sns.models import Subscription

    publish = _original(Subscription.publish)

    @functools.wraps(publish)
    def publishing(
        subscription: "Subscription", message: str, message_id: str, subject: str | None = None, **others: Any
    ) -> None:
        if subscription.protocol != "lambda":
            if subscription.attributes.get("RawMessageDelivery"):
                others["message_attributes"] = _for_queue(others.get("message_attributes") or {})
            publish(subscription, message, message_id, subject=subject, **others)
            return
        attributes = others.get("message_attributes")
        matcher = subscription._filter_policy_matcher
        if outbox is None or (matcher is not None and not matcher.matches(attributes, message)):
            return
        if others.get("message_structure") == "json":
            message = subscription._parse_message_structure(message, "lambda")
        outbox.put(
            {
                "kind": "message",
                "subscription": subscription.arn,
                "endpoint": subscription.endpoint,
                "topic": subscription.topic.arn,
                "id": message_id,
                "message": message,
                "subject": subject,
                "attributes": _attributes(attributes or {}),
                "at": _now(),
            }
        )

    Subscription.publish = publishing  # type: ignore[assignment, method-assign]


def _for_queue(attributes: dict[str, Any]) -> dict[str, Any]:
    """Topics of moto keep binary values as Base64, its queues as they are; it forgets that on the way."""
    return {
        name: {**facts, "Value": b64decode(facts["Value"])} if str(facts["Type"]).startswith("Binary") else facts
        for name, facts in attributes.items()
    }


def _attributes(attributes: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {name: {"Type": str(facts["Type"]), "Value": str(facts["Value"])} for name, facts in attributes.items()}


def _events(outbox: Outbox | None) -> None:
    import json

    from moto.events.models import EventsBackend

    put_events = _original(EventsBackend.put_events)

    @functools.wraps(put_events)
    def putting(backend: "EventsBackend", events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = []
        for event, result in zip(events, put_events(backend, events), strict=True):
            if str(event.get("Source")).startswith("aws."):
                message = "Not authorized for the source."
                results.append({"ErrorCode": "NotAuthorizedForSource", "ErrorMessage": message})
                continue
            results.append(result)
            if "EventId" in result and outbox is not None:
                document = {
                    "version": "0",
                    "id": result["EventId"],
                    "detail-type": event["DetailType"],
                    "source": event["Source"],
                    "account": ACCOUNT_ID,
                    "time": _seconds(event.get("Time")),
                    "region": REGION,
                    "resources": event.get("Resources", []),
                    "detail": json.loads(event["Detail"]),
                }
                outbox.put({"kind": "event", "event": document})
        return results

    EventsBackend.put_events = putting  # type: ignore[assignment, method-assign]


def _original(function: Any) -> Callable[..., Any]:
    """What moto has at a place, also if it has been taken over before."""
    found: Callable[..., Any] = getattr(function, "__wrapped__", function)
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _seconds(time_: float | str | None) -> str:
    at = datetime.now(UTC) if time_ is None else _time(time_)
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def _time(given: float | str) -> datetime:
    if isinstance(given, str) and not given.replace(".", "", 1).isdecimal():
        return datetime.fromisoformat(given).astimezone(UTC)
    return datetime.fromtimestamp(float(given), UTC)


_TAPS: Final = {"s3": _s3, "sns": _sns, "events": _events}
