"""The handler of the batch runner: objects that were dropped, and steps from the queue."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from functions.batch_runner.events import Created, StepBody, StepMessage, read_event
from functions.batch_runner.holding import VISIBLE_S, MessageHold
from functions.batch_runner.lines import StepLines
from shared.adapters.sqs_messages import Message, SqsMessages
from shared.adapters.sqs_visibility import SqsVisibility
from shared.domain.batch_ports import Later, StepRecord
from shared.domain.errors import BackendError, SluiceError
from shared.domain.jobs import backoff_s
from shared.usecases.finish_batch import FinishBatch
from shared.usecases.plan_batch import PlanBatch
from shared.usecases.run_part import RunPart
from shared.usecases.start_batch import DropBatch

Handler = Callable[[Mapping[str, Any], Any], dict[str, Any]]

UNREADABLE: Final = "unreadable_message"
_WHAT: Final = 'The message is not {"job_id": …, "step": "plan", "part" or "finish", "part": …} of a batch.'
# Where nothing tells how much time there is: outside Lambda.
_NO_LIMIT_MS: Final = 900_000


@dataclass(frozen=True, slots=True)
class Steps:
    """What the steps of runs are done by."""

    drop: DropBatch
    plan: PlanBatch
    part: RunPart
    finish: FinishBatch


class BatchRunner:
    """The handler; a step has what the invocation has left less `reserve_s`, in which the next one takes over."""

    def __init__(
        self,
        steps: Steps,
        visibility: SqsVisibility,
        messages: SqsMessages,
        lines: StepLines,
        log: logging.Logger,
        *,
        bucket: str,
        reserve_s: float,
    ) -> None:
        self._steps = steps
        self._visibility = visibility
        self._messages = messages
        self._lines = lines
        self._log = log
        self._bucket = bucket
        self._reserve_s = reserve_s

    def __call__(self, event: Mapping[str, Any], context: Any) -> dict[str, Any]:
        """Which messages are to come again; raises what keeps a dropped object from being taken on, and UnknownEvent.

        Lambda tries the event of an object again, since it is an asynchronous one.
        """
        left = getattr(context, "get_remaining_time_in_millis", None)
        ends = monotonic() + (_NO_LIMIT_MS if left is None else left()) / 1e3 - self._reserve_s
        found = read_event(event)
        messages = [each for each in found if isinstance(each, StepMessage)]
        self._dropped([each for each in found if isinstance(each, Created)])
        if messages:
            # The queue's own time is for the whole function: after that a killed worker's message would come back.
            self._hide([message.receipt for message in messages], VISIBLE_S)
        failed = [message.message_id for message in messages if not self._done(message, ends)]
        return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}

    def _dropped(self, objects: Sequence[Created]) -> None:
        for each in objects:
            fields = {"uri": each.ref.uri, "event_id": each.event_id}
            if each.ref.bucket != self._bucket:
                self._log.warning("an object of another bucket", extra={"fields": fields})
                continue
            self._lines.begin()
            job = self._steps.drop(each.ref, each.event_id)
            if job is not None:
                fields |= {"tenant": job.tenant, "model": job.model, "job_id": job.job_id}
                self._log.info("batch taken on", extra={"fields": fields})

    def _done(self, message: StepMessage, ends: float) -> bool:
        """Do what a message asks for; False if it is to come again, when its visibility says so."""
        step = message.step
        if step is None:
            return self._buried(message)
        if monotonic() >= ends:
            self._hide([message.receipt], 0.0)
            return False
        record = StepRecord()
        self._lines.begin()
        try:
            with MessageHold(lambda seconds: self._visibility.set([message.receipt], seconds), ends) as hold:
                later = self._step(step, message.attempts, hold, record)
        except SluiceError as error:
            record.error = error
            later = Later(backoff_s(message.attempts))
        except Exception:  # noqa: BLE001  # tried again, and given up after some attempts
            self._log.exception("a step failed in an unexpected way", extra={"fields": _named(step)})
            later = Later(backoff_s(message.attempts))
        self._lines.ended(step.step, step.part, record)
        if later is None:
            return True
        self._hide([message.receipt], later.delay_s)
        return False

    def _buried(self, message: StepMessage) -> bool:
        """Put what nobody can read among the dead letters, with the reason; False if it is to be tried again."""
        fields = {"message_id": message.message_id, "received": message.attempts, "bytes": len(message.body)}
        self._log.error("a message cannot be read", extra={"fields": fields})
        unread = Message(message.message_id, message.receipt, message.body, message.attempts)
        try:
            self._messages.bury(unread, UNREADABLE, _WHAT)
        except BackendError as error:
            self._log.warning("a message stays unread", extra={"fields": {**fields, "reason": error.detail}})
            self._hide([message.receipt], backoff_s(message.attempts))
            return False
        return True

    def _step(self, step: StepBody, attempts: int, hold: MessageHold, record: StepRecord) -> Later | None:
        if step.step == "plan":
            return self._steps.plan(step.job_id, hold, record)
        if step.step == "finish":
            return self._steps.finish(step.job_id, attempts, hold, record)
        return self._steps.part(step.job_id, step.part or 0, attempts, hold, record)

    def _hide(self, receipts: Sequence[str], seconds: float) -> None:
        """Where that fails, messages come again when the time that they have is over."""
        try:
            self._visibility.set(receipts, seconds)
        except BackendError as error:
            self._log.warning("messages keep their visibility", extra={"fields": {"reason": error.detail}})


def _named(step: StepBody) -> dict[str, Any]:
    return {"job_id": step.job_id, "step": step.step, "part": step.part}
