"""The event source mappings of a stack, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class QueueSourceSpec:
    """One `AWS::Lambda::EventSourceMapping` of a queue: its messages go to `function` (a logical id) in batches.

    `queue` is the queue's name. Messages that match none of `filters` (event patterns) are deleted; without filters
    all pass. `max_concurrency` is how many batches may be under way, None for the function's own bound.
    """

    name: str
    queue: str
    queue_arn: str
    function: str
    batch_size: int = 10
    window_s: int = 0
    filters: tuple[Mapping[str, Any], ...] = ()
    reports_failures: bool = False
    max_concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class StreamSourceSpec:
    """One `AWS::Lambda::EventSourceMapping` of a table's stream.

    `max_retries` and `max_age_s` are None where records are retried until the stream has dropped them. What is given
    up is described in a message to the queue of the name `on_failure_queue`.
    """

    name: str
    table: str
    stream_arn: str
    function: str
    from_start: bool
    batch_size: int = 100
    window_s: int = 0
    filters: tuple[Mapping[str, Any], ...] = ()
    reports_failures: bool = False
    max_retries: int | None = None
    max_age_s: int | None = None
    bisects: bool = False
    on_failure_queue: str | None = None


EventSourceSpec = QueueSourceSpec | StreamSourceSpec
