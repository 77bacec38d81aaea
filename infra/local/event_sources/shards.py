"""One shard of a stream, read from a place that is kept while iterators and records expire.

Source: "GetShardIterator" and "GetRecords" of the DynamoDB Streams API reference.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from infra.local.event_sources.calls import AwsCallFailed, AwsCalls
from infra.local.moto_streams import WAIT_HEADER

_BETWEEN_READS_S: Final = 0.25
_PAUSE_S: Final = 1.0
_MAX_READ: Final = 1000

_log = logging.getLogger(__name__)


class Shard:
    """A shard of the stream with this ARN; `parent` is the shard that must be read before it, if any."""

    def __init__(self, facts: Mapping[str, Any], stream_arn: str, calls: AwsCalls) -> None:
        self.id: str = facts["ShardId"]
        self.parent: str | None = facts.get("ParentShardId")
        self.is_open = True
        self._stream_arn = stream_arn
        self._calls = calls
        self._iterator = ""
        self._last: str | None = None

    @property
    def place(self) -> tuple[str, str | None]:
        """Where the next read begins."""
        return self._iterator, self._last

    def return_to(self, place: tuple[str, str | None]) -> None:
        """Read again from a former place."""
        self._iterator, self._last = place
        self.is_open = True

    async def begin(self, position: str, *, after: str | None = None) -> None:
        """Read from `LATEST`, `TRIM_HORIZON`, or behind the sequence number `after`; raises AwsCallFailed."""
        place = {} if after is None else {"SequenceNumber": after}
        answer = await self._calls.streams(
            "GetShardIterator",
            {"StreamArn": self._stream_arn, "ShardId": self.id, "ShardIteratorType": position, **place},
        )
        self._iterator = answer["ShardIterator"]

    async def read(self, limit: int, wait_s: float) -> Sequence[Mapping[str, Any]]:
        """Up to `limit` records; none if there are none within some time, which is `wait_s` at most."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            answer = await self._calls.streams(
                "GetRecords",
                {"ShardIterator": self._iterator, "Limit": min(limit, _MAX_READ)},
                wait_s=wait_s,
                headers={WAIT_HEADER: f"{wait_s:.3f}"},
            )
        except AwsCallFailed as error:
            await self._recover(error)
            return ()
        records: list[Mapping[str, Any]] = answer.get("Records", [])
        if records:
            self._last = records[-1]["dynamodb"]["SequenceNumber"]
        self._iterator = answer.get("NextShardIterator") or ""
        self.is_open = bool(self._iterator)
        if not records and self.is_open:
            # Somewhere else there is no waiting for records.
            await asyncio.sleep(max(0.0, min(_BETWEEN_READS_S, wait_s) - (loop.time() - began)))
        return records

    async def _recover(self, error: AwsCallFailed) -> None:
        _log.warning("%s: %s", self._stream_arn, error)
        try:
            if error.code == "TrimmedDataAccessException":
                await self.begin("TRIM_HORIZON")
            elif error.code == "ExpiredIteratorException" and self._last is not None:
                await self.begin("AFTER_SEQUENCE_NUMBER", after=self._last)
            else:
                await asyncio.sleep(_PAUSE_S)
        except AwsCallFailed as again:
            _log.warning("%s: %s", self._stream_arn, again)
            await asyncio.sleep(_PAUSE_S)
