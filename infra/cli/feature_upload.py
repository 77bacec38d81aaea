"""The rows of a file on their way into the feature store."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from infra.cli.feature_files import Columns, Row, Source, open_features
from infra.cli.output import FAILED, Failure, messages, plain, print_json
from infra.cli.stores import explained
from shared.domain.new_features import MAX_WRITTEN
from shared.usecases.manage_features import ManageFeatures

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SHOWN: Final = 10
# Of a file with nothing but faults the document would hold every row.
_LISTED: Final = 1000


@dataclass(frozen=True, slots=True)
class Target:
    """Where rows go: a set of a tenant's features."""

    features: ManageFeatures
    tenant: str
    set: str


def put_file(target: Target, path: Path, columns: Columns, expires_at: int | None, *, as_json: bool) -> None:
    """Store a file's rows; those that could not be stored are named, and end the command with a failure."""
    stored, failed = 0, 0
    listed: list[dict[str, str]] = []
    with open_features(path, columns, expires_at) as source, _bar(source) as bar:
        while rows := list(islice(source.rows, MAX_WRITTEN)):
            with explained(), _interrupted(stored):
                faults = list(_store(target, rows))
            stored += len(rows) - len(faults)
            failed += len(faults)
            for row, detail in faults:
                if len(listed) < _LISTED:
                    listed.append({"place": row.place, "detail": detail})
                if not as_json and len(listed) <= _SHOWN:
                    messages.print(plain(f"{row.place}: {detail}"), markup=False, soft_wrap=True)
            bar(source.done())
    if as_json:
        print_json({"stored": stored, "failed": failed, "errors": listed})
    else:
        messages.print(
            f"Stored the features of {stored} rows in {target.set} of {target.tenant}.", markup=False, soft_wrap=True
        )
    if failed:
        more = f" The first {_SHOWN} are shown above; --json lists them." if failed > _SHOWN else ""
        raise Failure(f"{failed} rows were not stored.{more}", exit_code=FAILED, quiet=as_json)


def _store(target: Target, rows: Sequence[Row]) -> Iterator[tuple[Row, str]]:
    """Store rows; yields those that were not stored, and why."""
    good = [(row, row.new) for row in rows if row.new is not None]
    refused = target.features.put_many(target.tenant, target.set, [new for _, new in good]) if good else ()
    yield from ((row, row.fault) for row in rows if row.new is None)
    yield from ((good[each.index][0], each.error.detail) for each in refused)


@contextmanager
def _interrupted(stored: int) -> Iterator[None]:
    """Say how far it came where the stores fail on the way."""
    try:
        yield
    except Exception:
        if stored:
            messages.print(f"{stored} rows were stored before. The same command stores the rest.", markup=False)
        raise


@contextmanager
def _bar(source: Source) -> Iterator["_Bar"]:
    """A bar on a terminal, nothing elsewhere."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal) as progress:
        yield _Bar(progress, progress.add_task("storing", total=source.total or None))


class _Bar:
    def __init__(self, progress: "Progress", task: "TaskID") -> None:
        self._progress = progress
        self._task = task

    def __call__(self, done: int) -> None:
        self._progress.update(self._task, completed=done)
