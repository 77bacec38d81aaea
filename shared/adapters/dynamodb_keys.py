"""API keys in a DynamoDB table: partition key `key_id` (S)."""

from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from shared.adapters.aws import aws_errors, error_code
from shared.domain.ports import ApiKey

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

_WHAT = "The key store"
_FIELDS = ("key_id", "secret_hash", "tenant", "scopes", "plan", "expires_at")
_MAX_KEY_ID = 255


class DynamoDBKeys:
    """Implements `shared.domain.ports.KeyStore`. Whoever reads a key checks its expiry."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def get(self, key_id: str) -> ApiKey | None:
        """One eventually consistent GetItem; none for an id that no key can have. Raises BackendError."""
        if not (0 < len(key_id) <= _MAX_KEY_ID and key_id.isascii()):
            return None
        with aws_errors(_WHAT):
            found = self._client.get_item(
                TableName=self._table,
                Key={"key_id": {"S": key_id}},
                ProjectionExpression=", ".join(f"#{field}" for field in _FIELDS),
                ExpressionAttributeNames={f"#{field}": field for field in _FIELDS},
            )
        item = found.get("Item")
        return None if item is None else _from_item(item)

    def add(self, key: ApiKey) -> None:
        """Store a new key; ValueError if the id is taken or cannot be one. Raises BackendError."""
        if not (0 < len(key.key_id) <= _MAX_KEY_ID and key.key_id.isascii()):
            raise ValueError(f"a key id has 1 to {_MAX_KEY_ID} ASCII characters")
        with aws_errors(_WHAT):
            try:
                self._client.put_item(
                    TableName=self._table, Item=_to_item(key), ConditionExpression="attribute_not_exists(key_id)"
                )
            except ClientError as error:
                if error_code(error) != "ConditionalCheckFailedException":
                    raise
                raise ValueError(f"the key id {key.key_id} is taken") from None


def _to_item(key: ApiKey) -> "dict[str, AttributeValueTypeDef]":
    item: dict[str, AttributeValueTypeDef] = {
        "key_id": {"S": key.key_id},
        "secret_hash": {"S": key.secret_hash},
        "tenant": {"S": key.tenant},
        "plan": {"S": key.plan},
        # A string, not a set: DynamoDB has no empty sets.
        "scopes": {"S": " ".join(sorted(key.scopes))},
    }
    if key.expires_at is not None:
        item["expires_at"] = {"N": str(key.expires_at)}
    return item


def _from_item(item: "dict[str, AttributeValueTypeDef]") -> ApiKey:
    return ApiKey(
        key_id=item["key_id"]["S"],
        secret_hash=item["secret_hash"]["S"],
        tenant=item["tenant"]["S"],
        scopes=frozenset(item["scopes"]["S"].split()),
        plan=item["plan"]["S"],
        expires_at=int(item["expires_at"]["N"]) if "expires_at" in item else None,
    )
