"""`sluice doctor`: check an account and a deployment, or this machine, and say what to do."""

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.deployed import ProfileOption, RegionOption, StackOption
from infra.cli.options import JsonOption, KeyOption, help_text
from infra.cli.output import FAILED, UNREACHABLE, USAGE, Failure, console, messages, plain, print_json
from infra.local.home import Home
from infra.local.ports import Ports

if TYPE_CHECKING:
    from infra.cli.checks.check import Check, Result

HELP = help_text(
    "Check an account, a deployment or this machine.",
    "And say what to do. With --stack: region, credentials, quotas, the stack, its functions, its endpoint, readiness "
    "and (with a key) a prediction. With --account: the first three, before anything is deployed. With neither: this "
    "machine and the local stack. It only reads, apart from the one prediction. The exit code is 0 unless a check "
    "failed, 3 if that was for want of an answer.",
    "sluice doctor",
    "sluice doctor --account --region eu-west-1",
    "SLUICE_API_KEY=sluice_… sluice doctor --stack sluice-dev --region eu-west-1",
)
_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


def doctor(
    stack: StackOption = None,
    account: Annotated[bool, typer.Option("--account", help="Check the AWS account only.")] = False,
    region: RegionOption = None,
    profile: ProfileOption = None,
    key: KeyOption = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Model to predict with (default: the first with an example).")
    ] = None,
    instance_type: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="Instance type whose quota to check (default: the stack's endpoint's)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make the checks; each is shown as soon as it is made."""
    if (region or profile or instance_type) and not (stack or account):
        raise Failure("--region, --profile and --instance-type belong to --stack or --account.", exit_code=USAGE)
    if stack and account:
        raise Failure("--stack checks the account, too: leave --account out.", exit_code=USAGE)
    from infra.cli.checks.check import Status, run

    checks = _aws(stack, region, profile, key, model, instance_type) if stack or account else _local(key, model)
    results = list(_shown(run(checks), silent=as_json))
    failures = [result.outcome for result in results if result.outcome.status is Status.FAILED]
    if as_json:
        print_json({"ok": not failures, "checks": [result.document() for result in results]})
    if failures:
        unreachable = any(outcome.unreachable for outcome in failures)
        count = f"{len(failures)} of {len(results)} checks failed."
        raise Failure(count, exit_code=UNREACHABLE if unreachable else FAILED, quiet=as_json)
    messages.print("Nothing has failed.", style="dim")


def _aws(
    stack: str | None,
    region: str | None,
    profile: str | None,
    key: str | None,
    model: str | None,
    instance_type: str | None,
) -> "Sequence[Check]":
    from botocore.exceptions import BotoCoreError, ClientError

    from infra.cli.checks.account import account_checks
    from infra.cli.checks.deployment import deployment_checks
    from infra.cli.checks.deployment import instance_type as deployed_type
    from infra.cli.deployed import Account

    account = Account.of(region, profile)
    if stack is None:
        return account_checks(account, instance_type)
    if instance_type is None:
        try:
            instance_type = deployed_type(account, stack)
        except (ClientError, BotoCoreError):
            # The check of the stack says what is wrong; the quota cannot be looked up without it.
            instance_type = None
    return [*account_checks(account, instance_type), *deployment_checks(account, stack, key, model)]


def _local(key: str | None, model: str | None) -> "Sequence[Check]":
    from dataclasses import fields

    from infra.cli.checks.machine import machine_checks

    chosen = {
        item.name: int(os.environ[Ports.variable(item.name)])
        for item in fields(Ports)
        if os.environ.get(Ports.variable(item.name), "").isdigit()
    }
    return machine_checks(Home.find(), Ports(**chosen), key, model)


def _shown(results: "Iterable[Result]", *, silent: bool) -> "Iterable[Result]":
    for result in results:
        if not silent:
            outcome = result.outcome
            colour = _COLOURS[outcome.status]
            console.print(f"{outcome.status:8}", style=colour, end="", markup=False)
            console.print(f"{result.name}: {plain(outcome.found)}", markup=False, soft_wrap=True)
            if outcome.advice:
                console.print(f"{'':8}→ {plain(outcome.advice)}", markup=False, soft_wrap=True)
        yield result
