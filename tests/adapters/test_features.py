"""The contract of `FeatureStore`, on the fake and on DynamoDB."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import pytest
from botocore.session import Session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.adapters.aws import client
from shared.adapters.dynamodb_features import DynamoDBFeatures
from shared.domain.errors import BackendUnavailable, FeaturesUnavailable
from shared.domain.features import EntityKey, FeatureRecord, FeatureValue
from shared.domain.ports import FeatureStore
from tests.adapters.samples import unique
from tests.conftest import LocalAws
from tests.fakes import InMemoryFeatures

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

VALUES: dict[str, FeatureValue] = {
    "age": 41,
    "amount": -1.5e-7,
    "big": 2**63,
    "small": -(2**63),
    "third": 1 / 3,
    "large": 9.5e125,
    "returning": True,
    "segment": "gold",
    "empty": "",
    "a.b-c d#é": "ümlaut #",
}


@pytest.fixture(params=["fake", "dynamodb"])
def store(request: pytest.FixtureRequest) -> FeatureStore:
    if request.param == "fake":
        return InMemoryFeatures()
    aws: LocalAws = request.getfixturevalue("local_aws")
    return DynamoDBFeatures(request.getfixturevalue("dynamodb"), table(aws))


def table(aws: LocalAws) -> str:
    return aws.stack.resources["FeaturesTable"].name


def record(entity: str, set_: str = "customer", **values: FeatureValue) -> FeatureRecord:
    return FeatureRecord(EntityKey(set_, entity), values or {"age": 41}, at=1_800_000_000)


def read(store: FeatureStore, tenant: str, keys: Collection[EntityKey], *names: str) -> dict[str, Any]:
    found = store.read(tenant, keys, names, 5.0)
    return {f"{key.set}/{key.entity}": dict(each.values) for key, each in found.items()}


def test_what_was_stored_comes_back(store: FeatureStore) -> None:
    tenant = unique("t")
    stored = FeatureRecord(EntityKey("customer", "ö/1#2"), VALUES, at=1_800_000_000, expires_at=1_900_000_000)
    assert store.get(tenant, stored.key) is None
    assert store.put(tenant, [stored]) == []
    found = store.get(tenant, stored.key)
    assert found == stored
    assert [type(value) for value in found.values.values()] == [type(value) for value in VALUES.values()]
    assert store.read(tenant, [stored.key], list(VALUES), 5.0) == {stored.key: stored}
    replaced = FeatureRecord(stored.key, {"age": 42.5}, at=1_800_000_001)
    store.put(tenant, [replaced])
    assert store.get(tenant, stored.key) == replaced
    assert store.delete(tenant, stored.key) == replaced
    assert store.delete(tenant, stored.key) is None
    assert store.get(tenant, stored.key) is None


def test_only_what_is_wanted_is_read(store: FeatureStore) -> None:
    tenant = unique("t")
    store.put(tenant, [record("a", age=1, b=2), record("b", "merchant", age=3), record("c", x=1)])
    keys = [EntityKey("customer", "a"), EntityKey("merchant", "b"), EntityKey("customer", "c"), EntityKey("x", "y")]
    assert read(store, tenant, keys, "age") == {"customer/a": {"age": 1}, "merchant/b": {"age": 3}, "customer/c": {}}
    assert read(store, tenant, keys[:1]) == {"customer/a": {}}
    many = [f"f{at}" for at in range(400)]
    assert read(store, tenant, keys[:1], "age", *many)["customer/a"]["age"] == 1


def test_no_tenant_sees_what_is_anothers(store: FeatureStore) -> None:
    """Whatever the ids are made of: a key of one tenant, set and entity is no other's."""
    tenant, other = unique("t"), unique("t")
    store.put(tenant, [record("a")])
    assert store.get(other, EntityKey("customer", "a")) is None
    for crafted in (f"#{tenant}#customer#a", f"../{tenant}#customer#a", f"a#{tenant}"):
        assert read(store, other, [EntityKey("customer", crafted)], "age") == {}
    for name, set_ in ((f"{other}#customer", "a"), (tenant, "customer#a"), ("", "customer"), (tenant, "")):
        with pytest.raises(ValueError, match="no tenant or set"):
            store.get(name, EntityKey(set_, "a"))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=12),
        st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(-9.9e125, 9.9e125).filter(lambda value: value == 0 or abs(value) >= 1e-130)
        | st.text(st.characters(codec="utf-8"), max_size=12),
        min_size=1,
        max_size=6,
    ),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=12),
)
def test_any_values_come_back(store: FeatureStore, values: dict[str, FeatureValue], entity: str) -> None:
    stored = FeatureRecord(EntityKey("any", entity), values, at=1)
    store.put("any-tenant", [stored])
    assert store.read("any-tenant", [stored.key], list(values), 5.0)[stored.key].values == values


def test_many_are_stored_and_the_last_of_one_entity_counts(store: FeatureStore) -> None:
    tenant = unique("t")
    rows = [record(f"e{at % 60}", n=at) for at in range(70)]
    assert store.put(tenant, rows) == []
    keys = [EntityKey("customer", f"e{at}") for at in range(60)]
    found = store.read(tenant, keys, ["n"], 5.0)
    assert [found[key].values["n"] for key in keys] == [*range(60, 70), *range(10, 60)]
    with pytest.raises(ValueError, match="at most 100"):
        store.read(tenant, [EntityKey("customer", str(at)) for at in range(101)], ["n"], 5.0)


class _Throttled:
    """A client in front of a table that leaves requests undone: `undone` says how often."""

    def __init__(self, real: Any, undone: int) -> None:
        self._real = real
        self.undone = undone
        self.calls = 0

    def batch_get_item(self, RequestItems: Any) -> Any:  # noqa: N803
        self.calls += 1
        if self.undone:
            self.undone -= 1
            name, wanted = next(iter(RequestItems.items()))
            first = {name: {**wanted, "Keys": wanted["Keys"][:1]}}
            rest = {name: {**wanted, "Keys": wanted["Keys"][1:]}}
            return {**self._real.batch_get_item(RequestItems=first), "UnprocessedKeys": rest}
        return self._real.batch_get_item(RequestItems=RequestItems)

    def batch_write_item(self, RequestItems: Any) -> Any:  # noqa: N803
        self.calls += 1
        if self.undone:
            self.undone -= 1
            name, wanted = next(iter(RequestItems.items()))
            self._real.batch_write_item(RequestItems={name: wanted[:1]})
            return {"UnprocessedItems": {name: wanted[1:]}}
        return self._real.batch_write_item(RequestItems=RequestItems)


def test_what_dynamodb_leaves_out_is_asked_for_once_more(dynamodb: "DynamoDBClient", local_aws: LocalAws) -> None:
    tenant = unique("t")
    keys = [EntityKey("customer", name) for name in "abc"]
    DynamoDBFeatures(dynamodb, table(local_aws)).put(tenant, [record(name) for name in "abc"])
    for undone, deadline_s, calls in ((0, 5.0, 1), (1, 5.0, 2)):
        throttled: Any = _Throttled(dynamodb, undone)
        pauses: list[float] = []
        store = DynamoDBFeatures(throttled, table(local_aws), pause=pauses.append)
        assert store.read(tenant, keys, ["age"], deadline_s).keys() == set(keys)
        assert (throttled.calls, len(pauses)) == (calls, undone)
    for undone, deadline_s, calls in ((2, 5.0, 2), (1, 0.0, 1)):
        throttled = _Throttled(dynamodb, undone)
        store = DynamoDBFeatures(throttled, table(local_aws), pause=lambda _: None)
        with pytest.raises(FeaturesUnavailable):
            store.read(tenant, keys, ["age"], deadline_s)
        assert throttled.calls == calls


def test_what_dynamodb_does_not_take_is_named(dynamodb: "DynamoDBClient", local_aws: LocalAws) -> None:
    tenant = unique("t")
    throttled: Any = _Throttled(dynamodb, 2)
    store = DynamoDBFeatures(throttled, table(local_aws), pause=lambda _: None)
    assert store.put(tenant, [record(name) for name in "abcd"]) == []
    throttled.undone, throttled.calls = 100, 0
    left = store.put(tenant, [record(f"e{at}") for at in range(30)])
    # Of each call one item is taken: six of the first 25, all of the 5 that are left.
    assert len(left) == 19
    assert throttled.calls == 6 + 5
    whole = DynamoDBFeatures(dynamodb, table(local_aws))
    assert all(whole.get(tenant, key) is None for key in left)


def test_a_store_that_cannot_be_reached(aws_session: Session, free_port: int) -> None:
    nowhere = client(
        "dynamodb",
        session=aws_session,
        endpoint_url=f"http://127.0.0.1:{free_port}",
        connect_timeout=0.2,
        read_timeout=0.2,
        retries=0,
    )
    store = DynamoDBFeatures(nowhere, "features")
    key = EntityKey("customer", "a")
    with pytest.raises(FeaturesUnavailable):
        store.read("acme", [key], ["age"], 1.0)
    with pytest.raises(BackendUnavailable):
        store.get("acme", key)
    with pytest.raises(BackendUnavailable):
        store.delete("acme", key)
    with pytest.raises(BackendUnavailable):
        store.put("acme", [record("a")])
