"""A job that is followed until it has ended."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import typer

from infra.cli.api_client import Api, RefusedError
from infra.cli.output import INTERRUPTED, UNREACHABLE, Failure, messages
from infra.cli.problems import said_of_job
from shared.domain.jobs import FINISHED

# The first looks come quickly, for jobs that take a moment; from then on as the API asks for.
_FIRST_S: Final = (0.2, 0.3, 0.5, 1.0)
_THEN_S: Final = 2.0
_PASSING: Final = frozenset({429, 502, 503, 504})
_MOST_FAILURES: Final = 15

Job = Mapping[str, Any]


def follow(api: Api, job_id: str, *, pause: Callable[[float], object] = time.sleep) -> Job:
    """The job once it has ended; until then a terminal shows its state, the time that went by, and a bar.

    The bar moves with finished parts, so the spinner beside it says that it lives. Failures that pass are borne for
    half a minute; others, and more of them, are raised.
    """
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    state = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), state, TimeElapsedColumn(), BarColumn(), TextColumn("{task.fields[rows]}"))
    with Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal) as progress:
        task = progress.add_task("asking", total=None, rows="")
        looks = failures = 0
        while True:
            try:
                job: Job = api.get("v1", "jobs", job_id).document()
            except Failure as failure:
                failures += 1
                if failures > _MOST_FAILURES or not _passes(failure):
                    raise
            else:
                failures = 0
                done, total = rows_of(job)
                speed = progress.tasks[task].speed
                shown = f"{done:,}/{total:,} rows" + (f", {speed:,.0f}/s" if speed else "") if total else ""
                progress.update(task, description=str(job["state"]), completed=done, total=total, rows=shown)
                if job["state"] in FINISHED:
                    return job
            pause(_FIRST_S[looks] if looks < len(_FIRST_S) else _THEN_S)
            looks += 1


@contextmanager
def going_on(job_id: str) -> Iterator[None]:
    """Ctrl-C ends the command, and not the job: say so, and how to come back to it."""
    try:
        yield
    except KeyboardInterrupt:
        messages.print(f"\nIt goes on. `sluice jobs show {job_id} --follow` shows how.", soft_wrap=True, markup=False)
        raise typer.Exit(INTERRUPTED) from None


def rows_of(job: Job) -> tuple[int, int | None]:
    """How many rows are done, and how many there are; None while that is not known."""
    progress = job.get("progress") or {}
    return int(progress.get("rows_done") or 0), progress.get("rows_total")


def fetch_result(api: Api, job: Job, path: Path) -> None:
    """Write the result of a job that succeeded to a file."""
    from infra.cli.transfers import download

    result = job.get("result")
    if result is None:
        raise Failure(f"The job {job['job_id']} is {job['state']}: it has no result.")
    # An address of its own opens the storage by itself, and the key is none of the storage's business.
    if address := result.get("url"):
        download(address, path)
    else:
        download(f"{api.url}{result['href']}", path, api.headers)


def raise_unless_succeeded(job: Job, *, quiet: bool = False) -> None:
    """Failure for a job that ended otherwise, with its problem."""
    if job["state"] == "succeeded":
        return
    ended = f"The job {job['job_id']} {_ended(job['state'])}"
    message, places = said_of_job(job["problem"]) if job.get("problem") else ("", ())
    raise Failure(f"{ended}: {message}" if message else f"{ended}.", details=places, quiet=quiet)


def _ended(state: str) -> str:
    return "was cancelled" if state == "cancelled" else state


def _passes(failure: Failure) -> bool:
    return failure.exit_code == UNREACHABLE or (isinstance(failure, RefusedError) and failure.status in _PASSING)
