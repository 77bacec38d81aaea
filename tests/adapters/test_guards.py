"""Circuits and places that environments share: the contract of `GuardStore`, and its items in DynamoDB."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from time import time
from typing import TYPE_CHECKING, Any

import pytest
from botocore.session import Session

from shared.adapters.aws import client
from shared.adapters.dynamodb_endpoints import DynamoDBEndpoints
from shared.adapters.dynamodb_guards import DynamoDBGuards
from shared.domain.endpoint.circuit import circuit_name
from shared.domain.errors import BackendError, BackendTimeout, BackendUnavailable
from shared.domain.ports import GuardStore, Lease
from tests.adapters.samples import unique
from tests.conftest import LocalAws
from tests.fakes import InMemoryGuards
from tests.faults import BROKEN, CLOSED, LOST, SILENT, THROTTLED, Fault, FaultProxy

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@pytest.fixture
def table(local_aws: LocalAws) -> str:
    return local_aws.stack.resources["GuardsTable"].name


@pytest.fixture(params=["memory", "dynamodb"])
def guards(request: pytest.FixtureRequest) -> GuardStore:
    if request.param == "memory":
        return InMemoryGuards()
    return DynamoDBGuards(request.getfixturevalue("dynamodb"), request.getfixturevalue("table"))


@pytest.fixture
def updates(dynamodb: "DynamoDBClient") -> Iterator[list[dict[str, Any]]]:
    seen: list[dict[str, Any]] = []

    def note(params: dict[str, Any], **_: object) -> None:
        seen.append(params)

    dynamodb.meta.events.register("provide-client-params.dynamodb.UpdateItem", note, unique_id="test-guards")
    yield seen
    dynamodb.meta.events.unregister("provide-client-params.dynamodb.UpdateItem", unique_id="test-guards")


def item(dynamodb: "DynamoDBClient", table: str, endpoint: str) -> dict[str, float]:
    """The numbers in the item of an endpoint."""
    found = dynamodb.get_item(TableName=table, Key={"endpoint": {"S": endpoint}}, ConsistentRead=True).get("Item", {})
    return {name: float(value["N"]) for name, value in found.items() if name != "endpoint"}


# ------------------------------------------------------------------------------------------------------- the contract
def test_places_are_given_until_none_is_left(guards: GuardStore) -> None:
    endpoint, now = unique("m"), time()
    leases = [guards.acquire(endpoint, "gpu", 5, now + 30, now) for _ in range(6)]
    assert leases[5] is None
    taken = [lease for lease in leases if lease is not None]
    assert sorted(lease.slot for lease in taken) == list(range(5))
    assert guards.acquire(endpoint, "other", 5, now + 30, now) is not None
    assert guards.acquire(unique("m"), "gpu", 5, now + 30, now) is not None


def test_a_place_that_was_given_back_is_free(guards: GuardStore) -> None:
    endpoint, now = unique("m"), time()
    first = guards.acquire(endpoint, "gpu", 1, now + 30, now)
    assert first is not None
    assert guards.acquire(endpoint, "gpu", 1, now + 30, now) is None
    guards.release(first)
    assert guards.acquire(endpoint, "gpu", 1, now + 30, now) is not None


def test_a_place_is_free_when_it_has_expired_and_then_not_given_back_by_who_had_it(guards: GuardStore) -> None:
    endpoint, now = unique("m"), time()
    first = guards.acquire(endpoint, "gpu", 1, now + 5, now)
    assert first is not None
    second = guards.acquire(endpoint, "gpu", 1, now + 20, now + 6)
    assert second is not None
    guards.release(first)
    assert guards.acquire(endpoint, "gpu", 1, now + 30, now + 7) is None
    guards.release(second)
    guards.release(second)
    assert guards.acquire(endpoint, "gpu", 1, now + 30, now + 7) is not None


def test_who_sees_fewer_places_waits_outside_first(guards: GuardStore) -> None:
    endpoint, now = unique("m"), time()
    low = [guards.acquire(endpoint, "gpu", 2, now + 30, now) for _ in range(3)]
    assert [lease is None for lease in low] == [False, False, True]
    high = [guards.acquire(endpoint, "gpu", 4, now + 30, now) for _ in range(3)]
    assert [lease is None for lease in high] == [False, False, True]


def test_of_many_at_one_moment_exactly_as_many_as_there_are_places_get_one(guards: GuardStore) -> None:
    endpoint, now = unique("m"), time()
    environments: list[GuardStore] = [guards]
    if isinstance(guards, DynamoDBGuards):
        environments = [DynamoDBGuards(guards._client, guards._table) for _ in range(12)]

    def acquire(n: int) -> Lease | None:
        return environments[n % len(environments)].acquire(endpoint, "gpu", 6, now + 30, now)

    with ThreadPoolExecutor(12) as pool:
        leases = [lease for lease in pool.map(acquire, range(24)) if lease is not None]
    assert sorted({lease.slot for lease in leases}) == sorted(lease.slot for lease in leases)
    # Whoever was beaten three times goes without; those who come after find what is left.
    while (lease := guards.acquire(endpoint, "gpu", 6, now + 30, now)) is not None:
        leases.append(lease)
    assert len(leases) == 6
    for lease in leases:
        guards.release(lease)
    assert guards.acquire(endpoint, "gpu", 1, now + 30, now) is not None


# ------------------------------------------------------------------------------------------------------ DynamoDB's item
def test_circuits_in_the_item(dynamodb: "DynamoDBClient", table: str, updates: list[dict[str, Any]]) -> None:
    guards, endpoint, now = DynamoDBGuards(dynamodb, table), unique("m"), round(time(), 3)
    guards.open(endpoint, "gpu/main", now + 5.125)
    guards.open(endpoint, "gpu/main", now + 4)
    found = item(dynamodb, table, endpoint)
    assert found["open:gpu/main"] == now + 5.125
    assert now + 86_000 < found["expires_at"] < now + 90_000
    guards.open(endpoint, "gpu/main", now + 10)
    guards.open(endpoint, "gpu/other", now + 6)
    guards.close(endpoint, "gpu/main")
    guards.close(endpoint, "gpu/main")
    assert item(dynamodb, table, endpoint).keys() == {"open:gpu/other", "expires_at"}
    assert len(updates) == 6


def test_closing_what_was_never_open_leaves_nothing(dynamodb: "DynamoDBClient", table: str) -> None:
    endpoint = unique("m")
    DynamoDBGuards(dynamodb, table).close(endpoint, "gpu/main")
    assert "Item" not in dynamodb.get_item(TableName=table, Key={"endpoint": {"S": endpoint}})


def test_a_place_costs_two_writes(dynamodb: "DynamoDBClient", table: str, updates: list[dict[str, Any]]) -> None:
    guards, endpoint = DynamoDBGuards(dynamodb, table), unique("m")
    for _ in range(10):
        lease = guards.acquire(endpoint, "gpu", 8, time() + 30, time())
        assert lease is not None
        guards.release(lease)
    assert len(updates) == 20
    assert item(dynamodb, table, endpoint).keys() == {"expires_at"}


def test_who_picks_a_place_that_is_taken_sees_which_ones_are_free(
    dynamodb: "DynamoDBClient", table: str, updates: list[dict[str, Any]]
) -> None:
    endpoint, now = unique("m"), time()
    one, other = (DynamoDBGuards(dynamodb, table, pick=Random(n).randrange) for n in (1, 2))  # noqa: S311
    for _ in range(7):
        assert one.acquire(endpoint, "gpu", 8, now + 30, now) is not None
    updates.clear()
    assert other.acquire(endpoint, "gpu", 8, now + 30, now) is not None
    assert len(updates) <= 2
    updates.clear()
    assert other.acquire(endpoint, "gpu", 8, now + 30, now) is None
    assert len(updates) == 1


def test_what_ended_long_ago_is_removed_in_passing(dynamodb: "DynamoDBClient", table: str) -> None:
    endpoint, now = unique("m"), time()
    old = {f"open:b{n}/v": now - 3600 for n in range(5)} | {f"slot:gone:{n}": now - 100.5 for n in range(100)}
    fresh = {"open:b/v": now + 5, "slot:gpu:0": now + 5, "slot:gpu:1": now - 5}
    numbers: Any = {name: {"N": str(value)} for name, value in (old | fresh).items()}
    dynamodb.put_item(TableName=table, Item={"endpoint": {"S": endpoint}, **numbers})
    guards = DynamoDBGuards(dynamodb, table)
    guards.open(endpoint, "b/v2", now + 5)
    guards.close(endpoint, "b/v2")
    assert item(dynamodb, table, endpoint).keys() == fresh.keys() | {"expires_at"}
    # Places are swept by who takes one, now and then.
    dynamodb.put_item(TableName=table, Item={"endpoint": {"S": endpoint}, **numbers})
    for _ in range(130):
        lease = guards.acquire(endpoint, "gpu", 8, now + 30, now)
        assert lease is not None
        guards.release(lease)
    assert not item(dynamodb, table, endpoint).keys() & old.keys()


def test_what_is_taken_up_again_is_not_swept(
    dynamodb: "DynamoDBClient", table: str, aws_session: Session, local_aws: LocalAws
) -> None:
    endpoint, now = unique("m"), time()
    key: Any = {"endpoint": {"S": endpoint}}
    dynamodb.put_item(TableName=table, Item={**key, "open:a/v": {"N": str(now - 100)}})
    own = client("dynamodb", session=aws_session, endpoint_url=local_aws.url, retries=0)
    rival, calls = DynamoDBGuards(dynamodb, table), []

    def interfere(**_: object) -> None:
        calls.append(1)
        if len(calls) == 2:  # between the opening and the sweep
            rival.open(endpoint, "a/v", now + 5)

    own.meta.events.register("before-send.dynamodb.UpdateItem", interfere)
    DynamoDBGuards(own, table).open(endpoint, "b/v", now + 5)
    assert len(calls) == 2
    assert item(dynamodb, table, endpoint).keys() == {"open:a/v", "open:b/v", "expires_at"}


def test_the_item_stays_small(dynamodb: "DynamoDBClient", table: str) -> None:
    endpoint, clock = unique("m"), [time()]
    guards = DynamoDBGuards(dynamodb, table, now=lambda: clock[0])
    for n in range(120):
        clock[0] += 10
        guards.open(endpoint, f"b{n}/v", clock[0] + 5)
    assert len(item(dynamodb, table, endpoint)) < 12


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (THROTTLED, BackendUnavailable),
        (BROKEN, BackendUnavailable),
        (CLOSED, BackendUnavailable),
        (LOST, BackendUnavailable),
        (SILENT, BackendTimeout),
    ],
)
def test_a_store_that_fails(
    fault: Fault, error: type[BackendError], aws_session: Session, local_aws: LocalAws, table: str
) -> None:
    with FaultProxy(local_aws.url) as proxy:
        own = client("dynamodb", session=aws_session, endpoint_url=proxy.url, read_timeout=0.3, retries=0)
        guards, endpoint, now = DynamoDBGuards(own, table), unique("m"), time()
        proxy.fail(fault, operation="UpdateItem")
        with pytest.raises(error):
            guards.open(endpoint, "b/v", now + 5)
        with pytest.raises(error):
            guards.acquire(endpoint, "gpu", 2, now + 5, now)
        with pytest.raises(error):
            guards.release(Lease(endpoint, "gpu", 0, now))
        proxy.heal()
        assert guards.acquire(endpoint, "gpu", 3, now + 5, now) is not None


def test_circuits_are_read_with_the_configuration_as_they_were_written(
    dynamodb: "DynamoDBClient", local_aws: LocalAws, table: str
) -> None:
    reader = DynamoDBEndpoints(dynamodb, local_aws.stack.resources["EndpointsTable"].name, table)
    guards, endpoint, until = DynamoDBGuards(dynamodb, table), unique("m"), round(time() + 5, 3)
    guards.open(endpoint, circuit_name("gpu", "main"), until)
    guards.acquire(endpoint, "gpu", 1, until, time())
    assert reader.read(endpoint).open_until == {"gpu/main": until}
    guards.close(endpoint, circuit_name("gpu", "main"))
    assert reader.read(endpoint).open_until == {}
