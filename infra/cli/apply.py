"""`sluice apply`: endpoints as files say."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from infra.cli.deployed import ProfileOption, RegionOption, StackOption
from infra.cli.endpoint_access import Endpoints, explained_stores
from infra.cli.endpoint_plans import DryRunOption, ExitCodeOption, NoteOption, Planned, Run, YesOption
from infra.cli.options import JsonOption, help_text
from infra.cli.output import messages, plain
from shared.domain.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from infra.cli.endpoint_files import EndpointFile

HELP = help_text(
    "Configure endpoints as files say, after showing what changes.",
    "A file is YAML or JSON and has the configuration of one endpoint; in YAML there may be several, with lines of "
    "`---` between. Of a folder, the .yaml, .yml and .json files are read, not those of folders within. All files are "
    "checked first; then the plan is shown and asked about. What a file leaves out has its default; endpoints that no "
    "file names stay as they are. If somebody changes an endpoint in between, that one is not touched, and the command "
    "ends with 1. Without --stack these are the local stack's endpoints; with it, that deployed stack's, changed with "
    "your own AWS credentials.",
    "sluice apply -f endpoints/",
    "sluice apply -f endpoints/ --dry-run --exit-code --stack sluice-dev",
    "sluice apply -f tumor.yaml --yes --note 'version 2 for everybody'",
    "sluice endpoints show tumor --revision 3 | sluice apply -f - --yes",
)
FilesOption = Annotated[
    list[str], typer.Option("--file", "-f", help="File or folder; - reads standard input.", metavar="PATH")
]
_MAX_NAMES: Final = 8


def apply(
    *,
    files: FilesOption,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    note: NoteOption = "",
    exit_code: ExitCodeOption = False,
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Configure endpoints."""
    from infra.cli.endpoint_files import read_files

    run = Run(dry_run=dry_run, yes=yes, exit_code=exit_code, as_json=as_json)
    wanted = read_files(files)
    endpoints = Endpoints.of(stack, region, profile)
    plans, others = _plans(endpoints, wanted, note)
    if others and not as_json:
        _tell(others)
    run(endpoints, plans, {"not_in_files": others})


def _plans(endpoints: Endpoints, wanted: Sequence["EndpointFile"], note: str) -> tuple[list[Planned], list[str]]:
    """A plan for each file, and the endpoints that are in none; Failure with all that does not fit."""
    from infra.cli.endpoint_files import problems_in, wrong

    plans: list[Planned] = []
    problems: list[str] = []
    with explained_stores():
        stored = {found.config.endpoint: found.revision for found in endpoints.manage.list()}
        for file in wanted:
            read = stored.pop(file.config.endpoint, 0)
            try:
                changed = endpoints.manage.put(file.config, expected=read, by="", note=note, dry_run=True)
            except (InvalidRequest, NotFound) as error:
                problems += problems_in(file.source, error)
                continue
            plans.append(Planned.of(read, changed, str(file.source)))
    if problems:
        raise wrong(problems)
    return plans, list(stored)


def _tell(others: Sequence[str]) -> None:
    names = ", ".join(others[:_MAX_NAMES]) + (", …" if len(others) > _MAX_NAMES else "")
    stay = "1 endpoint is stored and in no file: it stays as it is"
    if len(others) > 1:
        stay = f"{len(others)} endpoints are stored and in no file: they stay as they are"
    messages.print(plain(f"{stay} ({names})."), markup=False, soft_wrap=True, style="dim")
