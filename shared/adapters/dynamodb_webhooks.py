"""Webhooks in a DynamoDB table: partition key `tenant` (S), sort key `webhook_id` (S).

Where an answer is lost, botocore asks for the same change again, and its condition holds no more. A secret is sealed
differently each time: if it is the one that is stored, the change was made.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from shared.adapters.aws import aws_errors, error_code
from shared.adapters.webhook_seal import WebhookSeal
from shared.domain.errors import Conflict, WebhookNotFound
from shared.domain.webhooks import WEBHOOK_ID, SigningSecrets, Webhook, WebhookChange

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

_WHAT: Final = "The store of webhooks"
_ID: Final = re.compile(WEBHOOK_ID)
_EXISTS: Final = "attribute_exists(webhook_id)"


class DynamoDBWebhooks:
    """Implements `shared.domain.webhook_ports.WebhookStore`; secrets are stored sealed."""

    def __init__(self, client: "DynamoDBClient", table: str, seal: WebhookSeal) -> None:
        self._client = client
        self._table = table
        self._seal = seal

    def add(self, webhook: Webhook, secret: bytes) -> None:
        """One PutItem; Conflict if the id is taken."""
        sealed = self._seal.close(webhook.tenant, webhook.webhook_id, secret)
        item = {**_to_item(webhook), "secret": {"B": sealed}}
        with aws_errors(_WHAT):
            try:
                self._client.put_item(
                    TableName=self._table,
                    Item=item,
                    ConditionExpression="attribute_not_exists(webhook_id)",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except ClientError as error:
                if error_code(error) != "ConditionalCheckFailedException":
                    raise
                stored: Any = error.response.get("Item")
                if stored is not None and bytes(stored["secret"]["B"]) == sealed:
                    return
                raise Conflict("The id of the webhook is taken: try again.") from None

    def get(self, tenant: str, webhook_id: str) -> Webhook:
        """One strongly consistent GetItem."""
        return _from_item(self._item(tenant, webhook_id))

    def signing(self, tenant: str, webhook_id: str) -> tuple[Webhook, SigningSecrets]:
        """One strongly consistent GetItem: an old secret is not used longer than it should be."""
        item = self._item(tenant, webhook_id)
        webhook = _from_item(item)
        current = self._seal.open(tenant, webhook_id, bytes(item["secret"]["B"]))
        if "previous" not in item:
            return webhook, SigningSecrets(current)
        previous = self._seal.open(tenant, webhook_id, bytes(item["previous"]["B"]))
        return webhook, SigningSecrets(current, previous, webhook.previous_until)

    def of_tenant(self, tenant: str) -> Sequence[Webhook]:
        """One strongly consistent Query: there are ten of them at most."""
        with aws_errors(_WHAT):
            pages = self._client.get_paginator("query").paginate(
                TableName=self._table,
                KeyConditionExpression="tenant = :tenant",
                ExpressionAttributeValues={":tenant": {"S": tenant}},
                ConsistentRead=True,
            )
            return [_from_item(item) for page in pages for item in page["Items"]]

    def change(self, tenant: str, webhook_id: str, change: WebhookChange) -> Webhook:
        """One UpdateItem."""
        sets: dict[str, AttributeValueTypeDef] = {}
        if change.url is not None:
            sets["#url = :url"] = {"S": change.url}
        if change.events is not None:
            sets["#events = :events"] = {"S": " ".join(change.events)}
        if change.description is not None:
            sets["description = :description"] = {"S": change.description}
        if change.enabled is False:
            sets["disabled = :disabled"] = {"S": "paused"}
        expression = f"SET {', '.join(sets)}" if sets else ""
        if change.enabled:
            expression += " REMOVE disabled"
        if not expression:
            return self.get(tenant, webhook_id)
        names = {"#url": "url", "#events": "events"}
        return self._update(
            tenant,
            webhook_id,
            UpdateExpression=expression,
            ConditionExpression=_EXISTS,
            **_given(names, expression),
            **(
                {"ExpressionAttributeValues": {text.split(" = ")[1]: value for text, value in sets.items()}}
                if sets
                else {}
            ),
        )

    def rotate(self, webhook: Webhook, secret: bytes, now: float, until: float) -> Webhook:
        """One UpdateItem, on the condition that the last rotation is the one that was read."""
        sealed = self._seal.close(webhook.tenant, webhook.webhook_id, secret)
        values: dict[str, AttributeValueTypeDef] = {
            ":secret": {"B": sealed},
            ":now": {"N": repr(now)},
            ":until": {"N": repr(until)},
        }
        unchanged = "attribute_not_exists(rotated_at)"
        if webhook.rotated_at is not None:
            unchanged, values[":read"] = "rotated_at = :read", {"N": repr(webhook.rotated_at)}
        # The right side of every part is what is stored before: the secret of now becomes the previous one.
        expression = "SET secret = :secret, rotated_at = :now, previous_until = :until"
        expression += ", previous = secret" if until > now else " REMOVE previous"
        try:
            return self._update(
                webhook.tenant,
                webhook.webhook_id,
                UpdateExpression=expression,
                ConditionExpression=f"{_EXISTS} AND {unchanged}",
                ExpressionAttributeValues=values,
            )
        except WebhookNotFound:
            item = self._item(webhook.tenant, webhook.webhook_id)
            if bytes(item["secret"]["B"]) == sealed:
                return _from_item(item)
            raise Conflict("The webhook's secret was rotated a moment ago.") from None

    def gone(self, webhook: Webhook) -> bool:
        """One UpdateItem."""
        try:
            self._update(
                webhook.tenant,
                webhook.webhook_id,
                UpdateExpression="SET disabled = :gone",
                ConditionExpression="#url = :url AND attribute_not_exists(disabled)",
                ExpressionAttributeNames={"#url": "url"},
                ExpressionAttributeValues={":gone": {"S": "gone"}, ":url": {"S": webhook.url}},
            )
        except WebhookNotFound:
            return False
        return True

    def remove(self, tenant: str, webhook_id: str) -> Webhook:
        """One DeleteItem."""
        _check_id(webhook_id)
        with aws_errors(_WHAT):
            done = self._client.delete_item(TableName=self._table, Key=_key(tenant, webhook_id), ReturnValues="ALL_OLD")
        if "Attributes" not in done:
            raise _unknown()
        return _from_item(done["Attributes"])

    def _item(self, tenant: str, webhook_id: str) -> "dict[str, AttributeValueTypeDef]":
        _check_id(webhook_id)
        with aws_errors(_WHAT):
            found = self._client.get_item(TableName=self._table, Key=_key(tenant, webhook_id), ConsistentRead=True)
        if "Item" not in found:
            raise _unknown()
        return found["Item"]

    def _update(self, tenant: str, webhook_id: str, **what: Any) -> Webhook:
        """One UpdateItem; WebhookNotFound if its condition does not hold."""
        _check_id(webhook_id)
        with aws_errors(_WHAT):
            try:
                done = self._client.update_item(
                    TableName=self._table, Key=_key(tenant, webhook_id), ReturnValues="ALL_NEW", **what
                )
            except ClientError as error:
                if error_code(error) != "ConditionalCheckFailedException":
                    raise
                raise _unknown() from None
        return _from_item(done["Attributes"])


def _check_id(webhook_id: str) -> None:
    if not _ID.fullmatch(webhook_id):
        raise _unknown()


def _unknown() -> WebhookNotFound:
    return WebhookNotFound("There is no such webhook.")


def _given(names: dict[str, str], expression: str) -> dict[str, Any]:
    """The names that an expression uses: DynamoDB refuses others."""
    used = {name: value for name, value in names.items() if name in expression}
    return {"ExpressionAttributeNames": used} if used else {}


def _key(tenant: str, webhook_id: str) -> "dict[str, AttributeValueTypeDef]":
    return {"tenant": {"S": tenant}, "webhook_id": {"S": webhook_id}}


def _to_item(webhook: Webhook) -> "dict[str, AttributeValueTypeDef]":
    item: dict[str, AttributeValueTypeDef] = {
        **_key(webhook.tenant, webhook.webhook_id),
        "url": {"S": webhook.url},
        # A string, not a set: sets have no order.
        "events": {"S": " ".join(webhook.events)},
        "description": {"S": webhook.description},
        "created_at": {"N": repr(webhook.created_at)},
    }
    if webhook.disabled_reason is not None:
        item["disabled"] = {"S": webhook.disabled_reason}
    return item


def _from_item(item: "dict[str, AttributeValueTypeDef]") -> Webhook:
    disabled = item["disabled"]["S"] if "disabled" in item else None
    return Webhook(
        webhook_id=item["webhook_id"]["S"],
        tenant=item["tenant"]["S"],
        url=item["url"]["S"],
        events=tuple(item["events"]["S"].split()),
        created_at=float(item["created_at"]["N"]),
        description=item["description"]["S"],
        disabled_reason=None if disabled is None else "gone" if disabled == "gone" else "paused",
        rotated_at=_seconds(item, "rotated_at"),
        previous_until=_seconds(item, "previous_until"),
    )


def _seconds(item: "dict[str, AttributeValueTypeDef]", name: str) -> float | None:
    return float(item[name]["N"]) if name in item else None
