"""What the stack says of its events: bucket notifications, rules, schedules and subscriptions, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from infra.local.events.expressions import Expression

TargetKind = Literal["function", "queue", "topic"]


@dataclass(frozen=True, slots=True)
class Target:
    """Who gets an event: the function, queue or topic `name` of the stack (a function's logical id).

    `dead_letter_queue` is the name of the queue for what cannot be handed over; `group_id` goes with messages to a
    FIFO queue.
    """

    kind: TargetKind
    name: str
    arn: str
    dead_letter_queue: str | None = None
    group_id: str | None = None


@dataclass(frozen=True, slots=True)
class RuleTarget:
    """A target of a rule: it gets `input` (JSON text), or what `input_path` selects of the event, or the event."""

    target: Target
    input: str | None = None
    input_path: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """One `AWS::Events::Rule` on the default bus, with a pattern, a schedule, or both."""

    logical_id: str
    name: str
    arn: str
    enabled: bool
    targets: tuple[RuleTarget, ...]
    pattern: Mapping[str, Any] | None = None
    schedule: Expression | None = None


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """One `AWS::Scheduler::Schedule`; `input` is what its target gets in place of the scheduler's own event."""

    logical_id: str
    name: str
    arn: str
    enabled: bool
    schedule: Expression
    target: Target
    input: str | None = None


@dataclass(frozen=True, slots=True)
class NotificationSpec:
    """One notification of a bucket; `events` are names as `ObjectCreated:Put`, an ending `*` stands for anything."""

    bucket: str
    id: str
    events: tuple[str, ...]
    target: Target
    prefix: str = ""
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class SubscriptionSpec:
    """A function that is subscribed to a topic; `arn` is what `Ref` on the subscription gives."""

    arn: str
    topic_arn: str
    target: Target


@dataclass(frozen=True, slots=True)
class EventsSpec:
    """All of a stack; `event_bridge_buckets` are the buckets that send their events to the default bus."""

    rules: tuple[RuleSpec, ...] = ()
    schedules: tuple[ScheduleSpec, ...] = ()
    notifications: tuple[NotificationSpec, ...] = ()
    subscriptions: tuple[SubscriptionSpec, ...] = ()
    event_bridge_buckets: frozenset[str] = field(default_factory=frozenset)

    @property
    def services(self) -> frozenset[str]:
        """The services whose events the stack depends on: `s3`, `sns`."""
        needs = {"s3": self.notifications or self.event_bridge_buckets, "sns": self.subscriptions}
        return frozenset(service for service, needed in needs.items() if needed)
