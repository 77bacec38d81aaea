"""The contract of `JobStore`, on the fake and on DynamoDB."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Barrier, Thread
from typing import TYPE_CHECKING, Any

import pytest
from botocore.session import Session

from shared.adapters.aws import client
from shared.adapters.dynamodb_jobs import DynamoDBJobs
from shared.domain.errors import BackendUnavailable, Conflict, FieldError, JobNotFound
from shared.domain.jobs import (
    KEPT_S,
    LEASE_S,
    OVERDUE_S,
    START_WITHIN_S,
    Job,
    JobFilter,
    JobProblem,
    JobRequest,
    JobResult,
    ObjectRef,
    Outcome,
    new_job_id,
)
from shared.domain.ports import JobStore
from tests.adapters.samples import Lossy, unique
from tests.conftest import LocalAws
from tests.fakes import MemoryJobs

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

NOW = 1_763_700_000.125
RESULT = JobResult("application/json", 2, (("X-A", "1"), ("X-A", "2")), inline=b"{}")
PROBLEM = JobProblem("backend_error", "Backend failed", "It broke: ü.", (FieldError("/instances/0", "wrong"),))
DONE = Outcome("succeeded", result=RESULT, rows_total=3, rows_done=3, version=2, variant="main", backend="function")


def overdue(jobs: JobStore, now: float) -> list[Job]:
    """All of them, page by page."""
    return [job for page in jobs.overdue(now) for job in page]


@dataclass
class Clock:
    at: float = NOW

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["fake", "dynamodb"])
def jobs(request: pytest.FixtureRequest, clock: Clock) -> JobStore:
    if request.param == "fake":
        return MemoryJobs(clock)
    dynamodb: DynamoDBClient = request.getfixturevalue("dynamodb")
    local_aws: LocalAws = request.getfixturevalue("local_aws")
    return DynamoDBJobs(dynamodb, local_aws.stack.resources["JobsTable"].name, now=clock)


@pytest.fixture
def tenant() -> str:
    return unique("tenant")


def job(tenant: str, *, at: float = NOW, **changes: Any) -> Job:
    made = Job(
        job_id=new_job_id(at),
        kind="prediction",
        tenant=tenant,
        key_id="key",
        model="pair",
        request=JobRequest(None, {"content-type": "application/json"}, inline=b'{"instances":[[1,2]]}'),
        created_at=at,
        start_by=at + START_WITHIN_S,
        expires_at=int(at) + KEPT_S,
        request_id="request",
        due_at=at + OVERDUE_S,
    )
    return replace(made, **changes)


def added(jobs: JobStore, tenant: str, **changes: Any) -> Job:
    made = job(tenant, **changes)
    jobs.add(made)
    return made


def running(jobs: JobStore, tenant: str, owner: str = "one", at: float = NOW, **changes: Any) -> Job:
    made = added(jobs, tenant, **changes)
    claim = jobs.claim(made.job_id, owner, at, LEASE_S)
    assert claim.outcome == "claimed"
    assert claim.job is not None
    return claim.job


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"request": JobRequest("prod", {}, source=ObjectRef("bucket", "key/ü"))},
        {"request": JobRequest(7, {"accept": "text/csv"}, source=ObjectRef("bucket", "key", "v1")), "kind": "batch"},
        {"request": JobRequest(None, {}, inline=b"\x00\xff" * 32_768), "traceparent": "00-1-2-01", "rows_total": 0},
        {
            "state": "running",
            "attempts": 2,
            "lease_until": NOW + 30,
            "owner": "one",
            "started_at": NOW,
            "rows_total": 4,
            "rows_done": 2,
            "problem": PROBLEM,
            "batch": b'{"a":1}',
        },
        {"state": "running", "ticket": {"inference_id": "1", "output": "s3://b/k"}, "version": 3, "variant": "main"},
        {
            "state": "succeeded",
            "due_at": None,
            "finished_at": NOW + 1,
            "result": replace(RESULT, inline=None, stored=ObjectRef("b", "k", "v")),
            "cost_nusd": 1_234_567,
            "backend": "function",
        },
    ],
)
def test_a_job_comes_back_as_it_was_stored(jobs: JobStore, tenant: str, changes: dict[str, Any]) -> None:
    made = added(jobs, tenant, **changes)
    assert jobs.get(tenant, made.job_id) == made
    assert jobs.find(made.job_id) == made


def test_a_job_is_stored_once(jobs: JobStore, tenant: str) -> None:
    made = added(jobs, tenant)
    with pytest.raises(Conflict):
        jobs.add(replace(made, request_id="another", model="other"))
    assert jobs.find(made.job_id) == made


@pytest.mark.parametrize("job_id", ["", "nobody", "é", "x" * 3000, "0" * 31, "0" * 33, "A" * 32, "0" * 32])
def test_an_unknown_job_is_none(jobs: JobStore, tenant: str, job_id: str) -> None:
    assert jobs.find(job_id) is None
    with pytest.raises(JobNotFound):
        jobs.get(tenant, job_id)
    with pytest.raises(JobNotFound):
        jobs.restart(tenant, job_id, NOW)


def test_a_job_of_another_tenant_does_not_exist(jobs: JobStore, tenant: str) -> None:
    made = added(jobs, tenant, state="failed", due_at=None)
    stranger = unique("tenant")
    with pytest.raises(JobNotFound):
        jobs.get(stranger, made.job_id)
    with pytest.raises(JobNotFound):
        jobs.restart(stranger, made.job_id, NOW)
    assert jobs.find(made.job_id) == made
    assert jobs.list(stranger, JobFilter(), limit=10).jobs == []


def test_a_job_that_has_expired_does_not_exist(jobs: JobStore, tenant: str, clock: Clock) -> None:
    made = added(jobs, tenant)
    clock.at = made.expires_at
    assert jobs.find(made.job_id) is None
    assert jobs.claim(made.job_id, "one", clock.at, LEASE_S).job is None
    assert jobs.list(tenant, JobFilter(), limit=10).jobs == []
    with pytest.raises(JobNotFound):
        jobs.get(tenant, made.job_id)


def test_a_claimed_job_is_its_owner_s(jobs: JobStore, tenant: str) -> None:
    made = added(jobs, tenant)
    claim = jobs.claim(made.job_id, "one", NOW + 1, LEASE_S)
    assert claim.outcome == "claimed"
    assert claim.job == jobs.find(made.job_id)
    held = jobs.get(tenant, made.job_id)
    assert (held.state, held.owner, held.attempts, held.started_at) == ("running", "one", 1, NOW + 1)
    assert held.lease_until == NOW + 1 + LEASE_S
    assert held.due_at is not None
    assert held.due_at > held.lease_until
    again = jobs.claim(made.job_id, "two", NOW + LEASE_S, LEASE_S)
    assert (again.outcome, again.job) == ("taken", held)
    assert jobs.claim(new_job_id(), "one", NOW, LEASE_S).outcome == "finished"


def test_a_job_whose_lease_is_over_is_taken_over(jobs: JobStore, tenant: str) -> None:
    made = running(jobs, tenant)
    claim = jobs.claim(made.job_id, "two", NOW + LEASE_S + 1, LEASE_S)
    assert (claim.outcome, claim.job is not None) == ("claimed", True)
    held = jobs.get(tenant, made.job_id)
    assert (held.owner, held.attempts, held.started_at) == ("two", 2, made.started_at)
    # What the first one does comes too late.
    assert not jobs.renew(made.job_id, "one", NOW + 100, 1)
    assert not jobs.hand_over(made.job_id, "one", {}, DONE, NOW)
    assert not jobs.requeue(made.job_id, "one", None, NOW)
    assert not jobs.finish(made.job_id, DONE, NOW, owner="one")
    assert jobs.get(tenant, made.job_id) == held


def test_a_hold_is_renewed_until_the_job_is_cancelled(jobs: JobStore, tenant: str) -> None:
    made = running(jobs, tenant)
    assert jobs.renew(made.job_id, "one", NOW + 60, 2)
    held = jobs.get(tenant, made.job_id)
    assert (held.lease_until, held.rows_done, held.due_at) == (NOW + 60, 2, made.due_at)
    assert jobs.finish(made.job_id, Outcome("cancelled"), NOW + 5)
    assert not jobs.renew(made.job_id, "one", NOW + 90, 3)
    assert not jobs.finish(made.job_id, DONE, NOW + 6, owner="one")
    ended = jobs.get(tenant, made.job_id)
    assert (ended.state, ended.finished_at, ended.rows_done, ended.result) == ("cancelled", NOW + 5, 2, None)
    assert (ended.owner, ended.lease_until, ended.due_at) == (None, None, None)


def test_what_came_of_a_job_is_written_once(jobs: JobStore, tenant: str) -> None:
    made = running(jobs, tenant)
    assert jobs.requeue(made.job_id, "one", PROBLEM, NOW + 9)
    assert jobs.claim(made.job_id, "two", NOW + 1, LEASE_S).outcome == "claimed"
    assert jobs.finish(made.job_id, replace(DONE, cost_nusd=5), NOW + 2, owner="two")
    for owner in ("two", None):
        assert not jobs.finish(made.job_id, Outcome("failed", problem=PROBLEM), NOW + 3, owner=owner)
    ended = jobs.get(tenant, made.job_id)
    assert (ended.state, ended.result, ended.problem, ended.cost_nusd) == ("succeeded", RESULT, None, 5)
    assert (ended.version, ended.variant, ended.backend, ended.rows_total, ended.rows_done) == (
        *(2, "main", "function"),
        *(3, 3),
    )
    claim = jobs.claim(made.job_id, "three", NOW + 999, LEASE_S)
    assert (claim.outcome, claim.job) == ("finished", ended)
    assert not jobs.finish(new_job_id(), DONE, NOW)


def test_a_failed_job_says_why(jobs: JobStore, tenant: str) -> None:
    made = running(jobs, tenant, batch=b"{}")
    assert jobs.finish(made.job_id, Outcome("failed", problem=PROBLEM, batch=b'{"rows":1}'), NOW + 2, owner="one")
    ended = jobs.get(tenant, made.job_id)
    assert (ended.state, ended.problem, ended.batch) == ("failed", PROBLEM, b'{"rows":1}')
    (listed,) = jobs.list(tenant, JobFilter(), limit=1).jobs
    assert (listed.state, listed.code, listed.finished_at) == ("failed", "backend_error", NOW + 2)


def test_a_job_put_back_waits_for_the_next_worker(jobs: JobStore, tenant: str) -> None:
    made = running(jobs, tenant)
    assert jobs.requeue(made.job_id, "one", PROBLEM, NOW + 70)
    queued = jobs.get(tenant, made.job_id)
    assert (queued.state, queued.owner, queued.lease_until, queued.due_at) == ("queued", None, None, NOW + 70)
    assert (queued.attempts, queued.problem) == (1, PROBLEM)
    assert not jobs.requeue(made.job_id, "one", None, NOW + 99)
    (listed,) = jobs.list(tenant, JobFilter(), limit=1).jobs
    assert listed.code is None  # it has not failed
    claim = jobs.claim(made.job_id, "two", NOW + 1, LEASE_S)
    assert claim.job is not None
    assert claim.job.attempts == 2


def test_only_a_job_that_nobody_holds_is_put_back_by_the_sweep(jobs: JobStore, tenant: str, clock: Clock) -> None:
    made = running(jobs, tenant)
    assert not jobs.requeue(made.job_id, None, PROBLEM, NOW + 99)
    clock.at = NOW + LEASE_S + 0.5
    # A worker is quicker than the sweep.
    assert jobs.renew(made.job_id, "one", clock.at + LEASE_S, 1)
    assert not jobs.requeue(made.job_id, None, PROBLEM, NOW + 99)
    clock.at += LEASE_S + 1
    assert jobs.requeue(made.job_id, None, PROBLEM, NOW + 99)
    assert not jobs.requeue(made.job_id, None, PROBLEM, NOW + 99)
    assert not jobs.renew(made.job_id, "one", clock.at + LEASE_S, 2)
    assert jobs.get(tenant, made.job_id).state == "queued"


def test_a_job_handed_over_waits_for_its_answer(jobs: JobStore, tenant: str) -> None:
    made = running(jobs, tenant)
    ticket = {"inference_id": "i", "output": "s3://bucket/key"}
    ran = Outcome("succeeded", version=3, variant="main", backend="later", rows_total=2, cost_nusd=7)
    assert jobs.hand_over(made.job_id, "one", ticket, ran, NOW + 300)
    waiting = jobs.get(tenant, made.job_id)
    assert (waiting.state, waiting.ticket, waiting.owner, waiting.lease_until) == ("running", ticket, None, None)
    assert (waiting.version, waiting.backend, waiting.rows_total, waiting.cost_nusd) == (3, "later", 2, 7)
    assert (waiting.due_at, waiting.result) == (NOW + 300, None)
    assert not jobs.renew(made.job_id, "one", NOW + 60, 1)
    claim = jobs.claim(made.job_id, "two", NOW + 9999, LEASE_S)
    assert (claim.outcome, claim.job) == ("waiting", waiting)
    assert jobs.requeue(made.job_id, None, PROBLEM, NOW + 400)
    queued = jobs.get(tenant, made.job_id)
    assert (queued.state, queued.ticket) == ("queued", None)
    assert jobs.claim(made.job_id, "two", NOW, LEASE_S).outcome == "claimed"


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_an_ended_job_is_queued_anew(jobs: JobStore, tenant: str, clock: Clock, state: Any) -> None:
    made = running(jobs, tenant)
    outcome = Outcome(state, problem=PROBLEM if state == "failed" else None, rows_done=2, version=1, backend="function")
    assert jobs.finish(made.job_id, outcome, NOW + 1, owner="one")
    clock.at = later = NOW + 3 * 86_400
    anew = jobs.restart(tenant, made.job_id, later)
    assert anew == jobs.get(tenant, made.job_id)
    assert (anew.state, anew.attempts, anew.problem, anew.rows_done) == ("queued", 0, None, 0)
    assert (anew.started_at, anew.finished_at, anew.version, anew.backend) == (None, None, None, None)
    assert (anew.created_at, anew.request) == (made.created_at, made.request)
    assert anew.start_by == later + START_WITHIN_S
    assert anew.expires_at == int(later) + KEPT_S
    assert made.job_id in [found.job_id for found in overdue(jobs, later + OVERDUE_S)]
    with pytest.raises(Conflict, match="queued"):
        jobs.restart(tenant, made.job_id, later)
    claim = jobs.claim(made.job_id, "two", later + 1, LEASE_S)
    assert (claim.outcome, claim.job and claim.job.started_at) == ("claimed", later + 1)
    with pytest.raises(Conflict, match="running"):
        jobs.restart(tenant, made.job_id, later)


def test_a_batch_goes_on_with_its_version_and_its_rows(jobs: JobStore, tenant: str) -> None:
    made = added(
        jobs, tenant, kind="batch", state="failed", due_at=None, version=4, rows_done=9, batch=b"{}", cost_nusd=3
    )
    anew = jobs.restart(tenant, made.job_id, NOW)
    assert (anew.state, anew.version, anew.rows_done, anew.batch, anew.cost_nusd) == ("queued", 4, 9, b"{}", 3)
    with pytest.raises(Conflict):
        jobs.restart(tenant, made.job_id, NOW)


def test_a_job_that_has_succeeded_is_not_run_again(jobs: JobStore, tenant: str) -> None:
    made = running(jobs, tenant)
    assert jobs.finish(made.job_id, DONE, NOW, owner="one")
    with pytest.raises(Conflict, match="succeeded"):
        jobs.restart(tenant, made.job_id, NOW)


def test_what_is_overdue_comes_in_order_and_what_has_ended_does_not(jobs: JobStore, tenant: str) -> None:
    made = [added(jobs, tenant, due_at=NOW - 10_000_000 + number) for number in (5, 1, 4, 2, 3)]
    own = {each.job_id for each in made}
    before = NOW - 10_000_000
    assert jobs.finish(made[2].job_id, Outcome("cancelled"), NOW)
    found = [each for each in overdue(jobs, before + 4.5) if each.job_id in own]
    assert [each.due_at for each in found] == [before + 1, before + 2, before + 3]
    assert found[0] == made[1]
    for each in made:
        jobs.finish(each.job_id, Outcome("cancelled"), NOW)
    assert not [each for each in overdue(jobs, NOW) if each.job_id in own]


def test_what_is_overdue_is_read_on_from_where_it_was_left(jobs: JobStore, tenant: str) -> None:
    """Each once, though what was read is changed, or has gone, before the next page is."""
    past = NOW - 20_000_000
    # The same part of the index has more than a page of them, and several at a time.
    made = [added(jobs, tenant, job_id=f"{new_job_id(NOW)[:-1]}0", due_at=past + number // 3) for number in range(120)]
    pages = jobs.overdue(past + 100)
    first = next(pages)
    assert len(first) == 100
    for each in first[:20]:
        assert jobs.postpone(each, NOW + 60)
    (gone, *others) = (each for each in made if each not in first)
    assert jobs.finish(gone.job_id, Outcome("cancelled"), NOW)
    assert {each.job_id for page in pages for each in page} == {each.job_id for each in others}
    for each in made:
        jobs.finish(each.job_id, Outcome("cancelled"), NOW)


def test_only_what_waits_with_a_ticket_is_changed_by_who_has_it(jobs: JobStore, tenant: str) -> None:
    made = running(jobs, tenant)
    old, new = {"inference_id": "1", "output": "o"}, {"inference_id": "2", "output": "o"}
    problem = Outcome("failed", problem=PROBLEM)
    for ticket in (old, new):
        assert not jobs.finish(made.job_id, problem, NOW, ticket=ticket)  # not handed over yet
        assert not jobs.requeue(made.job_id, None, PROBLEM, NOW, ticket=ticket)
    assert jobs.hand_over(made.job_id, "one", old, DONE, NOW)
    assert not jobs.requeue(made.job_id, None, PROBLEM, NOW, ticket=new)
    assert jobs.requeue(made.job_id, None, PROBLEM, NOW, ticket=old)
    assert not jobs.finish(made.job_id, problem, NOW, ticket=old)  # it is queued
    assert jobs.claim(made.job_id, "two", NOW, LEASE_S).outcome == "claimed"
    assert jobs.hand_over(made.job_id, "two", new, DONE, NOW)
    before = jobs.get(tenant, made.job_id)
    assert not jobs.finish(made.job_id, problem, NOW, ticket=old)
    assert not jobs.requeue(made.job_id, None, PROBLEM, NOW, ticket=old)
    assert jobs.get(tenant, made.job_id) == before
    assert jobs.finish(made.job_id, DONE, NOW, ticket=new)
    assert not jobs.finish(made.job_id, problem, NOW, ticket=new)


def test_of_two_sweeps_one_postpones(jobs: JobStore, tenant: str) -> None:
    made = added(jobs, tenant)
    assert jobs.postpone(made, NOW + 500)
    assert not jobs.postpone(made, NOW + 600)
    seen = jobs.get(tenant, made.job_id)
    assert seen == replace(made, due_at=NOW + 500)
    assert jobs.claim(made.job_id, "one", NOW, LEASE_S).outcome == "claimed"
    assert not jobs.postpone(seen, NOW + 700)
    ended = running(jobs, tenant)
    assert jobs.finish(ended.job_id, DONE, NOW)
    assert not jobs.postpone(ended, NOW + 700)
    assert not jobs.postpone(jobs.get(tenant, ended.job_id), NOW + 700)


def test_lists_are_in_pages_the_newest_first(jobs: JobStore, tenant: str) -> None:
    made = [added(jobs, tenant, at=NOW - number) for number in range(7)]
    added(jobs, unique("tenant"))
    ids: list[str] = []
    cursor = None
    for expected in (3, 3, 1):
        page = jobs.list(tenant, JobFilter(), limit=3, after=cursor)
        assert len(page.jobs) == expected
        ids += [each.job_id for each in page.jobs]
        cursor = page.cursor
    assert cursor is None
    assert ids == [each.job_id for each in made]
    whole = jobs.list(tenant, JobFilter(), limit=7)
    assert (len(whole.jobs), whole.cursor) == (7, None)


@pytest.mark.parametrize("cursor", ["0" * 32, "f" * 32, f"{NOW:.0f}".zfill(32)])
def test_a_cursor_is_a_place_and_no_key(jobs: JobStore, tenant: str, cursor: str) -> None:
    made = added(jobs, tenant)
    page = jobs.list(tenant, JobFilter(), limit=5, after=cursor)
    assert [each.job_id for each in page.jobs] == ([made.job_id] if made.job_id < cursor else [])
    assert page.cursor is None


Pick = Callable[[list[Job]], list[Job]]


@pytest.mark.parametrize(
    ("which", "pick"),
    [
        (JobFilter(states=frozenset({"queued"})), lambda made: made[0:4]),
        (JobFilter(states=frozenset({"failed", "cancelled"})), lambda made: made[4:6]),
        (JobFilter(kind="batch"), lambda made: made[1:3]),
        (JobFilter(model="other"), lambda made: made[2:5]),
        (JobFilter(states=frozenset({"failed"}), kind="prediction", model="other"), lambda made: made[4:5]),
        (JobFilter(states=frozenset({"running"})), lambda _: []),
        (JobFilter(since=NOW - 2), lambda made: made[0:3]),
        (JobFilter(until=NOW - 2), lambda made: made[2:6]),
        (JobFilter(since=NOW - 3, until=NOW - 1, kind="batch"), lambda made: made[1:3]),
        (JobFilter(since=NOW, until=NOW - 9), lambda _: []),
        (JobFilter(since=NOW + 9), lambda _: []),
        (JobFilter(since=-62_135_596_800.0, until=253_402_300_799.0), lambda made: made),
    ],
)
def test_lists_show_what_is_asked_for(jobs: JobStore, tenant: str, which: JobFilter, pick: Pick) -> None:
    made = [
        added(jobs, tenant, at=NOW),
        added(jobs, tenant, at=NOW - 1, kind="batch"),
        added(jobs, tenant, at=NOW - 2, kind="batch", model="other", rows_total=8, rows_done=3),
        added(jobs, tenant, at=NOW - 3, model="other"),
        added(jobs, tenant, at=NOW - 4, model="other", state="failed", problem=PROBLEM, finished_at=NOW, due_at=None),
        added(jobs, tenant, at=NOW - 5, state="cancelled", due_at=None),
    ]
    expected = [each.job_id for each in pick(made)]
    assert [each.job_id for each in jobs.list(tenant, which, limit=100).jobs] == expected
    # The same, one by one.
    ids: list[str] = []
    cursor: str | None = "f" * 32
    while cursor is not None:
        page = jobs.list(tenant, which, limit=1, after=cursor)
        ids += [each.job_id for each in page.jobs]
        cursor = page.cursor
    assert ids == expected


def test_a_list_shows_progress(jobs: JobStore, tenant: str) -> None:
    made = running(jobs, tenant, rows_total=10)
    assert jobs.renew(made.job_id, "one", NOW + 60, 4)
    (listed,) = jobs.list(tenant, JobFilter(), limit=1).jobs
    assert (listed.kind, listed.model, listed.created_at) == ("prediction", "pair", NOW)
    assert (listed.rows_done, listed.rows_total, listed.state) == (4, 10, "running")


def overlapping(*calls: Callable[[], object]) -> list[object]:
    """What the calls answer that are made at the same time."""
    barrier = Barrier(len(calls))
    answers: list[object] = [None] * len(calls)

    def run(number: int) -> None:
        barrier.wait(10)
        answers[number] = calls[number]()

    threads = [Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return answers


def test_one_of_many_claims_holds(jobs: JobStore, tenant: str) -> None:
    made = added(jobs, tenant)
    owners = [f"worker-{number}" for number in range(8)]
    claims = overlapping(*(lambda owner=owner: jobs.claim(made.job_id, owner, NOW, LEASE_S) for owner in owners))
    outcomes = [claim.outcome for claim in claims]  # type: ignore[attr-defined]
    assert sorted(outcomes) == ["claimed"] + ["taken"] * 7
    held = jobs.get(tenant, made.job_id)
    assert (held.owner, held.attempts) == (owners[outcomes.index("claimed")], 1)


def test_one_of_many_ends_counts(jobs: JobStore, tenant: str) -> None:
    made = running(jobs, tenant)
    ends = [
        Outcome("cancelled"),
        DONE,
        Outcome("failed", problem=PROBLEM),
        replace(DONE, result=replace(RESULT, inline=b"[]")),
    ]
    written = overlapping(*(lambda end=end: jobs.finish(made.job_id, end, NOW, owner=None) for end in ends))
    assert written.count(True) == 1
    ended, won = jobs.get(tenant, made.job_id), ends[written.index(True)]
    assert (ended.state, ended.result, ended.problem) == (won.state, won.result, won.problem)


def test_a_second_attempt_of_the_client_is_the_same_call(
    dynamodb: "DynamoDBClient", local_aws: LocalAws, tenant: str, clock: Clock
) -> None:
    table = local_aws.stack.resources["JobsTable"].name
    jobs = DynamoDBJobs(Lossy(dynamodb), table, now=clock)  # type: ignore[arg-type]
    made = added(jobs, tenant, at=NOW + 0.1234567)
    claim = jobs.claim(made.job_id, "one", NOW + 0.7654321, LEASE_S)
    assert (claim.outcome, claim.job and claim.job.attempts) == ("claimed", 1)
    assert jobs.renew(made.job_id, "one", NOW + 60, 1)


def test_a_table_that_is_away_is_told_so(aws_session: Session, free_port: int) -> None:
    away = client("dynamodb", session=aws_session, endpoint_url=f"http://127.0.0.1:{free_port}", retries=0)
    jobs = DynamoDBJobs(away, "jobs")
    with pytest.raises(BackendUnavailable):
        jobs.find("0" * 32)
