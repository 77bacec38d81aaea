"""The contract of `TenantStore`, on the fake and on DynamoDB."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from botocore.session import Session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.adapters.aws import client
from shared.adapters.dynamodb_tenants import DynamoDBTenants
from shared.domain.errors import BackendError, Conflict, TenantNotFound
from shared.domain.plans import OnLimiterFailure, Plan, Rate
from shared.domain.ports import TenantStore
from shared.domain.tenants import Standing, Tenant
from tests.conftest import LocalAws
from tests.fakes import InMemoryTenants

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

DAY, MONTH = "day#2026-11-21", "month#2026-11"
NO_NAMES = ["", "A", "-a", "a" * 64, "a b", "a#b", "é", "a\n", "\ud800"]

Use = Callable[[str, str, int], None]


@pytest.fixture(params=["fake", "dynamodb"])
def stores(request: pytest.FixtureRequest) -> tuple[TenantStore, Use]:
    """A store, and what writes usage as telemetry does."""
    if request.param == "fake":
        fake = InMemoryTenants()
        return fake, lambda tenant, period, requests: fake.used.update({(tenant, period): requests})
    dynamodb: DynamoDBClient = request.getfixturevalue("dynamodb")
    aws: LocalAws = request.getfixturevalue("local_aws")
    usage = aws.stack.resources["UsageTable"].name

    def use(tenant: str, period: str, requests: int) -> None:
        key = {"tenant": {"S": tenant}, "period": {"S": period}}
        dynamodb.put_item(TableName=usage, Item={**key, "requests": {"N": str(requests)}, "rows": {"N": "7"}})

    return DynamoDBTenants(dynamodb, aws.stack.resources["TenantsTable"].name, usage), use


@pytest.fixture
def tenants(stores: tuple[TenantStore, Use]) -> TenantStore:
    return stores[0]


def _tenant(**changes: Any) -> Tenant:
    return replace(Tenant(f"t-{uuid4().hex}", "demo", created_at=1_800_000_000, description="Ü & co"), **changes)


def _plan(**changes: Any) -> Plan:
    return replace(Plan(f"p-{uuid4().hex}", key=Rate(1.5, 3), tenant=Rate(20, 40)), **changes)


def test_a_tenant_comes_back_as_it_was_stored(tenants: TenantStore) -> None:
    tenant = _tenant()
    tenants.add(tenant)
    assert tenants.get(tenant.name) == tenant
    changed = replace(tenant, plan="other", suspended=True, description="")
    tenants.update(changed)
    assert tenants.get(tenant.name) == changed
    assert changed in tenants.list()
    names = [known.name for known in tenants.list()]
    assert names == sorted(names)


def test_a_tenant_that_was_changed_meanwhile_is_not_replaced(tenants: TenantStore) -> None:
    tenant = _tenant()
    with pytest.raises(TenantNotFound):
        tenants.update(tenant, tenant)
    tenants.add(tenant)
    suspended = replace(tenant, suspended=True)
    assert tenants.update(suspended, tenant)
    assert not tenants.update(replace(tenant, plan="other"), tenant)
    assert tenants.get(tenant.name) == suspended
    assert tenants.update(replace(suspended, plan="other"), suspended)


def test_a_tenant_is_added_once_and_only_updated_if_it_is_there(tenants: TenantStore) -> None:
    tenant = _tenant()
    with pytest.raises(TenantNotFound):
        tenants.update(tenant)
    tenants.add(tenant)
    with pytest.raises(Conflict):
        tenants.add(replace(tenant, plan="other"))
    assert tenants.get(tenant.name) == tenant


def test_of_many_who_add_one_tenant_one_wins(tenants: TenantStore) -> None:
    tenant = _tenant()

    def add(n: int) -> bool:
        try:
            tenants.add(replace(tenant, description=str(n)))
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(max_workers=8) as pool:
        won = list(pool.map(add, range(8)))
    assert won.count(True) == 1
    stored = tenants.get(tenant.name)
    assert stored is not None
    assert stored.description == str(won.index(True))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"daily_quota": 10, "monthly_quota": 0, "shards": 8, "max_keys": 1},
        {"on_limiter_failure": OnLimiterFailure.CLOSED, "key": Rate(1e-05, 1), "tenant": Rate(123456.75, 10**6)},
    ],
)
def test_a_plan_comes_back_as_it_was_stored(tenants: TenantStore, changes: dict[str, Any]) -> None:
    plan = _plan(**changes)
    tenants.put_plan(_plan(name=plan.name, daily_quota=3, monthly_quota=4))
    tenants.put_plan(plan)
    assert tenants.plan(plan.name) == plan
    assert plan in tenants.plans()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rate=st.floats(1e-5, 1e6))
def test_rates_keep_every_digit(tenants: TenantStore, rate: float) -> None:
    plan = _plan(name="digits", key=Rate(rate, 1))
    tenants.put_plan(plan)
    assert tenants.plan("digits") == plan


def test_plans_and_tenants_of_one_name_are_two_things(tenants: TenantStore) -> None:
    tenant = _tenant()
    tenants.add(tenant)
    assert tenants.plan(tenant.name) is None
    tenants.put_plan(_plan(name=tenant.name))
    assert tenants.get(tenant.name) == tenant


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_can_be_no_name_is_never_there(tenants: TenantStore, name: str) -> None:
    assert tenants.get(name) is None
    assert tenants.plan(name) is None
    assert tenants.standing(name, DAY, MONTH) == Standing(None)
    with pytest.raises(ValueError, match="name"):
        tenants.add(_tenant(name=name))
    with pytest.raises(ValueError, match="name"):
        tenants.put_plan(_plan(name=name))


def test_a_standing_is_the_tenant_and_its_own_usage(stores: tuple[TenantStore, Use]) -> None:
    tenants, use = stores
    tenant, other = _tenant(), _tenant()
    assert tenants.standing(tenant.name, DAY, MONTH) == Standing(None)
    tenants.add(tenant)
    tenants.add(other)
    assert tenants.standing(tenant.name, DAY, MONTH) == Standing(tenant)
    use(tenant.name, MONTH, 90)
    assert tenants.standing(tenant.name, DAY, MONTH) == Standing(tenant, 0, 90)
    use(tenant.name, DAY, 12)
    use(tenant.name, "day#2026-11-20", 1000)
    use(tenant.name, f"{DAY}#model#tumor", 1000)
    use(other.name, DAY, 1000)
    assert tenants.standing(tenant.name, DAY, MONTH) == Standing(tenant, 12, 90)


def test_what_dynamodb_leaves_out_is_asked_for_again(aws_session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """DynamoDB may answer a part of a batch when it throttles; the local one never does."""
    dynamodb = client("dynamodb", session=aws_session, endpoint_url="http://127.0.0.1:1")
    tenant = {
        "name": {"S": "acme"}, "plan": {"S": "demo"}, "suspended": {"BOOL": False},
        "created_at": {"N": "1"}, "description": {"S": ""},
    }  # fmt: skip
    left = {"usage": {"Keys": [{"tenant": {"S": "acme"}, "period": {"S": DAY}}]}}
    answers: list[dict[str, Any]] = []
    asked: list[dict[str, Any]] = []

    def answer(**arguments: Any) -> dict[str, Any]:
        asked.append(arguments["RequestItems"])
        return answers.pop(0)

    monkeypatch.setattr(dynamodb, "batch_get_item", answer)
    store = DynamoDBTenants(dynamodb, "tenants", "usage")
    answers[:] = [
        {"Responses": {"tenants": [tenant]}, "UnprocessedKeys": left},
        {"Responses": {"usage": [{"period": {"S": DAY}, "requests": {"N": "5"}}]}, "UnprocessedKeys": {}},
    ]
    assert store.standing("acme", DAY, MONTH) == Standing(Tenant("acme", "demo", created_at=1), 5, 0)
    assert asked[1] == left
    # It never guesses that nothing was used.
    answers[:] = [{"Responses": {"tenants": [tenant]}, "UnprocessedKeys": left}] * 2
    with pytest.raises(BackendError):
        store.standing("acme", DAY, MONTH)
