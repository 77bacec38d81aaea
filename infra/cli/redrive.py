"""`sluice jobs redrive`: what could not be done is tried again."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from infra.cli.deployed import ProfileOption, RegionOption, StackOption
from infra.cli.options import JsonOption, help_text
from infra.cli.output import messages, print_json
from infra.cli.stores import explained, find_stores
from infra.cli.tables import print_table
from infra.cli.times import time_text

if TYPE_CHECKING:
    from shared.domain.dead_letters import RedrivenLetter
    from shared.usecases.redrive_jobs import RedriveJobs

HELP: Final = help_text(
    "Try the jobs and batches in the dead-letter queues again.",
    "They are queued anew, with all their attempts, and their letters are removed. --dry-run shows the letters with "
    "their reasons, and changes nothing. It is the operator's: the local stack's queues, or with --stack a deployed "
    "stack's, with your own AWS credentials.",
    "sluice jobs redrive --dry-run",
    "sluice jobs redrive --limit 50 --stack sluice-dev",
)

_OUTPUTS: Final = (
    "JobsTableName",
    "JobsQueueUrl",
    "JobsDeadLettersUrl",
    "BatchQueueUrl",
    "BatchDeadLettersUrl",
)
_SHOWN: Final = 100


def redrive(
    *,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Most letters that are looked at.")] = 1000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would become of them.")] = False,
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Drive dead letters again."""
    with explained():
        found = list(_redriven(_queues(stack, region, profile), limit, dry_run=dry_run))
    documents = [_document(each) for each in found]
    if as_json:
        print_json({"dry_run": dry_run, "letters": documents})
        return
    if not found:
        messages.print("The dead-letter queues are empty.")
        return
    columns = ("job_id", "tenant", "reason", "detail", "sent_at", "outcome")
    print_table(
        ("job", "tenant", "reason", "detail", "since", "would be" if dry_run else "is"),
        [
            [time_text(document[name]) if name == "sent_at" else document[name] or "" for name in columns]
            for document in documents[:_SHOWN]
        ],
        whole=("job", "reason", "since"),
        spare=("since", "tenant", "reason"),
    )
    if len(found) > _SHOWN:
        messages.print(f"… and {len(found) - _SHOWN} more: --json lists them all.")


def _redriven(queues: "Sequence[RedriveJobs]", limit: int, *, dry_run: bool) -> "Iterator[RedrivenLetter]":
    left = limit
    for redrive_jobs in queues:
        for each in redrive_jobs(left, dry_run=dry_run) if left else ():
            left -= 1
            yield each


def _queues(stack: str | None, region: str | None, profile: str | None) -> "Sequence[RedriveJobs]":
    from shared.adapters.dynamodb_jobs import DynamoDBJobs
    from shared.adapters.sqs_batches import SqsBatchSteps
    from shared.adapters.sqs_dead_letters import SqsDeadLetterQueue
    from shared.adapters.sqs_jobs import SqsJobs
    from shared.usecases.redrive_jobs import RedriveJobs

    make, (table, jobs, dead_jobs, batches, dead_batches) = find_stores(stack, region, profile, _OUTPUTS)
    store, sqs = DynamoDBJobs(make("dynamodb"), table), make("sqs")
    queue, steps = SqsJobs(lambda: sqs, jobs), SqsBatchSteps(lambda: sqs, batches)
    return (
        RedriveJobs(SqsDeadLetterQueue(sqs, dead_jobs), store, lambda job: queue.send(job.tenant, job.job_id)),
        RedriveJobs(SqsDeadLetterQueue(sqs, dead_batches), store, lambda job: steps.send(job, "plan")),
    )


def _document(each: "RedrivenLetter") -> dict[str, Any]:
    letter = each.letter
    return {
        "job_id": letter.job_id,
        "tenant": each.tenant,
        "reason": letter.reason or "received_too_often",
        "detail": letter.detail,
        "attempts": letter.attempts,
        "sent_at": datetime.fromtimestamp(letter.sent_at, UTC).isoformat(timespec="seconds"),
        "outcome": each.outcome,
    }
