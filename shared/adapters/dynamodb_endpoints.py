"""Configurations of endpoints in a DynamoDB table: partition key `endpoint` (S), sort key `revision` (N).

Revision 0 is the one in force, `current` is its number; the others are the history, each under its own number. The
configuration itself is JSON in `document`. Open circuits are in a second table, partition key `endpoint` (S), as
attributes `open:<circuit>` (N, seconds since 1970).
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from botocore.exceptions import ClientError

from shared.adapters.aws import aws_errors, error_code
from shared.domain.endpoint.config import ENDPOINT_NAME, EndpointConfig, EndpointState, StoredEndpoint
from shared.domain.errors import BackendError, BackendUnavailable, PreconditionFailed, RevisionNotFound

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef, PutTypeDef, TransactWriteItemTypeDef

KEPT_REVISIONS = 100

_WHAT = "The store of endpoint configurations"
_NAME = re.compile(ENDPOINT_NAME)
_IN_FORCE = 0
_CIRCUIT = "open:"
# A page has 1 MB of what is read, history included: this bounds a listing to some thousand endpoints.
_MAX_PAGES = 100
# Two transactions on one item cancel each other at worst; who tries again meets the winner's revision.
_ATTEMPTS = 3
_OVERLOAD = frozenset({"ThrottlingError", "ProvisionedThroughputExceeded"})

Item = Mapping[str, "AttributeValueTypeDef"]


class DynamoDBEndpoints:
    """Implements `shared.domain.ports.EndpointStore` and `EndpointReader`; what it reads is strongly consistent.

    Without `guards_table` no circuit is ever open.
    """

    def __init__(self, client: "DynamoDBClient", table: str, guards_table: str = "") -> None:
        self._client = client
        self._table = table
        self._guards_table = guards_table

    def get(self, endpoint: str) -> StoredEndpoint | None:
        """One GetItem; none for what no endpoint can be called. Raises BackendError."""
        return self._get(endpoint, _IN_FORCE)

    def read(self, endpoint: str) -> EndpointState:
        """One BatchGetItem over both tables. Raises BackendError."""
        if not _NAME.fullmatch(endpoint):
            return EndpointState()
        asked: dict[str, Any] = {self._table: {"Keys": [_key(endpoint, _IN_FORCE)], "ConsistentRead": True}}
        if self._guards_table:
            asked[self._guards_table] = {"Keys": [{"endpoint": {"S": endpoint}}], "ConsistentRead": True}
        with aws_errors(_WHAT):
            answer = self._client.batch_get_item(RequestItems=asked)
        if answer.get("UnprocessedKeys"):
            raise BackendUnavailable(f"{_WHAT} cannot take the request now.")
        stored = [_from_item(item) for item in answer["Responses"].get(self._table, [])]
        guards = answer["Responses"].get(self._guards_table, [])
        return EndpointState(stored[0] if stored else None, _open_circuits(guards[0]) if guards else {})

    def put(self, stored: StoredEndpoint) -> None:
        """One TransactWriteItems: the one in force, the history's, and the end of the oldest.

        Raises PreconditionFailed, BackendError.
        """
        actions = self._actions(stored)
        for _ in range(_ATTEMPTS):
            if self._write(actions, stored):
                return
        raise BackendUnavailable(f"{stored.config.endpoint} is being changed by others.")

    def list(self) -> Sequence[StoredEndpoint]:
        """One Scan for each megabyte of configurations and history. Raises BackendError."""
        items: list[Item] = []
        start: dict[str, Any] = {}
        for _ in range(_MAX_PAGES):
            with aws_errors(_WHAT):
                page = self._client.scan(
                    TableName=self._table,
                    ConsistentRead=True,
                    FilterExpression="revision = :in_force",
                    ExpressionAttributeValues={":in_force": {"N": str(_IN_FORCE)}},
                    **start,
                )
            items += page["Items"]
            if "LastEvaluatedKey" not in page:
                return sorted(map(_from_item, items), key=lambda stored: stored.config.endpoint)
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
        raise BackendError(f"{_WHAT} is too large to be listed.")

    def history(self, endpoint: str, *, limit: int = 20, before: int | None = None) -> Sequence[StoredEndpoint]:
        """One Query for each megabyte; none for what no endpoint can be called. Raises BackendError."""
        last = 10**9 if before is None else before - 1
        if not _NAME.fullmatch(endpoint) or last < 1 or limit < 1:
            return []
        items: list[Item] = []
        start: dict[str, Any] = {}
        while len(items) < limit:
            with aws_errors(_WHAT):
                page = self._client.query(
                    TableName=self._table,
                    ConsistentRead=True,
                    ScanIndexForward=False,
                    Limit=limit - len(items),
                    KeyConditionExpression="endpoint = :endpoint AND revision BETWEEN :first AND :last",
                    ExpressionAttributeValues={
                        ":endpoint": {"S": endpoint},
                        ":first": {"N": "1"},
                        ":last": {"N": str(last)},
                    },
                    **start,
                )
            items += page["Items"]
            if "LastEvaluatedKey" not in page:
                break
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
        return [_from_item(item) for item in items]

    def revision(self, endpoint: str, revision: int) -> StoredEndpoint:
        """One GetItem. Raises RevisionNotFound, BackendError."""
        found = self._get(endpoint, revision) if 0 < revision < 10**9 else None
        if found is None:
            raise RevisionNotFound(
                f"There is no revision {revision} of {endpoint}, or it is none of the last {KEPT_REVISIONS}."
            )
        return found

    def _get(self, endpoint: str, revision: int) -> StoredEndpoint | None:
        if not _NAME.fullmatch(endpoint):
            return None
        with aws_errors(_WHAT):
            found = self._client.get_item(TableName=self._table, Key=_key(endpoint, revision), ConsistentRead=True)
        return _from_item(found["Item"]) if "Item" in found else None

    def _write(self, actions: "Sequence[TransactWriteItemTypeDef]", stored: StoredEndpoint) -> bool:
        """Whether it was written; not so if another transaction had these items at the same moment."""
        with aws_errors(_WHAT):
            try:
                self._client.transact_write_items(TransactItems=actions)
            except ClientError as error:
                if error_code(error) != "TransactionCanceledException":
                    raise
                reasons = {reason.get("Code", "") for reason in error.response.get("CancellationReasons", [])}
                if "ConditionalCheckFailed" in reasons:
                    raise PreconditionFailed(
                        f"{stored.config.endpoint} has changed since revision {stored.revision - 1}: "
                        "read it again, and change what it is now."
                    ) from None
                if reasons & _OVERLOAD:
                    raise BackendUnavailable(f"{_WHAT} cannot take the request now.") from error
                if "TransactionConflict" not in reasons:
                    raise
                return False
            return True

    def _actions(self, stored: StoredEndpoint) -> "Sequence[TransactWriteItemTypeDef]":
        in_force: PutTypeDef = {"TableName": self._table, "Item": _to_item(stored, _IN_FORCE)}
        if stored.revision > 1:
            in_force["ConditionExpression"] = "#current = :before"
            in_force["ExpressionAttributeNames"] = {"#current": "current"}
            in_force["ExpressionAttributeValues"] = {":before": {"N": str(stored.revision - 1)}}
        else:
            in_force["ConditionExpression"] = "attribute_not_exists(endpoint)"
        actions: list[TransactWriteItemTypeDef] = [
            {"Put": in_force},
            {"Put": {"TableName": self._table, "Item": _to_item(stored, stored.revision)}},
        ]
        if stored.revision > KEPT_REVISIONS:
            oldest = _key(stored.config.endpoint, stored.revision - KEPT_REVISIONS)
            actions.append({"Delete": {"TableName": self._table, "Key": oldest}})
        return actions


def _key(endpoint: str, revision: int) -> "dict[str, AttributeValueTypeDef]":
    return {"endpoint": {"S": endpoint}, "revision": {"N": str(revision)}}


def _to_item(stored: StoredEndpoint, revision: int) -> "dict[str, AttributeValueTypeDef]":
    return {
        **_key(stored.config.endpoint, revision),
        "current": {"N": str(stored.revision)},
        "document": {"S": msgspec.json.encode(stored.config).decode()},
        "changed_at": {"N": str(stored.changed_at)},
        "changed_by": {"S": stored.changed_by},
        "note": {"S": stored.note},
    }


def _from_item(item: Item) -> StoredEndpoint:
    """Members that this release does not know, which a later one may have written, are left out."""
    try:
        return StoredEndpoint(
            config=msgspec.json.decode(item["document"]["S"], type=EndpointConfig),
            revision=int(item["current"]["N"]),
            changed_at=int(item["changed_at"]["N"]),
            changed_by=item["changed_by"]["S"],
            note=item["note"]["S"],
        )
    except (KeyError, ValueError) as error:
        name = item["endpoint"].get("S", "")
        raise BackendError(f"The stored configuration of {name} cannot be read by this release.") from error


def _open_circuits(item: Item) -> dict[str, float]:
    return {
        name.removeprefix(_CIRCUIT): float(value["N"])
        for name, value in item.items()
        if name.startswith(_CIRCUIT) and "N" in value
    }
