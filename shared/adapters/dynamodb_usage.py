"""What tenants used, in a DynamoDB table: partition key `tenant` (S), sort key `period` (S), one number a counter."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from shared.adapters.aws import aws_errors
from shared.domain.usage import COUNTERS, Usage, UsageKey, UsageRow, day_and_model, day_period

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

_WHAT = "The usage store"
# A page has 1 MB, some five thousand rows.
_MAX_PAGES = 100
_MAX_TENANT = 255
_ADD = "ADD " + ", ".join(f"#{name} :{name}" for name in COUNTERS)
_NAMES: Mapping[str, str] = {f"#{name}": name for name in COUNTERS}


class DynamoDBUsage:
    """Implements `shared.domain.ports.UsageStore`."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def of_tenant(self, tenant: str, since: date, until: date) -> Sequence[UsageRow]:
        """One eventually consistent query for each megabyte of rows. Raises BackendError."""
        if not 0 < len(tenant) <= _MAX_TENANT or until < since:
            return []
        query: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": "tenant = :tenant AND period BETWEEN :since AND :until",
            "ExpressionAttributeValues": {
                ":tenant": {"S": tenant},
                ":since": {"S": day_period(since)},
                # After the day itself come its models, which go on with "#": "$" is the character that follows.
                ":until": {"S": f"{day_period(until)}$"},
            },
        }
        rows: list[UsageRow] = []
        for _ in range(_MAX_PAGES):
            with aws_errors(_WHAT):
                page = self._client.query(**query)
            rows += map(_row, page["Items"])
            if "LastEvaluatedKey" not in page:
                break
            query["ExclusiveStartKey"] = page["LastEvaluatedKey"]
        return rows


def additions(table: str, usage: Mapping[UsageKey, Usage]) -> "list[TransactWriteItemTypeDef]":
    """The parts of a transaction that add `usage` to what is there."""
    return [
        {
            "Update": {
                "TableName": table,
                "Key": {"tenant": {"S": key.tenant}, "period": {"S": key.period}},
                "UpdateExpression": _ADD,
                "ExpressionAttributeNames": _NAMES,
                "ExpressionAttributeValues": {f":{name}": {"N": str(getattr(added, name))} for name in COUNTERS},
            }
        }
        for key, added in usage.items()
    ]


def _row(item: Mapping[str, Any]) -> UsageRow:
    day, model = day_and_model(item["period"]["S"])
    usage = Usage(**{name: int(item[name]["N"]) if name in item else 0 for name in COUNTERS})
    return UsageRow(item["tenant"]["S"], day, model, usage)
