"""The fair queue: nothing lost or twice, order, fairness, bounds."""

from collections import Counter
from collections.abc import Hashable
from itertools import pairwise
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from gpu_service.scheduling.fair_queue import FairQueue

PLENTY = 1 << 40


class Request:
    def __init__(
        self,
        tenant: str = "a",
        rows: int = 1,
        *,
        priority: int = 0,
        key: Hashable = None,
        nbytes: int = 8,
        deadline: float = inf,
        lead: float = 0.0,
        cancelled: bool = False,
    ) -> None:
        self.tenant = tenant
        self.rows = rows
        self.priority = priority
        self.shape_key = key
        self.nbytes = nbytes
        self.deadline = deadline
        self.lead = lead
        self.cancelled = cancelled

    def __repr__(self) -> str:
        return f"{self.tenant}:{self.rows}@{self.priority}/{self.shape_key}"


def queue_of(*requests: Request) -> FairQueue[Request]:
    queue: FairQueue[Request] = FairQueue()
    for request in requests:
        queue.push(request)
    return queue


def batches(queue: FairQueue[Request], max_rows: int, max_bytes: int = PLENTY) -> list[list[Request]]:
    taken = []
    while queue:
        batch, dropped = queue.take(0.0, max_rows, max_bytes)
        assert not dropped
        taken.append(batch)
    return taken


def tenants(batch: list[Request]) -> str:
    return "".join(request.tenant for request in batch)


REQUESTS = st.builds(
    Request,
    st.sampled_from("abc"),
    st.integers(1, 6),
    priority=st.integers(0, 2),
    key=st.sampled_from([None, 1, 2]),
    nbytes=st.integers(1, 50),
    deadline=st.sampled_from([inf, inf, 5.0, 10.0]),
    lead=st.sampled_from([0.0, 0.0, 2.0]),
    cancelled=st.sampled_from([False, False, False, True]),
)
STEPS = st.lists(
    st.one_of(
        st.lists(REQUESTS, min_size=1, max_size=12),
        st.tuples(st.integers(1, 12), st.integers(1, 200)),
        st.just("sweep"),
        st.just("look"),
    ),
    max_size=25,
)


def check_batch(batch: list[Request], now: float, max_rows: int, max_bytes: int) -> None:
    assert len({request.shape_key for request in batch}) <= 1
    assert all(not request.cancelled and request.deadline - request.lead > now for request in batch)
    if len(batch) > 1:
        assert sum(request.rows for request in batch) <= max_rows
        assert sum(request.nbytes for request in batch) <= max_bytes


@given(STEPS)
def test_nothing_is_lost_and_nothing_comes_twice(steps: list[object]) -> None:
    queue: FairQueue[Request] = FairQueue()
    waiting: list[Request] = []
    now = 0.0
    for step in steps:
        now += 1.0
        out: list[Request] = []
        if isinstance(step, list):
            for request in step:
                queue.push(request)
            waiting += step
        elif isinstance(step, tuple):
            batch, dropped = queue.take(now, *step)
            check_batch(batch, now, *step)
            assert all(request.cancelled or request.deadline - request.lead <= now for request in dropped)
            assert batch or dropped or not waiting
            out = batch + dropped
        elif step == "sweep":
            out = queue.remove_expired(now)
            assert {id(r) for r in out} == {id(r) for r in waiting if r.cancelled or r.deadline - r.lead <= now}
        for request in out:
            waiting.remove(request)  # ValueError if it was never there, or came before
        assert len(queue) == len(waiting)
        assert bool(queue) == bool(waiting)
        assert queue.rows == sum(request.rows for request in waiting)
        assert queue.nbytes == sum(request.nbytes for request in waiting)
        if step == "look":
            assert queue.first in waiting if waiting else True
            assert queue.tenants == len({request.tenant for request in waiting})
            for tenant in "abc":
                own = [request for request in waiting if request.tenant == tenant]
                assert queue.tenant_requests(tenant) == len(own)
                assert 0 <= queue.rows_ahead(tenant, 1) <= queue.rows
    rest = queue.clear()
    assert sorted(map(id, rest)) == sorted(map(id, waiting))
    assert (len(queue), queue.rows, queue.nbytes, queue.tenants) == (0, 0, 0, 0)


SINGLE_ROWS = st.builds(Request, st.sampled_from("ab"), priority=st.integers(0, 1), key=st.sampled_from([None, 1, 2]))


@given(st.lists(SINGLE_ROWS, min_size=1, max_size=60), st.integers(1, 8))
def test_a_tenant_keeps_its_order_within_a_priority_and_a_key(requests: list[Request], max_rows: int) -> None:
    order = {id(request): position for position, request in enumerate(requests)}
    last: dict[tuple[str, int, Hashable], int] = {}
    for batch in batches(queue_of(*requests), max_rows):
        for request in batch:
            lane = (request.tenant, request.priority, request.shape_key)
            assert last.get(lane, -1) < order[id(request)]
            last[lane] = order[id(request)]


@given(
    st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(1, 9), min_size=30, max_size=40), min_size=2),
    st.integers(1, 16),
)
def test_tenants_that_wait_are_served_alike(rows: dict[str, list[int]], max_rows: int) -> None:
    """Goyal et al., theorem 1: the rows served of two backlogged tenants differ by l_f + l_m; here by a batch more."""
    queue = queue_of(*(Request(tenant, size) for tenant, sizes in rows.items() for size in sizes))
    served: Counter[str] = Counter()
    while all(queue.tenant_requests(tenant) for tenant in rows):
        for request in queue.take(0.0, max_rows, PLENTY)[0]:
            served[request.tenant] += request.rows
        if all(queue.tenant_requests(tenant) for tenant in rows):
            for one, other in pairwise(sorted(rows)):
                assert abs(served[one] - served[other]) <= 9 + 9 + max_rows


def test_all_that_fits_is_one_batch() -> None:
    requests = [Request("a"), Request("b", 3), Request("a", priority=7)]
    queue = queue_of(*requests)
    batch, dropped = queue.take(0.0, 5, 24)
    assert (batch, dropped, len(queue)) == (requests, [], 0)


def test_a_newcomer_waits_for_one_batch_of_anothers_backlog() -> None:
    queue = queue_of(*(Request("a") for _ in range(100)))
    assert tenants(queue.take(0.0, 4, PLENTY)[0]) == "aaaa"
    for _ in range(3):
        queue.push(Request("b"))
    assert tenants(queue.take(0.0, 4, PLENTY)[0]).count("b") >= 2
    assert queue.tenant_requests("b") <= 1


def test_a_newcomer_has_no_credit_for_the_time_before_it_came() -> None:
    queue = queue_of(*(Request("a") for _ in range(200)))
    for _ in range(10):
        queue.take(0.0, 10, PLENTY)
    for _ in range(100):
        queue.push(Request("b"))
    served = Counter(tenants([request for _ in range(4) for request in queue.take(0.0, 10, PLENTY)[0]]))
    assert abs(served["a"] - served["b"]) <= 12


def test_the_search_looks_at_all_tenants() -> None:
    queue = queue_of(Request("x", key=1), *(Request("a", key=2) for _ in range(100)), *(Request("b", key=1),) * 3)
    assert sorted(tenants(queue.take(0.0, 8, PLENTY)[0])) == ["b", "b", "b", "x"]


def test_small_and_large_requests_share_by_rows() -> None:
    queue = queue_of(*(Request("a", 8) for _ in range(20)), *(Request("b") for _ in range(160)))
    served: Counter[str] = Counter()
    for _ in range(10):
        for request in queue.take(0.0, 8, PLENTY)[0]:
            served[request.tenant] += request.rows
    assert abs(served["a"] - served["b"]) <= 8 + 8


def test_the_more_urgent_priority_is_first() -> None:
    queue = queue_of(Request("a", priority=5), Request("b", priority=0), Request("c", priority=3))
    assert [tenants(batch) for batch in batches(queue, 1)] == ["b", "c", "a"]


def test_a_busy_priority_costs_a_tenant_nothing_at_another() -> None:
    queue = queue_of(*(Request("a", priority=0) for _ in range(50)), *(Request("a", priority=1) for _ in range(5)))
    for _ in range(50):
        queue.take(0.0, 1, PLENTY)
    for _ in range(5):
        queue.push(Request("b", priority=1))
    assert tenants([request for batch in batches(queue, 2) for request in batch][:4]).count("a") == 2


def test_other_shapes_are_passed_over_and_keep_their_place() -> None:
    first, other, second, third = Request(key=1), Request(key=2), Request(key=1), Request("b", key=1)
    queue = queue_of(first, other, second, third)
    assert set(map(id, queue.take(0.0, 8, PLENTY)[0])) == {id(first), id(second), id(third)}
    assert queue.take(0.0, 8, PLENTY)[0] == [other]


def test_the_first_in_line_is_served_whatever_its_shape() -> None:
    queue = queue_of(*(Request(key=object()) for _ in range(5)))
    assert [len(batch) for batch in batches(queue, 8)] == [1] * 5


def test_the_search_for_mergeable_requests_is_bounded() -> None:
    late = Request(key=1)
    queue = queue_of(Request(key=1), *(Request(key=2) for _ in range(500)), late)
    assert len(queue.take(0.0, 8, PLENTY)[0]) == 1
    assert all(request.shape_key == 2 for request in queue.take(0.0, 8, PLENTY)[0])


def test_what_does_not_fit_beside_the_others_waits_for_the_next_batch() -> None:
    queue = queue_of(Request(rows=2), Request(rows=7), Request(rows=1))
    assert [[request.rows for request in batch] for batch in batches(queue, 8)] == [[2, 1], [7]]
    queue = queue_of(Request(nbytes=60), Request(nbytes=60))
    assert [len(batch) for batch in batches(queue, 8, 100)] == [1, 1]


def test_a_request_over_the_bound_goes_alone() -> None:
    queue = queue_of(Request(rows=20), Request(rows=1))
    assert [[request.rows for request in batch] for batch in batches(queue, 8)] == [[20], [1]]
    queue = queue_of(Request(nbytes=500), Request(nbytes=1))
    assert [len(batch) for batch in batches(queue, 8, 100)] == [1, 1]


def test_the_dead_are_dropped_on_the_way() -> None:
    gone, late, fine = Request(cancelled=True), Request(deadline=1.0), Request(deadline=3.0)
    assert queue_of(gone, late, fine).take(2.0, 8, PLENTY) == ([fine], [gone, late])
    queue = queue_of(gone, late, fine, Request())
    batch, dropped = queue.take(2.0, 1, PLENTY)
    assert (batch, dropped, len(queue)) == ([fine], [gone, late], 1)


def test_what_expires_unserved_costs_its_tenant_nothing() -> None:
    queue = queue_of(*(Request("a", deadline=1.0) for _ in range(1000)), *(Request("b") for _ in range(100)))
    queue.take(0.0, 10, PLENTY)
    assert len(queue.remove_expired(2.0)) >= 990
    for _ in range(100):
        queue.push(Request("a"))
    served = Counter(tenants(queue.take(2.0, 40, PLENTY)[0]))
    assert abs(served["a"] - served["b"]) <= 12


def test_rows_ahead_count_others_only_up_to_the_own_place() -> None:
    queue = queue_of(*(Request("a") for _ in range(100)))
    assert queue.rows_ahead("a", 0) == 100
    assert queue.rows_ahead("b", 0) <= 1
    for _ in range(10):
        queue.push(Request("b"))
    assert 19 <= queue.rows_ahead("b", 0) <= 21
    assert queue.rows_ahead("c", 1) == 110


def test_tags_of_tenants_that_left_are_bounded() -> None:
    queue = queue_of(Request("stays", rows=10**9), Request("stays"))
    queue.push(Request("urgent"))
    queue.take(0.0, 1, PLENTY)
    for number in range(20_000):
        queue.push(Request(f"t{number}", rows=5))
        queue.take(0.0, 1, PLENTY)
    assert sum(len(level.lines) for level in queue._levels.values()) <= 1000
