from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from shared.domain.errors import Conflict, OutOfRange, PlanNotFound, TenantNotFound, TextTooLong
from shared.domain.plans import DEFAULT_PLAN, Plan, Rate
from shared.domain.tenants import Tenant
from shared.domain.usage import Usage, UsageRow
from shared.usecases.manage_tenants import ManageTenants
from tests.fakes import InMemoryTenants

NOW = datetime(2026, 11, 21, 23, 59, tzinfo=UTC).timestamp()
FAST = Plan("fast", key=Rate(500, 1000), tenant=Rate(1000, 2000), daily_quota=10, shards=4)


class Used:
    """A `UsageStore` of one row a day."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, date, date]] = []

    def of_tenant(self, tenant: str, since: date, until: date) -> Sequence[UsageRow]:
        self.asked.append((tenant, since, until))
        return [UsageRow(tenant, since, None, Usage(requests=3))]


@pytest.fixture
def stored() -> InMemoryTenants:
    return InMemoryTenants(FAST)


@pytest.fixture
def used() -> Used:
    return Used()


@pytest.fixture
def manage(stored: InMemoryTenants, used: Used) -> ManageTenants:
    return ManageTenants(stored, used, lambda: NOW)


def test_a_tenant_is_created_once(manage: ManageTenants) -> None:
    made = manage.create("acme", "fast", "Rockets")
    assert made == Tenant("acme", "fast", False, int(NOW), "Rockets")
    assert manage.get("acme") == made
    with pytest.raises(Conflict):
        manage.create("acme")
    assert manage.get("acme") == made
    assert manage.create("beta").plan == "default"
    assert [tenant.name for tenant in manage.list()] == ["acme", "beta"]


@pytest.mark.parametrize("name", ["", "Acme", "-a", "a b", "a" * 64, "a\n", "ä"])
def test_names_that_no_tenant_has(manage: ManageTenants, name: str) -> None:
    with pytest.raises(OutOfRange) as caught:
        manage.create(name)
    assert caught.value.fields[0].pointer == "/name"
    with pytest.raises(TenantNotFound):
        manage.get(name)


def test_a_plan_must_be_there(manage: ManageTenants) -> None:
    with pytest.raises(PlanNotFound):
        manage.create("acme", "slow")
    manage.create("acme")
    with pytest.raises(PlanNotFound):
        manage.update("acme", plan="slow")
    with pytest.raises(TenantNotFound):
        manage.get("slow")


def test_an_update_changes_what_it_names(manage: ManageTenants) -> None:
    made = manage.create("acme", "fast", "Rockets")
    assert manage.update("acme", suspended=True) == replace(made, suspended=True)
    assert manage.update("acme", plan="default", description="") == replace(
        made, suspended=True, plan="default", description=""
    )
    assert manage.update("acme", suspended=False) == manage.get("acme")
    with pytest.raises(TenantNotFound):
        manage.update("nobody", suspended=True)


def test_two_changes_at_the_same_time_both_hold(stored: InMemoryTenants, manage: ManageTenants) -> None:
    made = manage.create("acme")
    asked = stored.plan

    def suspend_meanwhile(name: str) -> Plan | None:
        stored.update(replace(made, suspended=True))
        return asked(name)

    stored.plan = suspend_meanwhile  # type: ignore[method-assign]
    assert manage.update("acme", plan="fast") == replace(made, plan="fast", suspended=True)
    assert manage.get("acme") == replace(made, plan="fast", suspended=True)


def test_descriptions_have_a_bound(manage: ManageTenants) -> None:
    manage.create("acme", description="d" * 500)
    with pytest.raises(TextTooLong):
        manage.create("beta", description="d" * 501)
    with pytest.raises(TextTooLong):
        manage.update("acme", description="d" * 501)


def test_the_built_in_plan_is_there_until_it_is_stored(manage: ManageTenants) -> None:
    assert manage.plan("default") == DEFAULT_PLAN
    assert manage.plans() == [DEFAULT_PLAN, FAST]
    own = replace(DEFAULT_PLAN, max_keys=3)
    assert manage.put_plan(own) == own
    assert manage.plan("default") == own
    assert manage.plans() == [own, FAST]
    for name in ("absent", "Fast", ""):
        with pytest.raises(PlanNotFound):
            manage.plan(name)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"name": "Fast"}, "/name"),
        ({"key": Rate(0, 1)}, "/key/per_second"),
        ({"key": Rate(-1, 1)}, "/key/per_second"),
        ({"key": Rate(float("nan"), 1)}, "/key/per_second"),
        ({"key": Rate(float("inf"), 1)}, "/key/per_second"),
        ({"tenant": Rate(1e6 + 1, 1)}, "/tenant/per_second"),
        ({"key": Rate(1, 0)}, "/key/burst"),
        ({"tenant": Rate(1, 1_000_001)}, "/tenant/burst"),
        ({"shards": 0}, "/shards"),
        ({"shards": 65}, "/shards"),
        ({"daily_quota": -1}, "/daily_quota"),
        ({"monthly_quota": -1}, "/monthly_quota"),
        ({"monthly_quota": 10**16}, "/monthly_quota"),
        ({"max_keys": 0}, "/max_keys"),
        ({"max_keys": 1001}, "/max_keys"),
    ],
)
def test_numbers_that_no_plan_has(
    manage: ManageTenants, stored: InMemoryTenants, change: dict[str, Any], place: str
) -> None:
    with pytest.raises(OutOfRange) as caught:
        manage.put_plan(replace(FAST, **change))
    assert [fault.pointer for fault in caught.value.fields] == [place]
    assert stored.plans() == [FAST]


@pytest.mark.parametrize(
    "plan",
    [
        replace(FAST, key=Rate(1e6, 1_000_000), daily_quota=0, monthly_quota=10**15, shards=64),
        replace(FAST, key=Rate(1e-5, 1), shards=1, max_keys=1000),
    ],
)
def test_the_bounds_themselves_fit(manage: ManageTenants, stored: InMemoryTenants, plan: Plan) -> None:
    manage.put_plan(plan)
    assert stored.plans() == [plan]


def test_usage_of_this_month_and_against_the_quota(manage: ManageTenants, stored: InMemoryTenants, used: Used) -> None:
    manage.create("acme", "fast")
    stored.used.update({("acme", "day#2026-11-21"): 4, ("acme", "month#2026-11"): 44})
    found = manage.usage("acme")
    assert used.asked == [("acme", date(2026, 11, 1), date(2026, 11, 21))]
    assert (found.plan, found.standing.used_today, found.standing.used_this_month) == (FAST, 4, 44)
    assert found.rows[0].usage.requests == 3
    manage.usage("acme", until=date(2026, 3, 9))
    manage.usage("acme", date(2026, 2, 27), date(2026, 3, 1))
    assert used.asked[1:] == [
        ("acme", date(2026, 3, 1), date(2026, 3, 9)),
        ("acme", date(2026, 2, 27), date(2026, 3, 1)),
    ]


@pytest.mark.parametrize(
    ("since", "until"),
    [
        (date(2026, 11, 2), date(2026, 11, 1)),
        (date(2025, 11, 1), date(2026, 11, 2)),
        (date.min, date.max),
        (date(2027, 1, 1), None),
    ],
)
def test_days_that_are_none_or_too_many(manage: ManageTenants, used: Used, since: date, until: date | None) -> None:
    manage.create("acme")
    with pytest.raises(OutOfRange):
        manage.usage("acme", since, until)
    assert used.asked == []


def test_usage_of_nobody(manage: ManageTenants, used: Used) -> None:
    with pytest.raises(TenantNotFound):
        manage.usage("nobody")
    assert used.asked == []
