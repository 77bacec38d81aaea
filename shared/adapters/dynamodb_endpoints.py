"""Settings of endpoints in a DynamoDB table: partition key `endpoint` (S)."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from shared.adapters.aws import aws_errors, error_code
from shared.domain.endpoint_settings import ENDPOINT_NAME, EndpointSettings
from shared.domain.errors import Conflict

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

_WHAT = "The store of endpoint settings"
_NAME = re.compile(ENDPOINT_NAME)
# A page has 1 MB: this bounds a listing to tens of thousands of endpoints.
_MAX_PAGES = 20


class DynamoDBEndpoints:
    """Implements `shared.domain.ports.EndpointStore`."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def get(self, endpoint: str) -> EndpointSettings | None:
        """One strongly consistent GetItem; none for what no endpoint can be called. Raises BackendError."""
        if not _NAME.fullmatch(endpoint):
            return None
        with aws_errors(_WHAT):
            found = self._client.get_item(TableName=self._table, Key={"endpoint": {"S": endpoint}}, ConsistentRead=True)
        return _from_item(found["Item"]) if "Item" in found else None

    def put(self, settings: EndpointSettings) -> None:
        """One PutItem, on the condition that what is stored is the version before. Raises Conflict, BackendError."""
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(endpoint)"}
        if settings.version > 1:
            condition = {
                "ConditionExpression": "#version = :before",
                "ExpressionAttributeNames": {"#version": "version"},
                "ExpressionAttributeValues": {":before": {"N": str(settings.version - 1)}},
            }
        with aws_errors(_WHAT):
            try:
                self._client.put_item(TableName=self._table, Item=_to_item(settings), **condition)
            except ClientError as error:
                if error_code(error) != "ConditionalCheckFailedException":
                    raise
                raise Conflict(
                    f"The settings of {settings.endpoint} have changed since version {settings.version - 1}: "
                    "read them again, and change what they are now."
                ) from None

    def list(self) -> Sequence[EndpointSettings]:
        """One Scan for each megabyte. Raises BackendError."""
        items: list[dict[str, AttributeValueTypeDef]] = []
        start: dict[str, Any] = {}
        for _ in range(_MAX_PAGES):
            with aws_errors(_WHAT):
                page = self._client.scan(TableName=self._table, ConsistentRead=True, **start)
            items += page["Items"]
            if "LastEvaluatedKey" not in page:
                break
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
        return sorted(map(_from_item, items), key=lambda settings: settings.endpoint)


def _to_item(settings: EndpointSettings) -> "dict[str, AttributeValueTypeDef]":
    return {
        "endpoint": {"S": settings.endpoint},
        "version": {"N": str(settings.version)},
        "log_inputs": {"N": repr(settings.log_inputs)},
        "log_outputs": {"N": repr(settings.log_outputs)},
        "redact": {"L": [{"S": name} for name in settings.redact]},
    }


def _from_item(item: "dict[str, AttributeValueTypeDef]") -> EndpointSettings:
    return EndpointSettings(
        endpoint=item["endpoint"]["S"],
        log_inputs=float(item["log_inputs"]["N"]),
        log_outputs=float(item["log_outputs"]["N"]),
        redact=tuple(name["S"] for name in item["redact"]["L"]),
        version=int(item["version"]["N"]),
    )
