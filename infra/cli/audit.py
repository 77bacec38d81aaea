"""`sluice audit verify` and `sluice audit show`: the audit trail of a stack."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from infra.cli.deployed import Account, ProfileOption, RegionOption, StackOption, stack_outputs, unusable
from infra.cli.local import running_stack
from infra.cli.options import JsonOption, help_text
from infra.cli.output import UNREACHABLE, USAGE, Failure, messages, plain, print_json
from infra.cli.tables import print_table
from infra.cli.times import time_text
from shared.domain.errors import BackendTimeout, BackendUnavailable

if TYPE_CHECKING:
    from rich.progress import Progress

    from shared.adapters.dynamodb_audit import DynamoDBAuditTrail
    from shared.adapters.s3_anchors import S3Anchors
    from shared.domain.audit import AuditRecord
    from shared.usecases.read_audit import ShardReport

GROUP_HELP: Final = "Audit: who asked for what, when, and what was decided."
VERIFY_HELP = help_text(
    "Check that the audit trail is what was written.",
    "Reads every segment, and holds it against the one before, the head of its shard and the anchors in the audit "
    "bucket. Exit code 1 if anything was changed, removed or cut off, with the place. With --stack it reads that "
    "deployed stack with your own AWS credentials (dynamodb:Query, GetItem and BatchGetItem on its AuditTable; "
    "s3:ListBucketVersions and s3:GetObjectVersion on its AuditBucket).",
    "sluice audit verify",
    "sluice audit verify --stack sluice-prod --json",
)
SHOW_HELP = help_text(
    "Show records of the audit trail, the newest last.",
    "A segment that is not what was written is not shown, and told of on standard error: `sluice audit verify` says "
    "more. With --stack it reads that deployed stack's AuditTable with your own AWS credentials.",
    "sluice audit show --tenant acme --limit 20",
    "sluice audit show --since 2h",
    "sluice audit show --since 2026-11-21T08:00:00+01:00 --stack sluice-prod --json",
)
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_PLACES: Final = 20


def verify(
    *,
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check all shards."""
    from shared.usecases.read_audit import verify_shard

    with _explained():
        trail, get_anchors = _stores(stack, region, profile)
        anchors = get_anchors()
        shards = sorted({*trail.shards(), *anchors.shards()}, key=lambda name: (len(name), name))
        with _progress() as progress:
            reports = []
            for shard in shards:
                head = trail.head(shard)
                task = progress.add_task(plain(f"shard {shard}"), total=max(head.seq, 0) if head else None)
                reports.append(verify_shard(trail, anchors, shard, partial(progress.advance, task)))
    breaches = [breach for report in reports for breach in report.breaches]
    if as_json:
        print_json({"intact": not breaches, "shards": [_document(report) for report in reports]})
    elif reports:
        _print_reports(reports)
    else:
        messages.print("The audit trail has no segments yet.", style="dim")
    if breaches:
        places = [
            f"shard {breach.shard}, segment {breach.seq}: {breach.damage} – {breach.detail}" for breach in breaches
        ]
        more = len(places) - _MAX_PLACES
        details = (*places[:_MAX_PLACES], *([f"and {more} more (--json has them)"] if more > 0 else []))
        raise Failure("The audit trail is not what was written.", details=details, quiet=as_json)


def show(
    *,
    tenant: Annotated[str | None, typer.Option(metavar="TENANT", help="Only records of this tenant.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="Most records to show.")] = 50,
    since: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="How far back: 30m, 2h, 7d, or a date or time (RFC 3339; UTC unless it says)."
        ),
    ] = "7d",
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the newest records."""
    start = _start(since)
    from shared.usecases.read_audit import newest_records

    with _explained():
        trail, _ = _stores(stack, region, profile)
        found = newest_records(trail, since=start, limit=limit, tenant=tenant)
    if as_json:
        import msgspec

        damaged = [{"shard": shard, "seq": seq} for shard, seq in found.damaged]
        print_json({"records": [msgspec.to_builtins(record) for record in found.records], "damaged": damaged})
        return
    for record in found.records:
        typer.echo(plain(_line(record)))
    for shard, seq in found.damaged:
        messages.print(
            f"Shard {shard}, segment {seq} is not what was written: it is left out.", style="red", markup=False
        )
    if not found.records:
        messages.print("No record fits.", style="dim")


def _stores(
    stack: str | None, region: str | None, profile: str | None
) -> "tuple[DynamoDBAuditTrail, Callable[[], S3Anchors]]":
    """The trail of the stack that the options name, and a way to get at its anchors."""
    from shared.adapters.dynamodb_audit import DynamoDBAuditTrail
    from shared.adapters.s3_anchors import S3Anchors

    if stack is None:
        if region or profile:
            raise Failure("--region and --profile belong to --stack.", exit_code=USAGE)
        from infra.local.aws_client import isolated_session, local_client

        local = running_stack()
        client: Callable[[str], Any] = partial(local_client, isolated_session(), endpoint_url=local.aws_endpoint_url)
        table, bucket = local.outputs["AuditTableName"], local.outputs["AuditBucketName"]
    else:
        account = Account.of(region, profile)
        client = account.client
        table, bucket = stack_outputs(account, stack, "AuditTableName", "AuditBucketName")
    return DynamoDBAuditTrail(client("dynamodb"), table), lambda: S3Anchors(client("s3"), bucket)


@contextmanager
def _explained() -> Iterator[None]:
    from botocore.exceptions import BotoCoreError

    try:
        yield
    except (BackendUnavailable, BackendTimeout) as error:
        raise Failure(f"{error.detail} ({error.__cause__})", exit_code=UNREACHABLE) from error
    except BotoCoreError as error:
        raise unusable(error) from error


def _progress() -> "Progress":
    """Bars on a terminal, nothing elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal)


def _print_reports(reports: "Sequence[ShardReport]") -> None:
    header = ("shard", "segments", "records", "anchored up to", "state")
    print_table(
        header,
        [
            [each.shard, each.segments, each.records, each.anchored, "broken" if each.breaches else "whole"]
            for each in reports
        ],
        right=header[:-1],
        marked=[at for at, report in enumerate(reports) if report.breaches],
    )


def _document(report: "ShardReport") -> dict[str, object]:
    return {
        "shard": report.shard,
        "segments": report.segments,
        "records": report.records,
        "anchored": report.anchored,
        "breaches": [
            {"seq": breach.seq, "damage": breach.damage.value, "detail": breach.detail} for breach in report.breaches
        ],
    }


def _line(record: "AuditRecord") -> str:
    if record.kind == "authorization":
        what, decision = "authorization", "allowed" if record.authorized else f"refused ({record.reason or 'unknown'})"
    elif record.kind == "request":
        what = " ".join(part for part in (record.route, record.model, record.version, record.target) if part)
        decision = f"{record.status} {record.code}"
    else:
        what, decision = f"unreadable line of {record.bytes} bytes", f"sha256:{record.digest}"
    who = f"{record.tenant or '-'} {record.key_id or '-'}"
    return f"{time_text(record.time)}  {who}  {what}  {decision}  {record.request_id or '-'}"


def _start(since: str) -> datetime:
    """The time that `--since` means."""
    number, unit = since[:-1], since[-1:]
    try:
        if unit in _UNITS and number.isdecimal():
            return max(datetime.now(UTC) - timedelta(**{_UNITS[unit]: int(number)}), _EPOCH)
        when = datetime.fromisoformat(since)
        return max(when if when.tzinfo else when.replace(tzinfo=UTC), _EPOCH)
    except (ValueError, OverflowError):
        raise Failure(
            f"{since!r} is no time: 30m, 2h, 7d, a date such as 2026-11-21, or a time such as 2026-11-21T08:00:00Z.",
            exit_code=USAGE,
        ) from None
