"""Dead letters are driven again: their jobs are queued anew, for the operator."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import time

from shared.domain.dead_letters import DeadLetter, Redriven, RedrivenLetter
from shared.domain.errors import Conflict, JobNotFound
from shared.domain.jobs import Job
from shared.domain.ports import DeadLetterQueue, JobStore


@dataclass(frozen=True, slots=True)
class RedriveJobs:
    """Works off a dead-letter queue; `wake` sends the message that has a job run.

    A letter is removed after its job has a message again: whoever is interrupted in between finds the letter once
    more, and another message of a job has no effect. Letters that cannot be read stay.
    """

    letters: DeadLetterQueue
    store: JobStore
    wake: Callable[[Job], None]
    now: Callable[[], float] = time

    def __call__(self, limit: int, *, dry_run: bool = False) -> Iterator[RedrivenLetter]:
        """What becomes, or with `dry_run` would become, of at most `limit` letters. Raises BackendError.

        All that were looked at and stay can be seen by others again at the end.
        """
        kept: list[DeadLetter] = []
        try:
            for letter in self._received(limit):
                job = self.store.find(letter.job_id) if letter.job_id else None
                outcome = _outlook(letter, job)
                kept.append(letter)
                if not dry_run and outcome != "unreadable":
                    outcome = self._redrive(job, outcome)
                    self.letters.remove(letter)
                    kept.pop()
                yield RedrivenLetter(letter, job.tenant if job else None, outcome)
        finally:
            for letter in kept:
                self.letters.release(letter)

    def _received(self, limit: int) -> Iterator[DeadLetter]:
        left = limit
        while left > 0 and (batch := self.letters.receive(left)):
            left -= len(batch)
            yield from batch

    def _redrive(self, job: Job | None, outlook: Redriven) -> Redriven:
        if job is None or outlook not in {"queued", "sent again"}:
            return outlook
        if outlook == "queued":
            try:
                job = self.store.restart(job.tenant, job.job_id, self.now())
            except JobNotFound:
                return "gone"
            except Conflict:  # somebody else was quicker; another message does no harm
                outlook = "sent again"
        self.wake(job)
        return outlook


def _outlook(letter: DeadLetter, job: Job | None) -> Redriven:
    if letter.job_id is None:
        return "unreadable"
    if job is None:
        return "gone"
    if job.state == "failed":
        return "queued"
    return "nothing to do" if job.finished else "sent again"
