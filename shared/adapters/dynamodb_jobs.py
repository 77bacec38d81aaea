"""Jobs in a DynamoDB table: partition key `job_id` (S), TTL `expires_at`."""

import re
from collections.abc import Callable
from time import time
from typing import TYPE_CHECKING, Final

from shared.adapters.aws import aws_errors
from shared.domain.errors import JobNotFound
from shared.domain.jobs import JOB_ID, Job

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

_WHAT: Final = "The store of jobs"
_ID: Final = re.compile(JOB_ID)


class DynamoDBJobs:
    """Implements `shared.domain.ports.JobStore`; `now` gives seconds since 1970."""

    def __init__(self, client: "DynamoDBClient", table: str, *, now: Callable[[], float] = time) -> None:
        self._client = client
        self._table = table
        self._now = now

    def add(self, job: Job) -> None:
        """One PutItem."""
        with aws_errors(_WHAT):
            self._client.put_item(
                TableName=self._table, Item=_item(job), ConditionExpression="attribute_not_exists(job_id)"
            )

    def get(self, tenant: str, job_id: str) -> Job:
        """One strongly consistent GetItem: a job is asked for as soon as its id is known."""
        if _ID.fullmatch(job_id):
            with aws_errors(_WHAT):
                found = self._client.get_item(TableName=self._table, Key={"job_id": {"S": job_id}}, ConsistentRead=True)
            item = found.get("Item")
            if item is not None and item["tenant"]["S"] == tenant and float(item["expires_at"]["N"]) > self._now():
                return _job(item)
        raise JobNotFound("There is no such job, or what came of it is no longer kept.")


def _item(job: Job) -> "dict[str, AttributeValueTypeDef]":
    return {
        "job_id": {"S": job.job_id},
        "tenant": {"S": job.tenant},
        "model": {"S": job.model},
        "version": {"N": str(job.version)},
        "variant": {"S": job.variant},
        "backend": {"S": job.backend},
        **({} if job.rows is None else {"rows": {"N": str(job.rows)}}),
        "created_at": {"N": str(job.created_at)},
        "expires_at": {"N": str(job.expires_at)},
        "ticket": {"M": {name: {"S": value} for name, value in job.ticket.items()}},
    }


def _job(item: "dict[str, AttributeValueTypeDef]") -> Job:
    return Job(
        job_id=item["job_id"]["S"],
        tenant=item["tenant"]["S"],
        model=item["model"]["S"],
        version=int(item["version"]["N"]),
        variant=item["variant"]["S"],
        backend=item["backend"]["S"],
        rows=int(item["rows"]["N"]) if "rows" in item else None,
        created_at=int(item["created_at"]["N"]),
        expires_at=int(item["expires_at"]["N"]),
        ticket={name: value["S"] for name, value in item["ticket"]["M"].items()},
    )
