"""Webhooks: who wants to be told of finished jobs and batches, and what was sent to them.

    pending ──2xx──▶ delivered
       │ ▲  └──410, or the webhook is gone or off──▶ failed
       └─┘ any other answer, by the schedule ──────▶ dead (after the last attempt: in the dead-letter queue)

A delivery is found by its webhook and its event, so an event that is told twice makes one of them. Before each attempt
the delivery is claimed with one conditional write: of two messages for it, or two senders, one sends.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Literal

from shared.domain.jobs import JobKind

DeliveryState = Literal["pending", "delivered", "failed", "dead"]

JOB_EVENTS: Final = ("job.succeeded", "job.failed", "job.cancelled")
BATCH_EVENTS: Final = ("batch.succeeded", "batch.failed", "batch.cancelled")
EVENT_TYPES: Final = (*JOB_EVENTS, *BATCH_EVENTS)
"""What webhooks can ask for."""
TEST_EVENT: Final = "webhook.test"

WEBHOOK_ID: Final = r"wh_[0-9a-f]{24}"
# Goes into the signed text, where full stops separate: it has none. Source: Standard Webhooks 1.0, "Signature scheme".
DELIVERY_ID: Final = r"msg_[0-9a-f]{32}"

MAX_WEBHOOKS: Final = 10
MAX_DESCRIPTION: Final = 200
MAX_URL: Final = 2048
# Deliveries, and so the log of what was sent, are kept for so long.
KEPT_S: Final = 30 * 86_400
# A rotated secret signs too for so long, so that receivers have time to change.
OVERLAP_S: Final = 86_400
MAX_OVERLAP_S: Final = 7 * 86_400
MAX_PAGE: Final = 100
# Who holds an attempt for longer is taken for dead, and the attempt for lost.
CLAIM_S: Final = 60.0
# A delivery counts as due so much earlier: the clocks of two machines differ.
CLOCK_SKEW_S: Final = 1.0
# Attempts that a delivery's log keeps: those of the last two rounds.
MAX_LOGGED: Final = 20
# How much of what a receiver said is kept in the log, in characters.
MAX_SAID: Final = 200

# Seconds between the attempts: ten of them in a day. None is longer than a message of SQS can be hidden (12 hours).
SCHEDULE_S: Final = (5.0, 55.0, 240.0, 900.0, 2400.0, 7200.0, 14_400.0, 25_200.0, 36_000.0)
MAX_ATTEMPTS: Final = len(SCHEDULE_S) + 1
JITTER: Final = 0.1
MAX_PAUSE_S: Final = 11 * 3600.0
# Ten attempts end within the four days that a queue keeps a message: else it would be gone without a dead letter.
MAX_ASKED_S: Final = 10 * 3600.0


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver of a tenant. Its secrets are apart (`SigningSecrets`). Times are in seconds since 1970.

    `events` has the types that it wants, in the order of `EVENT_TYPES`. `disabled_reason` says why it is off: `paused`
    (by its tenant) or `gone` (it answered 410); None while it is on. `previous_until` is until when the secret before
    the last rotation signs too.
    """

    webhook_id: str
    tenant: str
    url: str
    events: tuple[str, ...]
    created_at: float
    description: str = ""
    disabled_reason: Literal["paused", "gone"] | None = None
    rotated_at: float | None = None
    previous_until: float | None = None

    @property
    def enabled(self) -> bool:
        """Whether events are sent to it."""
        return self.disabled_reason is None


@dataclass(frozen=True, slots=True)
class SigningSecrets:
    """What a webhook's requests are signed with; `previous` counts until `previous_until`."""

    current: bytes = field(repr=False)
    previous: bytes | None = field(default=None, repr=False)
    previous_until: float | None = None

    def at(self, now: float) -> tuple[bytes, ...]:
        """The secrets that sign at a time, the current one first."""
        if self.previous is None or self.previous_until is None or now >= self.previous_until:
            return (self.current,)
        return (self.current, self.previous)


@dataclass(frozen=True, slots=True)
class WebhookChange:
    """What of a webhook is to change; None leaves it."""

    url: str | None = None
    events: tuple[str, ...] | None = None
    description: str | None = None
    enabled: bool | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request to a receiver: when, what it answered (`status`), or why it did not (`error`), and in how many ms.

    `said` is the beginning of the answer's text where it was none of 2xx.
    """

    at: float
    status: int | None = None
    error: str | None = None
    ms: int | None = None
    said: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event for a webhook. Times are in seconds since 1970.

    `payload` is the body of every attempt. `tries` counts the attempts of this round, a redelivery begins another one.
    `next_at` is when the next attempt is due, None once there is none. `reason` says why no more is tried (`failed`,
    `dead`). `claim` is the token of who is sending it.
    """

    delivery_id: str
    webhook_id: str
    tenant: str
    event: str
    payload: bytes
    created_at: float
    expires_at: int
    job_id: str | None = None
    state: DeliveryState = "pending"
    tries: int = 0
    next_at: float | None = None
    reason: str | None = None
    attempts: tuple[Attempt, ...] = ()
    claim: str | None = None


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """Deliveries of a webhook, the newest first; `cursor` is the id to go on after, None at the end."""

    deliveries: Sequence[Delivery]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """A job or batch that has ended, as its events tell it: no inputs, no predictions."""

    job_id: str
    kind: JobKind
    tenant: str
    model: str
    state: Literal["succeeded", "failed", "cancelled"]
    created_at: float
    finished_at: float
    started_at: float | None = None
    version: int | None = None
    variant: str | None = None
    backend: str | None = None
    rows_total: int | None = None
    rows_done: int = 0
    code: str | None = None

    @property
    def event(self) -> str:
        """Its event type."""
        return f"{'batch' if self.kind == 'batch' else 'job'}.{self.state}"


def new_webhook_id(now: float) -> str:
    """Later ids sort after earlier ones."""
    return f"wh_{_sortable(now)}{secrets.token_hex(6)}"


def delivery_id_of(job: FinishedJob) -> str:
    """The id of a finished job's event: the same for whoever tells of it, another one if the job is run once more."""
    known = f"{job.job_id}\0{job.state}\0{round(job.finished_at * 1000)}".encode()
    return f"msg_{_sortable(job.finished_at)}{sha256(known).hexdigest()[:20]}"


def new_delivery_id(now: float) -> str:
    """The id of an event that belongs to no job."""
    return f"msg_{_sortable(now)}{secrets.token_hex(10)}"


def attempts_of(event: str) -> int:
    """How often an event is tried: a test once, since somebody waits for what it shows."""
    return 1 if event == TEST_EVENT else MAX_ATTEMPTS


def pause_s(tries: int, spread: float, retry_after_s: float | None = None) -> float:
    """Seconds to the next attempt after `tries` of them; `spread`, 0 to 1, places it within the jitter of ±10 %.

    A receiver that asks for a longer pause gets it, up to 10 hours.
    """
    planned = SCHEDULE_S[min(tries, len(SCHEDULE_S)) - 1] * (1 + JITTER * (2 * spread - 1))
    return min(MAX_PAUSE_S, max(planned, min(MAX_ASKED_S, retry_after_s or 0.0)))


def _sortable(now: float) -> str:
    return f"{int(now * 1000) & (1 << 48) - 1:012x}"
