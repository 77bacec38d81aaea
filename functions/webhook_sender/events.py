"""The two events of the sender: what ended, from the jobs table's stream, and what is to be sent, from the queue.

Both answer with what failed (`ReportBatchItemFailures`). Of a stream that is the first record that failed: Lambda goes
on from there, and what was done before is not done again. Of a queue it is each message that is to come again; when,
its visibility says.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from shared.adapters.job_stream import UnreadableRecord, finished_job
from shared.domain.errors import SluiceError
from shared.domain.webhooks import Delivery, Webhook
from shared.usecases.deliver_webhooks import SendDelivery, TellWebhooks

Failures = dict[str, list[dict[str, str]]]
Handler = Callable[[Mapping[str, Any], Any], Failures]
Hide = Callable[[str, float], None]
"""Hides a message, by its receipt, for so many seconds; raises BackendError."""

# After an error of ours a message comes again well before the queue would give it back.
_AFTER_ERROR_S: Final = 30.0


def webhook_sender(tell: TellWebhooks, send: SendDelivery, hide: Hide, log: logging.Logger, threads: int) -> Handler:
    """The handler of both events; `threads` deliveries are sent at a time."""
    stream = _Stream(tell, log)
    queue = _Queue(send, hide, log, ThreadPoolExecutor(threads, "send"))

    def handler(event: Mapping[str, Any], _context: Any) -> Failures:
        records: Sequence[Mapping[str, Any]] = event.get("Records") or ()
        if records and records[0].get("eventSource") == "aws:dynamodb":
            return stream(records)
        return queue(records)

    return handler


class _Stream:
    """Tells webhooks of finished jobs, in the order of the stream."""

    def __init__(self, tell: TellWebhooks, log: logging.Logger) -> None:
        self._tell = tell
        self._log = log

    def __call__(self, records: Sequence[Mapping[str, Any]]) -> Failures:
        known: dict[str, Sequence[Webhook]] = {}
        for record in records:
            try:
                self._told(record, known)
            except SluiceError as error:
                number = str(record["dynamodb"]["SequenceNumber"])
                fields = {"sequence_number": number, "error": error.detail, "cause": repr(error.__cause__)}
                self._log.error("webhooks not told", extra={"fields": fields})
                return {"batchItemFailures": [{"itemIdentifier": number}]}
        return {"batchItemFailures": []}

    def _told(self, record: Mapping[str, Any], known: dict[str, Sequence[Webhook]]) -> None:
        try:
            job = finished_job(record)
        except UnreadableRecord as error:
            # It would never be readable, and all behind it would wait for it.
            self._log.error(
                "record left out", extra={"fields": {"event_id": record.get("eventID"), "error": str(error)}}
            )
            return
        if job is not None and (told := self._tell(job, known)):
            fields = {"tenant": job.tenant, "job_id": job.job_id, "event": job.event, "webhooks": told}
            self._log.info("webhooks told", extra={"fields": fields})


class _Queue:
    """Sends deliveries, each in a thread of its own."""

    def __init__(self, send: SendDelivery, hide: Hide, log: logging.Logger, pool: ThreadPoolExecutor) -> None:
        self._send = send
        self._hide = hide
        self._log = log
        self._pool = pool

    def __call__(self, records: Sequence[Mapping[str, Any]]) -> Failures:
        running = [(record, self._pool.submit(self._sent, record)) for record in records]
        again = []
        for record, future in running:
            error = future.exception()
            if error is not None:  # not foreseen: the message comes back by itself, its neighbours are done with
                self._log.error(
                    "delivery failed", exc_info=error, extra={"fields": {"message_id": record["messageId"]}}
                )
            if error is not None or future.result():
                again.append({"itemIdentifier": str(record["messageId"])})
        return {"batchItemFailures": again}

    def _sent(self, record: Mapping[str, Any]) -> bool:
        """Whether the message is to come again."""
        try:
            again_s = self._attempt(record)
        except SluiceError as error:
            self._tell_error(record, error)
            again_s = _AFTER_ERROR_S
        if again_s is None:
            return False
        try:
            self._hide(str(record["receiptHandle"]), again_s)
        except SluiceError as error:  # it comes again when the queue's own time is over
            self._tell_error(record, error)
        return True

    def _attempt(self, record: Mapping[str, Any]) -> float | None:
        """What the message asks for, done; in how many seconds it is to come again."""
        names = _names(record)
        if names is None:
            self._log.error("message left for the dead letters", extra={"fields": {"message_id": record["messageId"]}})
            return _AFTER_ERROR_S
        done = self._send(*names, redriven="Reason" in (record.get("messageAttributes") or {}))
        if done.delivery is not None:
            self._tell(done.delivery)
        return done.again_s

    def _tell(self, delivery: Delivery) -> None:
        last = delivery.attempts[-1]
        fields = {
            "tenant": delivery.tenant,
            "webhook_id": delivery.webhook_id,
            "delivery_id": delivery.delivery_id,
            "event": delivery.event,
            "job_id": delivery.job_id,
            "attempt": delivery.tries,
            "status": last.status,
            "error": last.error,
            "ms": last.ms,
            "state": delivery.state,
            "reason": delivery.reason,
        }
        self._log.log(
            logging.WARNING if delivery.state == "dead" else logging.INFO, "delivery", extra={"fields": fields}
        )

    def _tell_error(self, record: Mapping[str, Any], error: SluiceError) -> None:
        fields = {"message_id": record["messageId"], "error": error.detail, "cause": repr(error.__cause__)}
        self._log.error("delivery put off", extra={"fields": fields})


def _names(record: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Tenant, webhook and delivery that a message names; None for what is no message of ours."""
    try:
        body = json.loads(record["body"])
        names = (body["tenant"], body["webhook_id"], body["delivery_id"])
    except (KeyError, TypeError, ValueError):
        return None
    return names if all(isinstance(name, str) and name for name in names) else None
