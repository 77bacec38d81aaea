"""Changes of endpoints: a plan that is shown, asked about, and carried out."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from infra.cli.endpoint_access import Endpoints, explained_stores
from infra.cli.output import USAGE, Failure, console, messages, plain, print_json
from infra.cli.problems import said_of
from shared.domain.admin_bounds import MAX_NOTE
from shared.domain.errors import BackendError, SluiceError

if TYPE_CHECKING:
    from shared.domain.endpoint.changes import Change
    from shared.domain.endpoint.config import StoredEndpoint
    from shared.usecases.manage_endpoints import Changed


def _short(note: str) -> str:
    if len(note) > MAX_NOTE:
        raise typer.BadParameter(f"must have at most {MAX_NOTE} characters")
    return note


YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, go ahead.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show the plan, and change nothing.")]
NoteOption = Annotated[str, typer.Option(help="Why, for the history.", metavar="TEXT", callback=_short)]
ExitCodeOption = Annotated[
    bool, typer.Option("--exit-code", help="With --dry-run: exit with 4 if there is something to change.")
]

CHANGES: Final = 4
IN_FORCE: Final = "In force everywhere within 5 s."

Action = Literal["create", "update", "unchanged"]

_DONE: Final = {"create": "created", "update": "updated", "unchanged": "unchanged"}
_SIGNS: Final = {"create": "+", "update": "~", "unchanged": "="}
_HEAD_STYLES: Final = {"create": "bold green", "update": "bold yellow", "unchanged": "dim"}
_STYLES: Final = {"add": "green", "change": "yellow", "remove": "red"}


@dataclass(frozen=True, slots=True)
class Planned:
    """What an endpoint would become, made from revision `read` (0: nothing is stored); `source` is where it stands."""

    read: int
    stored: "StoredEndpoint"
    changes: Sequence["Change"]
    source: str = ""

    @classmethod
    def of(cls, read: int, changed: "Changed", source: str = "") -> "Planned":
        """The plan of a dry run."""
        stored, changes = changed
        return cls(read, stored, changes, source)

    @property
    def name(self) -> str:
        """The endpoint."""
        return self.stored.config.endpoint

    @property
    def action(self) -> Action:
        """What is to be done."""
        if not self.changes:
            return "unchanged"
        return "update" if self.read else "create"


@dataclass(slots=True)
class Outcome:
    """How a plan went for one endpoint: `error` says why not, `revision` is the one in force now."""

    planned: Planned
    revision: int
    error: str = ""

    def document(self, *, dry_run: bool) -> dict[str, Any]:
        """As JSON has it."""
        from shared.schemas.endpoint import ChangeDocument

        action = self.planned.action
        done = "failed" if self.error else _DONE[action]
        return {
            "endpoint": self.planned.name,
            "outcome": action if dry_run else done,
            "revision": self.revision,
            "changes": [ChangeDocument.of(change).model_dump(mode="json") for change in self.planned.changes],
            **({"source": self.planned.source} if self.planned.source else {}),
            **({"error": self.error} if self.error else {}),
        }


@dataclass(frozen=True, slots=True)
class Run:
    """How a command is to carry plans out."""

    dry_run: bool = False
    yes: bool = False
    exit_code: bool = False
    as_json: bool = False

    def __post_init__(self) -> None:
        if self.exit_code and not self.dry_run:
            raise Failure("--exit-code belongs to --dry-run.", exit_code=USAGE)

    def __call__(self, endpoints: Endpoints, plans: Sequence[Planned], more: dict[str, Any] | None = None) -> None:
        """Show, ask, apply and sum up; `more` is added to the JSON document. Ends the command if anything fails."""
        if not self.as_json:
            _show(plans)
        open_ = any(plan.changes for plan in plans)
        if self.dry_run or not open_:
            outcomes = [Outcome(plan, plan.read) for plan in plans]
        else:
            self._confirm(plans)
            outcomes = _apply(endpoints, plans)
        if self.as_json:
            documents = [outcome.document(dry_run=self.dry_run) for outcome in outcomes]
            print_json({"dry_run": self.dry_run, "endpoints": documents, **(more or {})})
        elif open_ and not self.dry_run:
            _sum_up(outcomes)
        if failed := [outcome for outcome in outcomes if outcome.error]:
            raise _failure(failed, quiet=self.as_json)
        if self.exit_code and open_:
            raise typer.Exit(CHANGES)

    def _confirm(self, plans: Sequence[Planned]) -> None:
        if self.yes:
            return
        if self.as_json and sys.stdin.isatty():  # what is asked about must be seen
            _show(plans, to=messages.print)
        if not sys.stdin.isatty():
            raise Failure(
                "Nothing was changed: there is no terminal to ask on. Say --yes to go ahead.", exit_code=USAGE
            )
        if not typer.confirm("Apply this?", err=True):
            raise Failure("Nothing was changed.")


def lines_of(changes: Iterable["Change"]) -> Iterable[tuple[str, str]]:
    """The lines of a plan, each with its style."""
    return ((plain(str(change)), _STYLES[change.kind]) for change in changes)


def print_styled(text: str, style: str, to: Callable[..., None] | None = None) -> None:
    """Print a line as it is, however long."""
    from rich.text import Text

    (to or console.print)(Text(text, style), soft_wrap=True)


def _show(plans: Sequence[Planned], to: Callable[..., None] | None = None) -> None:
    for plan in plans:
        action = plan.action
        head = f"{_SIGNS[action]} " + (f"{plan.name} unchanged" if action == "unchanged" else f"{action} {plan.name}")
        if action == "update":
            head += f" (revision {plan.read})"
        print_styled(plain(f"{head}{f'  {plan.source}' if plan.source else ''}"), _HEAD_STYLES[action], to)
        for line, style in lines_of(plan.changes):
            print_styled(f"    {line}", style, to)
    actions = [plan.action for plan in plans]
    print_styled(
        f"Plan: {actions.count('create')} to create, {actions.count('update')} to update, "
        f"{actions.count('unchanged')} unchanged.",
        "bold",
        to,
    )


def _apply(endpoints: Endpoints, plans: Sequence[Planned]) -> list[Outcome]:
    """One after the other; a store that fails is not asked further."""
    outcomes = []
    by, down = endpoints.author(), ""
    for plan in plans:
        outcome = Outcome(plan, plan.read)
        outcomes.append(outcome)
        if not plan.changes:
            continue
        if down:
            outcome.error = f"not tried: {down}"
            continue
        try:
            with explained_stores():
                stored, _ = endpoints.manage.put(plan.stored.config, expected=plan.read, by=by, note=plan.stored.note)
            outcome.revision = stored.revision
        except SluiceError as error:
            outcome.error = said_of(error)
            down = error.title if isinstance(error, BackendError) else ""
        except Failure as failure:
            outcome.error, down = failure.message, "the store is out of reach"
    return outcomes


def _sum_up(outcomes: Sequence[Outcome]) -> None:
    done = [outcome for outcome in outcomes if not outcome.error]
    for outcome in done:
        if outcome.planned.changes:
            messages.print(
                plain(f"{outcome.planned.name} has revision {outcome.revision} now."), markup=False, soft_wrap=True
            )
    actions = [outcome.planned.action for outcome in done]
    counts = [f"{actions.count(action)} {_DONE[action]}" for action in ("create", "update", "unchanged")]
    if len(done) < len(outcomes):
        counts.append(f"{len(outcomes) - len(done)} failed")
    messages.print(f"Applied: {', '.join(counts)}. {IN_FORCE}", markup=False)


def _failure(failed: Sequence[Outcome], *, quiet: bool) -> Failure:
    if len(failed) == 1:
        (only,) = failed
        return Failure(f"{only.planned.name} was not changed: {only.error}", quiet=quiet)
    return Failure(
        f"{len(failed)} endpoints were not changed.",
        details=tuple(f"{outcome.planned.name}: {outcome.error}" for outcome in failed),
        quiet=quiet,
    )
