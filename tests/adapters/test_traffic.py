"""What traffic showed, in DynamoDB."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING

import pytest
from botocore.session import Session

from shared.adapters.aws import client
from shared.adapters.dynamodb_audit import DynamoDBAuditLedger
from shared.adapters.dynamodb_traffic import DynamoDBTraffic
from shared.domain.audit import MAX_COUNTERS, Appended, genesis, seal
from shared.domain.endpoint.traffic_counts import TrafficKey, traffic_in, traffic_period
from shared.domain.errors import BackendUnavailable
from tests.adapters.samples import unique
from tests.conftest import LocalAws
from tests.faults import LOST, FaultProxy

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

DAYS = [date(2026, 10, 31), date(2026, 11, 1), date(2026, 11, 2)]


@pytest.fixture
def store(local_aws: LocalAws, dynamodb: "DynamoDBClient") -> DynamoDBTraffic:
    return DynamoDBTraffic(dynamodb, local_aws.stack.resources["TrafficTable"].name)


def ledger_of(local_aws: LocalAws, dynamodb: "DynamoDBClient") -> DynamoDBAuditLedger:
    resources = local_aws.stack.resources
    audit, usage, traffic = (resources[name].name for name in ("AuditTable", "UsageTable", "TrafficTable"))
    return DynamoDBAuditLedger(dynamodb, audit, usage, traffic)


def add(ledger: DynamoDBAuditLedger, traffic: Mapping[TrafficKey, Mapping[str, int]]) -> None:
    shard = unique("s")
    segment = seal(shard, genesis(shard), unique("b"), [b"{}"], "t", "t")
    assert ledger.append(segment, genesis(shard), {}, traffic) is Appended.WRITTEN


def test_counters_are_added_up_by_day_and_shard(
    local_aws: LocalAws, dynamodb: "DynamoDBClient", store: DynamoDBTraffic
) -> None:
    name, ledger = unique("e"), ledger_of(local_aws, dynamodb)
    first = {"variant#main#requests": 2, "shadow#next#log_ratio": -500, "shadow#next#distance": 10**24}
    for day in DAYS:
        for shard in ("0", "63"):
            add(ledger, {TrafficKey(name, traffic_period(day, shard)): first})
    add(
        ledger,
        {
            TrafficKey(name, traffic_period(DAYS[0], "0")): {"variant#main#requests": 5, "variant#(other)#us": 1},
            TrafficKey(f"{name}x", traffic_period(DAYS[0], "0")): {"variant#main#requests": 100},
        },
    )
    assert len(store.of_endpoint(name, DAYS[0], DAYS[2])) == 6
    assert len(store.of_endpoint(name, DAYS[1], DAYS[1])) == 2
    assert store.of_endpoint(name, DAYS[2], DAYS[1]) == []
    found = traffic_in(store.of_endpoint(name, DAYS[0], DAYS[0]))
    assert found.variants["main"].requests == 9
    assert found.variants["(other)"].us == 1
    assert (found.shadows["next"].log_ratio, found.shadows["next"].distance) == (-1000, 2 * 10**24)


def test_a_batch_whose_answer_was_lost_is_counted_once(
    local_aws: LocalAws, dynamodb: "DynamoDBClient", aws_session: Session, store: DynamoDBTraffic
) -> None:
    name, shard = unique("e"), unique("s")
    traffic = {TrafficKey(name, traffic_period(DAYS[0], "0")): {"variant#main#requests": 1}}
    segment = seal(shard, genesis(shard), unique("b"), [b"{}"], "t", "t")
    with FaultProxy(local_aws.url) as proxy:
        ledger = ledger_of(local_aws, client("dynamodb", session=aws_session, endpoint_url=proxy.url, retries=0))
        proxy.fail(LOST, operation="TransactWriteItems", times=1)
        with pytest.raises(BackendUnavailable):
            ledger.append(segment, genesis(shard), {}, traffic)
        assert ledger.append(segment, genesis(shard), {}, traffic) is Appended.DUPLICATE
        assert (
            ledger.append(seal(shard, genesis(shard), unique("b"), [b"{}"], "t", "t"), genesis(shard), {}, traffic)
            is Appended.OVERTAKEN
        )
    assert list(store.of_endpoint(name, DAYS[0], DAYS[0])) == [{"variant#main#requests": 1}]


def test_as_many_counters_as_a_batch_may_have_are_one_update(
    local_aws: LocalAws, dynamodb: "DynamoDBClient", store: DynamoDBTraffic
) -> None:
    name = unique("e")
    counters = {f"variant#{'x' * 32}#counter{number}": number + 1 for number in range(MAX_COUNTERS)}
    add(ledger_of(local_aws, dynamodb), {TrafficKey(name, traffic_period(DAYS[0], "0")): counters})
    assert list(store.of_endpoint(name, DAYS[0], DAYS[0])) == [counters]


@pytest.mark.parametrize("name", ["nobody", "", "x" * 3000])
def test_an_endpoint_without_traffic_has_none(store: DynamoDBTraffic, name: str) -> None:
    assert store.of_endpoint(name, DAYS[0], DAYS[-1]) == []


def test_a_year_of_a_busy_endpoint_is_read_page_by_page(
    local_aws: LocalAws, dynamodb: "DynamoDBClient", store: DynamoDBTraffic
) -> None:
    name, table = unique("e"), local_aws.stack.resources["TrafficTable"].name
    # Some 100 KB each, so that pages of a megabyte end in between.
    padding = {f"variant#main#{'x' * 200}{number}": {"N": "1"} for number in range(470)}
    for number in range(24):
        period = traffic_period(DAYS[0] + timedelta(days=number), "0")
        item = {"endpoint": {"S": name}, "period": {"S": period}, "variant#main#requests": {"N": "1"}, **padding}
        dynamodb.put_item(TableName=table, Item=item)
    found = store.of_endpoint(name, DAYS[0], DAYS[0] + timedelta(days=23))
    assert traffic_in(found).variants["main"].requests == 24


def test_a_store_that_is_away_is_told(aws_session: Session) -> None:
    away = client("dynamodb", session=aws_session, endpoint_url="http://127.0.0.1:9", retries=0)
    with pytest.raises(BackendUnavailable):
        DynamoDBTraffic(away, "traffic").of_endpoint("tumor", DAYS[0], DAYS[0])
