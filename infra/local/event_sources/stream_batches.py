"""Batches of a shard, one after the other: each is retried until it is done or given up, and nothing overtakes it.

Source: "Using AWS Lambda with Amazon DynamoDB", its pages on errors, partial batch responses and discarded batches
(Lambda developer guide). A batch of which the function has done the first records goes on behind these, which counts
as an attempt; a split into halves does not.
"""

import asyncio
import json
import logging
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from infra.local.event_sources.calls import AwsCallFailed, AwsCalls
from infra.local.event_sources.invoking import Function
from infra.local.event_sources.records import Record, event, events
from infra.local.event_sources.specs import StreamSourceSpec
from infra.local.lambda_service.errors import LambdaApiError
from infra.local.lambda_service.invocation import VERSION, InvokeResult
from infra.local.lambda_service.service import LambdaService

_RETENTION_S: Final = 24 * 3600
_FIRST_WAIT_S: Final = 0.2
_LONGEST_WAIT_S: Final = 10.0
_RETRIES: Final = "RetryAttemptsExhausted"
_AGE: Final = "RecordAgeExceeded"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Records with what they have been through: failed attempts, and invocations with halves of larger batches."""

    records: list[Record]
    attempts: int = 0
    invocations: int = 0
    last: InvokeResult | None = None


class StreamBatches:
    """Hands batches of a stream to its function."""

    def __init__(self, spec: StreamSourceSpec, service: LambdaService, calls: AwsCalls) -> None:
        self._spec = spec
        self._calls = calls
        self._function = Function(service, spec.function, reports_failures=spec.reports_failures)

    async def deliver(self, shard_id: str, records: Sequence[Record]) -> None:
        """Return once all of them are done or given up."""
        pending = deque(_Batch(part) for part, _ in events(records))
        while pending:
            batch = await self._without_expired(shard_id, pending.popleft())
            if batch.records:
                pending.extendleft(reversed(await self._attempt(shard_id, batch)))

    async def _attempt(self, shard_id: str, batch: _Batch) -> list[_Batch]:
        """Invoke the function once; what is left to do, in order."""
        try:
            outcome = await self._function(batch.records, event(batch.records))
        except LambdaApiError as error:
            _log.warning("%s: %s", self._spec.name, error)
            await asyncio.sleep(_wait_s(batch.invocations + 1))
            return [batch]
        done = next((index for index, record in enumerate(batch.records) if record.identifier in outcome.failed), None)
        if done is None:
            return []
        rest = replace(batch, records=batch.records[done:], invocations=batch.invocations + 1, last=outcome.result)
        if self._spec.bisects and not done and len(rest.records) > 1:
            middle = len(rest.records) // 2
            return [replace(rest, records=rest.records[:middle]), replace(rest, records=rest.records[middle:])]
        rest = replace(rest, attempts=rest.attempts + 1)
        if self._spec.max_retries is not None and rest.attempts > self._spec.max_retries:
            await self._give_up(shard_id, rest, _RETRIES)
            return []
        await asyncio.sleep(_wait_s(rest.attempts))
        return [rest]

    async def _without_expired(self, shard_id: str, batch: _Batch) -> _Batch:
        """Give up the records that are too old; they are the first ones."""
        oldest = time.time() - (self._spec.max_age_s or _RETENTION_S)
        expired = [record for record in batch.records if _created(record) < oldest]
        if not expired:
            return batch
        await self._give_up(shard_id, replace(batch, records=expired), _AGE)
        return replace(batch, records=batch.records[len(expired) :])

    async def _give_up(self, shard_id: str, batch: _Batch, condition: str) -> None:
        _log.warning("%s: %d records are given up: %s", self._spec.name, len(batch.records), condition)
        if self._spec.on_failure_queue is None:
            return
        body = json.dumps(self._failure(shard_id, batch, condition))
        try:
            url = (await self._calls.sqs("GetQueueUrl", {"QueueName": self._spec.on_failure_queue}))["QueueUrl"]
            await self._calls.sqs("SendMessage", {"QueueUrl": url, "MessageBody": body})
        except AwsCallFailed as error:
            _log.warning("%s: nobody is told of it: %s", self._spec.name, error)

    def _failure(self, shard_id: str, batch: _Batch, condition: str) -> dict[str, Any]:
        last = batch.last
        response = {"statusCode": 200, "executedVersion": VERSION}
        if last is not None and last.function_error is not None:
            response["functionError"] = last.function_error
        return {
            "requestContext": {
                "requestId": last.request_id if last else str(uuid.uuid4()),
                "functionArn": self._function.spec.arn,
                "condition": condition,
                "approximateInvokeCount": batch.invocations,
            },
            "responseContext": response,
            "version": "1.0",
            "timestamp": _text(datetime.now(UTC), "milliseconds"),
            "DDBStreamBatchInfo": {
                "shardId": shard_id,
                "startSequenceNumber": batch.records[0].identifier,
                "endSequenceNumber": batch.records[-1].identifier,
                "approximateArrivalOfFirstRecord": _arrival(batch.records[0]),
                "approximateArrivalOfLastRecord": _arrival(batch.records[-1]),
                "batchSize": len(batch.records),
                "streamArn": self._spec.stream_arn,
            },
        }


def _wait_s(attempts: int) -> float:
    return float(min(_FIRST_WAIT_S * 2 ** min(attempts - 1, 10), _LONGEST_WAIT_S))


def _created(record: Record) -> float:
    return float(record.document["dynamodb"]["ApproximateCreationDateTime"])


def _arrival(record: Record) -> str:
    return _text(datetime.fromtimestamp(_created(record), UTC), "seconds")


def _text(moment: datetime, precision: str) -> str:
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")
