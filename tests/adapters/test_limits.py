"""The rate limiter on DynamoDB: what passes, what it costs in calls, and what happens while the table fails."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from random import Random
from threading import Lock
from time import time_ns
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from botocore.session import Session

from shared.adapters.aws import client
from shared.adapters.dynamodb_limits import DynamoDBLimits
from shared.adapters.seen_buckets import SeenBuckets
from shared.domain.errors import BackendError, BackendTimeout, BackendUnavailable, LimiterUnavailable
from shared.domain.gcra import STALE_AFTER_US, Bucket, BucketState
from shared.domain.plans import Limits, OnLimiterFailure, Rate
from shared.domain.ports import Allowance, LimitReached, PolicyState
from shared.domain.principal import Principal
from shared.usecases.admit import Admit
from tests.conftest import ROOT, LocalAws
from tests.faults import BROKEN, CLOSED, LOST, SILENT, THROTTLED, Fault, FaultProxy, delayed, throttled

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

NOW = 1_800_000_000_000_000
SECOND = 1_000_000
FAST = Rate(1_000, 1_000)


class Clock:
    """Microseconds that pass when they are told to."""

    def __init__(self) -> None:
        self.us = NOW

    def __call__(self) -> int:
        return self.us


@pytest.fixture
def table(local_aws: LocalAws) -> str:
    return local_aws.stack.resources["LimitsTable"].name


def check_expressions(params: dict[str, Any]) -> None:
    """What DynamoDB refuses and moto may let pass: names and values that nothing uses, expressions over 4 KB."""
    expressions = [params[name] for name in ("UpdateExpression", "ConditionExpression") if name in params]
    used = set(re.findall(r"[:#]\w+", " ".join(expressions)))
    given = {*params.get("ExpressionAttributeNames", ()), *params.get("ExpressionAttributeValues", ())}
    assert used == given
    assert all(len(expression) <= 4096 for expression in expressions)


@pytest.fixture
def updates(dynamodb: "DynamoDBClient") -> Iterator[list[dict[str, Any]]]:
    """The UpdateItem calls that are made, as they are made."""
    seen: list[dict[str, Any]] = []

    def note(params: dict[str, Any], **_: object) -> None:
        check_expressions(params)
        seen.append(params)

    dynamodb.meta.events.register("provide-client-params.dynamodb.UpdateItem", note, unique_id="test-limits")
    yield seen
    dynamodb.meta.events.unregister("provide-client-params.dynamodb.UpdateItem", unique_id="test-limits")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(dynamodb: "DynamoDBClient", table: str, clock: Clock) -> DynamoDBLimits:
    return DynamoDBLimits(dynamodb, table, now_us=clock, budget_s=60)


def caller(
    key: Rate = FAST, tenant: Rate = FAST, *, name: str = "", key_id: str = "key-1", shards: int = 1
) -> Principal:
    tenant_name = name or uuid4().hex
    return Principal(tenant_name, key_id, frozenset({"predict"}), "plan", Limits(key, tenant, shards))


def passes(limiter: DynamoDBLimits, principal: Principal) -> bool:
    try:
        limiter.take(principal)
    except LimitReached:
        return False
    return True


def passed(limiter: DynamoDBLimits, principal: Principal, times: int) -> int:
    return sum(passes(limiter, principal) for _ in range(times))


def refusal(limiter: DynamoDBLimits, principal: Principal) -> LimitReached:
    with pytest.raises(LimitReached) as caught:
        limiter.take(principal)
    return caught.value


# ------------------------------------------------------------------------------------------------------- what passes
def test_the_burst_passes_at_once_and_then_one_request_an_interval(limiter: DynamoDBLimits, clock: Clock) -> None:
    principal = caller(key=Rate(10, 5))
    assert passed(limiter, principal, 7) == 5
    error = refusal(limiter, principal)
    assert error.retry_after_s == 0.1
    assert str(error) == "This key may make 10 requests a second, 5 at once; wait for 0.1 s."
    clock.us += 99_999
    assert not passes(limiter, principal)
    clock.us += 1
    assert passed(limiter, principal, 2) == 1
    clock.us += SECOND
    assert passed(limiter, principal, 7) == 5


def test_an_allowance_says_how_the_caller_stands(limiter: DynamoDBLimits, clock: Clock) -> None:
    principal = caller(key=Rate(10, 5), tenant=Rate(3, 10))
    assert limiter.take(principal) == Allowance(
        (PolicyState("key", 5, 1, remaining=4, reset_s=1), PolicyState("tenant", 10, 4, remaining=9, reset_s=1))
    )
    for _ in range(4):
        limiter.take(principal)
    assert refusal(limiter, principal).allowance == Allowance(
        (PolicyState("key", 5, 1, remaining=0, reset_s=1), PolicyState("tenant", 10, 4, remaining=5, reset_s=1))
    )
    clock.us += 10 * SECOND
    assert [policy.remaining for policy in limiter.take(principal).policies] == [4, 9]


def test_keys_of_a_tenant_share_its_bucket_and_have_their_own(limiter: DynamoDBLimits) -> None:
    one = caller(key=Rate(1, 3), tenant=Rate(1, 5))
    two, other_tenant = replace(one, key_id="key-2"), replace(one, tenant=uuid4().hex)
    assert passed(limiter, one, 5) == 3
    assert passed(limiter, two, 5) == 2
    assert "The tenant may make 1 requests a second, 5 at once" in str(refusal(limiter, two))
    assert passed(limiter, other_tenant, 5) == 3


def test_a_refused_request_takes_from_neither_bucket(dynamodb: "DynamoDBClient", table: str, clock: Clock) -> None:
    one = caller(key=Rate(1, 2), tenant=Rate(1, 4))
    two = replace(one, key_id="key-2")
    # Limiters that have seen nothing: each refusal is the table's.
    for _ in range(2):
        assert passes(DynamoDBLimits(dynamodb, table, now_us=clock), one)
    for _ in range(5):
        assert not passes(DynamoDBLimits(dynamodb, table, now_us=clock), one)
    for _ in range(2):
        assert passes(DynamoDBLimits(dynamodb, table, now_us=clock), two)
    three = replace(one, key_id="key-3")
    assert not passes(DynamoDBLimits(dynamodb, table, now_us=clock), three)
    clock.us += SECOND
    assert passed(DynamoDBLimits(dynamodb, table, now_us=clock), three, 2) == 1


def test_the_later_of_both_waits_is_told(limiter: DynamoDBLimits) -> None:
    principal = caller(key=Rate(1, 1), tenant=Rate(0.5, 1))
    limiter.take(principal)
    error = refusal(limiter, principal)
    assert error.retry_after_s == 2.0
    assert "The tenant" in str(error)


_MOMENTS = {"missing": None, "past": -1, "now": 0, "active": 1, "last": 4 * SECOND, "empty": 4 * SECOND + 1}
_STALE = {"slow plan": 5 * SECOND + STALE_AFTER_US, "stale": 5 * SECOND + STALE_AFTER_US + 1}


@pytest.mark.parametrize(("tenant", "key"), list(product(_MOMENTS | _STALE, repeat=2)))
def test_whatever_the_item_holds_two_calls_decide(
    dynamodb: "DynamoDBClient",
    table: str,
    limiter: DynamoDBLimits,
    updates: list[dict[str, Any]],
    clock: Clock,
    tenant: str,
    key: str,
) -> None:
    rate, bucket = Rate(1, 5), Bucket(SECOND, 5)
    principal = caller(rate, rate)
    # Where the limiter keeps the key's number is its own affair: it is what a first request leaves beside the tenant's.
    limiter.take(principal)
    item = dynamodb.get_item(TableName=table, Key={"bucket": {"S": f"{principal.tenant}#0"}})["Item"]
    (attribute,) = item.keys() - {"bucket", "tat", "expires_at"}
    tats = {"tat": (_MOMENTS | _STALE)[tenant], attribute: (_MOMENTS | _STALE)[key]}
    stored = {name: {"N": str(NOW + tat)} for name, tat in tats.items() if tat is not None}
    dynamodb.put_item(TableName=table, Item={"bucket": item["bucket"], **stored})
    updates.clear()

    fresh = DynamoDBLimits(dynamodb, table, now_us=clock)
    before = {name: None if tat is None else NOW + tat for name, tat in tats.items()}
    expected = all(bucket.state(tat, NOW) is not BucketState.EMPTY for tat in before.values())
    assert passes(fresh, principal) == expected
    assert len(updates) <= 2
    found = dynamodb.get_item(TableName=table, Key={"bucket": item["bucket"]})["Item"]
    after = {name: int(found[name]["N"]) if name in found else None for name in before}
    assert after == ({name: bucket.taken(tat, NOW) for name, tat in before.items()} if expected else before)


def test_who_gets_a_faster_plan_does_not_wait_for_what_the_old_one_left(limiter: DynamoDBLimits) -> None:
    slow = caller(key=Rate(0.001, 10), tenant=Rate(0.001, 10))
    assert passed(limiter, slow, 12) == 10
    fast = replace(slow, limits=Limits(Rate(10, 10), Rate(10, 10)))
    assert passes(limiter, fast)
    assert refusal(limiter, fast).retry_after_s == 0.1


def test_any_key_id_has_its_bucket(limiter: DynamoDBLimits) -> None:
    name = uuid4().hex
    ids = ["", "tat", "é 🦭", "iam#arn:aws:iam::1:role/" + "x" * 500, "\ud800", "a.b[0]"]
    for key_id in ids:
        assert passed(limiter, caller(key=Rate(1, 2), name=name, key_id=key_id), 3) == 2


def test_the_item_may_go_once_all_of_it_is_idle(
    dynamodb: "DynamoDBClient", table: str, limiter: DynamoDBLimits
) -> None:
    principal = caller(key=Rate(0.01, 10), tenant=Rate(1, 5))
    for _ in range(3):
        limiter.take(principal)
    item = dynamodb.get_item(TableName=table, Key={"bucket": {"S": f"{principal.tenant}#0"}})["Item"]
    latest = max(int(value["N"]) for name, value in item.items() if name not in {"bucket", "expires_at"})
    assert int(item["expires_at"]["N"]) > latest // SECOND
    assert int(item["expires_at"]["N"]) < NOW // SECOND + 2 * 3600


# ------------------------------------------------------------------------------------------------------- concurrency
def test_of_many_at_one_moment_exactly_the_burst_passes(dynamodb: "DynamoDBClient", table: str, clock: Clock) -> None:
    # Time enough for a server that answers one call after the other.
    environments = [DynamoDBLimits(dynamodb, table, now_us=clock, budget_s=60) for _ in range(4)]
    principal = caller(key=Rate(1, 40), tenant=Rate(1, 60))
    keys = [replace(principal, key_id=f"key-{n}") for n in range(2)]
    with ThreadPoolExecutor(32) as pool:
        jobs = [(environments[n % 4], keys[n // 4 % 2]) for n in range(160)]
        outcomes = list(pool.map(lambda job: (job[1].key_id, passes(*job)), jobs))
    by_key = [sum(ok for key_id, ok in outcomes if key_id == key.key_id) for key in keys]
    assert sum(by_key) == 60
    assert all(20 <= count <= 40 for count in by_key)


def test_over_time_no_more_passes_than_burst_and_rate(dynamodb: "DynamoDBClient", table: str) -> None:
    environments = [DynamoDBLimits(dynamodb, table, budget_s=60) for _ in range(4)]
    rate = Rate(50, 20)
    principal = caller(tenant=rate)
    start = time_ns()

    def run(n: int) -> int:
        return passed(environments[n % 4], replace(principal, key_id=f"key-{n % 8}"), 12)

    with ThreadPoolExecutor(16) as pool:
        total = sum(pool.map(run, range(16)))
    elapsed = (time_ns() - start) / 1e9
    assert 20 <= total <= 20 + 50 * elapsed


def test_rivals_at_every_attempt_do_not_keep_a_request_out(
    dynamodb: "DynamoDBClient", table: str, clock: Clock, aws_session: Session, local_aws: LocalAws
) -> None:
    """The worst that can happen: the guess is wrong, then each bucket turns active just before the next attempt."""
    rate = Rate(1, 50)
    principal = caller(rate, rate)
    rival = DynamoDBLimits(dynamodb, table, now_us=clock)
    own = client("dynamodb", session=aws_session, endpoint_url=local_aws.url, retries=0)
    victim = DynamoDBLimits(own, table, now_us=clock, budget_s=60)
    # By what the victim saw, both are idle each time, and they are not: it learns to guess that they are active.
    for _ in range(4):
        for limiter in (victim, rival, rival):
            limiter.take(principal)
        clock.us += 2 * SECOND
    clock.us += 100 * SECOND
    moves: Iterator[Callable[[], object]] = iter(
        [
            lambda: None,  # both idle, taken for active
            lambda: rival.take(replace(principal, key_id="key-2")),  # now the tenant's is active
            lambda: rival.take(principal),  # now the key's, too
            lambda: rival.take(principal),  # which changes nothing any more
        ]
    )

    def interfere(**_: object) -> None:
        next(moves)()

    own.meta.events.register("before-send.dynamodb.UpdateItem", interfere)
    victim.take(principal)
    assert list(moves) == []


def test_an_item_that_is_deleted_again_and_again_is_given_up(
    dynamodb: "DynamoDBClient", table: str, clock: Clock, aws_session: Session, local_aws: LocalAws
) -> None:
    principal = caller(Rate(1, 5), Rate(1, 5))
    own = client("dynamodb", session=aws_session, endpoint_url=local_aws.url, retries=0)
    calls = 0

    def interfere(**_: object) -> None:
        nonlocal calls
        calls += 1
        key = {"bucket": {"S": f"{principal.tenant}#0"}}
        if calls % 2:
            dynamodb.put_item(TableName=table, Item={**key, "tat": {"N": str(NOW + 1)}})
        else:
            dynamodb.delete_item(TableName=table, Key=key)

    own.meta.events.register("before-send.dynamodb.UpdateItem", interfere)
    with pytest.raises(BackendUnavailable, match="changed by others"):
        DynamoDBLimits(own, table, now_us=clock, budget_s=60).take(principal)
    assert calls == 4


# ------------------------------------------------------------------------------------------------------------ shards
def test_a_tenant_in_shards_has_its_burst_in_parts(
    dynamodb: "DynamoDBClient", table: str, clock: Clock, updates: list[dict[str, Any]]
) -> None:
    limiter = DynamoDBLimits(dynamodb, table, now_us=clock, pick=Random(7).randrange)  # noqa: S311  # the same each time
    principal = caller(tenant=Rate(10, 10), shards=4)
    assert passed(limiter, principal, 60) == 10
    assert {call["Key"]["bucket"]["S"] for call in updates} == {f"{principal.tenant}#{n}" for n in range(4)}
    clock.us += 2 * SECOND
    assert passed(limiter, principal, 60) == 10


def test_who_is_refused_by_one_shard_asks_one_other(
    dynamodb: "DynamoDBClient", table: str, clock: Clock, updates: list[dict[str, Any]]
) -> None:
    limiter = DynamoDBLimits(dynamodb, table, now_us=clock, pick=lambda _: 0)
    principal = caller(tenant=Rate(2, 5), shards=2)
    assert passed(limiter, principal, 5) == 5  # three of shard 0, then two of shard 1
    asked = len(updates)
    clock.us += SECOND // 4
    error = refusal(limiter, principal)
    assert error.retry_after_s == 0.75
    assert len(updates) == asked  # both are known to be empty
    fresh = DynamoDBLimits(dynamodb, table, now_us=clock, pick=lambda _: 0)
    refusal(fresh, principal)
    assert [call["Key"]["bucket"]["S"][-1] for call in updates[asked:]] == ["0", "1"]


def test_a_shard_speaks_for_all_of_them(dynamodb: "DynamoDBClient", table: str, clock: Clock) -> None:
    limiter = DynamoDBLimits(dynamodb, table, now_us=clock)
    key, tenant = limiter.take(caller(key=Rate(2, 3), tenant=Rate(100, 200), shards=4)).policies
    assert (tenant.quota, tenant.window_s, tenant.remaining) == (200, 2, 196)
    assert (key.quota, key.remaining) == (3, 0)


# ---------------------------------------------------------------------------------------------------- what it costs
@pytest.mark.parametrize("load", [0.2, 0.8])
def test_traffic_below_the_limit_costs_one_update_a_request(
    limiter: DynamoDBLimits, clock: Clock, updates: list[dict[str, Any]], load: float
) -> None:
    """Poisson arrivals in one environment: now and then the bucket is active, now and then it is idle."""
    arrivals = Random(1)  # noqa: S311  # the same each time
    principal = caller(key=Rate(10, 20), tenant=Rate(20, 40))
    for _ in range(100):
        clock.us += int(arrivals.expovariate(10 * load) * SECOND)
        limiter.take(principal)
    assert len(updates) == 100


@pytest.mark.parametrize("load", [0.2, 0.8])
def test_environments_that_share_a_bucket_mostly_guess_right(
    dynamodb: "DynamoDBClient", table: str, clock: Clock, updates: list[dict[str, Any]], load: float
) -> None:
    arrivals = Random(1)  # noqa: S311  # the same each time
    environments = [DynamoDBLimits(dynamodb, table, now_us=clock) for _ in range(5)]
    principal = caller(key=Rate(100, 100), tenant=Rate(100, 200))
    for _ in range(120):
        clock.us += int(arrivals.expovariate(100 * load) * SECOND)
        arrivals.choice(environments).take(principal)
    assert len(updates) < 1.25 * 120


def test_who_is_known_to_be_over_the_limit_costs_no_call(
    limiter: DynamoDBLimits, clock: Clock, updates: list[dict[str, Any]]
) -> None:
    principal = caller(key=Rate(1, 2))
    assert passed(limiter, principal, 50) == 2
    assert len(updates) == 2
    clock.us += SECOND
    assert passed(limiter, principal, 50) == 1
    assert len(updates) == 3


def test_a_tenant_far_over_its_limit_costs_few_writes_however_many_environments_it_keeps_busy(
    dynamodb: "DynamoDBClient", table: str, clock: Clock, updates: list[dict[str, Any]]
) -> None:
    """An attempt that fails is a write as well: a thousand of them a second would throttle the item."""
    arrivals = Random(1)  # noqa: S311  # the same each time
    environments = [DynamoDBLimits(dynamodb, table, now_us=clock, budget_s=60) for _ in range(20)]
    principal = caller(tenant=Rate(50, 5))
    passing = 0
    for _ in range(1500):
        clock.us += int(arrivals.expovariate(2000) * SECOND)
        passing += passes(arrivals.choice(environments), principal)
    assert 30 <= passing <= 5 + 50 * (clock.us - NOW) / SECOND + 1
    assert len(updates) < 200


def test_buckets_of_keys_that_call_no_more_are_swept_out(
    dynamodb: "DynamoDBClient", table: str, limiter: DynamoDBLimits, clock: Clock, updates: list[dict[str, Any]]
) -> None:
    """Else the item of a tenant whose users come with tokens would grow with each of them."""
    principal = caller(key=Rate(10, 10))
    key = {"bucket": {"S": f"{principal.tenant}#0"}}
    old = {f"kold{n}": {"N": str(NOW - 6 * SECOND)} for n in range(40)}
    fresh = {f"kfresh{n}": {"N": str(NOW - SECOND // 2)} for n in range(5)}
    active = {f"kactive{n}": {"N": str(NOW + SECOND)} for n in range(5)}
    dynamodb.put_item(TableName=table, Item={**key, **old, **fresh, **active, "tat": {"N": str(NOW - SECOND)}})
    limiter.take(principal)
    # One that is about to be swept comes back: the request passes all the same.
    dynamodb.update_item(
        TableName=table,
        Key=key,
        UpdateExpression="SET kold0 = :tat",
        ExpressionAttributeValues={":tat": {"N": str(NOW + 1)}},
    )
    updates.clear()
    limiter.take(principal)
    assert len(updates) == 2
    assert set(old) <= dynamodb.get_item(TableName=table, Key=key)["Item"].keys()
    for n in range(70):
        limiter.take(replace(principal, key_id=f"user-{n}"))
    item = dynamodb.get_item(TableName=table, Key=key)["Item"]
    assert not item.keys() & (old.keys() - {"kold0"})
    assert fresh.keys() | active.keys() | {"tat", "kold0"} <= item.keys()


def test_an_item_that_many_users_share_stays_small(
    dynamodb: "DynamoDBClient", table: str, limiter: DynamoDBLimits, clock: Clock
) -> None:
    principal = caller(key=Rate(10, 10))
    for n in range(130):
        clock.us += SECOND // 4
        limiter.take(replace(principal, key_id=f"user-{n}"))
    item = dynamodb.get_item(TableName=table, Key={"bucket": {"S": f"{principal.tenant}#0"}})["Item"]
    assert len(item) < 80


def test_users_who_call_once_each_make_writes_no_dearer(
    dynamodb: "DynamoDBClient", table: str, clock: Clock, updates: list[dict[str, Any]]
) -> None:
    """A hundred users a second with tokens: 1,000 attributes are 25 KB, and forty such writes a second throttle it."""
    arrivals = Random(1)  # noqa: S311  # the same each time
    environments = [DynamoDBLimits(dynamodb, table, now_us=clock) for _ in range(6)]
    principal = caller(key=Rate(50, 100), tenant=Rate(100, 200))
    for n in range(600):
        clock.us += SECOND // 100
        arrivals.choice(environments).take(replace(principal, key_id=f"user-{n}"))
    item = dynamodb.get_item(TableName=table, Key={"bucket": {"S": f"{principal.tenant}#0"}})["Item"]
    assert len(item) < 250
    assert len(updates) < 1.25 * 600


def test_what_was_seen_is_bounded() -> None:
    seen, bucket = SeenBuckets(), {"tat": Bucket(SECOND, 5)}
    idle = {"tat": BucketState.IDLE}
    for n in range(1_025):
        seen.learn(f"tenant-{n}", {"tat": NOW + n}, bucket, idle, NOW, whole=True)
    assert seen.guess("tenant-0", bucket, NOW)[0] == {"tat": None}
    assert seen.guess("tenant-1024", bucket, NOW)[0] == {"tat": NOW + 1024}
    assert seen.wants_whole("tenant-0")
    assert not seen.wants_whole("tenant-1")


# ------------------------------------------------------------------------------------------ while the table is failing
class Ticks:
    """Seconds for the limiter's pauses."""

    def __init__(self) -> None:
        self.s = 1_000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def proxy(local_aws: LocalAws) -> Iterator[FaultProxy]:
    with FaultProxy(local_aws.url) as running:
        yield running


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


@pytest.fixture
def impatient(proxy: FaultProxy, aws_session: Session) -> "DynamoDBClient":
    """A client without retries, with a proxy in between.

    The functions' own waits less, but here an answer that comes must not be late for want of a processor.
    """
    return client("dynamodb", session=aws_session, endpoint_url=proxy.url, connect_timeout=2, read_timeout=2, retries=0)


@pytest.fixture
def failing(impatient: "DynamoDBClient", table: str, clock: Clock, ticks: Ticks) -> DynamoDBLimits:
    return DynamoDBLimits(impatient, table, now_us=clock, ticks=ticks)


def both_plans(principal: Principal) -> tuple[Principal, Principal]:
    closed = replace(principal.limits, on_failure=OnLimiterFailure.CLOSED)
    return principal, replace(principal, limits=closed)


@pytest.mark.parametrize("fault", [THROTTLED, throttled("ThrottlingException"), BROKEN], ids=["rate", "account", "500"])
def test_a_table_that_refuses_is_asked_again_by_each_request(
    proxy: FaultProxy, failing: DynamoDBLimits, table: str, fault: Fault
) -> None:
    admit = Admit(failing)
    opened, closed = both_plans(caller())
    proxy.fail(fault, operation="UpdateItem", table=table)
    assert admit(opened, 0) == Allowance((), degraded=True)
    with pytest.raises(LimiterUnavailable):
        admit(closed, 0)
    assert proxy.calls == {"UpdateItem": 2}
    proxy.heal()
    assert not admit(opened, 0).degraded
    assert not admit(closed, 0).degraded


def test_who_throttles_the_item_by_asking_for_too_much_is_not_let_in_by_that(
    dynamodb: "DynamoDBClient", proxy: FaultProxy, failing: DynamoDBLimits, table: str, clock: Clock
) -> None:
    admit, rival = Admit(failing), DynamoDBLimits(dynamodb, table, now_us=clock)
    opened, closed = both_plans(caller(Rate(1, 1), Rate(1, 1)))
    for _ in range(2):  # others take what is due
        rival.take(opened)
        assert not passes(failing, opened)
        clock.us += SECOND
    clock.us += 2 * SECOND  # longer than this environment leaves the item alone
    proxy.fail(THROTTLED, operation="UpdateItem", table=table)
    for principal in (opened, closed):
        with pytest.raises(LimitReached, match="far more"):
            admit(principal, 0)
    clock.us += 5 * SECOND  # now it may as well be the table
    assert admit(opened, 0).degraded


@pytest.mark.parametrize("fault", [SILENT, delayed(10), CLOSED, LOST], ids=["silent", "slow", "closed", "lost"])
def test_a_table_that_does_not_answer_is_left_alone_for_a_second(
    proxy: FaultProxy, failing: DynamoDBLimits, ticks: Ticks, fault: Fault
) -> None:
    admit = Admit(failing)
    opened, closed = both_plans(caller())
    proxy.fail(fault, operation="UpdateItem")
    for _ in range(50):
        assert admit(opened, 0).degraded
        with pytest.raises(LimiterUnavailable):
            admit(closed, 0)
    # A hundred requests, and one of them waited for the timeout.
    assert proxy.calls == {"UpdateItem": 1}
    proxy.heal()
    ticks.s += 0.999
    assert admit(opened, 0).degraded
    ticks.s += 0.001
    assert not admit(opened, 0).degraded


def test_where_nothing_listens_the_plan_decides(free_port: int, table: str, aws_session: Session, clock: Clock) -> None:
    nowhere = client(
        "dynamodb", session=aws_session, endpoint_url=f"http://127.0.0.1:{free_port}", connect_timeout=0.3, retries=0
    )
    opened, closed = both_plans(caller())
    admit = Admit(DynamoDBLimits(nowhere, table, now_us=clock))
    assert admit(opened, 0).degraded
    with pytest.raises(LimiterUnavailable):
        admit(closed, 0)


def test_a_table_that_is_not_there_is_a_failure_and_no_limit(dynamodb: "DynamoDBClient", clock: Clock) -> None:
    with pytest.raises(BackendError, match="ResourceNotFoundException"):
        DynamoDBLimits(dynamodb, "no-such-table", now_us=clock).take(caller())


def test_a_slow_table_gets_no_second_attempt(
    dynamodb: "DynamoDBClient",
    impatient: "DynamoDBClient",
    proxy: FaultProxy,
    failing: DynamoDBLimits,
    table: str,
    clock: Clock,
    ticks: Ticks,
) -> None:
    principal = caller(Rate(1, 5), Rate(1, 5))
    DynamoDBLimits(dynamodb, table, now_us=clock).take(principal)  # so that the first guess is wrong
    impatient.meta.events.register("before-send.dynamodb.UpdateItem", lambda **_: setattr(ticks, "s", ticks.s + 0.6))
    with pytest.raises(BackendTimeout, match="too slow"):
        failing.take(principal)
    assert proxy.calls == {"UpdateItem": 1}
    failing.take(principal)  # what the failed attempt showed is remembered
    assert proxy.calls == {"UpdateItem": 2}


def test_an_answer_that_is_lost_has_counted(proxy: FaultProxy, failing: DynamoDBLimits, ticks: Ticks) -> None:
    principal = caller(key=Rate(1, 2))
    proxy.fail(LOST, operation="UpdateItem", times=1)
    with pytest.raises(BackendUnavailable):
        failing.take(principal)
    ticks.s += 1
    assert passed(failing, principal, 3) == 1


def test_other_tables_do_not_matter(proxy: FaultProxy, failing: DynamoDBLimits) -> None:
    proxy.fail(THROTTLED, table="another")
    proxy.fail(SILENT, operation="GetItem")
    assert passes(failing, caller())


def test_limits_hold_again_as_soon_as_the_table_is_back(proxy: FaultProxy, failing: DynamoDBLimits) -> None:
    admit, principal = Admit(failing), caller(key=Rate(1, 2))
    admit(principal, 0)
    proxy.fail(THROTTLED)
    assert all(admit(principal, 0).degraded for _ in range(5))
    proxy.heal()
    admit(principal, 0)
    with pytest.raises(LimitReached):
        admit(principal, 0)


def test_many_threads_can_share_a_limiter(limiter: DynamoDBLimits) -> None:
    lock, counts = Lock(), {"ok": 0}
    tenants = [caller(key=Rate(1, 3), tenant=Rate(1, 4)) for _ in range(6)]

    def run(n: int) -> None:
        if passes(limiter, tenants[n % 6]):
            with lock:
                counts["ok"] += 1

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(run, range(60)))
    assert counts["ok"] == 18


def test_the_limiter_imports_nothing_heavy() -> None:
    heavy = ("numpy", "pydantic", "onnxruntime", "fastapi", "boto3", "jwt", "cryptography", "aws_lambda_powertools")
    code = f"import sys, shared.adapters.dynamodb_limits; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
