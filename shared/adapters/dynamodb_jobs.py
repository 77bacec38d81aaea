"""Jobs in a DynamoDB table: partition key `job_id` (S), TTL `expires_at`; `shared.adapters.job_items` has the items.

A job that has not ended has `due_at` and `due_shard`, and so is in the index `unfinished`; one that has ended has
neither. The index `by_tenant` has what lists show. Every change is one UpdateItem whose condition says which state it
is meant for, so of two that collide one is told so.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from time import time
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from shared.adapters.aws import aws_errors, error_code
from shared.adapters.dynamodb_job_lists import list_jobs, overdue_jobs
from shared.adapters.job_changes import (
    Change,
    claimed,
    finished,
    of_owner,
    postponed,
    ran_members,
    requeued,
    restarted,
)
from shared.adapters.job_items import item_of, job_of, number, text, texts
from shared.domain.errors import Conflict, JobNotFound
from shared.domain.jobs import JOB_ID, Claim, Job, JobFilter, JobPage, JobProblem, Outcome, Ticket

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_WHAT: Final = "The store of jobs"
_ID: Final = re.compile(JOB_ID)
_REFUSED: Final = "ConditionalCheckFailedException"


class DynamoDBJobs:
    """Implements `shared.domain.ports.JobStore`; `now` gives seconds since 1970."""

    def __init__(self, client: "DynamoDBClient", table: str, *, now: Callable[[], float] = time) -> None:
        self._client = client
        self._table = table
        self._now = now

    def add(self, job: Job) -> None:
        """One PutItem."""
        with aws_errors(_WHAT):
            try:
                self._client.put_item(
                    TableName=self._table,
                    Item=item_of(job),
                    ConditionExpression="attribute_not_exists(job_id)",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except ClientError as error:
                if error_code(error) == _REFUSED:
                    if _is_same(error.response.get("Item"), job):
                        return  # botocore's second attempt, after an answer that was lost
                    raise Conflict(f"There is a job {job.job_id} already.") from error
                raise

    def get(self, tenant: str, job_id: str) -> Job:
        """One strongly consistent GetItem: a job is asked for as soon as its id is known."""
        job = self.find(job_id)
        if job is None or job.tenant != tenant:
            raise _not_found()
        return job

    def find(self, job_id: str) -> Job | None:
        """One strongly consistent GetItem."""
        if not _ID.fullmatch(job_id):
            return None
        with aws_errors(_WHAT):
            found = self._client.get_item(TableName=self._table, Key={"job_id": text(job_id)}, ConsistentRead=True)
        item = found.get("Item")
        return job_of(item) if item is not None and not self._expired(item) else None

    def list(self, tenant: str, which: JobFilter, *, limit: int, after: str | None = None) -> JobPage:
        """Five Queries of the index at most; what was written in the last moments may not be in it yet."""
        with aws_errors(_WHAT):
            return list_jobs(self._client, self._table, tenant, which, limit, after, self._now())

    def claim(self, job_id: str, owner: str, now: float, lease_s: float) -> Claim:
        """One UpdateItem; where its condition fails, the item comes with the refusal."""
        passed, item = self._update(job_id, claimed(owner, now, lease_s), whole=True)
        if item is None or self._expired(item):
            return Claim("finished", None)
        job = job_of(item)
        if passed or (job.owner == owner and job.lease_until == round(now + lease_s, 3)):  # a second attempt, as above
            return Claim("claimed", job)
        if job.finished:
            return Claim("finished", job)
        return Claim("taken" if job.ticket is None else "waiting", job)

    def renew(self, job_id: str, owner: str, lease_until: float, rows_done: int) -> bool:
        """One UpdateItem, which leaves the indexes' keys alone."""
        sets = {"lease_until": number(lease_until), "rows_done": number(rows_done)}
        return self._changed(job_id, of_owner(owner, sets))

    def hand_over(self, job_id: str, owner: str, ticket: Mapping[str, str], ran: Outcome, due_at: float) -> bool:
        """One UpdateItem."""
        sets = {"ticket": texts(ticket), "due_at": number(due_at), **ran_members(ran)}
        return self._changed(job_id, of_owner(owner, sets, ("owner", "lease_until")))

    def requeue(
        self, job_id: str, owner: str | None, problem: JobProblem | None, due_at: float, *, ticket: Ticket | None = None
    ) -> bool:
        """One UpdateItem."""
        return self._changed(job_id, requeued(owner, ticket, problem, due_at, self._now()))

    def finish(
        self, job_id: str, outcome: Outcome, at: float, *, owner: str | None = None, ticket: Ticket | None = None
    ) -> bool:
        """One UpdateItem. Where the outcome says nothing of rows, version and cost, what is stored stays."""
        return self._changed(job_id, finished(outcome, at, owner, ticket))

    def restart(self, tenant: str, job_id: str, now: float) -> Job:
        """One UpdateItem, two for a batch: that goes on with its version from the parts that are done."""
        if not _ID.fullmatch(job_id):
            raise _not_found()
        for kind in ("prediction", "batch"):
            change = restarted(tenant, job_id, kind, now)
            passed, item = self._update(job_id, change, whole=True)
            if item is None or item["tenant"]["S"] != tenant or self._expired(item):
                raise _not_found()
            job = job_of(item)
            if passed:
                return job
            if job.kind == kind:
                break
        raise Conflict(f"The job is {job.state}: only a failed or cancelled one can be run again.")

    def overdue(self, now: float) -> Iterator[Sequence[Job]]:
        """A Query for each part of the index and for each hundred in it, and a BatchGetItem for each hundred jobs."""
        with aws_errors(_WHAT):
            yield from overdue_jobs(self._client, self._table, now)

    def postpone(self, job: Job, due_at: float) -> bool:
        """One UpdateItem."""
        if job.due_at is None:
            return False
        return self._changed(job.job_id, postponed(job, job.due_at, due_at))

    def _changed(self, job_id: str, change: Change) -> bool:
        return self._update(job_id, change, whole=False)[0]

    def _update(self, job_id: str, change: Change, *, whole: bool) -> tuple[bool, Any]:
        """Whether the condition held, and if `whole` the item: as it is now, or as it was found, None for none."""
        sets = ", ".join(f"#{name} = :set_{name}" for name in change.sets)
        removes = ", ".join(f"#{name}" for name in change.removes)
        expression = f"SET {sets}{change.more}" + (f" REMOVE {removes}" if removes else "")
        named = set(re.findall(r"#(\w+)", f"{expression} {change.condition}"))
        with aws_errors(_WHAT):
            try:
                done = self._client.update_item(
                    TableName=self._table,
                    Key={"job_id": text(job_id)},
                    UpdateExpression=expression,
                    ConditionExpression=change.condition,
                    ExpressionAttributeNames={f"#{name}": name for name in named},
                    ExpressionAttributeValues={
                        **change.values,
                        **{f":set_{name}": value for name, value in change.sets.items()},
                    },
                    ReturnValues="ALL_NEW" if whole else "NONE",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD" if whole else "NONE",
                )
            except ClientError as error:
                if error_code(error) != _REFUSED:
                    raise
                return False, error.response.get("Item")
        return True, done.get("Attributes")

    def _expired(self, item: Mapping[str, Any]) -> bool:
        """TTL deletes up to two days late."""
        return float(item["expires_at"]["N"]) <= self._now()


def _is_same(item: Any, job: Job) -> bool:
    """Whether what is stored is what was to be stored, whatever became of it since."""
    if item is None:
        return False
    found, job = job_of(item), replace(job, created_at=round(job.created_at, 3))
    return all(getattr(found, name) == getattr(job, name) for name in ("tenant", "request_id", "created_at", "request"))


def _not_found() -> JobNotFound:
    return JobNotFound("There is no such job, or what came of it is no longer kept.")
