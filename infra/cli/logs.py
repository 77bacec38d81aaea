"""`sluice logs`: what the functions, the container and the AWS services of the local stack have written."""

import re
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from infra.cli.options import JsonOption, help_text
from infra.cli.output import UNREACHABLE, USAGE, Failure, plain, print_json
from infra.local.home import Home

HELP = help_text(
    "Show the logs of the local stack.",
    "SOURCE is a function's logical id or name, or container, aws or stack; without one, all are merged by time. "
    "stack is the start and end of a stack that `sluice up --detach` started; others tell that to their terminal. The "
    "logs stay after the stack is down, until the next start.",
    "sluice logs",
    "sluice logs PredictFunction --tail 20",
    "sluice logs --follow",
)
_POLL_S: Final = 0.2
_READ_BYTES: Final = 1024 * 1024
# Enough for `--tail` to find its lines in; a log file itself may grow to 32 MiB.
_TAIL_BYTES: Final = 4 * 1024 * 1024
_MAX_LINE_BYTES: Final = 256 * 1024
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,6})?(?:Z|[+-]\d\d:?\d\d)?")
_COLOURS: Final = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green", "bright_magenta")
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


def logs(
    source: Annotated[
        str | None, typer.Argument(metavar="SOURCE", help="Function, container, aws or stack.", show_default=False)
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written, until Ctrl-C.")] = False,
    tail: Annotated[int, typer.Option("--tail", "-n", min=0, max=100_000, help="Lines to begin with.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Print the last lines, then what comes."""
    if follow and as_json:
        raise Failure("--follow has no end, and --json is one document: choose one.", exit_code=USAGE)
    home = Home.find()
    only = _stem(home, source)
    files = {path.stem: LogFile(path) for path in _paths(home.logs, only)}
    if not files and not follow:
        named = f"{home.logs} has no log of {source!r}" if source else f"There are no logs in {home.logs}"
        available = ", ".join(path.stem for path in _paths(home.logs, None))
        hint = f" It has {available}." if available else " Start the stack with `sluice up`."
        if available and source == "stack":
            hint = " Only `sluice up --detach` writes it; in the foreground it is on the terminal." + hint
        raise Failure(f"{named}.{hint}", exit_code=USAGE if available else UNREACHABLE)
    lines = [line for file in files.values() for line in file.last_lines(tail)]
    lines.sort(key=lambda line: line[0])  # stable: lines of one file stay in order
    lines = lines[-tail:] if tail else []
    if as_json:
        print_json({"lines": [{"source": name, "line": text} for _, name, text in lines]})
        return
    for _, name, text in lines:
        _print(name, text)
    if follow:
        _follow(home.logs, only, files)


class LogFile:
    """One log file, read onwards from where the last read ended; a file that was replaced is read from its start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = 0
        self._offset = 0
        self._partial = b""

    def last_lines(self, count: int) -> list[tuple[datetime, str, str]]:
        """At most `count` last lines as (time, source, text); a line without a time has that of the line before."""
        stat = self._path.stat()
        self._inode, self._offset = stat.st_ino, max(0, stat.st_size - _TAIL_BYTES)
        cut = self._offset > 0
        lines = list(self.new_lines())
        when = _EPOCH
        found: deque[tuple[datetime, str, str]] = deque(maxlen=count)
        for line in lines[1:] if cut else lines:
            when = _time_of(line) or when
            found.append((when, self._path.stem, line))
        return list(found)

    def new_lines(self) -> Iterator[str]:
        """The whole lines that were written since the last call."""
        try:
            with self._path.open("rb") as file:
                stat = self._path.stat()
                if stat.st_ino != self._inode or stat.st_size < self._offset:
                    self._inode, self._offset, self._partial = stat.st_ino, 0, b""
                file.seek(self._offset)
                while data := file.read(_READ_BYTES):
                    self._offset += len(data)
                    *whole, self._partial = (self._partial + data).split(b"\n")
                    for line in whole:
                        yield line.decode("utf-8", "replace")
                    if len(self._partial) > _MAX_LINE_BYTES:
                        yield self._partial.decode("utf-8", "replace")
                        self._partial = b""
        except FileNotFoundError:  # between two names while it is rotated; the next call finds it
            return


def _follow(folder: Path, only: str | None, files: dict[str, LogFile]) -> None:
    while True:
        for path in _paths(folder, only):
            file = files.setdefault(path.stem, LogFile(path))
            for line in file.new_lines():
                _print(path.stem, line)
        time.sleep(_POLL_S)


def _paths(folder: Path, only: str | None) -> list[Path]:
    return sorted(path for path in folder.glob("*.log") if only in (None, path.stem))


def _stem(home: Home, source: str | None) -> str | None:
    """The log that `source` means: a function's name in AWS counts as its logical id while the stack is up."""
    local = home.read() if source else None
    by_name = {name: logical_id for logical_id, name in local.functions.items()} if local else {}
    return by_name.get(source, source) if source else None


def _time_of(line: str) -> datetime | None:
    found = _TIMESTAMP.search(line[:400])
    if not found:
        return None
    try:
        when = datetime.fromisoformat(found[0].replace(",", "."))
    except ValueError:  # digits that only look like a time
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _print(source: str, line: str) -> None:
    colour = _COLOURS[sum(source.encode()) % len(_COLOURS)]
    typer.echo(typer.style(f"{source:<18} ", fg=colour) + plain(line))
