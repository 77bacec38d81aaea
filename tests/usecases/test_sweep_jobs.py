"""What the sweep makes of jobs that nobody seems to look after."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any

import pytest

from shared.domain.errors import BackendUnavailable
from shared.domain.jobs import (
    KEPT_S,
    LEASE_S,
    MAX_ATTEMPTS,
    OVERDUE_S,
    START_WITHIN_S,
    Job,
    JobRequest,
    Outcome,
    new_job_id,
)
from shared.usecases.sweep_jobs import SweepJobs
from tests.fakes import MemoryDeadLetters, MemoryJobQueue, MemoryJobs

NOW = 1_763_700_000.0


class World:
    """Stores and queues in memory, at a time that tests set."""

    def __init__(self, at_once: int = 8) -> None:
        self.now = NOW
        self.store = MemoryJobs(lambda: self.now)
        self.queue = MemoryJobQueue()
        self.dead_letters, self.batch_letters = MemoryDeadLetters(), MemoryDeadLetters()
        self.batches: list[str] = []
        self.sweep = SweepJobs(
            self.store,
            self.queue,
            {"prediction": self.dead_letters, "batch": self.batch_letters},
            lambda job: self.batches.append(job.job_id),
            lambda: self.now,
            at_once,
        )

    def add(self, **changes: Any) -> str:
        made = Job(
            job_id=new_job_id(self.now),
            kind="prediction",
            tenant="acme",
            key_id="key",
            model="pair",
            request=JobRequest(None, {}, inline=b"{}"),
            created_at=self.now,
            start_by=self.now + START_WITHIN_S,
            expires_at=int(self.now) + KEPT_S,
            request_id="request",
            due_at=self.now + OVERDUE_S,
        )
        self.store.add(replace(made, **changes))
        return made.job_id

    def held(self, attempts: int = 1, **changes: Any) -> str:
        """A job that a worker took, and that others took before it."""
        job_id = self.add(attempts=attempts - 1, **changes)
        self.store.claim(job_id, "one", self.now, LEASE_S)
        return job_id

    def job(self, job_id: str) -> Job:
        return self.store.jobs[job_id]

    def due(self, job_id: str) -> float:
        due_at = self.job(job_id).due_at
        assert due_at is not None
        return due_at

    def sent(self) -> list[str]:
        found = [job_id for _, job_id, _ in self.queue.sent]
        self.queue.sent.clear()
        return found


@pytest.fixture
def world() -> World:
    return World()


def counts(world: World, seconds: float = 45.0) -> dict[str, int]:
    """What a sweep did, without the zeros; it was complete."""
    done = world.sweep(seconds)
    assert done.complete
    names = ("jobs", "sent", "waiting", "held", "requeued", "crashed", "expired", "overtaken")
    return {name: getattr(done, name) for name in names if getattr(done, name)}


def test_nothing_is_done_while_nothing_is_overdue(world: World) -> None:
    world.add()
    world.held()
    world.now += OVERDUE_S - 1
    assert counts(world) == {}
    assert world.sent() == []


def test_a_job_without_a_message_gets_one(world: World) -> None:
    job_id = world.add()
    world.now += OVERDUE_S
    assert counts(world) == {"jobs": 1, "sent": 1}
    assert world.sent() == [job_id]
    assert counts(world) == {}  # not again at once
    assert world.job(job_id).state == "queued"


def test_in_an_empty_queue_a_lost_message_is_sent_again_at_each_sweep(world: World) -> None:
    job_id = world.add()
    for minute in range(2, 60):
        world.now = NOW + minute * 60 + 0.5  # a sweep does not begin at the very second
        assert counts(world) == {"jobs": 1, "sent": 1}
        assert world.sent() == [job_id]


@pytest.mark.parametrize("waiting", [0, 10])
def test_a_job_whose_every_message_is_lost_is_sent_less_and_less(world: World, waiting: int) -> None:
    job_id = world.add()
    world.queue.backlog = waiting
    while world.job(job_id).state == "queued":
        world.now = world.due(job_id)
        counts(world)
    assert NOW + START_WITHIN_S <= world.now < NOW + START_WITHIN_S + 900
    assert len(world.sent()) < 350


def test_where_many_wait_a_job_is_asked_about_once_they_may_be_done(world: World) -> None:
    job_id = world.add()
    looks = {}
    for world.queue.backlog in (11, 2000, 50_000, 1_000_000):
        world.now = world.due(job_id)
        assert counts(world) == {"jobs": 1, "waiting": 1}
        looks[world.queue.backlog] = world.due(job_id) - world.now
        world.store.jobs[job_id] = replace(world.job(job_id), due_at=world.now + 1)
    # A million jobs are looked at 3,000 a minute.
    assert looks == {11: 45, 2000: 45, 50_000: 1000, 1_000_000: 20_000}
    assert world.sent() == []


def test_a_long_queue_is_not_made_longer(world: World) -> None:
    job_id = world.add()
    world.queue.backlog = 5000
    sent: list[float] = []
    looks = 0
    while world.job(job_id).state == "queued":
        world.now = world.due(job_id)
        counts(world)
        looks += 1
        sent += [world.now - NOW] * len(world.sent())
    assert looks < 50
    # After an hour a message is taken for lost, and then each time that the job has waited for twice as long.
    assert 3600 <= sent[0] < 3800
    assert all(later >= 2 * sooner for sooner, later in pairwise(sent))
    assert len(sent) == 5


def test_a_job_that_was_queued_anew_has_not_waited_since_it_was_taken_on(world: World) -> None:
    job_id = world.add()
    world.store.finish(job_id, Outcome("cancelled"), NOW)
    world.now = NOW + 3 * 86_400
    world.store.restart("acme", job_id, world.now)
    world.queue.backlog = 100
    world.now = world.due(job_id)
    assert counts(world) == {"jobs": 1, "waiting": 1}
    assert world.due(job_id) == world.now + 45


def test_once_a_long_queue_is_empty_what_is_left_is_sent(world: World) -> None:
    job_id = world.add()
    world.queue.backlog = 2000
    world.now += 600
    assert counts(world) == {"jobs": 1, "waiting": 1}
    world.queue.backlog = 0
    world.now += 60
    assert counts(world) == {"jobs": 1, "sent": 1}
    assert world.sent() == [job_id]


def test_a_killed_worker_s_job_is_queued_again(world: World) -> None:
    job_id = world.held()
    world.now = world.due(job_id)
    assert counts(world) == {"jobs": 1, "requeued": 1}
    job = world.job(job_id)
    assert (job.state, job.owner, job.attempts) == ("queued", None, 1)
    assert job.problem is not None
    assert job.problem.code == "job_crashed"
    assert world.sent() == [job_id]
    assert not world.dead_letters.sent


def test_a_job_that_is_run_is_left_alone(world: World) -> None:
    job_id = world.held()
    before = world.job(job_id)
    world.now = world.due(job_id)
    assert world.store.renew(job_id, "one", world.now + LEASE_S, 3)
    assert counts(world) == {"jobs": 1, "held": 1}
    after = world.job(job_id)
    assert after == replace(before, lease_until=world.now + LEASE_S, rows_done=3, due_at=after.due_at)
    assert world.due(job_id) >= world.now + LEASE_S
    assert world.sent() == []


def test_a_job_whose_workers_end_in_the_middle_fails_in_the_end(world: World) -> None:
    job_id = world.held(MAX_ATTEMPTS)
    world.now = world.due(job_id)
    assert counts(world) == {"jobs": 1, "crashed": 1}
    job = world.job(job_id)
    assert (job.state, job.problem and job.problem.code) == ("failed", "job_crashed")
    ((dead, problem),) = world.dead_letters.sent
    assert (dead.job_id, problem.code) == (job_id, "job_crashed")
    assert world.sent() == []
    world.now += 10_000
    assert counts(world) == {}


def test_a_job_that_nobody_began_in_time_fails(world: World) -> None:
    job_id = world.add()
    world.queue.backlog = 10
    while world.job(job_id).state == "queued":
        world.now = world.due(job_id)
        counts(world)
    assert NOW + START_WITHIN_S <= world.now < NOW + START_WITHIN_S + 1000
    job = world.job(job_id)
    assert (job.state, job.problem and job.problem.code) == ("failed", "job_expired")
    assert len(world.dead_letters.sent) == 1


def test_a_job_that_was_begun_has_more_time(world: World) -> None:
    job_id = world.add(attempts=1, due_at=NOW + START_WITHIN_S + 5)
    world.now = NOW + START_WITHIN_S + 5
    assert counts(world) == {"jobs": 1, "sent": 1}
    assert world.job(job_id).state == "queued"


@pytest.mark.parametrize("changes", [{"attempts": 1}, {"state": "running", "ticket": {"a": "b"}, "attempts": 1}])
def test_no_job_goes_without_an_end(world: World, changes: dict[str, Any]) -> None:
    job_id = world.add(**changes)
    world.queue.backlog = 10
    while not world.job(job_id).finished:
        world.now = world.due(job_id)
        assert world.now < world.job(job_id).expires_at
        counts(world)
    assert world.job(job_id).state == "failed"


def test_an_answer_that_nobody_told_of_is_looked_for(world: World) -> None:
    job_id = world.held()
    assert world.store.hand_over(job_id, "one", {"id": "1"}, Outcome("succeeded"), world.now + 300)
    world.queue.backlog = 10
    world.now += 300
    assert counts(world) == {"jobs": 1, "sent": 1}
    assert world.sent() == [job_id]
    assert world.job(job_id).ticket == {"id": "1"}


def test_a_batch_is_gone_on_with(world: World) -> None:
    begun = world.add(kind="batch", state="running", attempts=1)
    queued = world.add(kind="batch")
    world.now += OVERDUE_S
    assert counts(world) == {"jobs": 2, "sent": 2}
    assert sorted(world.batches) == sorted([begun, queued])
    assert world.sent() == []


def test_a_batch_that_nobody_began_in_time_fails(world: World) -> None:
    job_id = world.add(kind="batch", start_by=NOW + 90)
    world.now += 100
    assert counts(world) == {"jobs": 1, "expired": 1}
    ((dead, problem),) = world.batch_letters.sent
    assert (dead.job_id, problem.code, world.job(job_id).state) == (job_id, "job_expired", "failed")
    assert (world.batches, world.dead_letters.sent) == ([], [])


def test_a_job_that_changes_meanwhile_is_left_to_who_changed_it(world: World) -> None:
    job_id = world.add()
    world.now += OVERDUE_S

    def claim() -> None:
        world.store.claim(job_id, "one", world.now, LEASE_S)

    world.store.before = claim
    assert counts(world) == {"jobs": 1, "overtaken": 1}
    assert (world.sent(), world.job(job_id).owner) == ([], "one")


def test_of_two_sweeps_at_once_one_sends(world: World) -> None:
    job_id = world.add()
    world.now += OVERDUE_S
    done: list[dict[str, int]] = []
    world.store.before = lambda: done.append(counts(world))
    assert counts(world) == {"jobs": 1, "overtaken": 1}
    assert done == [{"jobs": 1, "sent": 1}]
    assert world.sent() == [job_id]


class Before(MemoryJobs):
    """Does something before a call of one name."""

    name = ""
    act: Callable[[], object] = staticmethod(lambda: None)

    def requeue(self, *given: Any, **more: Any) -> bool:
        if self.name == "requeue":
            self.name = ""
            self.act()
        return super().requeue(*given, **more)

    def finish(self, *given: Any, **more: Any) -> bool:
        if self.name == "finish":
            self.name = ""
            self.act()
        return super().finish(*given, **more)


@pytest.mark.parametrize(("name", "attempts"), [("requeue", 1), ("finish", MAX_ATTEMPTS)])
def test_a_worker_is_quicker_than_the_sweep(world: World, name: str, attempts: int) -> None:
    job_id = world.held(attempts)
    world.store.__class__ = Before
    store: Any = world.store
    store.name, store.act = name, lambda: world.store.claim(job_id, "two", world.now, LEASE_S)
    world.now = world.due(job_id)
    done = counts(world)
    assert done.get("crashed", 0) + done.get("requeued", 0) == 0
    job = world.job(job_id)
    assert (job.state, job.owner) == ("running", "two")
    assert world.sent() == []


def test_a_sweep_looks_at_all_that_it_has_time_for(world: World) -> None:
    ids = {world.add() for _ in range(1234)}
    world.now += OVERDUE_S
    assert counts(world) == {"jobs": 1234, "sent": 1234}
    assert len(world.queue.sent) == 1234
    assert set(world.sent()) == ids
    assert counts(world) == {}


def test_what_waits_after_a_sweep_is_not_sent_again_by_the_next(world: World) -> None:
    for _ in range(20):
        world.add()
    world.now += OVERDUE_S
    assert counts(world) == {"jobs": 20, "sent": 20}
    world.now += OVERDUE_S
    assert counts(world) == {"jobs": 20, "waiting": 20}
    assert len(world.sent()) == 20


def test_a_page_without_anything_to_look_at_is_passed_over(world: World) -> None:
    """The index may show what has changed since."""
    job_id = world.add()
    world.now += OVERDUE_S
    overdue = world.store.overdue
    world.store.overdue = lambda now: chain([[], []], overdue(now), [[]])  # type: ignore[method-assign]
    assert counts(world) == {"jobs": 1, "sent": 1}
    assert world.sent() == [job_id]


def test_a_sweep_reads_no_page_for_ever(world: World) -> None:
    """Nor after its time, though there is nothing on them."""

    def endless(now: float) -> Iterator[Sequence[Job]]:
        while True:
            world.now += 1
            yield []

    world.store.overdue = endless  # type: ignore[method-assign]
    assert not world.sweep(45.0).complete


def test_a_store_that_goes_away_in_the_middle_cuts_the_sweep_short(world: World) -> None:
    for _ in range(150):
        world.add()
    world.now += OVERDUE_S

    def first_page(now: float) -> Iterator[Sequence[Job]]:
        yield next(MemoryJobs.overdue(world.store, now))
        raise BackendUnavailable("The table is away.")

    world.store.overdue = first_page  # type: ignore[method-assign]
    done = world.sweep(45.0)
    assert (done.sent, done.complete) == (100, False)


def test_a_sweep_ends_when_its_time_is_over() -> None:
    world = World(at_once=1)
    for _ in range(5):
        world.add()
    world.now += OVERDUE_S
    send = world.queue.send

    def slow(tenant: str, job_id: str, *, delay_s: float = 0.0) -> None:
        world.now += 1
        send(tenant, job_id, delay_s=delay_s)

    world.queue.send = slow  # type: ignore[method-assign]
    done = world.sweep(2.5)
    assert (done.sent, done.complete) == (3, False)
    world.queue.backlog = 0
    assert counts(world) == {"jobs": 2, "sent": 2}


def test_a_queue_that_is_away_ends_the_sweep_and_loses_nothing(world: World) -> None:
    ids = {world.add() for _ in range(3)}
    world.now += OVERDUE_S
    world.queue.error = BackendUnavailable("SQS is away.")
    assert not world.sweep(45.0).complete
    world.queue.error = None
    while ids:
        world.now += OVERDUE_S
        world.sweep(45.0)
        ids -= set(world.sent())


def test_a_store_that_is_away_is_told(world: World) -> None:
    world.store.error = BackendUnavailable("The table is away.")
    with pytest.raises(BackendUnavailable):
        world.sweep(45.0)


def test_a_dead_letter_that_cannot_be_sent_is_sent_the_next_time(world: World) -> None:
    job_id = world.held(MAX_ATTEMPTS)
    world.now = world.due(job_id)
    world.dead_letters.error = BackendUnavailable("SQS is away.")
    assert not world.sweep(45.0).complete
    assert world.job(job_id).state == "running"
    world.dead_letters.error = None
    world.now = world.due(job_id)
    assert counts(world) == {"jobs": 1, "crashed": 1}
    assert len(world.dead_letters.sent) == 1
