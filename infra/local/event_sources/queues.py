"""A queue as a function's event source: batches of messages, deleted once the function is done with them.

Source: "Using Lambda with Amazon SQS" and its pages on batches, errors, scaling and filtering (Lambda developer guide).
What a function has failed on comes back after the queue's visibility timeout, and goes to the dead-letter queue when
the queue says so. One receive is open while there is nothing to do; it returns as soon as there is.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from infra.local.event_sources.calls import AwsCallFailed, AwsCalls
from infra.local.event_sources.invoking import Function
from infra.local.event_sources.records import Record, events, message_filter, of_message
from infra.local.event_sources.specs import QueueSourceSpec
from infra.local.lambda_service.errors import LambdaApiError
from infra.local.lambda_service.invocation import MAX_REQUEST_BYTES
from infra.local.lambda_service.service import LambdaService

_POLL_S: Final = 20
_MAX_RECEIVED: Final = 10
_PAUSE_S: Final = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Messages for one invocation; by `until` (the loop's clock) the first of them comes back by itself."""

    records: list[Record]
    until: float


class QueueSource:
    """Polls one queue. `concurrency` is how many batches may be under way where the mapping says nothing less."""

    def __init__(self, spec: QueueSourceSpec, service: LambdaService, calls: AwsCalls, *, concurrency: int) -> None:
        self.spec = spec
        self._calls = calls
        self._function = Function(service, spec.function, reports_failures=spec.reports_failures)
        self._passes = message_filter(spec.filters)
        self._concurrency = min(spec.max_concurrency or concurrency, concurrency)
        self._url = ""
        self._visibility_s = 0.0

    async def open(self) -> None:
        """Find the queue.

        Raises:
            AwsCallFailed: there is none, or no answer.

        """
        self._url = (await self._calls.sqs("GetQueueUrl", {"QueueName": self.spec.queue}))["QueueUrl"]
        attributes = await self._calls.sqs(
            "GetQueueAttributes", {"QueueUrl": self._url, "AttributeNames": ["VisibilityTimeout"]}
        )
        self._visibility_s = float(attributes["Attributes"]["VisibilityTimeout"])

    async def run(self) -> None:
        """Poll until cancelled, which gives up what is under way."""
        slots = asyncio.Semaphore(self._concurrency)
        async with asyncio.TaskGroup() as under_way:
            while True:
                await slots.acquire()
                batch = await self._gather()
                if not batch.records:
                    slots.release()
                    continue
                task = under_way.create_task(self._process(batch))
                task.add_done_callback(lambda _: slots.release())

    # ------------------------------------------------------------ receiving
    async def _gather(self) -> _Batch:
        """Messages until the batch is full, or the window is over that the first one opened."""
        loop = asyncio.get_running_loop()
        records = await self._receive(self.spec.batch_size, _POLL_S)
        began = loop.time()
        size = sum(len(record.encoded) for record in records)
        while records and len(records) < self.spec.batch_size and size < MAX_REQUEST_BYTES:
            left_s = began + self.spec.window_s - loop.time()
            if left_s <= 0:
                break
            # SQS waits for whole seconds; the rest of the window is waited for here.
            if left_s < 1:
                await asyncio.sleep(left_s)
            more = await self._receive(self.spec.batch_size - len(records), int(left_s))
            records += more
            size += sum(len(record.encoded) for record in more)
        return _Batch(records, began + self._visibility_s)

    async def _receive(self, count: int, wait_s: int) -> list[Record]:
        """Up to `count` messages that pass the filters; those that do not are deleted."""
        try:
            answer = await self._calls.sqs(
                "ReceiveMessage",
                {
                    "QueueUrl": self._url,
                    "MaxNumberOfMessages": min(count, _MAX_RECEIVED),
                    "WaitTimeSeconds": wait_s,
                    "MessageSystemAttributeNames": ["All"],
                    "MessageAttributeNames": ["All"],
                },
                wait_s=wait_s,
            )
        except AwsCallFailed as error:
            _log.warning("%s: %s", self.spec.name, error)
            await asyncio.sleep(_PAUSE_S)
            return []
        received = [of_message(message, self.spec.queue_arn) for message in answer.get("Messages", [])]
        passed = [record for record in received if self._passes(record)]
        if len(passed) < len(received):
            kept = {record.identifier for record in passed}
            await self._delete(record for record in received if record.identifier not in kept)
        return passed

    # ------------------------------------------------------------ processing
    async def _process(self, batch: _Batch) -> None:
        for records, payload in events(batch.records):
            await self._invoke(records, payload, batch.until)

    async def _invoke(self, records: Sequence[Record], payload: bytes, until: float) -> None:
        left_s = until - asyncio.get_running_loop().time()
        if left_s <= 0:
            return  # they have come back to the queue
        try:
            outcome = await self._function(records, payload, limit_s=left_s)
        except LambdaApiError as error:
            _log.warning("%s: %d messages go back to the queue: %s", self.spec.name, len(records), error)
            return
        await self._delete(record for record in records if record.identifier not in outcome.failed)

    async def _delete(self, records: Iterable[Record]) -> None:
        remaining = iter(records)
        while part := list(islice(remaining, _MAX_RECEIVED)):
            entries: list[dict[str, Any]] = [
                {"Id": str(number), "ReceiptHandle": record.document["receiptHandle"]}
                for number, record in enumerate(part)
            ]
            try:
                answer = await self._calls.sqs("DeleteMessageBatch", {"QueueUrl": self._url, "Entries": entries})
            except AwsCallFailed as error:
                _log.warning("%s: %d messages will come again: %s", self.spec.name, len(part), error)
            else:
                if answer.get("Failed"):
                    _log.warning("%s: %d messages will come again", self.spec.name, len(answer["Failed"]))
