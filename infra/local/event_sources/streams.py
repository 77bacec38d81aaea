"""A table's stream as a function's event source: the changes of each shard in order, batch after batch.

Source: "Using AWS Lambda with Amazon DynamoDB" and its pages on batching and errors (Lambda developer guide). Where the
AWS services are the built-in ones, a read is answered as soon as there is something; elsewhere it is made four times a
second, as Lambda does.
"""

import asyncio
from typing import Final

from infra.local.event_sources.calls import AwsCallFailed, AwsCalls
from infra.local.event_sources.records import Record, change_filter, of_change
from infra.local.event_sources.shards import Shard
from infra.local.event_sources.specs import StreamSourceSpec
from infra.local.event_sources.stream_batches import StreamBatches
from infra.local.lambda_service.invocation import MAX_REQUEST_BYTES
from infra.local.lambda_service.service import LambdaService

_WAIT_S: Final = 20.0


class StreamSource:
    """Reads the stream of one table."""

    def __init__(self, spec: StreamSourceSpec, service: LambdaService, calls: AwsCalls) -> None:
        self.spec = spec
        self._calls = calls
        self._passes = change_filter(spec.filters)
        self._batches = StreamBatches(spec, service, calls)
        self._arn = ""
        self._shards: dict[str, Shard] = {}

    async def open(self) -> None:
        """Find the stream, and where to begin.

        Raises:
            AwsCallFailed: there is none, or no answer.

        """
        table = (await self._calls.dynamodb("DescribeTable", {"TableName": self.spec.table}))["Table"]
        if "LatestStreamArn" not in table:
            raise AwsCallFailed("DescribeTable", "NoStream", f"the table {self.spec.table} has no stream")
        # Elsewhere a stream has another label than the template's.
        self._arn = table["LatestStreamArn"]
        await self._find_shards("TRIM_HORIZON" if self.spec.from_start else "LATEST")

    async def run(self) -> None:
        """Read until cancelled, which gives up what is under way."""
        started: set[str] = set()
        async with asyncio.TaskGroup() as readers:
            while True:
                ended = asyncio.Event()
                for shard in tuple(self._shards.values()):
                    parent = self._shards.get(shard.parent or "")
                    if shard.id not in started and not (parent and parent.is_open):
                        started.add(shard.id)
                        readers.create_task(self._read(shard, ended))
                # A shard that is full ends, and has others after it.
                await ended.wait()
                await self._find_shards("TRIM_HORIZON")

    async def _find_shards(self, position: str) -> None:
        described = await self._calls.streams("DescribeStream", {"StreamArn": self._arn})
        for facts in described["StreamDescription"]["Shards"]:
            if facts["ShardId"] not in self._shards:
                shard = Shard(facts, self._arn, self._calls)
                await shard.begin(position)
                self._shards[shard.id] = shard

    async def _read(self, shard: Shard, ended: asyncio.Event) -> None:
        while shard.is_open:
            place = shard.place
            try:
                batch = await self._gather(shard)
                if batch:
                    await self._batches.deliver(shard.id, batch)
            except BaseException:
                shard.return_to(place)
                raise
        ended.set()

    async def _gather(self, shard: Shard) -> list[Record]:
        """Records that pass the filters, until the batch is full or the window is over that the first one opened."""
        loop = asyncio.get_running_loop()
        records: list[Record] = []
        began = size = 0.0
        while shard.is_open and len(records) < self.spec.batch_size and size < MAX_REQUEST_BYTES:
            left_s = began + self.spec.window_s - loop.time() if records else _WAIT_S
            if left_s <= 0:
                break
            read = await shard.read(self.spec.batch_size - len(records), left_s)
            passed = [record for change in read if self._passes(record := of_change(change, self.spec.stream_arn))]
            began = began if records else loop.time()
            records += passed
            size += sum(len(record.encoded) for record in passed)
        return records
