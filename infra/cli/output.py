"""What every command shares on its way out: consoles, JSON, failures and their exit codes.

Standard output carries the result, standard error everything else (messages, progress, failures). With `--json` the
result is one JSON document, and colours are for terminals only.
"""

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final, cast

import typer

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
INTERRUPTED: Final = 130  # as shells have it for SIGINT
# A terminal would obey these if a message or a log line brought them along; tab and line feed stay.
_CONTROL: Final = dict.fromkeys(i for i in (*range(32), *range(127, 160)) if chr(i) not in "\t\n")
_PIPE_WIDTH: Final = 120


class Failure(Exception):
    """Ends a command: `message` says what is wrong and what to do, `details` are shown as lines below it.

    `quiet` shows nothing, for a command that has said it all in JSON.
    """

    def __init__(
        self, message: str, *, exit_code: int = FAILED, details: tuple[str, ...] = (), quiet: bool = False
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.details = details
        self.quiet = quiet

    def show(self) -> None:
        """Write it to standard error."""
        if self.quiet:
            return
        typer.secho("Error: ", fg="red", bold=True, err=True, nl=False)
        typer.echo(plain("\n  ".join((self.message, *self.details))), err=True)


class _LazyConsole:
    """A rich console, made when it is first used: rich takes 0.1 s to load, and help and JSON need none of it."""

    def __init__(self, *, stderr: bool) -> None:
        self._stderr = stderr
        self._made: Console | None = None

    def _console(self) -> "Console":
        if self._made is None:
            from rich.console import Console

            stream = sys.stderr if self._stderr else sys.stdout
            width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
            self._made = Console(stderr=self._stderr, width=width, highlight=False, emoji=False)
        return self._made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._console(), name)

    def __enter__(self) -> "Console":
        return self._console().__enter__()

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        self._console().__exit__(kind, error, trace)


console = cast("Console", _LazyConsole(stderr=False))
"""Standard output, for people."""

messages = cast("Console", _LazyConsole(stderr=True))
"""Standard error, for messages and progress."""


def print_json(document: Any) -> None:
    """Write one JSON document to standard output."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def plain(text: str) -> str:
    """The text without control characters."""
    return text.translate(_CONTROL)


def size_text(size: int) -> str:
    """A number of bytes for people, in SI units."""
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"
