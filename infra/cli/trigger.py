"""`sluice trigger`: fires a schedule or a rule of the local stack now."""

import json
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from infra.cli.api_client import MAX_BODY_BYTES, call
from infra.cli.local import running_stack
from infra.cli.options import JsonOption, help_text, read_input
from infra.cli.output import USAGE, Failure, messages, plain, print_json

HELP = help_text(
    "Fire a schedule or a rule of the local stack now.",
    "NAME is its logical id in the template, or its name in AWS. Its function gets the event that the schedule sends, "
    "and the answer goes to standard output; for a queue it is a message. A rule that waits for events gets the one "
    "of --event. What is disabled fires, too. The exit code is 1 if a function failed.",
    "sluice trigger JobSweeperFunctionSweep",
    "sluice trigger BatchRunnerFunctionDropped --event tests/events/batch_runner.json",
)
# No function runs longer than 15 minutes; it may have to wait for a free environment first.
_TIMEOUT_S: Final = 16 * 60.0


def trigger(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Logical id or name of the schedule or rule.", show_default=False)
    ],
    *,
    event: Annotated[
        str | None, typer.Option("--event", "-e", metavar="FILE", help="File with the event, or - for standard input.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fire it, and print what came of each target."""
    local = running_stack()
    answer = call(
        "POST",
        f"{local.lambda_url}/_sluice/trigger/{quote(name, safe='')}",
        what="The local stack",
        headers={"Content-Type": "application/json"},
        body=read_input(event, MAX_BODY_BYTES) if event else b"",
        timeout_s=_TIMEOUT_S,
    )
    document = answer.document()
    if answer.status == 404:
        known = ", ".join(document["known"]) or "none"
        raise Failure(f"The stack has no schedule or rule {name!r}; it has {known}.", exit_code=USAGE)
    if answer.status != 200:
        raise Failure(document["message"], exit_code=USAGE if answer.status == 400 else 1)
    if as_json:
        print_json({"name": name, "targets": document["targets"]})
    else:
        for target in document["targets"]:
            _show(target)
    if failed := [target["target"] for target in document["targets"] if target.get("function_error")]:
        raise Failure(f"{', '.join(failed)} failed.", quiet=as_json)


def _show(target: dict[str, Any]) -> None:
    if target["queued"]:
        messages.print(f"The event is in the queue {target['target']}.", markup=False)
        return
    typer.echo(plain(target["log"].strip()), err=True)
    typer.echo(json.dumps(target["payload"], ensure_ascii=False))
