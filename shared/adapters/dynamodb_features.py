"""Features of entities in a DynamoDB table: partition key `id` (S), which is `<tenant>#<set>#<entity>`.

Neither a tenant's name nor a set's holds a `#`, so the first two of them part the three, whatever the entity holds.
Attributes: `at` (N, seconds since 1970), `values` (M by name, of N, S and BOOL) and, for what ends, `expires_at` (N),
by which DynamoDB removes the item within days. An item is written as a whole: the last one who writes it, wins.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from random import SystemRandom
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from shared.adapters.aws import aws_errors
from shared.domain.errors import BackendError, FeaturesUnavailable
from shared.domain.features import MAX_KEYS, SET_NAME, EntityKey, FeatureRecord, FeatureValue
from shared.domain.plans import TENANT_NAME

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    Item = Mapping[str, AttributeValueTypeDef]

_WHAT = "The feature store"
_TENANT = re.compile(TENANT_NAME)
_SET = re.compile(SET_NAME)
# Sources: Amazon DynamoDB API Reference, BatchWriteItem (25 items); "Expressions" (4 KB each).
_WRITES = 25
_MAX_PROJECTED = 256
_READ_ATTEMPTS = 2
_READ_PAUSE_S = 0.02
_WRITE_ATTEMPTS = 6
_WRITE_PAUSE_S = 0.05


class DynamoDBFeatures:
    """Implements `shared.domain.ports.FeatureStore`; requests wait for `read`, so its client has short timeouts."""

    def __init__(self, client: "DynamoDBClient", table: str, *, pause: Callable[[float], None] = sleep) -> None:
        self._client = client
        self._table = table
        self._pause = pause
        self._random = SystemRandom()  # copies of one snapshot would all draw the same from another

    def read(
        self, tenant: str, keys: Collection[EntityKey], names: Collection[str], deadline_s: float
    ) -> Mapping[EntityKey, FeatureRecord]:
        """One BatchGetItem, eventually consistent, and a second one for what DynamoDB leaves out when it throttles."""
        if len(keys) > MAX_KEYS:
            raise ValueError(f"at most {MAX_KEYS} keys are read at once")
        ends_at = monotonic() + deadline_s
        by_id = {_id(tenant, key): key for key in keys}
        wanted: Mapping[str, Any] = {self._table: {"Keys": [{"id": {"S": id_}} for id_ in by_id], **_projection(names)}}
        found: dict[EntityKey, FeatureRecord] = {}
        for attempt in range(_READ_ATTEMPTS):
            try:
                with aws_errors(_WHAT):
                    answer = self._client.batch_get_item(RequestItems=wanted)
            except BackendError as error:
                raise FeaturesUnavailable(error.detail, retry_after_s=error.retry_after_s) from error
            for item in answer["Responses"].get(self._table, []):
                key = by_id[item["id"]["S"]]
                found[key] = _record(key, item)
            wanted = answer.get("UnprocessedKeys", {})
            if not wanted:
                return found
            if attempt or monotonic() + _READ_PAUSE_S >= ends_at:
                break
            self._pause(self._random.uniform(0, _READ_PAUSE_S))
        raise FeaturesUnavailable(f"{_WHAT} cannot take the request now.")

    def get(self, tenant: str, key: EntityKey) -> FeatureRecord | None:
        """One strongly consistent GetItem."""
        with aws_errors(_WHAT):
            found = self._client.get_item(
                TableName=self._table, Key={"id": {"S": _id(tenant, key)}}, ConsistentRead=True
            )
        return _record(key, found["Item"]) if "Item" in found else None

    def put(self, tenant: str, records: Collection[FeatureRecord]) -> Collection[EntityKey]:
        """One BatchWriteItem for each 25 records, and some more with growing pauses for what DynamoDB leaves out."""
        latest = {_id(tenant, record.key): record for record in records}
        left = dict(latest)
        for chunk in _chunks(list(latest.items())):
            requests: list[Any] = [{"PutRequest": {"Item": _item(id_, record)}} for id_, record in chunk]
            try:
                unwritten = self._write(requests)
            except BackendError:
                if len(left) == len(latest):
                    raise
                break
            for id_, _ in chunk:
                if id_ not in unwritten:
                    del left[id_]
        return [record.key for record in left.values()]

    def _write(self, requests: list[Any]) -> Collection[str]:
        """Write items; the ids of those that DynamoDB did not take after all attempts."""
        for attempt in range(_WRITE_ATTEMPTS):
            if attempt:
                self._pause(self._random.uniform(0, _WRITE_PAUSE_S * 2**attempt))
            with aws_errors(_WHAT):
                answer = self._client.batch_write_item(RequestItems={self._table: requests})
            requests = list(answer.get("UnprocessedItems", {}).get(self._table, []))
            if not requests:
                return ()
        return {request["PutRequest"]["Item"]["id"]["S"] for request in requests}

    def delete(self, tenant: str, key: EntityKey) -> FeatureRecord | None:
        """One DeleteItem."""
        with aws_errors(_WHAT):
            removed = self._client.delete_item(
                TableName=self._table, Key={"id": {"S": _id(tenant, key)}}, ReturnValues="ALL_OLD"
            )
        return _record(key, removed["Attributes"]) if removed.get("Attributes") else None


def _id(tenant: str, key: EntityKey) -> str:
    if not _TENANT.fullmatch(tenant) or not _SET.fullmatch(key.set):
        raise ValueError("no tenant or set of features has such a name")
    return f"{tenant}#{key.set}#{key.entity}"


def _projection(names: Collection[str]) -> dict[str, Any]:
    """What asks for some values only: sets are shared by models, and each reads what it needs."""
    if len(names) > _MAX_PROJECTED:
        return {}
    paths = [f"#v.#{at}" for at in range(len(names))]
    return {
        "ProjectionExpression": ", ".join(["id", "#a", "#e", *paths]),
        "ExpressionAttributeNames": {
            "#a": "at",
            "#e": "expires_at",
            **({"#v": "values"} if paths else {}),
            **{f"#{at}": name for at, name in enumerate(names)},
        },
    }


def _item(id_: str, record: FeatureRecord) -> "Item":
    item: dict[str, AttributeValueTypeDef] = {
        "id": {"S": id_},
        "at": {"N": str(record.at)},
        "values": {"M": {name: _attribute(value) for name, value in record.values.items()}},
    }
    if record.expires_at is not None:
        item["expires_at"] = {"N": str(record.expires_at)}
    return item


def _record(key: EntityKey, item: "Item") -> FeatureRecord:
    values = item["values"]["M"] if "values" in item else {}
    return FeatureRecord(
        key=key,
        values={name: _value(value) for name, value in values.items()},
        at=int(item["at"]["N"]),
        expires_at=int(item["expires_at"]["N"]) if "expires_at" in item else None,
    )


def _attribute(value: FeatureValue) -> "AttributeValueTypeDef":
    if isinstance(value, bool):
        return {"BOOL": value}
    return {"S": value} if isinstance(value, str) else {"N": repr(value)}


def _value(attribute: Mapping[str, Any]) -> FeatureValue:
    """The value of an attribute; DynamoDB keeps 40.0 as 40."""
    if "N" in attribute:
        text: str = attribute["N"]
        return int(text) if text.lstrip("-").isdecimal() else float(text)
    value: bool | str = attribute["BOOL"] if "BOOL" in attribute else attribute["S"]
    return value


def _chunks(items: list[tuple[str, FeatureRecord]]) -> Iterator[list[tuple[str, FeatureRecord]]]:
    for start in range(0, len(items), _WRITES):
        yield items[start : start + _WRITES]
