"""`sluice invoke`: call one function of the local stack with an event, as AWS's Invoke API does."""

import base64
import json
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from infra.cli.api_client import MAX_BODY_BYTES, Answer, call
from infra.cli.local import running_stack
from infra.cli.options import JsonOption, help_text, read_input
from infra.cli.output import USAGE, Failure, messages, plain, print_json

HELP = help_text(
    "Invoke a function of the local stack with an event.",
    "FUNCTION is its logical id in template.yaml, or its name in AWS. The answer goes to standard output, the end of "
    "the invocation's log to standard error. The exit code is 1 if the function failed.",
    "sluice invoke PredictFunction --event tests/events/predict.json",
    "sluice invoke ApiFunction --event - < event.json",
    "sluice invoke PredictFunction --event event.json --async",
)
# No function runs longer than 15 minutes; it may have to wait for a free environment first.
_TIMEOUT_S: Final = 16 * 60.0


def invoke(
    function: Annotated[
        str, typer.Argument(metavar="FUNCTION", help="Logical id or name of the function.", show_default=False)
    ],
    *,
    event: Annotated[
        str, typer.Option("--event", "-e", metavar="FILE", help="File with the event, or - for standard input.")
    ],
    is_async: Annotated[bool, typer.Option("--async", help="Queue the event, and do not wait for an answer.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Invoke, and print the payload; `--json` prints status, error, log and payload in one document."""
    local = running_stack()
    name = local.functions.get(function, function)
    if name not in local.functions.values():
        known = ", ".join(sorted(local.functions))
        raise Failure(f"The stack has no function {function!r}; it has {known}.", exit_code=USAGE)
    answer = call(
        "POST",
        f"{local.lambda_url}/2015-03-31/functions/{quote(name, safe='')}/invocations",
        what="The local Lambda service",
        headers={
            "Content-Type": "application/json",
            "X-Amz-Invocation-Type": "Event" if is_async else "RequestResponse",
            "X-Amz-Log-Type": "None" if is_async else "Tail",
        },
        body=read_input(event, MAX_BODY_BYTES),
        timeout_s=_TIMEOUT_S,
    )
    if answer.status not in (200, 202):
        raise Failure(_refusal(answer))
    error = answer.headers.get("x-amz-function-error")
    log = base64.b64decode(answer.headers.get("x-amz-log-result", "")).decode("utf-8", "replace")
    if as_json:
        print_json(
            {
                "function": name,
                "status": answer.status,
                "function_error": error,
                "executed_version": answer.headers.get("x-amz-executed-version"),
                "payload": _payload(answer),
                "log": log,
            }
        )
    elif is_async:
        messages.print(f"{name} has taken the event. Its log: `sluice logs {function}`.", markup=False)
    else:
        typer.echo(plain(log.strip()), err=True)
        typer.echo(answer.body)
    if error:
        raise Failure(f"{name} failed ({error}).", quiet=as_json)


def _payload(answer: Answer) -> Any:
    try:
        return json.loads(answer.body)
    except ValueError:  # nothing after an asynchronous call, and no JSON from a runtime that is not Python's
        return answer.body.decode("utf-8", "replace") or None


def _refusal(answer: Answer) -> str:
    document = _payload(answer)
    said = document.get("Message") or document.get("message") if isinstance(document, dict) else None
    kind = answer.headers.get("x-amzn-errortype", "").partition(":")[0]
    return (
        f"The Lambda service refused the call ({answer.status}{' ' if kind else ''}{kind}): {said or 'no reason given'}"
    )
