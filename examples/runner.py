"""Runs the builders side by side, each in a process of its own, and shows how far they are."""

import fcntl
import json
import multiprocessing
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from examples.catalogue import STAMP, VERSION, BuildFailed, sizes

_COLUMNS = (SpinnerColumn(finished_text="[green]✓"), TextColumn("{task.description}"), TimeElapsedColumn())


@contextmanager
def exclusive(out: Path) -> Iterator[None]:
    """One build at a time into `out`: `make run` and `make test` may start together."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build_all(stamps: Mapping[str, str], out: Path) -> int:
    """Build the named examples into `out`; 0 if all succeeded, 1 if one failed, 130 if interrupted.

    The builders spend most of their time on reading libraries and on the download, so they run at the same time.
    """
    if not stamps:
        return 0
    spawn = multiprocessing.get_context("spawn")
    with Progress(*_COLUMNS) as progress, ProcessPoolExecutor(len(stamps), mp_context=spawn) as pool:
        tasks = {
            pool.submit(build_one, name, stamp, out): (name, progress.add_task(f"model {name}: building", total=1))
            for name, stamp in stamps.items()
        }
        try:
            failures = [_settle(future, *tasks[future], progress) for future in as_completed(tasks)]
        except KeyboardInterrupt:
            return 130
    for failure in filter(None, failures):
        sys.stderr.write(failure + "\n")
    return 1 if any(failures) else 0


def _settle(future: Future[None], name: str, task: TaskID, progress: Progress) -> str:
    """Show what became of a build; the message if it failed, else nothing. Errors that nobody foresaw are raised."""
    try:
        future.result()
    except BuildFailed as error:
        progress.update(task, description=f"[red]model {name}: failed[/red]")
        progress.stop_task(task)
        return f"The example {name} could not be built: {error}"
    progress.update(task, description=f"model {name}: built", completed=1)
    return ""


def build_one(name: str, stamp: str, out: Path) -> None:
    """Build beside the final place and move it there whole, so that a killed build leaves no half package."""
    target = out / name
    target.mkdir(parents=True, exist_ok=True)
    # One folder deeper than `<name>/<version>`, so that nobody takes a half package for one.
    with tempfile.TemporaryDirectory(prefix=".building-", dir=out) as workspace:
        folder = Path(workspace) / name / str(VERSION)
        folder.mkdir(parents=True)
        import_module(f"examples.{name}.build").build(folder)
        (target / STAMP).unlink(missing_ok=True)
        shutil.rmtree(target / str(VERSION), ignore_errors=True)
        folder.rename(target / str(VERSION))
    document = json.dumps({"stamp": stamp, "files": sizes(target / str(VERSION))}, indent=2)
    (target / STAMP).write_text(document + "\n", encoding="utf-8")
