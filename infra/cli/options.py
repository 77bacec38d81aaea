"""Options and help texts that several commands share."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from infra.cli.output import USAGE, Failure

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document, for scripts.")]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url", envvar="SLUICE_API_URL", help="Address of the API (default: the local stack).", metavar="URL"
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar="SLUICE_API_KEY",
        show_envvar=True,
        help="API key (default: the local stack's). Others on this machine can see it here, but not in the variable.",
        metavar="KEY",
    ),
]


def help_text(summary: str, details: str, *examples: str) -> str:
    """A command's help: one line, what it does, and examples that are kept as they are written."""
    # A backspace alone on a line tells Typer's formatter to leave the paragraph as it is.
    lines = "\n".join(f"  {example}" for example in examples)
    return f"{summary}\n\n{details}\n\n\b\nExamples:\n{lines}"


def read_input(argument: str, limit: int) -> bytes:
    """The bytes of the file `argument`, or of standard input for `-`; Failure if there are none or over `limit`."""
    try:
        if argument == "-":
            content = sys.stdin.buffer.read(limit + 1)
        else:
            with Path(argument).open("rb") as file:
                content = file.read(limit + 1)
    except OSError as error:
        raise Failure(f"{argument} cannot be read: {error.strerror}.", exit_code=USAGE) from None
    if len(content) > limit:
        raise Failure(f"{argument} has more than {limit} bytes, the most that is taken.", exit_code=USAGE)
    return content
