"""`sluice endpoints`: what is set for endpoints, how it came about, and the way back."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from infra.cli.deployed import ProfileOption, RegionOption, StackOption
from infra.cli.endpoint_access import Endpoints, told
from infra.cli.endpoint_plans import DryRunOption, NoteOption, Planned, Run, YesOption, lines_of, print_styled
from infra.cli.endpoint_revisions import check_revision, kept_of, known_revisions
from infra.cli.options import JsonOption, help_text
from infra.cli.output import USAGE, Failure, console, messages, plain, print_json
from infra.cli.tables import print_table
from infra.cli.times import time_text

if TYPE_CHECKING:
    from shared.domain.endpoint.changes import Change
    from shared.domain.endpoint.config import EndpointConfig, StoredEndpoint

GROUP_HELP: Final = "Endpoints: which versions answer, where, and by what rules."
LIST_HELP = help_text(
    "List the endpoints for which something is set.",
    "With the shares of the traffic that their variants get. For every other endpoint the defaults hold.",
    "sluice endpoints list",
    "sluice endpoints list --stack sluice-dev --json",
)
SHOW_HELP = help_text(
    "Show what is set for an endpoint, as a file for `sluice apply`.",
    "What is as by default is left out, unless --full asks for it.",
    "sluice endpoints show tumor",
    "sluice endpoints show tumor --full --revision 3",
    "sluice endpoints show tumor > endpoints/tumor.yaml",
)
HISTORY_HELP = help_text(
    "Show the last revisions of an endpoint, the newest first.",
    "The last hundred are kept. With --diff, what each of them changed.",
    "sluice endpoints history tumor",
    "sluice endpoints history tumor --diff --limit 3",
)
ROLLBACK_HELP = help_text(
    "Set an endpoint back to an earlier revision.",
    "That becomes a new revision with the same content, so it can be undone in turn. The plan is shown and asked "
    "about.",
    "sluice endpoints rollback tumor",
    "sluice endpoints rollback tumor --to 3 --yes --note 'version 4 is slower'",
)

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of an endpoint: that of its model.", show_default=False)
]
RevisionOption = Annotated[
    int | None, typer.Option(help="An earlier revision, from 1.", metavar="REVISION", show_default=False)
]


def list_(
    *,
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show all endpoints."""
    with told():
        found = Endpoints.of(stack, region, profile).manage.list()
    if as_json:
        print_json({"endpoints": [_document(stored) for stored in found]})
    elif not found:
        messages.print("Nothing is set for any endpoint: the defaults hold. `sluice apply -f FILE` sets something.")
    else:
        print_table(
            ("endpoint", "revision", "variants", "shadow", "experiment", "changed"),
            [_row(stored) for stored in found],
            right=("revision",),
            whole=("endpoint", "changed"),
            spare=("experiment", "shadow", "changed"),
        )


def show(
    name: NameArgument,
    *,
    revision: RevisionOption = None,
    full: Annotated[bool, typer.Option("--full", help="Also what is as by default.")] = False,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print YAML (the default).")] = False,
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show an endpoint."""
    if as_yaml and as_json:
        raise Failure("Either --yaml or --json.", exit_code=USAGE)
    check_revision(name, revision)
    with told():
        manage = Endpoints.of(stack, region, profile).manage
        with known_revisions(manage, name):
            stored = manage.get(name) if revision is None else manage.revision(name, revision)
    if as_json:
        print_json(_document(stored))
        return
    from infra.cli.endpoint_text import yaml_of

    typer.echo(yaml_of(stored, full=full), nl=False)


def history(
    name: NameArgument,
    *,
    diff: Annotated[bool, typer.Option("--diff", help="Show what each revision changed.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most so many.")] = 20,
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show revisions."""
    with told():
        found = Endpoints.of(stack, region, profile).manage.history(name, limit=limit + 1)
    steps = _steps(found)[:limit]
    if as_json:
        from shared.schemas.endpoint import ChangeDocument

        print_json(
            {
                "revisions": [
                    {
                        **_document(stored),
                        "changes": None
                        if plan is None
                        else [ChangeDocument.of(change).model_dump(mode="json") for change in plan],
                    }
                    for stored, plan in steps
                ]
            }
        )
    elif not steps:
        messages.print(plain(f"Nothing was ever set for {name}."), markup=False, soft_wrap=True)
    elif diff:
        _show_steps(steps)
    else:
        print_table(
            ("revision", "when", "by", "changes", "note"),
            [
                [stored.revision, _when(stored), stored.changed_by, "–" if plan is None else len(plan), stored.note]
                for stored, plan in steps
            ],
            right=("revision", "changes"),
            whole=("when",),
        )


def rollback(
    name: NameArgument,
    *,
    to: Annotated[
        int | None,
        typer.Option(help="Which revision, from 1 (default: the one before).", metavar="REVISION", show_default=False),
    ] = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    note: NoteOption = "",
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go back."""
    run = Run(dry_run=dry_run, yes=yes, as_json=as_json)
    check_revision(name, to)
    endpoints = Endpoints.of(stack, region, profile)
    with told():
        read = endpoints.manage.get(name).revision
        if to is None and read < 2:
            raise Failure(f"There is no revision to go back to: {kept_of(name, read)}.")
        with known_revisions(endpoints.manage, name):
            changed = endpoints.manage.rollback(name, to or read - 1, expected=read, by="", note=note, dry_run=True)
    run(endpoints, [Planned.of(read, changed)])


def _row(stored: "StoredEndpoint") -> list[Any]:
    from infra.cli.endpoint_text import percent, shares, version_text

    config = stored.config
    by_name = shares(config)
    variants = [f"{v.name} {percent(by_name[v.name])} ({version_text(config, v)})" for v in config.variants]
    return [
        config.endpoint,
        stored.revision,
        ", ".join(variants),
        _shadow(config),
        "–" if config.experiment is None else config.experiment.name,
        _when(stored),
    ]


def _shadow(config: "EndpointConfig") -> str:
    from infra.cli.endpoint_text import percent

    return "–" if config.shadow is None else f"{config.shadow.variant} ({percent(config.shadow.share)})"


def _steps(found: Sequence["StoredEndpoint"]) -> "list[tuple[StoredEndpoint, Sequence[Change] | None]]":
    """Revisions with what each changed; None for one whose predecessor is not kept or was not asked for."""
    from shared.domain.endpoint.changes import changes

    steps: list[tuple[StoredEndpoint, Sequence[Change] | None]] = [
        (newer, changes(older.config, newer.config)) for newer, older in pairwise(found)
    ]
    if found:
        oldest = found[-1]
        steps.append((oldest, changes(None, oldest.config) if oldest.revision == 1 else None))
    return steps


def _show_steps(steps: "Sequence[tuple[StoredEndpoint, Sequence[Change] | None]]") -> None:
    for stored, plan in steps:
        by = f" by {stored.changed_by}" if stored.changed_by else ""
        note = f": {stored.note}" if stored.note else ""
        print_styled(plain(f"revision {stored.revision}, {_when(stored)}{by}{note}"), "bold")
        if plan is None:
            console.print("    the revision before it is no longer kept", style="dim")
        for line, style in lines_of(plan or ()):
            print_styled(f"    {line}", style)


def _when(stored: "StoredEndpoint") -> str:
    return time_text(stored.changed_at)


def _document(stored: "StoredEndpoint") -> dict[str, Any]:
    import msgspec

    from shared.schemas.endpoint import EndpointDocument, encoded

    document: dict[str, Any] = msgspec.json.decode(encoded(EndpointDocument.of(stored)))
    return document
