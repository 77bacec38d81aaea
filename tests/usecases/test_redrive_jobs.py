"""Dead letters that are driven again."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from shared.domain.dead_letters import DeadLetter
from shared.domain.errors import BackendUnavailable
from shared.domain.jobs import KEPT_S, Job, JobProblem, JobRequest, JobState, new_job_id
from shared.usecases.redrive_jobs import RedriveJobs
from tests.fakes import MemoryJobs

NOW = 1_800_000_000.0


class Letters:
    """A `DeadLetterQueue`; `held` are those that somebody looks at."""

    def __init__(self, *letters: DeadLetter) -> None:
        self.letters = list(letters)
        self.held: list[DeadLetter] = []
        self.most = 2

    def receive(self, limit: int) -> Sequence[DeadLetter]:
        found = [letter for letter in self.letters if letter not in self.held][: min(limit, self.most)]
        self.held += found
        return found

    def remove(self, letter: DeadLetter) -> None:
        self.letters.remove(letter)
        self.held.remove(letter)

    def release(self, letter: DeadLetter) -> None:
        self.held.remove(letter)


def job(state: JobState, tenant: str = "acme", **more: Any) -> Job:
    made = Job(
        job_id=new_job_id(NOW),
        kind="prediction",
        tenant=tenant,
        key_id="k",
        model="tumor",
        request=JobRequest(None, {}, b"{}"),
        created_at=NOW,
        start_by=NOW + 60,
        expires_at=int(NOW) + KEPT_S,
        request_id="r",
        state=state,
        attempts=5,
        problem=JobProblem("backend_error", "Backend failed", "It failed."),
    )
    return replace(made, **more)


def letter(job_id: str | None, handle: str = "h", reason: str | None = "backend_error") -> DeadLetter:
    return DeadLetter(f"{handle}-{job_id}", "{}", job_id, NOW, reason)


@pytest.fixture
def store() -> MemoryJobs:
    return MemoryJobs(now=lambda: NOW)


def redrive(letters: Letters, store: MemoryJobs, woken: list[Job]) -> RedriveJobs:
    return RedriveJobs(letters, store, woken.append, now=lambda: NOW)


def test_each_letter_has_what_its_job_needs(store: MemoryJobs) -> None:
    states: tuple[JobState, ...] = ("failed", "queued", "running", "succeeded", "cancelled")
    jobs = [job(state) for state in states]
    for each in jobs:
        store.add(each)
    letters = Letters(*(letter(each.job_id) for each in jobs), letter("f" * 32), letter(None))
    woken: list[Job] = []
    found = list(redrive(letters, store, woken)(100))
    assert [each.outcome for each in found] == [
        "queued", "sent again", "sent again", "nothing to do", "nothing to do", "gone", "unreadable",
    ]  # fmt: skip
    assert [each.tenant for each in found] == ["acme"] * 5 + [None, None]
    assert [each.job_id for each in woken] == [each.job_id for each in jobs[:3]]
    queued = store.jobs[jobs[0].job_id]
    assert (queued.state, queued.attempts, queued.problem) == ("queued", 0, None)
    # What cannot be read stays, for whoever put it there, and can be seen by others.
    assert [each.job_id for each in letters.letters] == [None]
    assert letters.held == []


def test_a_dry_run_changes_nothing(store: MemoryJobs) -> None:
    failed = job("failed")
    store.add(failed)
    letters, woken = Letters(letter(failed.job_id), letter("f" * 32)), list[Job]()
    found = list(redrive(letters, store, woken)(100, dry_run=True))
    assert [each.outcome for each in found] == ["queued", "gone"]
    assert (len(letters.letters), letters.held, woken, store.jobs[failed.job_id]) == (2, [], [], failed)


def test_no_more_are_touched_than_were_asked_for(store: MemoryJobs) -> None:
    jobs = [job("failed") for _ in range(5)]
    for each in jobs:
        store.add(each)
    letters = Letters(*(letter(each.job_id) for each in jobs))
    assert len(list(redrive(letters, store, [])(3))) == 3
    assert (len(letters.letters), letters.held) == (2, [])


def test_a_letter_stays_until_its_job_has_a_message(store: MemoryJobs) -> None:
    failed = job("failed")
    store.add(failed)
    letters = Letters(letter(failed.job_id))

    def away(_: Job) -> None:
        raise BackendUnavailable("The queue is away.")

    with pytest.raises(BackendUnavailable):
        list(RedriveJobs(letters, store, away, now=lambda: NOW)(10))
    assert (len(letters.letters), letters.held) == (1, [])
    woken: list[Job] = []
    assert [each.outcome for each in redrive(letters, store, woken)(10)] == ["sent again"]
    assert ([each.job_id for each in woken], letters.letters) == ([failed.job_id], [])


def test_two_letters_of_a_job_and_somebody_who_is_quicker(store: MemoryJobs) -> None:
    failed = job("failed")
    store.add(failed)
    letters = Letters(letter(failed.job_id, "a"), letter(failed.job_id, "b"))

    def quicker() -> None:
        store.restart("acme", failed.job_id, NOW)

    store.before = quicker
    assert [each.outcome for each in redrive(letters, store, [])(10)] == ["sent again", "sent again"]
    assert letters.letters == []
