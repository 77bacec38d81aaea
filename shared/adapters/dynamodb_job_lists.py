"""What the indexes of the table of jobs are asked: `by_tenant` for lists, `unfinished` for what is overdue."""

from collections.abc import Iterator, Mapping, Sequence
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from shared.adapters.job_items import SHARDS, job_of, number, summary_of, text
from shared.domain.errors import BackendUnavailable
from shared.domain.jobs import Job, JobFilter, JobPage, JobSummary

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_QUERIES: Final = 5
# What a query with a filter looks through: some 300 bytes each.
_LOOKED_AT: Final = 200
# BatchGetItem's own bound, and how often what it left over is asked for again.
_BATCH: Final = 100
_ATTEMPTS: Final = 5
_LAST: Final = 16**32 - 1
_OF_MS: Final = 16**20
_LATEST_MS: Final = 16**12 - 1


def list_jobs(
    client: "DynamoDBClient", table: str, tenant: str, which: JobFilter, limit: int, after: str | None, now: float
) -> JobPage:
    """A page of a tenant's jobs, the newest first. Ids sort by time, so times bound the keys that are looked at."""
    lowest, highest = _bounds(which, after)
    found: list[JobSummary] = []
    filters, names, values = _filters(which, now)
    for _ in range(_QUERIES):
        if highest < lowest:
            return JobPage(found, None)
        answer = client.query(
            TableName=table,
            IndexName="by_tenant",
            KeyConditionExpression="tenant = :tenant AND job_id BETWEEN :lowest AND :highest",
            FilterExpression=filters,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues={
                ":tenant": text(tenant),
                ":lowest": text(f"{lowest:032x}"),
                ":highest": text(f"{highest:032x}"),
                **values,
            },
            ScanIndexForward=False,
            Limit=_LOOKED_AT if len(values) > 1 else limit + 1,
        )
        found += [summary_of(item) for item in answer["Items"]]
        if len(found) > limit:
            return JobPage(found[:limit], found[limit - 1].job_id)
        last = answer.get("LastEvaluatedKey")
        if last is None:
            return JobPage(found, None)
        highest = int(last["job_id"]["S"], 16) - 1
    return JobPage(found, f"{highest + 1:032x}")


def overdue_jobs(client: "DynamoDBClient", table: str, now: float) -> Iterator[Sequence[Job]]:
    """Pages of jobs whose time is up, the longest overdue first; the items themselves are read consistently.

    Each part of the index is read on from where it was left, not from its beginning: what was changed there a moment
    ago may not be seen yet.
    """
    due = merge(*(_due(client, table, shard, now) for shard in range(SHARDS)))
    while ids := [job_id for _, job_id in islice(due, _BATCH)]:
        jobs = _read(client, table, ids)
        # The index lags behind: some have changed since.
        still = [(job.due_at, job) for job in jobs if job.due_at is not None and job.due_at <= now and not job.finished]
        yield [job for _, job in sorted(still, key=lambda pair: pair[0])]


def _due(client: "DynamoDBClient", table: str, shard: int, now: float) -> Iterator[tuple[float, str]]:
    """What is due in a part of the index: when, and the job's id."""
    begin: dict[str, Any] = {}
    while True:
        answer = client.query(
            TableName=table,
            IndexName="unfinished",
            KeyConditionExpression="due_shard = :shard AND due_at <= :now",
            ExpressionAttributeValues={":shard": text(str(shard)), ":now": number(now)},
            Limit=_BATCH,
            **begin,
        )
        yield from ((float(item["due_at"]["N"]), item["job_id"]["S"]) for item in answer["Items"])
        if "LastEvaluatedKey" not in answer:
            return
        begin = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}


def _read(client: "DynamoDBClient", table: str, ids: Sequence[str]) -> Sequence[Job]:
    keys: Sequence[Mapping[str, Any]] = [{"job_id": text(job_id)} for job_id in ids]
    jobs: list[Job] = []
    for _ in range(_ATTEMPTS):
        answer = client.batch_get_item(RequestItems={table: {"Keys": keys, "ConsistentRead": True}})
        jobs += [job_of(item) for item in answer["Responses"].get(table, [])]
        left = answer.get("UnprocessedKeys", {}).get(table)
        if not left:
            break
        keys = left["Keys"]
    else:
        if not jobs:
            raise BackendUnavailable("The store of jobs cannot take the request now.")
    return jobs  # what is left over is as overdue the next time


def _bounds(which: JobFilter, after: str | None) -> tuple[int, int]:
    """The lowest and the highest id that may be shown, as numbers."""
    lowest = 0 if which.since is None else _first_ms(which.since) * _OF_MS
    highest = _LAST if which.until is None else (_first_ms(which.until) + 1) * _OF_MS - 1
    if after is not None:
        highest = min(highest, int(after, 16) - 1)
    return lowest, min(highest, _LAST)


def _first_ms(seconds: float) -> int:
    return min(max(0, int(seconds * 1000)), _LATEST_MS)


def _filters(which: JobFilter, now: float) -> tuple[str, dict[str, str], dict[str, Any]]:
    """What only the items tell: TTL deletes late, and the rest is no part of the key."""
    parts, names, values = ["#expires_at > :now"], {"#expires_at": "expires_at"}, {":now": number(now)}
    if which.states:
        states = {f":state{index}": text(state) for index, state in enumerate(sorted(which.states))}
        parts.append(f"#state IN ({', '.join(states)})")
        names["#state"] = "state"
        values |= states
    for name, wanted in (("kind", which.kind), ("model", which.model)):
        if wanted is not None:
            parts.append(f"#{name} = :{name}")
            names[f"#{name}"] = name
            values[f":{name}"] = text(wanted)
    return " AND ".join(parts), names, values
