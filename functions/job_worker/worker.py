"""Works off a batch of messages, each of which names a job to look at.

Source: AWS Lambda Developer Guide, "Using Lambda with Amazon SQS", "Reporting batch item failures".
"""

import json
import logging
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from time import monotonic
from typing import Any, Final, Protocol

from functions.job_worker.heartbeat import Heartbeat
from shared.adapters.sqs_messages import Message
from shared.domain.errors import BackendError
from shared.domain.jobs import JOB_ID, LEASE_S
from shared.usecases.hold import RENEW_S, Hold
from shared.usecases.run_job import Later, RunJob, Span

UNREADABLE: Final = "unreadable_message"

_ID: Final = re.compile(JOB_ID)
# As much of a worker's time as counts as all of it: a job that ran out of it would do so again.
_WHOLE: Final = 0.8
# At a beat, a job that has run for longer holds up nobody: other workers get what waits behind it.
_SHORT_S: Final = 2.0
_WHAT: Final = 'The message is not {"job_id": …} with the id of a job.'


class Messages(Protocol):
    """The queue that the messages are of: `shared.adapters.sqs_messages`."""

    def hide(self, messages: Sequence[Message], seconds: float, /) -> int:
        """Let messages come back in so many seconds; raises BackendError."""

    def send_again(self, messages: Sequence[Message], /) -> Sequence[Message]:
        """Put new messages in the place of these; those that stay as they were. Raises BackendError."""

    def bury(self, message: Message, code: str, detail: str, /) -> None:
        """Put a message among the dead letters; raises BackendError."""


class _Undone:
    """The messages of an event that are not done: one may be worked on, the others wait. Two threads use it."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._lock = Lock()
        self._waiting = deque(messages)
        self._current: Message | None = None
        self._began = 0.0

    def next(self, ready: Callable[[], bool]) -> Message | None:
        """The message to work on now, if there is one and it is `ready`; the one before is done with."""
        with self._lock:
            self._current = None
            if not self._waiting or not ready():
                return None
            self._current, self._began = self._waiting.popleft(), monotonic()
            return self._current

    def pass_on(self, send: Callable[[Sequence[Message]], Sequence[Message]], after_s: float) -> int:
        """Once the current one takes longer than `after_s`, `send` what waits; how many are no longer waited with.

        What `send` gives back goes on waiting. Nothing is taken or counted meanwhile, so that none is lost in between.
        """
        with self._lock:
            if self._current is None or not self._waiting or monotonic() - self._began < after_s:
                return 0
            before = len(self._waiting)
            self._waiting = deque(send(list(self._waiting)))
            return before - len(self._waiting)

    def all(self) -> list[Message]:
        """The current one, and those that wait."""
        with self._lock:
            return [*([] if self._current is None else [self._current]), *self._waiting]


class Invocation(Protocol):
    """What the worker asks Lambda's context."""

    def get_remaining_time_in_millis(self) -> int:
        """Until the invocation is ended by force."""


class Worker:
    """The handler of the queue of jobs; `begin` is called before each job."""

    def __init__(
        self,
        run: RunJob,
        hold: Hold,
        messages: Messages,
        begin: Callable[[], None],
        *,
        reserve_ms: int,
        least_ms: int,
        beat_s: float = RENEW_S,
        short_s: float = _SHORT_S,
    ) -> None:
        self._run = run
        self._hold = hold
        self._messages = messages
        self._begin = begin
        self._reserve_ms = reserve_ms
        self._least_ms = least_ms
        self._beat_s = beat_s
        self._short_s = short_s
        self._log = logging.getLogger(__name__)

    def __call__(self, event: Mapping[str, Any], context: Invocation) -> dict[str, list[dict[str, str]]]:
        """Work off the messages of an event; those named in the answer stay in the queue.

        The first act makes all of them come back soon if this process is killed, whatever the queue's own time is. What
        waits behind a job that takes long is sent anew, for other workers: given back, it would come nearer to the
        dead letters each time. ValueError for an event that is not the queue's.
        """
        # What was tried before may need a worker's whole time, which the first job has.
        waiting = sorted(messages_of(event), key=lambda message: -message.received)
        full_ms = context.get_remaining_time_in_millis() - self._reserve_ms
        ended_by = monotonic() + full_ms / 1e3
        self._hide(waiting, LEASE_S)
        left: list[Message] = []
        undone = _Undone(waiting)

        def beat() -> None:
            self._hold.beat()
            self._pass_on(undone)
            self._hide(undone.all(), LEASE_S)

        def left_ms() -> float:
            return (ended_by - monotonic()) * 1e3

        with Heartbeat(beat, self._beat_s):
            while message := undone.next(lambda: left_ms() >= min(self._least_ms, _WHOLE * full_ms)):
                delay_s = self._one(message, Span(ended_by, whole=left_ms() >= _WHOLE * full_ms))
                if delay_s is not None:
                    left.append(message)
                    self._hide([message], delay_s)
        # There is no time for these: another worker has them at once.
        over = undone.all()
        self._hide(over, 0)
        return {"batchItemFailures": [{"itemIdentifier": message.message_id} for message in (*left, *over)]}

    def _one(self, message: Message, span: Span) -> float | None:
        """Look at the job of a message; in how many seconds the message is to come again, None if it is not."""
        job_id = job_of(message.body)
        if job_id is None:
            return self._bury(message)
        self._begin()
        try:
            done = self._run(job_id, self._hold, span)
        except Exception:  # noqa: BLE001  # whatever it is, the other messages are not to suffer for it
            self._log.exception("a job cannot be looked at", extra={"fields": {"job_id": job_id}})
            return LEASE_S
        return done.visibility_s if isinstance(done, Later) else None

    def _pass_on(self, undone: _Undone) -> None:
        try:
            passed_on = undone.pass_on(self._messages.send_again, self._short_s)
        except BackendError as error:  # they wait on here, and the next beat tries again
            self._log.warning("messages wait behind a long job", extra={"fields": {"reason": error.detail}})
            return
        if passed_on:
            self._log.info("messages are passed on", extra={"fields": {"messages": passed_on}})

    def _bury(self, message: Message) -> float | None:
        fields = {"message_id": message.message_id, "received": message.received, "bytes": len(message.body)}
        self._log.error("a message cannot be read", extra={"fields": fields})
        try:
            self._messages.bury(message, UNREADABLE, _WHAT)
        except BackendError as error:
            self._log.warning("a message stays unread", extra={"fields": {**fields, "reason": error.detail}})
            return LEASE_S
        return None

    def _hide(self, messages: Sequence[Message], seconds: float) -> None:
        """What cannot be changed comes back by the queue's own time: that is later, and no harm."""
        if not messages:
            return
        try:
            failed = self._messages.hide(messages, seconds)
        except BackendError as error:
            self._log.warning("messages stay hidden as they were", extra={"fields": {"reason": error.detail}})
            return
        if failed:
            self._log.warning("messages are no longer this worker's", extra={"fields": {"messages": failed}})


def messages_of(event: Mapping[str, Any]) -> list[Message]:
    """The messages of an event; ValueError if it is not one of a queue."""
    match event:
        case {"Records": [*records]} if all(record.get("eventSource") == "aws:sqs" for record in records):
            return [
                Message(
                    record["messageId"],
                    record["receiptHandle"],
                    record["body"],
                    int(record.get("attributes", {}).get("ApproximateReceiveCount", "1")),
                    record.get("attributes", {}).get("MessageGroupId", ""),
                )
                for record in records
            ]
    raise ValueError("The event is not one of a queue: only SQS may invoke this function.")


def job_of(body: str) -> str | None:
    """The id of the job that a message names; None for one that names none."""
    try:
        match json.loads(body):
            case {"job_id": str() as job_id} if _ID.fullmatch(job_id):
                return job_id
    except (ValueError, RecursionError):
        return None
    return None
