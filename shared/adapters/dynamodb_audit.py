"""The audit chain in a DynamoDB table: partition key `shard` (S), sort key `seq` (N).

A shard's segments have the numbers from 1 on; number 0 is its head. Beside them are the marks of the batches that are
in, each in a partition `batch#<id>` of its own, for as long as a batch may come again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from time import time
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from shared.adapters import dynamodb_traffic, dynamodb_usage
from shared.adapters.aws import aws_errors, error_code
from shared.domain.audit import MAX_COUNTER_ITEMS, MAX_SHARDS, Appended, Head, Segment
from shared.domain.endpoint.traffic_counts import TrafficKey
from shared.domain.errors import BackendError, BackendUnavailable
from shared.domain.usage import Usage, UsageKey

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef, TransactWriteItemTypeDef

_WHAT = "The audit store"
# A batch that failed may wait in a queue for 14 days, the longest that Amazon SQS keeps a message, and come again then.
_MARK_S = 15 * 86_400
# Source: Amazon DynamoDB API, BatchGetItem, "as many as 100 items".
_MAX_KEYS = 100
# The reasons of a cancelled transaction come in the order of its actions.
_MARKER, _HEAD, _SEGMENT = range(3)
_CONDITION = "ConditionalCheckFailed"
_CONFLICT = "TransactionConflict"
_OVERLOAD = frozenset({"ThrottlingError", "ProvisionedThroughputExceeded"})
_SHARD = {"#shard": "shard"}  # one of DynamoDB's reserved words

Item = Mapping[str, "AttributeValueTypeDef"]


class DynamoDBAuditTrail:
    """Implements `shared.domain.ports.AuditTrail`; everything that it reads is strongly consistent.

    What somebody has tampered with comes out as it is, as far as a segment can be made of it: it is for the check of
    the chain to say so.
    """

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def shards(self) -> Sequence[str]:
        """Two BatchGetItem, for every head and every first segment that there can be. Raises BackendError."""
        keys = [_key(str(shard), seq) for shard in range(MAX_SHARDS) for seq in (0, 1)]
        found: set[str] = set()
        while keys:
            asked = keys[:_MAX_KEYS]
            request: Any = {
                "Keys": asked,
                "ConsistentRead": True,
                "ProjectionExpression": "#shard",
                "ExpressionAttributeNames": _SHARD,
            }
            with aws_errors(_WHAT):
                answer = self._client.batch_get_item(RequestItems={self._table: request})
            found.update(item["shard"]["S"] for item in answer["Responses"].get(self._table, []))
            left: Any = answer.get("UnprocessedKeys", {})
            unread = left[self._table]["Keys"] if self._table in left else []
            if len(unread) == len(asked):
                raise BackendUnavailable(f"{_WHAT} cannot take the request now.")
            keys = [*unread, *keys[_MAX_KEYS:]]
        return sorted(found, key=int)

    def head(self, shard: str) -> Head | None:
        """One GetItem. Raises BackendError."""
        with aws_errors(_WHAT):
            found = self._client.get_item(TableName=self._table, Key=_key(shard, 0), ConsistentRead=True)
        item = found.get("Item")
        return None if item is None else Head(_number(item, "last_seq"), _text(item, "hash"), _text(item, "time"))

    def segments(self, shard: str, after: int = 0) -> Iterable[Segment]:
        """One query for each megabyte of segments. Raises BackendError."""
        return self._query(shard, after, forward=True)

    def newest(self, shard: str) -> Iterable[Segment]:
        """One query for each megabyte of segments, as they are asked for. Raises BackendError."""
        return self._query(shard, 0, forward=False)

    def _query(self, shard: str, after: int, *, forward: bool) -> Iterable[Segment]:
        query: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": "#shard = :shard AND #seq > :after",
            "ExpressionAttributeNames": {"#shard": "shard", "#seq": "seq"},
            "ExpressionAttributeValues": {":shard": {"S": shard}, ":after": {"N": str(after)}},
            "ScanIndexForward": forward,
            "ConsistentRead": True,
        }
        while True:
            with aws_errors(_WHAT):
                page = self._client.query(**query)
            yield from map(_segment, page["Items"])
            if "LastEvaluatedKey" not in page:
                return
            query["ExclusiveStartKey"] = page["LastEvaluatedKey"]


class DynamoDBAuditLedger:
    """Implements `shared.domain.ports.AuditLedger` over the tables of audit, usage and traffic."""

    def __init__(
        self,
        client: "DynamoDBClient",
        audit_table: str,
        usage_table: str,
        traffic_table: str,
        now: Callable[[], float] = time,
    ) -> None:
        self._client = client
        self._audit_table = audit_table
        self._usage_table = usage_table
        self._traffic_table = traffic_table
        self._now = now
        self._trail = DynamoDBAuditTrail(client, audit_table)

    def head(self, shard: str) -> Head | None:
        """One GetItem, strongly consistent. Raises BackendError."""
        return self._trail.head(shard)

    def append(
        self,
        segment: Segment,
        before: Head,
        usage: Mapping[UsageKey, Usage],
        traffic: Mapping[TrafficKey, Mapping[str, int]],
    ) -> Appended:
        """One TransactWriteItems: the batch's mark, the head, the segment, usage and traffic, all of them or none.

        Raises ValueError for counters under more than `MAX_COUNTER_ITEMS` keys, BackendUnavailable, BackendError.
        """
        if (keys := len(usage) + len(traffic)) > MAX_COUNTER_ITEMS:
            raise ValueError(f"counters under {keys} keys; one transaction takes {MAX_COUNTER_ITEMS}")
        actions = [self._mark(segment.batch), self._move(segment, before), self._put(segment)]
        actions += dynamodb_usage.additions(self._usage_table, usage)
        actions += dynamodb_traffic.additions(self._traffic_table, traffic)
        with aws_errors(_WHAT):
            try:
                self._client.transact_write_items(TransactItems=actions)
            except ClientError as error:
                if error_code(error) != "TransactionCanceledException":
                    raise
                return _outcome(error)
        return Appended.WRITTEN

    def _mark(self, batch: str) -> "TransactWriteItemTypeDef":
        expires_at = int(self._now()) + _MARK_S
        return {
            "Put": {
                "TableName": self._audit_table,
                "Item": {**_key(f"batch#{batch}", 0), "expires_at": {"N": str(expires_at)}},
                "ConditionExpression": "attribute_not_exists(#shard)",
                "ExpressionAttributeNames": _SHARD,
            }
        }

    def _move(self, segment: Segment, before: Head) -> "TransactWriteItemTypeDef":
        first = before.seq == 0
        values: dict[str, AttributeValueTypeDef] = {
            ":seq": {"N": str(segment.seq)},
            ":hash": {"S": segment.hash},
            ":time": {"S": segment.last},
        }
        names = {"#last": "last_seq", "#hash": "hash", "#time": "time"}
        if first:
            names["#shard"] = "shard"
        else:
            values |= {":before": {"N": str(before.seq)}, ":before_hash": {"S": before.hash}}
        return {
            "Update": {
                "TableName": self._audit_table,
                "Key": _key(segment.shard, 0),
                "UpdateExpression": "SET #last = :seq, #hash = :hash, #time = :time",
                "ConditionExpression": "attribute_not_exists(#shard)"
                if first
                else "#last = :before AND #hash = :before_hash",
                "ExpressionAttributeNames": names,
                "ExpressionAttributeValues": values,
            }
        }

    def _put(self, segment: Segment) -> "TransactWriteItemTypeDef":
        return {
            "Put": {
                "TableName": self._audit_table,
                "Item": _item(segment),
                "ConditionExpression": "attribute_not_exists(#shard)",
                "ExpressionAttributeNames": _SHARD,
            }
        }


def _outcome(error: ClientError) -> Appended:
    """What a cancelled transaction means. Raises BackendUnavailable where DynamoDB was throttled, BackendError."""
    listed: Any = error.response.get("CancellationReasons", [])
    codes = [str(reason.get("Code", "None")) for reason in listed]
    if codes and codes[_MARKER] == _CONDITION:
        return Appended.DUPLICATE
    if _CONFLICT in codes or _CONDITION in codes[_HEAD : _SEGMENT + 1]:
        return Appended.OVERTAKEN
    if not _OVERLOAD.isdisjoint(codes):
        raise BackendUnavailable(f"{_WHAT} cannot take the request now.") from error
    raise BackendError(f"{_WHAT} refused the batch: {', '.join(sorted(set(codes) - {'None'}))}.") from error


def _key(shard: str, seq: int) -> "dict[str, AttributeValueTypeDef]":
    return {"shard": {"S": shard}, "seq": {"N": str(seq)}}


def _item(segment: Segment) -> "dict[str, AttributeValueTypeDef]":
    return {
        **_key(segment.shard, segment.seq),
        "previous": {"S": segment.previous},
        "hash": {"S": segment.hash},
        "batch": {"S": segment.batch},
        "count": {"N": str(segment.count)},
        "first": {"S": segment.first},
        "last": {"S": segment.last},
        "records": {"B": segment.records},
    }


def _segment(item: Item) -> Segment:
    records: Any = item.get("records", {}).get("B", b"")
    return Segment(
        shard=_text(item, "shard"),
        seq=_number(item, "seq"),
        previous=_text(item, "previous"),
        hash=_text(item, "hash"),
        batch=_text(item, "batch"),
        count=_number(item, "count"),
        first=_text(item, "first"),
        last=_text(item, "last"),
        records=bytes(records),
    )


def _text(item: Item, name: str) -> str:
    return item.get(name, {}).get("S", "")


def _number(item: Item, name: str) -> int:
    """A whole number, -1 for anything else."""
    text = item.get(name, {}).get("N", "")
    return int(text) if text.isdecimal() else -1
