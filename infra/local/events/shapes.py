"""The events that functions and queues get, made from the records of the outbox and from schedules.

Sources: "EventBridge event message structure" and "Event message structure" of the Amazon S3 user guide, the events of
SNS and of schedules in the Lambda developer guide ("Invoking Lambda functions with Amazon SNS notifications", "Process
scheduled events") and "Managing templated targets" of the EventBridge Scheduler user guide.
"""

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote_plus

from infra.local.stack import ACCOUNT_ID, REGION

Event = dict[str, Any]

_ADDRESS: Final = "127.0.0.1"
_CREATED: Final = "ObjectCreated:"
# Reason and name of the operation, which EventBridge's and S3's own events call differently.
_REASONS: Final[Mapping[str, str]] = {
    "ObjectCreated:Put": "PutObject",
    "ObjectCreated:Post": "POST Object",
    "ObjectCreated:Copy": "CopyObject",
    "ObjectCreated:CompleteMultipartUpload": "CompleteMultipartUpload",
    "ObjectRemoved:Delete": "DeleteObject",
    "ObjectRemoved:DeleteMarkerCreated": "DeleteObject",
}
OBJECT_EVENTS: Final = tuple(_REASONS)
OBJECT_CREATED: Final = "Object Created"
OBJECT_DELETED: Final = "Object Deleted"


def bridge_event(record: Mapping[str, Any]) -> Event:
    """What S3 sends to EventBridge; the key is as it is, not encoded."""
    name = record["name"]
    is_created = name.startswith(_CREATED)
    facts = {
        "key": record["key"],
        "size": record.get("size"),
        "etag": record.get("etag"),
        "version-id": record.get("version"),
        # EventBridge's has lower case letters.
        "sequencer": record["sequencer"].lower(),
    }
    detail: Event = {
        "version": "0",
        "bucket": {"name": record["bucket"]},
        "object": {name: value for name, value in facts.items() if value is not None},
        "request-id": record["request_id"],
        "requester": ACCOUNT_ID,
        "source-ip-address": _ADDRESS,
        "reason": _REASONS[name],
    }
    if not is_created:
        detail["deletion-type"] = "Permanently Deleted" if name == "ObjectRemoved:Delete" else "Delete Marker Created"
    return _envelope(
        OBJECT_CREATED if is_created else OBJECT_DELETED,
        "aws.s3",
        _seconds(datetime.fromisoformat(record["at"])),
        [f"arn:aws:s3:::{record['bucket']}"],
        detail,
    )


def bucket_event(record: Mapping[str, Any], configuration_id: str) -> Event:
    """What S3 sends to functions, queues and topics itself; the key is URL-encoded."""
    facts = {
        "key": quote_plus(record["key"], safe="/"),
        "size": record.get("size"),
        "eTag": record.get("etag"),
        "versionId": record.get("version"),
        "sequencer": record["sequencer"],
    }
    return {
        "Records": [
            {
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "awsRegion": REGION,
                "eventTime": record["at"],
                "eventName": record["name"],
                "userIdentity": {"principalId": f"AWS:{ACCOUNT_ID}"},
                "requestParameters": {"sourceIPAddress": _ADDRESS},
                "responseElements": {
                    "x-amz-request-id": record["request_id"],
                    "x-amz-id-2": f"{record['request_id']}/local",
                },
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": configuration_id,
                    "bucket": {
                        "name": record["bucket"],
                        "ownerIdentity": {"principalId": ACCOUNT_ID},
                        "arn": f"arn:aws:s3:::{record['bucket']}",
                    },
                    "object": {name: value for name, value in facts.items() if value is not None},
                },
            }
        ]
    }


def topic_event(record: Mapping[str, Any], subscription_arn: str) -> Event:
    """What SNS invokes a function with. There is nothing to verify the signature with here."""
    site = f"https://sns.{REGION}.amazonaws.com"
    return {
        "Records": [
            {
                "EventSource": "aws:sns",
                "EventVersion": "1.0",
                "EventSubscriptionArn": subscription_arn,
                "Sns": {
                    "Type": "Notification",
                    "MessageId": record["id"],
                    "TopicArn": record["topic"],
                    "Subject": record["subject"],
                    "Message": record["message"],
                    "Timestamp": record["at"],
                    "SignatureVersion": "1",
                    "Signature": "bG9jYWw=",
                    "SigningCertUrl": f"{site}/SimpleNotificationService-local.pem",
                    "UnsubscribeUrl": f"{site}/?Action=Unsubscribe&SubscriptionArn={subscription_arn}",
                    "MessageAttributes": record["attributes"],
                },
            }
        ]
    }


def rule_event(rule_arn: str, at: datetime) -> Event:
    """What a rule with a schedule sends."""
    return _envelope("Scheduled Event", "aws.events", _seconds(at), [rule_arn], {})


def schedule_event(schedule_arn: str, at: datetime) -> Event:
    """What EventBridge Scheduler sends by default: its `detail` is text."""
    return _envelope("Scheduled Event", "aws.scheduler", _seconds(at), [schedule_arn], "{}")


def with_context(text: str, schedule_arn: str, at: datetime) -> str:
    """The input of a schedule with the scheduler's context attributes filled in."""
    values = {
        "schedule-arn": schedule_arn,
        "scheduled-time": _seconds(at),
        "execution-id": str(uuid.uuid4()),
        "attempt-number": "1",
    }
    for name, value in values.items():
        text = text.replace(f"<aws.scheduler.{name}>", value)
    return text


def _envelope(detail_type: str, source: str, time: str, resources: list[str], detail: Any) -> Event:
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": detail_type,
        "source": source,
        "account": ACCOUNT_ID,
        "time": time,
        "region": REGION,
        "resources": resources,
        "detail": detail,
    }


def _seconds(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
