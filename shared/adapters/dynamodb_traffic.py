"""What traffic showed, in a DynamoDB table: partition key `endpoint` (S), sort key `period` (S), one number a counter.

A period is a day's part of one audit shard. The items of a month are some hundred kilobytes, which is one query.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from shared.adapters.aws import aws_errors
from shared.domain.endpoint.traffic_counts import TrafficKey
from shared.domain.usage import day_period

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

_WHAT = "The traffic store"
# A page has 1 MB. A year of 64 shards, each with a few kilobytes a day, fits.
_MAX_PAGES = 200
_MAX_ENDPOINT = 64
_KEYS = frozenset({"endpoint", "period"})


class DynamoDBTraffic:
    """Implements `shared.domain.ports.TrafficStore`."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def of_endpoint(self, endpoint: str, since: date, until: date) -> Sequence[Mapping[str, int]]:
        """One eventually consistent query for each megabyte of counters. Raises BackendError."""
        if not 0 < len(endpoint) <= _MAX_ENDPOINT or until < since:
            return []
        query: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": "endpoint = :endpoint AND period BETWEEN :since AND :until",
            "ExpressionAttributeValues": {
                ":endpoint": {"S": endpoint},
                ":since": {"S": day_period(since)},
                # After the day come its shards, which go on with "#": "$" is the character that follows.
                ":until": {"S": f"{day_period(until)}$"},
            },
        }
        parts: list[Mapping[str, int]] = []
        for _ in range(_MAX_PAGES):
            with aws_errors(_WHAT):
                page = self._client.query(**query)
            parts += map(_counters, page["Items"])
            if "LastEvaluatedKey" not in page:
                break
            query["ExclusiveStartKey"] = page["LastEvaluatedKey"]
        return parts


def additions(table: str, traffic: Mapping[TrafficKey, Mapping[str, int]]) -> "list[TransactWriteItemTypeDef]":
    """The parts of a transaction that add `traffic` to what is there; a key's counters must not be empty."""
    return [
        {
            "Update": {
                "TableName": table,
                "Key": {"endpoint": {"S": key.endpoint}, "period": {"S": key.period}},
                "UpdateExpression": "ADD " + ", ".join(f"#{place} :{place}" for place in range(len(counters))),
                "ExpressionAttributeNames": {f"#{place}": name for place, name in enumerate(counters)},
                "ExpressionAttributeValues": {
                    f":{place}": {"N": str(count)} for place, count in enumerate(counters.values())
                },
            }
        }
        for key, counters in traffic.items()
    ]


def _counters(item: Mapping[str, Any]) -> Mapping[str, int]:
    return {name: int(Decimal(value["N"])) for name, value in item.items() if name not in _KEYS and "N" in value}
