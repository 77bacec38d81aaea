"""What may be stored as features, and what is told of what may not."""

from collections.abc import Mapping
from typing import Any

import pytest

from shared.domain.errors import (
    BackendUnavailable,
    BatchTooLarge,
    InvalidRequest,
    MissingField,
    NotFinite,
    NotFound,
    OutOfRange,
    PayloadTooLarge,
    TenantNotFound,
    TextTooLong,
    WrongDtype,
)
from shared.domain.features import EntityKey, FeatureRecord
from shared.domain.new_features import NewFeatures
from shared.domain.tenants import Tenant
from shared.usecases.manage_features import ManageFeatures
from tests.fakes import InMemoryFeatures, InMemoryTenants

NOW = 1_800_000_000


@pytest.fixture
def store() -> InMemoryFeatures:
    return InMemoryFeatures()


@pytest.fixture
def manage(store: InMemoryFeatures) -> ManageFeatures:
    tenants = InMemoryTenants()
    tenants.add(Tenant("acme", "default", created_at=1))
    return ManageFeatures(store, tenants, now=lambda: NOW)


def test_features_are_stored_read_and_removed(manage: ManageFeatures) -> None:
    stored = manage.put("acme", "customer", NewFeatures("c1", {"age": 41, "ok": True, "segment": "gold"}))
    assert stored == FeatureRecord(EntityKey("customer", "c1"), {"age": 41, "ok": True, "segment": "gold"}, NOW)
    assert manage.get("acme", "customer", "c1") == stored
    replaced = manage.put("acme", "customer", NewFeatures("c1", {"age": 42.0}, at=5, expires_at=NOW + 1))
    assert (replaced.at, replaced.expires_at) == (5, NOW + 1)
    assert manage.delete("acme", "customer", "c1") == replaced
    for call in (manage.get, manage.delete):
        with pytest.raises(NotFound, match="no features of 'c1' in the set 'customer'"):
            call("acme", "customer", "c1")


def test_what_has_ended_is_not_shown(manage: ManageFeatures, store: InMemoryFeatures) -> None:
    store.put("acme", [FeatureRecord(EntityKey("customer", "c1"), {"age": 1}, 1, expires_at=NOW)])
    with pytest.raises(NotFound):
        manage.get("acme", "customer", "c1")


@pytest.mark.parametrize(
    ("values", "error", "place"),
    [
        ({}, MissingField, "/features"),
        ({str(at): 1 for at in range(257)}, OutOfRange, "/features"),
        ({"": 1}, OutOfRange, "/features/"),
        ({"a" * 257: 1}, OutOfRange, f"/features/{'a' * 256}…"),
        ({"\ud800": 1}, OutOfRange, "/features/\ud800"),
        ({"a/b": None}, WrongDtype, "/features/a~1b"),
        ({"a": [1]}, WrongDtype, "/features/a"),
        ({"a": {"b": 1}}, WrongDtype, "/features/a"),
        ({"a": float("nan")}, NotFinite, "/features/a"),
        ({"a": float("-inf")}, NotFinite, "/features/a"),
        ({"a": 1e-200}, OutOfRange, "/features/a"),
        ({"a": -1e126}, OutOfRange, "/features/a"),
        ({"a": 2**64}, OutOfRange, "/features/a"),
        ({"a": -(2**63) - 1}, OutOfRange, "/features/a"),
        ({"a": "x" * 4097}, TextTooLong, "/features/a"),
        ({"a": "\ud800"}, WrongDtype, "/features/a"),
        ({str(at): "x" * 4000 for at in range(9)}, PayloadTooLarge, "/features"),
    ],
)
def test_values_that_no_feature_can_have(
    manage: ManageFeatures, values: Mapping[str, Any], error: type[InvalidRequest], place: str
) -> None:
    with pytest.raises(error) as refused:
        manage.put("acme", "customer", NewFeatures("c1", values))
    assert refused.value.fields[0].pointer == place


@pytest.mark.parametrize(
    ("new", "place"),
    [
        (NewFeatures("", {"a": 1}), "/entity"),
        (NewFeatures("e" * 257, {"a": 1}), "/entity"),
        (NewFeatures("a\nb", {"a": 1}), "/entity"),
        (NewFeatures("\ud800", {"a": 1}), "/entity"),
        (NewFeatures("c1", {"a": 1}, at=-1), "/at"),
        (NewFeatures("c1", {"a": 1}, at=NOW + 301), "/at"),
        (NewFeatures("c1", {"a": 1}, at=NOW * 1000), "/at"),
        (NewFeatures("c1", {"a": 1}, expires_at=NOW), "/expires_at"),
        (NewFeatures("c1", {"a": 1}, expires_at=NOW * 1000), "/expires_at"),
    ],
)
def test_ids_and_times_that_cannot_be(manage: ManageFeatures, new: NewFeatures, place: str) -> None:
    with pytest.raises(OutOfRange) as refused:
        manage.put("acme", "customer", new)
    assert refused.value.fields[0].pointer == place


def test_whose_and_which_set(manage: ManageFeatures, store: InMemoryFeatures) -> None:
    new = NewFeatures("c1", {"a": 1})
    for tenant in ("absent", "", "a#b", "ACME"):
        with pytest.raises(TenantNotFound):
            manage.put(tenant, "customer", new)
        with pytest.raises(TenantNotFound):
            manage.put_many(tenant, "customer", [new])
        with pytest.raises(TenantNotFound):
            manage.get(tenant, "customer", "c1")
        with pytest.raises(TenantNotFound):
            manage.delete(tenant, "customer", "c1")
    for name in ("", "a#b", "Customer", "s" * 65, "-a"):
        with pytest.raises(OutOfRange) as refused:
            manage.put("acme", name, new)
        assert refused.value.fields[0].pointer == "/set"
    assert store.reads == []


def test_several_are_stored_and_each_fault_is_named(manage: ManageFeatures, store: InMemoryFeatures) -> None:
    store.busy = frozenset({"b"})
    rows = [
        NewFeatures("a", {"n": 1}),
        NewFeatures("b", {"n": 2}),
        NewFeatures("c", {"n": None}),
        NewFeatures("d", {"n": 4}),
        NewFeatures("a", {"n": 5}),
    ]
    failed = manage.put_many("acme", "customer", rows)
    assert [(each.index, each.entity, type(each.error)) for each in failed] == [
        (1, "b", BackendUnavailable),
        (2, "c", WrongDtype),
    ]
    assert [manage.get("acme", "customer", name).values for name in "ad"] == [{"n": 5}, {"n": 4}]
    with pytest.raises(BackendUnavailable):
        manage.put("acme", "customer", rows[1])


def test_more_than_can_be_stored_at_once(manage: ManageFeatures) -> None:
    rows = [NewFeatures(str(at), {"n": at}) for at in range(101)]
    assert manage.put_many("acme", "customer", rows[:100]) == []
    with pytest.raises(BatchTooLarge, match="holds 101 entities; at most 100"):
        manage.put_many("acme", "customer", rows)
    assert manage.put_many("acme", "customer", []) == []


def test_a_store_that_fails(manage: ManageFeatures, store: InMemoryFeatures) -> None:
    store.error = BackendUnavailable("down")
    with pytest.raises(BackendUnavailable):
        manage.put_many("acme", "customer", [NewFeatures("a", {"n": 1})])
