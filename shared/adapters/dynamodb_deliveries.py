"""Deliveries of webhooks in a DynamoDB table: partition key `webhook_id` (S), sort key `delivery_id` (S), TTL.

Where an answer is lost, botocore asks for the same change again, and its condition holds no more: what is stored tells
that it was made.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from time import time
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from shared.adapters.aws import aws_errors, error_code
from shared.adapters.delivery_items import attempt_item, from_item, key, number, to_item
from shared.domain.webhook_ports import DeliveryClaim
from shared.domain.webhooks import CLOCK_SKEW_S, DELIVERY_ID, MAX_LOGGED, Attempt, Delivery, DeliveryPage

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

_WHAT: Final = "The store of deliveries"
_ID: Final = re.compile(DELIVERY_ID)


class DynamoDBDeliveries:
    """Implements `shared.domain.webhook_ports.DeliveryStore`; `now` gives seconds since 1970."""

    def __init__(self, client: "DynamoDBClient", table: str, *, now: Callable[[], float] = time) -> None:
        self._client = client
        self._table = table
        self._now = now

    def add(self, delivery: Delivery) -> Delivery:
        """One conditional PutItem, which answers what is there if it fails."""
        with aws_errors(_WHAT):
            try:
                self._client.put_item(
                    TableName=self._table,
                    Item=to_item(delivery),
                    ConditionExpression="attribute_not_exists(delivery_id)",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except ClientError as error:
                if error_code(error) != "ConditionalCheckFailedException":
                    raise
                return from_item(_old(error))
        return delivery

    def get(self, webhook_id: str, delivery_id: str) -> Delivery | None:
        """One strongly consistent GetItem; None for an id that no delivery can have, too."""
        if not _ID.fullmatch(delivery_id):
            return None
        with aws_errors(_WHAT):
            found = self._client.get_item(TableName=self._table, Key=key(webhook_id, delivery_id), ConsistentRead=True)
        delivery = from_item(found["Item"]) if "Item" in found else None
        return None if delivery is None or delivery.expires_at <= self._now() else delivery

    def list(self, webhook_id: str, *, limit: int, after: str | None = None) -> DeliveryPage:
        """One Query; what has expired and is not yet deleted is left out of the page."""
        begin: dict[str, Any] = {} if after is None else {"ExclusiveStartKey": key(webhook_id, after)}
        with aws_errors(_WHAT):
            found = self._client.query(
                TableName=self._table,
                KeyConditionExpression="webhook_id = :webhook",
                ExpressionAttributeValues={":webhook": {"S": webhook_id}},
                ScanIndexForward=False,
                ConsistentRead=True,
                Limit=limit,
                **begin,
            )
        items = [from_item(item) for item in found["Items"]]
        now = self._now()
        # The key where DynamoDB stopped is there for a last page that is just full, too: one more, empty, follows.
        cursor = items[-1].delivery_id if items and "LastEvaluatedKey" in found else None
        return DeliveryPage([each for each in items if each.expires_at > now], cursor)

    def claim(self, webhook_id: str, delivery_id: str, token: str, now: float, until: float) -> DeliveryClaim:
        """One conditional UpdateItem, which answers what is there if it fails."""
        if not _ID.fullmatch(delivery_id):
            return DeliveryClaim("absent")
        attempt = attempt_item(Attempt(at=now, error="interrupted"))
        try:
            item = self._update(
                webhook_id,
                delivery_id,
                UpdateExpression=(
                    "SET tries = tries + :one, next_at = :until, claim = :token,"
                    " attempts = list_append(attempts, :attempt)"
                ),
                ConditionExpression="#state = :pending AND next_at <= :now",
                ExpressionAttributeNames={"#state": "state"},
                ExpressionAttributeValues={
                    ":one": {"N": "1"},
                    ":until": number(until),
                    ":token": {"S": token},
                    ":attempt": {"L": [{"M": attempt}]},
                    ":pending": {"S": "pending"},
                    ":now": number(now + CLOCK_SKEW_S),
                },
            )
        except _Unchanged as unchanged:
            found = unchanged.item
        else:
            return DeliveryClaim("claimed", from_item(item))
        if not found:
            return DeliveryClaim("absent")
        delivery = from_item(found)
        if delivery.claim == token:
            return DeliveryClaim("claimed", delivery)
        return DeliveryClaim("early" if delivery.state == "pending" else "ended", delivery)

    def settle(self, sent: Delivery) -> bool:
        """One conditional UpdateItem."""
        place = len(sent.attempts) - 1
        values: dict[str, AttributeValueTypeDef] = {
            ":state": {"S": sent.state},
            ":pending": {"S": "pending"},
            ":claim": {"S": sent.claim or ""},
            ":attempt": {"M": attempt_item(sent.attempts[place])},
        }
        sets, removes = [f"#state = :state, attempts[{place}] = :attempt"], ["claim"]
        for name, value in (
            ("next_at", None if sent.next_at is None else number(sent.next_at)),
            ("reason", None if sent.reason is None else {"S": sent.reason}),
        ):
            if value is None:
                removes.append(name)
            else:
                sets.append(f"{name} = :{name}")
                values[f":{name}"] = value  # type: ignore[assignment]
        return self._changed(
            replace(sent, claim=None),
            UpdateExpression=f"SET {', '.join(sets)} REMOVE {', '.join(removes)}",
            ConditionExpression="#state = :pending AND claim = :claim",
            ExpressionAttributeNames={"#state": "state"},
            ExpressionAttributeValues=values,
        )

    def restart(self, delivery: Delivery, now: float) -> bool:
        """One conditional UpdateItem; the log keeps its last entries."""
        kept = delivery.attempts[-(MAX_LOGGED // 2) :]
        values: dict[str, AttributeValueTypeDef] = {
            ":pending": {"S": "pending"},
            ":read": {"S": delivery.state},
            ":tries": {"N": str(delivery.tries)},
            ":zero": {"N": "0"},
            ":now": number(now),
            ":attempts": {"L": [{"M": attempt_item(attempt)} for attempt in kept]},
        }
        return self._changed(
            replace(delivery, state="pending", tries=0, next_at=now, attempts=kept, reason=None, claim=None),
            UpdateExpression=(
                "SET #state = :pending, tries = :zero, next_at = :now, attempts = :attempts REMOVE reason, claim"
            ),
            ConditionExpression="#state = :read AND tries = :tries",
            ExpressionAttributeNames={"#state": "state"},
            ExpressionAttributeValues=values,
        )

    def _changed(self, wanted: Delivery, **what: Any) -> bool:
        """Whether the delivery is as it was wanted now."""
        try:
            self._update(wanted.webhook_id, wanted.delivery_id, **what)
        except _Unchanged as unchanged:
            return bool(unchanged.item) and from_item(unchanged.item) == wanted
        return True

    def _update(self, webhook_id: str, delivery_id: str, **what: Any) -> "dict[str, AttributeValueTypeDef]":
        with aws_errors(_WHAT):
            try:
                done = self._client.update_item(
                    TableName=self._table,
                    Key=key(webhook_id, delivery_id),
                    ReturnValues="ALL_NEW",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    **what,
                )
            except ClientError as error:
                if error_code(error) != "ConditionalCheckFailedException":
                    raise
                raise _Unchanged(_old(error)) from None
        return done["Attributes"]


class _Unchanged(Exception):
    """A condition did not hold; `item` is what is stored, empty if nothing is."""

    def __init__(self, item: "dict[str, AttributeValueTypeDef]") -> None:
        super().__init__("unchanged")
        self.item = item


def _old(error: ClientError) -> "dict[str, AttributeValueTypeDef]":
    response: dict[str, Any] = dict(error.response)
    return dict(response.get("Item") or {})
