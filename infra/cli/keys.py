"""`sluice keys create`: an API key for a caller."""

import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from infra.cli.deployed import Account, ProfileOption, RegionOption, StackOption, stack_outputs, unusable
from infra.cli.local import running_stack
from infra.cli.options import JsonOption, help_text
from infra.cli.output import UNREACHABLE, USAGE, Failure, console, messages, print_json
from shared.domain.errors import BackendTimeout, BackendUnavailable

if TYPE_CHECKING:
    from shared.adapters.dynamodb_keys import DynamoDBKeys
    from shared.domain.ports import ApiKey

HELP = help_text(
    "Create an API key, and show it: once, since only its hash is stored.",
    "Without --stack the key is the local stack's; with it, that deployed stack's, written with your own AWS "
    "credentials (dynamodb:PutItem on its KeysTable).",
    "sluice keys create --tenant acme",
    "sluice keys create --tenant acme --scopes predict,jobs --days 90 --stack sluice-dev",
    "KEY=$(sluice keys create --tenant acme --stack sluice-dev --json | jq -r .api_key)",
)
GROUP_HELP: Final = "API keys of callers."
_TENANT: Final = r"[a-z0-9][a-z0-9-]{0,62}"
_SECONDS_A_DAY: Final = 86_400
_DEFAULT_SCOPES: Final = "predict"


def create(
    *,
    tenant: Annotated[str, typer.Option(help="Tenant that the key belongs to: lower-case letters, digits, dashes.")],
    scopes: Annotated[str, typer.Option(help="What the key may do, separated by commas.")] = _DEFAULT_SCOPES,
    plan: Annotated[str, typer.Option(help="Plan whose limits hold for the key.")] = "default",
    days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="Days that it is good for (default: no end).")
    ] = None,
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and store its hash."""
    granted = _checked(tenant, scopes)
    if (region or profile) and not stack:
        raise Failure("--region and --profile belong to --stack.", exit_code=USAGE)
    from botocore.exceptions import BotoCoreError

    from shared.domain.credentials import new_key

    expires_at = None if days is None else int(time.time()) + days * _SECONDS_A_DAY
    text, key = new_key(tenant, granted, plan, expires_at)
    try:
        _store(stack, region, profile).add(key)
    except (BackendUnavailable, BackendTimeout) as error:
        raise Failure(f"{error.detail} ({error.__cause__})", exit_code=UNREACHABLE) from error
    except BotoCoreError as error:
        raise unusable(error) from error
    if as_json:
        print_json(_document(text, key))
        return
    console.print(text, markup=False, soft_wrap=True)
    messages.print(
        f"A key of {tenant} with the scopes {', '.join(sorted(granted))}. Keep it now: it is not shown again.",
        markup=False,
        style="dim",
    )


def _checked(tenant: str, scopes: str) -> frozenset[str]:
    import re

    if re.fullmatch(_TENANT, tenant) is None:
        raise Failure(f"{tenant!r} is no tenant: lower-case letters, digits and dashes, at most 63.", exit_code=USAGE)
    granted = frozenset(scope.strip() for scope in scopes.split(",") if scope.strip())
    if not granted or any(re.fullmatch(r"[a-z]+(:[a-z0-9_*.-]+)*", scope) is None for scope in granted):
        raise Failure(f"{scopes!r} are no scopes: words such as predict, jobs or models:write.", exit_code=USAGE)
    return granted


def _store(stack: str | None, region: str | None, profile: str | None) -> "DynamoDBKeys":
    from shared.adapters.dynamodb_keys import DynamoDBKeys

    if stack is None:
        from infra.local.aws_client import isolated_session, local_client

        local = running_stack()
        dynamodb = local_client(isolated_session(), "dynamodb", local.aws_endpoint_url)
        return DynamoDBKeys(dynamodb, local.outputs["KeysTableName"])
    account = Account.of(region, profile)
    (table,) = stack_outputs(account, stack, "KeysTableName")
    return DynamoDBKeys(account.client("dynamodb"), table)


def _document(text: str, key: "ApiKey") -> dict[str, object]:
    return {
        "api_key": text,
        "key_id": key.key_id,
        "tenant": key.tenant,
        "scopes": sorted(key.scopes),
        "plan": key.plan,
        "expires_at": key.expires_at,
    }
