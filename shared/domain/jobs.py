"""Work that is answered later: one prediction, or a batch of many rows.

    queued ──claim──▶ running ──finish──▶ succeeded | failed | cancelled
       ▲                 │
       └────requeue──────┘

Whoever runs a job holds it by `owner` until `lease_until` and renews that; what comes of it is written once, on the
condition that the job is still theirs. So a message that comes twice, two workers, or a killed one give one result.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from shared.domain.errors import FieldError, SluiceError

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
JobKind = Literal["prediction", "batch"]
Ticket = Mapping[str, str]
"""What an asynchronous backend needs to find an answer; no two invocations have the same."""
STATES: Final[tuple[JobState, ...]] = get_args(JobState)
FINISHED: Final[frozenset[JobState]] = frozenset({"succeeded", "failed", "cancelled"})

JOB_ID: Final = r"[0-9a-f]{32}"
# What comes of a job is kept for so long after it was taken on; the life cycle of its objects is a day longer.
KEPT_S: Final = 7 * 86_400
# A job that has not begun by then fails: nobody waits for it any more.
START_WITHIN_S: Final = 86_400
MAX_ATTEMPTS: Final = 5
# A worker renews its hold well before this; a killed one's jobs are free again after it.
LEASE_S: Final = 30.0
# A queued job that no message stands for is looked for after so long.
OVERDUE_S: Final = 60.0
# Bodies and results up to these sizes are kept in the job's item, which may have 400 KB with all else.
MAX_INLINE_BODY: Final = 64 * 1024
MAX_INLINE_RESULT: Final = 128 * 1024
# The largest body of a job for one prediction; what is larger is a batch.
MAX_BODY: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """An object in S3, one version of it where its bucket keeps versions."""

    bucket: str
    key: str
    version_id: str | None = None

    @property
    def uri(self) -> str:
        """`s3://bucket/key`."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What was asked: the headers that give the body its meaning (names in lower case), and the body itself.

    The body is in `inline`, or the object `source`. `version` is a version, a label, or None.
    """

    version: int | str | None
    headers: Mapping[str, str]
    inline: bytes | None = None
    source: ObjectRef | None = None


@dataclass(frozen=True, slots=True)
class JobResult:
    """An answer as a synchronous request would have got it: in `inline`, or an object; `size` is in bytes."""

    media_type: str
    size: int
    headers: tuple[tuple[str, str], ...] = ()
    inline: bytes | None = None
    stored: ObjectRef | None = None


@dataclass(frozen=True, slots=True)
class JobProblem:
    """Why a job failed, as its problem document says it."""

    code: str
    title: str
    detail: str
    fields: tuple[FieldError, ...] = ()

    @classmethod
    def of(cls, error: SluiceError) -> "JobProblem":
        """The problem of an error."""
        return cls(error.code, error.title, error.detail, tuple(error.fields))


@dataclass(frozen=True, slots=True)
class Job:
    """A job of a tenant. Times are in seconds since 1970.

    `rows_total` is None until it is known, and for a model without an axis of instances. `version`, `variant` and
    `backend` say what runs it, once that is chosen. `ticket` is what an asynchronous backend needs to find its answer:
    a job with one is running there and held by nobody here. `due_at` is when the sweep looks at it next, None once it
    has ended. `attempts` counts the claims. `problem` is the last one: of a queued job, why it is tried again.
    `batch` has what only a batch knows (`shared.domain.batches`), as JSON.
    """

    job_id: str
    kind: JobKind
    tenant: str
    key_id: str
    model: str
    request: JobRequest
    created_at: float
    start_by: float
    expires_at: int
    request_id: str
    traceparent: str | None = None
    state: JobState = "queued"
    attempts: int = 0
    owner: str | None = None
    lease_until: float | None = None
    due_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    version: int | None = None
    variant: str | None = None
    backend: str | None = None
    rows_total: int | None = None
    rows_done: int = 0
    ticket: Ticket | None = None
    result: JobResult | None = None
    problem: JobProblem | None = None
    cost_nusd: int | None = None
    batch: bytes | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in FINISHED

    @property
    def waits_since(self) -> float:
        """When it was taken on, or queued anew after it had ended."""
        return self.start_by - START_WITHIN_S


@dataclass(frozen=True, slots=True)
class JobSummary:
    """A job as lists show it."""

    job_id: str
    kind: JobKind
    model: str
    state: JobState
    created_at: float
    finished_at: float | None = None
    rows_total: int | None = None
    rows_done: int = 0
    code: str | None = None


@dataclass(frozen=True, slots=True)
class JobPage:
    """Jobs of a tenant, the newest first; `cursor` is the id to go on after, None at the end."""

    jobs: Sequence[JobSummary]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs a list shows; empty shows all. `since` and `until` are in seconds since 1970."""

    states: frozenset[JobState] = frozenset()
    kind: JobKind | None = None
    model: str | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """What became of the wish to run a job.

    `claimed`: it is the caller's now. `taken`: another holds it. `finished`: nothing is left to do. `waiting`: it has a
    ticket, and its answer is to be looked for. `job` is as it is now, None where there is no such job.
    """

    outcome: Literal["claimed", "taken", "finished", "waiting"]
    job: Job | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a job for good; `succeeded` has a result, `failed` a problem."""

    state: Literal["succeeded", "failed", "cancelled"]
    result: JobResult | None = None
    problem: JobProblem | None = None
    rows_total: int | None = None
    rows_done: int = 0
    version: int | None = None
    variant: str | None = None
    backend: str | None = None
    cost_nusd: int | None = None
    batch: bytes | None = field(default=None)


def new_job_id(now: float | None = None) -> str:
    """32 hexadecimal digits that nobody guesses; they sort by time (as UUIDs of version 7, RFC 9562)."""
    ms = int((time.time() if now is None else now) * 1000)
    return f"{ms & (1 << 48) - 1:012x}{secrets.token_hex(10)}"


def backoff_s(attempts: int, most_s: float = 900.0) -> float:
    """How long a job waits after that many attempts: 5 s, then twice as long each time, SQS's longest delay at most."""
    return float(min(most_s, 5.0 * 2 ** max(0, attempts - 1)))
