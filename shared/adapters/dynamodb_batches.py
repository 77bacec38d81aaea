"""Runs over files in the table of jobs: attributes of the job's item beside those that `dynamodb_jobs` writes.

`parts_done` is a set of numbers. A part is counted in the same conditional write that adds its number, so a part that
is told of twice counts once.
"""

import re
from typing import TYPE_CHECKING, Final, cast

from botocore.exceptions import ClientError

from shared.adapters.aws import aws_errors, error_code
from shared.adapters.job_items import number
from shared.domain.batches import PartCounts, Progress
from shared.domain.jobs import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef, UpdateItemInputTypeDef

_WHAT: Final = "The store of jobs"
_FAILED: Final = "ConditionalCheckFailedException"
_COUNT: Final = (
    "ADD #parts_done :part, #rows_done :rows, #rows_failed :failed, #cost_nusd :cost "
    "SET #updated_at = :now, #due_at = :due"
)
_COUNTABLE: Final = "#state = :running AND attribute_exists(#planned_at) AND NOT contains(#parts_done, :number)"
_SHOWN: Final = "#state, planned_at, parts_done, rows_done, rows_failed, cost_nusd, updated_at"


class DynamoDBBatches:
    """Implements `shared.domain.batch_ports.BatchStore`."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def progress(self, job_id: str) -> Progress | None:
        """One strongly consistent GetItem."""
        with aws_errors(_WHAT):
            found = self._client.get_item(
                TableName=self._table,
                Key={"job_id": {"S": job_id}},
                ConsistentRead=True,
                ProjectionExpression=_SHOWN,
                ExpressionAttributeNames={"#state": "state"},
            )
        item = found.get("Item")
        return None if item is None else _progress(item)

    def planned(
        self,
        job_id: str,
        owner: str,
        batch: bytes,
        *,
        rows_total: int,
        version: int,
        variant: str,
        backend: str,
        now: float,
        due_at: float,
    ) -> bool:
        """One UpdateItem."""
        return self._update(
            job_id,
            "SET #batch = :batch, #rows_total = :rows, #version = :version, #variant = :variant, #backend = :backend, "
            "#planned_at = :now, #updated_at = :now, #due_at = :due, #rows_done = :none, #rows_failed = :none, "
            "#cost_nusd = :none REMOVE #parts_done, #owner, #lease_until",
            "#state = :running AND #owner = :owner",
            {
                ":batch": {"B": batch},
                ":rows": number(rows_total),
                ":version": number(version),
                ":variant": {"S": variant},
                ":backend": {"S": backend},
                ":now": number(now),
                ":due": number(due_at),
                ":none": number(0),
                ":owner": {"S": owner},
                ":running": {"S": "running"},
            },
        )

    def part_done(self, job_id: str, part: int, counts: PartCounts, *, now: float, due_at: float) -> Progress | None:
        """One UpdateItem; what it could not change tells why."""
        request: UpdateItemInputTypeDef = {
            "TableName": self._table,
            "Key": {"job_id": {"S": job_id}},
            "UpdateExpression": _COUNT,
            "ConditionExpression": _COUNTABLE,
            "ExpressionAttributeNames": _names(_COUNT, _COUNTABLE),
            "ExpressionAttributeValues": {
                ":part": {"NS": [str(part)]},
                ":number": number(part),
                ":rows": number(counts.rows),
                ":failed": number(counts.failed),
                ":cost": number(counts.cost_nusd),
                ":now": number(now),
                ":due": number(due_at),
                ":running": {"S": "running"},
            },
            "ReturnValues": "ALL_NEW",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        with aws_errors(_WHAT):
            try:
                item = self._client.update_item(**request)["Attributes"]
            except ClientError as error:
                if error_code(error) != _FAILED:
                    raise
                item = cast("dict[str, AttributeValueTypeDef]", error.response.get("Item") or {})
        progress = _progress(item) if item else None
        return progress if progress is not None and progress.state == "running" and progress.planned else None

    def hold(self, job_id: str, owner: str, now: float, lease_s: float) -> bool:
        """One UpdateItem."""
        return self._update(
            job_id,
            "SET #owner = :owner, #lease_until = :until",
            "#state = :running AND attribute_exists(#planned_at) "
            "AND (attribute_not_exists(#owner) OR #lease_until < :now)",
            {
                ":owner": {"S": owner},
                ":until": number(now + lease_s),
                ":now": number(now),
                ":running": {"S": "running"},
            },
        )

    def let_go(self, job_id: str, owner: str) -> None:
        """One UpdateItem."""
        self._update(
            job_id,
            "REMOVE #owner, #lease_until",
            "#owner = :owner",
            {":owner": {"S": owner}},
        )

    def _update(
        self,
        job_id: str,
        change: str,
        condition: str,
        values: "Mapping[str, AttributeValueTypeDef]",
    ) -> bool:
        with aws_errors(_WHAT):
            try:
                self._client.update_item(
                    TableName=self._table,
                    Key={"job_id": {"S": job_id}},
                    UpdateExpression=change,
                    ConditionExpression=condition,
                    ExpressionAttributeNames=_names(change, condition),
                    ExpressionAttributeValues=dict(values),
                )
            except ClientError as error:
                if error_code(error) != _FAILED:
                    raise
                return False
        return True


def _progress(item: "Mapping[str, AttributeValueTypeDef]") -> Progress:
    done = item.get("parts_done", {}).get("NS", [])
    return Progress(
        state=cast("JobState", item["state"]["S"]),
        planned="planned_at" in item,
        parts_done=frozenset(map(int, done)),
        rows_done=_count(item, "rows_done"),
        rows_failed=_count(item, "rows_failed"),
        cost_nusd=_count(item, "cost_nusd"),
        updated_at=float(item["updated_at"]["N"]) if "updated_at" in item else 0.0,
    )


def _names(*expressions: str) -> dict[str, str]:
    """The names in expressions: all are replaced, since many of them are reserved."""
    return {f"#{name}": name for name in re.findall(r"#(\w+)", " ".join(expressions))}


def _count(item: "Mapping[str, AttributeValueTypeDef]", name: str) -> int:
    return int(item[name]["N"]) if name in item else 0
