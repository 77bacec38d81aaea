"""Streams of moto's DynamoDB that can be read for days, and waited for.

moto keeps all records and all iterators for ever, writes records for updates that change nothing and two for an update
that makes an item, and its streams' names are times of day, which the template would have to know beforehand. Sources:
"Change data capture for DynamoDB Streams" of the DynamoDB developer guide and the reference of the API.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from threading import Condition
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from infra.local.stack import STREAM_LABEL

if TYPE_CHECKING:
    from moto.dynamodb.models import DynamoDBBackend
    from moto.dynamodb.models.table import StreamShard, Table
    from moto.dynamodbstreams.models import DynamoDBStreamsBackend

# Seconds that GetRecords may take until there is a record; DynamoDB does not know it and answers at once.
WAIT_HEADER: Final = "X-Sluice-Wait-Seconds"
GET_RECORDS: Final = "DynamoDBStreams_20120810.GetRecords"
RETENTION: Final = timedelta(hours=24)
# Of one stream, by moto's estimate; AWS has no such bound.
MAX_BYTES: Final = 128 * 1024 * 1024
# How many records come between two looks at what may go.
_TRIM_EVERY: Final = 256

_written = Condition()


@cache
def install() -> None:
    """Give moto, in this process, these streams; before there are any."""
    from moto.dynamodb.models import DynamoDBBackend
    from moto.dynamodb.models.table import StreamShard, Table
    from moto.dynamodbstreams.models import DynamoDBStreamsBackend

    specify, add, update = Table.set_stream_specification, StreamShard.add, DynamoDBBackend.update_item

    def set_stream_specification(table: "Table", streams: dict[str, Any] | None) -> None:
        specify(table, streams)
        if table.latest_stream_label:
            table.latest_stream_label = STREAM_LABEL

    def add_record(shard: "StreamShard", old: Any, new: Any) -> None:
        if old is not None and new is not None and old.attrs == new.attrs:
            return
        add(shard, old, new)
        if _end(shard) % _TRIM_EVERY == 0:
            _trim(shard)
        with _written:
            _written.notify_all()

    Table.set_stream_specification = set_stream_specification  # type: ignore[method-assign, assignment]
    StreamShard.add = add_record  # type: ignore[method-assign, assignment]
    DynamoDBBackend.update_item = _one_record(update)  # type: ignore[method-assign]
    DynamoDBStreamsBackend.get_shard_iterator = _get_shard_iterator  # type: ignore[method-assign, assignment]
    DynamoDBStreamsBackend.get_records = _get_records  # type: ignore[method-assign, assignment]


def wait_for_records(iterator: str, limit_s: float) -> None:
    """Until the stream has records behind an iterator that GetRecords takes, but no longer than `limit_s`."""
    from moto.dynamodb.models import dynamodb_backends

    stream_arn, _, position = iterator.rpartition("|")
    _, _, _, region, account, resource = stream_arn.split(":", 5)
    table = dynamodb_backends[account][region].tables.get(resource.split("/")[1])
    if table is None or table.stream_shard is None:
        return
    shard = table.stream_shard
    with _written:
        _written.wait_for(lambda: _end(shard) > int(position), limit_s)


def _end(shard: "StreamShard") -> int:
    """The number of the next record."""
    return shard.starting_sequence_number + len(shard.items)


def _trim(shard: "StreamShard") -> None:
    oldest = datetime.now(UTC).replace(tzinfo=None) - RETENTION
    size = sum(record.record["dynamodb"]["SizeBytes"] for record in shard.items)
    count = 0
    for record in shard.items:
        facts = record.record["dynamodb"]
        if size <= MAX_BYTES and facts["ApproximateCreationDateTime"] >= oldest:
            break
        size -= facts["SizeBytes"]
        count += 1
    del shard.items[:count]
    shard.starting_sequence_number += count


def _one_record(update: Callable[..., Any]) -> Callable[..., Any]:
    """For an update that makes an item, moto writes a record of its key alone before the record of the item."""

    def update_item(backend: "DynamoDBBackend", table_name: str, *arguments: Any, **named: Any) -> Any:
        shard = backend.get_table(table_name).stream_shard
        before = 0 if shard is None else _end(shard)
        item = update(backend, table_name, *arguments, **named)
        if shard is not None and _end(shard) - before == 2:
            del shard.items[-2]
            shard.items[-1].record["dynamodb"]["SequenceNumber"] = str(before)
        return item

    return update_item


def _get_shard_iterator(
    backend: "DynamoDBStreamsBackend",
    arn: str,
    shard_id: str,
    shard_iterator_type: str,
    sequence_number: int | None = None,
) -> SimpleNamespace:
    """An iterator that says where it is, so that none need be kept."""
    shard = backend._get_table_from_arn(arn).stream_shard
    if shard is None or shard.id != shard_id:
        raise _refusal("ResourceNotFoundException", f"Requested resource not found: Shard: {shard_id}")
    given = sequence_number or 0
    position = {
        "TRIM_HORIZON": shard.starting_sequence_number,
        "LATEST": _end(shard),
        "AT_SEQUENCE_NUMBER": given,
        "AFTER_SEQUENCE_NUMBER": given + 1,
    }[shard_iterator_type]
    return SimpleNamespace(arn=f"{arn}|1|{position}")


def _get_records(backend: "DynamoDBStreamsBackend", iterator_arn: str, limit: int) -> dict[str, Any]:
    stream_arn, _, position = iterator_arn.rpartition("|")
    shard = backend._get_table_from_arn(stream_arn.removesuffix("|1")).stream_shard
    if shard is None:
        raise _refusal("ResourceNotFoundException", "Requested resource not found: Stream")
    start = int(position)
    if start < shard.starting_sequence_number:
        raise _refusal("TrimmedDataAccessException", "The records are beyond the trim horizon.")
    records = shard.get(start, limit)
    return {"Records": records, "NextShardIterator": f"{stream_arn}|{start + len(records)}"}


def _refusal(code: str, message: str) -> Exception:
    from moto.core.exceptions import ServiceException

    class Refusal(ServiceException):
        """A class of this module: for one of moto's own, moto looks for a service of its module's name."""

    return Refusal(code, message)
