"""API keys in a DynamoDB table: partition key `key_id` (S), index `by_tenant` over `tenant` (S) and `key_id`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from shared.adapters.aws import aws_errors, error_code
from shared.domain.errors import BackendUnavailable, Conflict, KeyNotFound
from shared.domain.ports import ApiKey

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef, TransactWriteItemTypeDef

_WHAT = "The key store"
_INDEX = "by_tenant"
_MAX_KEY_ID = 255
_NEW = "attribute_not_exists(key_id)"


class DynamoDBKeys:
    """Implements `shared.domain.ports.KeyStore`. Every method raises BackendError for what DynamoDB does not do."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def get(self, key_id: str) -> ApiKey | None:
        """One eventually consistent GetItem; none for an id that no key can have."""
        return self._get(key_id, consistent=False)

    def add(self, key: ApiKey) -> None:
        """One conditional PutItem; Conflict if the id is taken, ValueError if it cannot be one."""
        _check_id(key.key_id)
        with aws_errors(_WHAT):
            try:
                self._client.put_item(TableName=self._table, Item=_to_item(key), ConditionExpression=_NEW)
            except ClientError as error:
                if error_code(error) != "ConditionalCheckFailedException":
                    raise
                raise _taken(key) from None

    def of_tenant(self, tenant: str) -> Sequence[ApiKey]:
        """Queries of the index, eventually consistent: a key made a moment ago may be missing."""
        if not tenant:
            return []
        with aws_errors(_WHAT):
            pages = self._client.get_paginator("query").paginate(
                TableName=self._table,
                IndexName=_INDEX,
                KeyConditionExpression="tenant = :tenant",
                ExpressionAttributeValues={":tenant": {"S": tenant}},
            )
            return [_from_item(item) for page in pages for item in page["Items"]]

    def revoke(self, key_id: str, at: int) -> ApiKey:
        """One conditional UpdateItem; KeyNotFound."""
        if not _is_id(key_id):
            raise _unknown(key_id)
        with aws_errors(_WHAT):
            try:
                done = self._client.update_item(
                    TableName=self._table,
                    Key={"key_id": {"S": key_id}},
                    UpdateExpression="SET revoked_at = if_not_exists(revoked_at, :at)",
                    ConditionExpression="attribute_exists(key_id)",
                    ExpressionAttributeValues={":at": {"N": str(at)}},
                    ReturnValues="ALL_NEW",
                )
            except ClientError as error:
                if error_code(error) != "ConditionalCheckFailedException":
                    raise
                raise _unknown(key_id) from None
        return _from_item(done["Attributes"])

    def replace(self, old_key_id: str, new: ApiKey, old_expires_at: int) -> None:
        """One TransactWriteItems; KeyNotFound or Conflict if a condition fails, ValueError for an impossible new id."""
        _check_id(new.key_id)
        if not _is_id(old_key_id) or old_key_id == new.key_id:
            raise _unknown(old_key_id)
        with aws_errors(_WHAT):
            try:
                self._client.transact_write_items(
                    TransactItems=[
                        {"Put": {"TableName": self._table, "Item": _to_item(new), "ConditionExpression": _NEW}},
                        self._end(old_key_id, new, old_expires_at),
                    ]
                )
            except ClientError as error:
                if error_code(error) != "TransactionCanceledException":
                    raise
                reasons: Any = error.response.get("CancellationReasons", [])
                put, update = [reason.get("Code") for reason in reasons] or ["Unknown"] * 2
            else:
                return
        if "ConditionalCheckFailed" not in {put, update}:
            raise BackendUnavailable(f"{_WHAT} is busy with the same key.", retry_after_s=1)
        if put == "ConditionalCheckFailed":
            raise _taken(new)
        old = self._get(old_key_id, consistent=True)
        if old is None or old.tenant != new.tenant:
            raise _unknown(old_key_id)
        raise Conflict(f"The key {old_key_id} is revoked, replaced, or ends before the overlap does.")

    def bind(self, key: ApiKey) -> None:
        """One PutItem; ValueError for what is not the binding of an IAM principal."""
        _check_id(key.key_id)
        if not key.key_id.startswith("iam#"):
            raise ValueError("only the binding of an IAM principal may replace another")
        with aws_errors(_WHAT):
            self._client.put_item(TableName=self._table, Item=_to_item(key))

    def _end(self, old_key_id: str, new: ApiKey, expires_at: int) -> "TransactWriteItemTypeDef":
        return {
            "Update": {
                "TableName": self._table,
                "Key": {"key_id": {"S": old_key_id}},
                "UpdateExpression": "SET expires_at = :ends, replaced_by = :new",
                "ConditionExpression": (
                    "tenant = :tenant AND attribute_not_exists(revoked_at) AND attribute_not_exists(replaced_by)"
                    " AND (attribute_not_exists(expires_at) OR expires_at >= :ends)"
                ),
                "ExpressionAttributeValues": {
                    ":ends": {"N": str(expires_at)},
                    ":new": {"S": new.key_id},
                    ":tenant": {"S": new.tenant},
                },
            }
        }

    def _get(self, key_id: str, *, consistent: bool) -> ApiKey | None:
        if not _is_id(key_id):
            return None
        with aws_errors(_WHAT):
            found = self._client.get_item(
                TableName=self._table, Key={"key_id": {"S": key_id}}, ConsistentRead=consistent
            )
        item = found.get("Item")
        return None if item is None else _from_item(item)


def _is_id(key_id: str) -> bool:
    return 0 < len(key_id) <= _MAX_KEY_ID and key_id.isascii()


def _check_id(key_id: str) -> None:
    if not _is_id(key_id):
        raise ValueError(f"a key id has 1 to {_MAX_KEY_ID} ASCII characters")


def _taken(key: ApiKey) -> Conflict:
    return Conflict(f"The key id {key.key_id} is taken.")


def _unknown(key_id: str) -> KeyNotFound:
    return KeyNotFound(f"There is no key {key_id[:_MAX_KEY_ID]!r}.")


def _to_item(key: ApiKey) -> "dict[str, AttributeValueTypeDef]":
    item: dict[str, AttributeValueTypeDef] = {
        "key_id": {"S": key.key_id},
        "secret_hash": {"S": key.secret_hash},
        "tenant": {"S": key.tenant},
        # A string, not a set: DynamoDB has no empty sets.
        "scopes": {"S": " ".join(sorted(key.scopes))},
        "name": {"S": key.name},
        "created_at": {"N": str(key.created_at)},
    }
    for field, seconds in (("expires_at", key.expires_at), ("revoked_at", key.revoked_at)):
        if seconds is not None:
            item[field] = {"N": str(seconds)}
    if key.replaced_by is not None:
        item["replaced_by"] = {"S": key.replaced_by}
    return item


def _from_item(item: "dict[str, AttributeValueTypeDef]") -> ApiKey:
    return ApiKey(
        key_id=item["key_id"]["S"],
        secret_hash=item["secret_hash"]["S"],
        tenant=item["tenant"]["S"],
        scopes=frozenset(item["scopes"]["S"].split()),
        name=item["name"]["S"],
        created_at=int(item["created_at"]["N"]),
        expires_at=_seconds(item, "expires_at"),
        revoked_at=_seconds(item, "revoked_at"),
        replaced_by=item["replaced_by"]["S"] if "replaced_by" in item else None,
    )


def _seconds(item: "dict[str, AttributeValueTypeDef]", field: str) -> int | None:
    return int(item[field]["N"]) if field in item else None
