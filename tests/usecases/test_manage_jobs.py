"""What callers may do with jobs, and what another does at the same moment."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from shared.domain.errors import (
    BackendUnavailable,
    Conflict,
    InsufficientScope,
    JobFinished,
    JobNotFound,
    NoResult,
)
from shared.domain.jobs import (
    KEPT_S,
    LEASE_S,
    Job,
    JobFilter,
    JobProblem,
    JobRequest,
    JobResult,
    JobState,
    ObjectRef,
    Outcome,
    new_job_id,
)
from shared.domain.principal import Principal
from shared.usecases.manage_jobs import ManageJobs
from tests.fakes import MemoryJobObjects, MemoryJobQueue, MemoryJobs

NOW = 1_763_700_000.0
DONE = Outcome("succeeded", result=JobResult("application/json", 2, inline=b"{}"))
FAILED = Outcome("failed", problem=JobProblem("backend_error", "t", "d"))


class World:
    def __init__(self) -> None:
        self.store, self.queue, self.objects = MemoryJobs(lambda: NOW), MemoryJobQueue(), MemoryJobObjects()
        self.woken: list[Job] = []
        self.jobs = ManageJobs(self.store, self.queue, self.objects, self.woken.append, lambda: NOW)
        self._age = 0

    def add(self, **changes: Any) -> str:
        self._age += 1
        request = JobRequest(None, {}, inline=b"{}")
        made = Job(
            *(new_job_id(NOW - self._age), "prediction", "acme", "key", "pair", request),
            *(NOW - self._age, NOW + 60, int(NOW) + KEPT_S, "request"),
            due_at=NOW,
        )
        self.store.add(replace(made, **changes))
        return made.job_id

    def ended(self, outcome: Outcome, **changes: Any) -> str:
        job_id = self.add(**changes)
        self.store.claim(job_id, "one", NOW, LEASE_S)
        assert self.store.finish(job_id, outcome, NOW, owner="one")
        return job_id


@pytest.fixture
def world() -> World:
    return World()


def caller(*scopes: str, tenant: str = "acme") -> Principal:
    return Principal(tenant, "k1", frozenset(scopes), "demo")


ANY = caller("predict")
CALLS: dict[str, Callable[[ManageJobs, Principal, str], object]] = {
    "get": lambda jobs, who, job_id: jobs.get(who, job_id),
    "cancel": lambda jobs, who, job_id: jobs.cancel(who, job_id),
    "result": lambda jobs, who, job_id: jobs.result(who, job_id),
    "retry": lambda jobs, who, job_id: jobs.retry(who, job_id),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("known", [True, False])
def test_a_job_of_another_tenant_does_not_exist(world: World, call: Any, known: bool) -> None:
    job_id = world.add() if known else new_job_id()
    before = dict(world.store.jobs)
    with pytest.raises(JobNotFound, match="no such job"):
        call(world.jobs, caller("predict", "jobs", tenant="rival"), job_id)
    assert (world.store.jobs, world.queue.sent) == (before, [])


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("scopes", [(), ("admin", "ingest"), ("predict:other",), ("webhooks", "predict:pai")])
def test_a_job_asks_for_a_scope(world: World, call: Any, scopes: tuple[str, ...]) -> None:
    job_id = world.add()
    before = dict(world.store.jobs)
    with pytest.raises(InsufficientScope):
        call(world.jobs, caller(*scopes), job_id)
    assert (world.store.jobs, world.queue.sent) == (before, [])


def test_without_any_scope_for_jobs_nobody_is_told_which_there_are(world: World) -> None:
    with pytest.raises(InsufficientScope):
        world.jobs.get(caller("admin"), new_job_id())
    with pytest.raises(InsufficientScope):
        world.jobs.list(caller("admin"), JobFilter(), limit=1)


@pytest.mark.parametrize("scope", ["predict", "jobs", "predict:pair"])
def test_each_of_the_scopes_will_do(world: World, scope: str) -> None:
    job_id = world.add()
    assert world.jobs.get(caller(scope), job_id).job_id == job_id
    assert world.jobs.cancel(caller(scope), job_id).state == "cancelled"
    assert world.jobs.retry(caller(scope), job_id).state == "queued"
    assert len(world.jobs.list(caller(scope), JobFilter(), limit=1).jobs) == 1


def test_a_list_shows_the_models_of_the_scopes(world: World) -> None:
    models = ["pair", "other", "third", "pair", "other", "fourth"] * 5
    ids = [world.add(model=model) for model in models]

    def seen(who: Principal, limit: int = 100, **which: Any) -> list[str]:
        found: list[str] = []
        cursor: str | None = "f" * 32
        while cursor is not None:
            page = world.jobs.list(who, JobFilter(**which), limit=limit, after=cursor)
            assert len(page.jobs) <= limit
            found += [job.job_id for job in page.jobs]
            cursor = page.cursor
        return found

    def of(*names: str) -> list[str]:
        return [job_id for job_id, model in zip(ids, models, strict=True) if model in names]

    for limit in (100, 7, 1):
        assert seen(ANY, limit) == ids
        assert seen(caller("predict:pair"), limit) == of("pair")
        assert seen(caller("predict:pair", "predict:third", "ingest"), limit) == of("pair", "third")
        assert seen(caller("predict:none", "predict:nothing"), limit) == []
        assert seen(caller("predict:pair", "predict:other"), limit, model="other") == of("other")
        assert seen(caller("predict:pair", "jobs"), limit, model="fourth") == of("fourth")
    with pytest.raises(InsufficientScope):
        seen(caller("predict:pair", "predict:other"), model="third")


@pytest.mark.parametrize("claimed", [False, True])
def test_a_job_is_cancelled_at_once_and_again(world: World, claimed: bool) -> None:
    job_id = world.add()
    if claimed:
        world.store.claim(job_id, "one", NOW, LEASE_S)
    for _ in range(2):
        cancelled = world.jobs.cancel(ANY, job_id)
        assert (cancelled.state, cancelled.finished_at) == ("cancelled", NOW)
        assert cancelled == world.store.jobs[job_id]
    assert not world.store.finish(job_id, DONE, NOW, owner="one")
    assert world.store.claim(job_id, "two", NOW, LEASE_S).outcome == "finished"


@pytest.mark.parametrize(("outcome", "refused"), [(DONE, True), (FAILED, True), (Outcome("cancelled"), False)])
def test_a_job_that_ends_meanwhile_keeps_its_end(world: World, outcome: Outcome, refused: bool) -> None:
    job_id = world.add()
    world.store.claim(job_id, "one", NOW, LEASE_S)
    ended: list[bool] = []
    world.store.before = lambda: ended.append(world.store.finish(job_id, outcome, NOW - 1))
    if refused:
        with pytest.raises(JobFinished, match=outcome.state):
            world.jobs.cancel(ANY, job_id)
    else:
        assert world.jobs.cancel(ANY, job_id).finished_at == NOW - 1
    assert (ended, world.store.jobs[job_id].state) == ([True], outcome.state)


@pytest.mark.parametrize("outcome", [DONE, FAILED])
def test_a_job_that_has_ended_cannot_be_cancelled(world: World, outcome: Outcome) -> None:
    job_id = world.ended(outcome)
    with pytest.raises(JobFinished):
        world.jobs.cancel(ANY, job_id)


@pytest.mark.parametrize("state", ["queued", "running", "failed", "cancelled"])
def test_only_a_job_that_succeeded_has_a_result(world: World, state: JobState) -> None:
    job_id = world.add(state=state)
    with pytest.raises(NoResult, match=state):
        world.jobs.result(ANY, job_id)


def test_a_small_result_is_in_the_job_and_a_large_one_at_an_address(world: World) -> None:
    small = world.jobs.result(ANY, world.ended(DONE))
    assert (small.result, small.url) == (DONE.result, None)
    ref = ObjectRef("data", "batch/out/acme/pair/j/rows.csv", "v1")
    stored = JobResult("text/csv", 5_000_000, stored=ref)
    large = world.jobs.result(ANY, world.ended(Outcome("succeeded", result=stored), kind="batch"))
    assert large.url == "https://data.example/batch/out/acme/pair/j/rows.csv?expires=900&name=rows.csv"
    one = world.jobs.result(ANY, world.ended(Outcome("succeeded", result=stored)))
    assert one.url is not None
    assert one.url.endswith(f"name=pair-{one.job.job_id}")


@pytest.mark.parametrize("outcome", [FAILED, Outcome("cancelled")])
@pytest.mark.parametrize("kind", ["prediction", "batch"])
def test_a_job_is_run_again(world: World, outcome: Outcome, kind: str) -> None:
    job_id = world.ended(outcome, kind=kind)
    job = world.jobs.retry(ANY, job_id)
    assert (job.state, job.attempts, job.problem) == ("queued", 0, None)
    assert [woken.job_id for woken in world.woken] == ([job_id] if kind == "batch" else [])
    assert world.queue.sent == ([("acme", job_id, 0.0)] if kind == "prediction" else [])
    with pytest.raises(Conflict):
        world.jobs.retry(ANY, job_id)


def test_a_job_that_runs_or_has_succeeded_is_not_run_again(world: World) -> None:
    job_id = world.add()
    world.store.claim(job_id, "one", NOW, LEASE_S)
    for other in (job_id, world.ended(DONE), world.add()):
        with pytest.raises(Conflict):
            world.jobs.retry(ANY, other)
    assert world.queue.sent == []


def test_a_message_that_cannot_be_sent_is_left_to_the_sweep(world: World) -> None:
    job_id = world.ended(FAILED)
    world.queue.error = BackendUnavailable("SQS is away.")
    job = world.jobs.retry(ANY, job_id)
    assert job.state == "queued"
    assert job.due_at is not None
    assert [[each.job_id for each in page] for page in world.store.overdue(job.due_at)] == [[job_id]]


def test_a_store_that_is_away_is_told(world: World) -> None:
    job_id = world.add()
    world.store.error = BackendUnavailable("The table is away.")
    for call in CALLS.values():
        with pytest.raises(BackendUnavailable):
            call(world.jobs, ANY, job_id)
