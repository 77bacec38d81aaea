"""Deliveries of webhooks as items of a DynamoDB table."""

from typing import TYPE_CHECKING, Any, Final

from shared.domain.webhooks import Attempt, Delivery, DeliveryState

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

_STATES: Final[dict[str, DeliveryState]] = {
    "pending": "pending",
    "delivered": "delivered",
    "failed": "failed",
    "dead": "dead",
}


def key(webhook_id: str, delivery_id: str) -> "dict[str, AttributeValueTypeDef]":
    """The key of a delivery's item."""
    return {"webhook_id": {"S": webhook_id}, "delivery_id": {"S": delivery_id}}


def number(value: float) -> "AttributeValueTypeDef":
    """A number as an attribute."""
    return {"N": repr(value)}


def attempt_item(attempt: Attempt) -> "dict[str, AttributeValueTypeDef]":
    """An attempt as an attribute; what is None or empty is not in it."""
    item: dict[str, AttributeValueTypeDef] = {"at": number(attempt.at)}
    for name, count in (("status", attempt.status), ("ms", attempt.ms)):
        if count is not None:
            item[name] = number(count)
    for name, text in (("error", attempt.error), ("said", attempt.said)):
        if text:
            item[name] = {"S": text}
    return item


def to_item(delivery: Delivery) -> "dict[str, AttributeValueTypeDef]":
    """The item of a delivery; what is None is not in it."""
    item: dict[str, AttributeValueTypeDef] = {
        **key(delivery.webhook_id, delivery.delivery_id),
        "tenant": {"S": delivery.tenant},
        "event": {"S": delivery.event},
        "payload": {"S": delivery.payload.decode()},
        "created_at": number(delivery.created_at),
        "expires_at": {"N": str(delivery.expires_at)},
        "state": {"S": delivery.state},
        "tries": {"N": str(delivery.tries)},
        "attempts": {"L": [{"M": attempt_item(attempt)} for attempt in delivery.attempts]},
    }
    if delivery.next_at is not None:
        item["next_at"] = number(delivery.next_at)
    for name, text in (("job_id", delivery.job_id), ("reason", delivery.reason), ("claim", delivery.claim)):
        if text is not None:
            item[name] = {"S": text}
    return item


def from_item(item: "dict[str, AttributeValueTypeDef]") -> Delivery:
    """Read back what `to_item` wrote, and what updates made of it."""
    texts = {name: value["S"] for name, value in item.items() if "S" in value}
    return Delivery(
        delivery_id=texts["delivery_id"],
        webhook_id=texts["webhook_id"],
        tenant=texts["tenant"],
        event=texts["event"],
        payload=texts["payload"].encode(),
        created_at=float(item["created_at"]["N"]),
        expires_at=int(item["expires_at"]["N"]),
        job_id=texts.get("job_id"),
        state=_STATES[texts["state"]],
        tries=int(item["tries"]["N"]),
        next_at=float(item["next_at"]["N"]) if "next_at" in item else None,
        reason=texts.get("reason"),
        attempts=tuple(_attempt(entry["M"]) for entry in item["attempts"]["L"]),
        claim=texts.get("claim"),
    )


def _attempt(item: Any) -> Attempt:
    return Attempt(
        at=float(item["at"]["N"]),
        status=int(item["status"]["N"]) if "status" in item else None,
        error=item["error"]["S"] if "error" in item else None,
        ms=int(item["ms"]["N"]) if "ms" in item else None,
        said=item["said"]["S"] if "said" in item else "",
    )
