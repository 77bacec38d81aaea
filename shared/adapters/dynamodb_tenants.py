"""Tenants and plans in one DynamoDB table, what tenants have used in another.

Tenants table: partition key `kind` (S: `tenant` or `plan`), sort key `name` (S). Usage table: partition key `tenant`
(S), sort key `period` (S, see `shared.domain.tenants`); this module reads its number `requests` and writes nothing.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from shared.adapters.aws import aws_errors, error_code
from shared.domain.errors import BackendUnavailable, Conflict, TenantNotFound
from shared.domain.plans import PLAN_NAME, TENANT_NAME, OnLimiterFailure, Plan, Rate
from shared.domain.tenants import Standing, Tenant

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import (
        AttributeValueTypeDef,
        KeysAndAttributesOutputTypeDef,
        KeysAndAttributesTypeDef,
    )

    Item = dict[str, AttributeValueTypeDef]

_WHAT = "The tenant store"
_TENANT, _PLAN = "tenant", "plan"
_TENANT_NAME = re.compile(TENANT_NAME)
_PLAN_NAME = re.compile(PLAN_NAME)
_BATCH_ATTEMPTS = 2


class DynamoDBTenants:
    """Implements `shared.domain.ports.TenantStore`; `usage_table` is for `standing` alone.

    Every method raises BackendError for what DynamoDB does not do. Reads are eventually consistent.
    """

    def __init__(self, client: "DynamoDBClient", table: str, usage_table: str) -> None:
        self._client = client
        self._table = table
        self._usage = usage_table

    def get(self, name: str) -> Tenant | None:
        """One GetItem; none for a name that no tenant can have."""
        item = self._item(_TENANT, name) if _TENANT_NAME.fullmatch(name) else None
        return None if item is None else _tenant(item)

    def add(self, tenant: Tenant) -> None:
        """One conditional PutItem; Conflict if the name is taken, ValueError if it cannot be one."""
        if not self._put(_tenant_item(tenant), condition="attribute_not_exists(#name)"):
            raise Conflict(f"The tenant {tenant.name} exists already.")

    def update(self, tenant: Tenant, before: Tenant | None = None) -> bool:
        """One conditional PutItem; False where another tenant than `before` is stored, TenantNotFound."""
        guard: dict[str, Any] = {
            "ConditionExpression": "attribute_exists(#name)",
            "ExpressionAttributeNames": {"#name": "name"},
        }
        if before is not None:
            stored = {name: value for name, value in _tenant_item(before).items() if name != "kind"}
            guard = {
                "ConditionExpression": " AND ".join(f"#{name} = :{name}" for name in stored),
                "ExpressionAttributeNames": {f"#{name}": name for name in stored},
                "ExpressionAttributeValues": {f":{name}": value for name, value in stored.items()},
            }
        with aws_errors(_WHAT):
            try:
                self._client.put_item(
                    TableName=self._table,
                    Item=_tenant_item(tenant),
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    **guard,
                )
            except ClientError as error:
                if error_code(error) != "ConditionalCheckFailedException":
                    raise
                if error.response.get("Item"):
                    return False
                raise TenantNotFound(f"There is no tenant {tenant.name!r}.") from None
        return True

    def list(self) -> Sequence[Tenant]:
        """Queries over all tenants."""
        return [_tenant(item) for item in self._query(_TENANT)]

    def plan(self, name: str) -> Plan | None:
        """One GetItem; none for a name that no plan can have."""
        item = self._item(_PLAN, name) if _PLAN_NAME.fullmatch(name) else None
        return None if item is None else _plan(item)

    def put_plan(self, plan: Plan) -> None:
        """One PutItem; ValueError if the name cannot be one."""
        self._put(_plan_item(plan))

    def plans(self) -> Sequence[Plan]:
        """Queries over all plans."""
        return [_plan(item) for item in self._query(_PLAN)]

    def standing(self, tenant: str, day: str, month: str) -> Standing:
        """One BatchGetItem over both tables; a second one for what DynamoDB leaves out when it throttles."""
        if not _TENANT_NAME.fullmatch(tenant):
            return Standing(None)
        wanted: Mapping[str, KeysAndAttributesTypeDef | KeysAndAttributesOutputTypeDef] = {
            self._table: {"Keys": [_key(_TENANT, tenant)]},
            self._usage: {
                "Keys": [{"tenant": {"S": tenant}, "period": {"S": period}} for period in (day, month)],
                "ProjectionExpression": "#period, requests",
                "ExpressionAttributeNames": {"#period": "period"},
            },
        }
        tenants: list[Item] = []
        used: dict[str, int] = {}
        for _ in range(_BATCH_ATTEMPTS):
            with aws_errors(_WHAT):
                answer = self._client.batch_get_item(RequestItems=wanted)
            tenants += answer["Responses"].get(self._table, [])
            for item in answer["Responses"].get(self._usage, []):
                used[item["period"]["S"]] = int(item["requests"]["N"]) if "requests" in item else 0
            wanted = answer.get("UnprocessedKeys", {})
            if not wanted:
                return Standing(_tenant(tenants[0]) if tenants else None, used.get(day, 0), used.get(month, 0))
        raise BackendUnavailable(f"{_WHAT} cannot take the request now.")

    def _item(self, kind: str, name: str) -> "Item | None":
        with aws_errors(_WHAT):
            return self._client.get_item(TableName=self._table, Key=_key(kind, name)).get("Item")

    def _query(self, kind: str) -> "Iterator[Item]":
        with aws_errors(_WHAT):
            pages = self._client.get_paginator("query").paginate(
                TableName=self._table,
                KeyConditionExpression="kind = :kind",
                ExpressionAttributeValues={":kind": {"S": kind}},
            )
            for page in pages:
                yield from page["Items"]

    def _put(self, item: "Item", condition: str | None = None) -> bool:
        """Whether the condition, if there is one, held."""
        guard: dict[str, Any] = {}
        if condition is not None:
            guard = {"ConditionExpression": condition, "ExpressionAttributeNames": {"#name": "name"}}
        with aws_errors(_WHAT):
            try:
                self._client.put_item(TableName=self._table, Item=item, **guard)
            except ClientError as error:
                if error_code(error) != "ConditionalCheckFailedException":
                    raise
                return False
        return True


def _key(kind: str, name: str) -> "Item":
    return {"kind": {"S": kind}, "name": {"S": name}}


def _tenant_item(tenant: Tenant) -> "Item":
    if not _TENANT_NAME.fullmatch(tenant.name):
        raise ValueError(f"a tenant's name has the form {TENANT_NAME}")
    return {
        **_key(_TENANT, tenant.name),
        "plan": {"S": tenant.plan},
        "suspended": {"BOOL": tenant.suspended},
        "created_at": {"N": str(tenant.created_at)},
        "description": {"S": tenant.description},
    }


def _tenant(item: "Item") -> Tenant:
    return Tenant(
        name=item["name"]["S"],
        plan=item["plan"]["S"],
        suspended=item["suspended"]["BOOL"],
        created_at=int(item["created_at"]["N"]),
        description=item["description"]["S"],
    )


def _plan_item(plan: Plan) -> "Item":
    if not _PLAN_NAME.fullmatch(plan.name):
        raise ValueError(f"a plan's name has the form {PLAN_NAME}")
    item: Item = {
        **_key(_PLAN, plan.name),
        "key_rate": {"N": repr(plan.key.per_second)},
        "key_burst": {"N": str(plan.key.burst)},
        "tenant_rate": {"N": repr(plan.tenant.per_second)},
        "tenant_burst": {"N": str(plan.tenant.burst)},
        "shards": {"N": str(plan.shards)},
        "on_limiter_failure": {"S": plan.on_limiter_failure.value},
        "max_keys": {"N": str(plan.max_keys)},
    }
    for field, quota in (("daily_quota", plan.daily_quota), ("monthly_quota", plan.monthly_quota)):
        if quota is not None:
            item[field] = {"N": str(quota)}
    return item


def _plan(item: "Item") -> Plan:
    return Plan(
        name=item["name"]["S"],
        key=Rate(float(item["key_rate"]["N"]), int(item["key_burst"]["N"])),
        tenant=Rate(float(item["tenant_rate"]["N"]), int(item["tenant_burst"]["N"])),
        daily_quota=_quota(item, "daily_quota"),
        monthly_quota=_quota(item, "monthly_quota"),
        shards=int(item["shards"]["N"]),
        on_limiter_failure=OnLimiterFailure(item["on_limiter_failure"]["S"]),
        max_keys=int(item["max_keys"]["N"]),
    )


def _quota(item: "Item", field: str) -> int | None:
    return int(item[field]["N"]) if field in item else None
