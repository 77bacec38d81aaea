"""Messages of jobs that could not be done, and what becomes of them when they are driven again."""

from dataclasses import dataclass
from typing import Final, Literal

# A dead letter that is being looked at is nobody else's for so long.
HELD_S: Final = 120

Redriven = Literal["queued", "sent again", "nothing to do", "gone", "unreadable"]
"""`queued`: the job had failed, and is queued anew. `sent again`: it waits or runs, and has a message again.
`nothing to do`: it succeeded, or was cancelled. `gone`: there is no such job any more. `unreadable`: the message is
none of ours.
"""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message in a dead-letter queue; `handle` is what removes it.

    `job_id` is None for a message that is none of ours. `reason` is the code of the problem, `detail` its text; both
    are None for a message that SQS itself put aside, since it was received too often. Times are in seconds since 1970.
    """

    handle: str
    body: str
    job_id: str | None
    sent_at: float
    reason: str | None = None
    detail: str | None = None
    attempts: int | None = None


@dataclass(frozen=True, slots=True)
class RedrivenLetter:
    """What became of a dead letter; `tenant` is None where its job is not known."""

    letter: DeadLetter
    tenant: str | None
    outcome: Redriven
