"""What tenants used, in DynamoDB."""

from datetime import date
from typing import TYPE_CHECKING

import pytest
from botocore.session import Session

from shared.adapters.aws import client
from shared.adapters.dynamodb_audit import DynamoDBAuditLedger
from shared.adapters.dynamodb_usage import DynamoDBUsage
from shared.domain.audit import Appended, genesis, seal
from shared.domain.errors import BackendUnavailable
from shared.domain.usage import Usage, UsageKey, UsageRow, day_period, model_period, month_period
from tests.adapters.samples import unique
from tests.conftest import LocalAws

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

TABLE = "UsageTable"
DAYS = [date(2026, 10, 31), date(2026, 11, 1), date(2026, 11, 2), date(2026, 11, 3)]


@pytest.fixture(scope="module")
def tenant(local_aws: LocalAws, dynamodb: "DynamoDBClient") -> str:
    """A tenant that has used two models on each of four days."""
    name, shard = unique("acme"), unique("s")
    resources = local_aws.stack.resources
    ledger = DynamoDBAuditLedger(
        dynamodb, resources["AuditTable"].name, resources[TABLE].name, resources["TrafficTable"].name
    )
    head = genesis(shard)
    for number, day in enumerate(DAYS, 1):
        usage = {
            UsageKey(name, day_period(day)): Usage(number, 1, 2, 3, 4, 5, 6),
            UsageKey(name, month_period(day)): Usage(number),
            UsageKey(name, model_period(day, "tumor")): Usage(number),
            UsageKey(name, model_period(day, "digits")): Usage(0, number),
            UsageKey(f"{name}x", day_period(day)): Usage(99),
        }
        segment = seal(shard, head, unique("b"), [b"{}"], "t", "t")
        assert ledger.append(segment, head, usage, {}) is Appended.WRITTEN
        head = segment.head
    return name


@pytest.fixture
def store(local_aws: LocalAws, dynamodb: "DynamoDBClient") -> DynamoDBUsage:
    return DynamoDBUsage(dynamodb, local_aws.stack.resources[TABLE].name)


def test_days_come_with_their_models(store: DynamoDBUsage, tenant: str) -> None:
    day = DAYS[1]
    assert store.of_tenant(tenant, day, day) == [
        UsageRow(tenant, day, None, Usage(2, 1, 2, 3, 4, 5, 6)),
        UsageRow(tenant, day, "digits", Usage(0, 2)),
        UsageRow(tenant, day, "tumor", Usage(2)),
    ]


@pytest.mark.parametrize(("since", "until", "found"), [(0, 3, DAYS), (1, 2, DAYS[1:3]), (3, 3, DAYS[3:]), (2, 1, [])])
def test_both_ends_are_included(store: DynamoDBUsage, tenant: str, since: int, until: int, found: list[date]) -> None:
    rows = store.of_tenant(tenant, DAYS[since], DAYS[until])
    assert [row.day for row in rows if row.model is None] == found
    assert len(rows) == 3 * len(found)
    assert {row.tenant for row in rows} <= {tenant}


@pytest.mark.parametrize("name", ["nobody", "", "x" * 3000])
def test_a_tenant_without_usage_has_none(store: DynamoDBUsage, name: str) -> None:
    assert store.of_tenant(name, DAYS[0], DAYS[-1]) == []


def test_a_counter_that_is_not_there_is_zero(
    store: DynamoDBUsage, local_aws: LocalAws, dynamodb: "DynamoDBClient"
) -> None:
    name = unique("old")
    dynamodb.put_item(
        TableName=local_aws.stack.resources[TABLE].name,
        Item={"tenant": {"S": name}, "period": {"S": "day#2026-11-01"}, "requests": {"N": "5"}},
    )
    assert store.of_tenant(name, DAYS[0], DAYS[-1]) == [UsageRow(name, DAYS[1], None, Usage(5))]


def test_a_store_out_of_reach_is_told(aws_session: Session, free_port: int) -> None:
    dynamodb = client("dynamodb", session=aws_session, endpoint_url=f"http://127.0.0.1:{free_port}", retries=0)
    with pytest.raises(BackendUnavailable, match="usage store"):
        DynamoDBUsage(dynamodb, "usage").of_tenant("acme", DAYS[0], DAYS[1])
