"""`sluice keys`: credentials of callers."""

import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Final

import typer

from infra.cli.deployed import ProfileOption, RegionOption, StackOption
from infra.cli.options import JsonOption, help_text
from infra.cli.output import USAGE, Failure, console, messages, print_json
from infra.cli.stores import Stores, explained
from infra.cli.tables import print_table
from infra.cli.times import time_text
from shared.domain import admin_bounds as bounds

if TYPE_CHECKING:
    from shared.domain.ports import ApiKey
    from shared.usecases.manage_keys import NewKey

GROUP_HELP: Final = "API keys of callers, and IAM roles that call for a tenant."
CREATE_HELP = help_text(
    "Create an API key, and show it once.",
    "Only its hash is stored. Without --stack the key is the local stack's; with it, that deployed stack's, written "
    "with your own AWS credentials. The tenant comes first: `sluice tenants create`.",
    "sluice keys create --tenant acme",
    "sluice keys create --tenant acme --scopes predict:tumor,jobs --name ci --days 90 --stack sluice-dev",
    "KEY=$(sluice keys create --tenant acme --stack sluice-dev --json | jq -r .api_key)",
)
LIST_HELP = help_text(
    "List the keys of a tenant, without their secrets.",
    "Keys that have expired are listed until DynamoDB has deleted them, up to two days later.",
    "sluice keys list --tenant acme",
    "sluice keys list --tenant acme --stack sluice-dev --json",
)
ROTATE_HELP = help_text(
    "Put a new key in the place of one, and show it once.",
    "Tenant, scopes, name and lifetime stay. The old key works until the overlap is over, so that callers have time "
    "to change.",
    "sluice keys rotate b7pkv3n6xw2qjr4d",
    "sluice keys rotate b7pkv3n6xw2qjr4d --overlap 7d --stack sluice-dev",
    "sluice keys rotate b7pkv3n6xw2qjr4d --overlap 0",
)
REVOKE_HELP = help_text(
    "End a key for good.",
    "It is refused at the latest once the gateway's cached authorizations have aged. KEY is its id, the whole key, or "
    "the ARN of an IAM role or user. Revoking once more changes nothing.",
    "sluice keys revoke b7pkv3n6xw2qjr4d --stack sluice-dev",
    "sluice keys revoke arn:aws:iam::123456789012:role/batch",
)
BIND_ROLE_HELP = help_text(
    "Let an IAM role or user act for a tenant.",
    "The requests that it signs (SigV4) below /iam are the tenant's then. What was bound to it before is replaced. "
    "For an identity that called before, that takes up to a minute to hold.",
    "sluice keys bind-role arn:aws:iam::123456789012:role/batch --tenant acme --scopes predict",
)
_SECONDS_A_DAY: Final = 86_400
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": _SECONDS_A_DAY}
_WHOLE_KEY: Final = re.compile(r"sluice_([a-z2-7]{16})_[a-z2-7]{52}")

TenantOption = Annotated[str, typer.Option(metavar="TENANT", help="Tenant that it belongs to.")]
ScopesOption = Annotated[
    str,
    typer.Option(
        metavar="SCOPES",
        help="What it may do, with commas: predict, predict:MODEL, ingest, jobs, webhooks, models:write, admin.",
    ),
]
KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="Id of the key.", show_default=False)]
DaysOption = Annotated[int | None, typer.Option(min=1, max=3650, help="Days that it is good for (default: no end).")]


def create(
    *,
    tenant: TenantOption,
    scopes: ScopesOption = "predict",
    name: Annotated[str, typer.Option(metavar="TEXT", help="A label, for you.")] = "",
    days: DaysOption = None,
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and store its hash."""
    expires_at = None if days is None else int(time.time()) + days * _SECONDS_A_DAY
    with explained(name="--name"):
        made = Stores.of(stack, region, profile).keys().create(tenant, _split(scopes), name=name, expires_at=expires_at)
    _show_new(made, as_json=as_json)


def list_(
    *,
    tenant: Annotated[str, typer.Option(metavar="TENANT", help="Tenant whose keys are listed.")],
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the keys of a tenant."""
    with explained():
        found = Stores.of(stack, region, profile).keys().of_tenant(tenant)
    documents = [_document(key) for key in found]
    if as_json:
        print_json({"keys": documents})
    elif not documents:
        messages.print(f"{tenant} has no key yet: `sluice keys create --tenant {tenant}`.", markup=False)
    else:
        print_table(
            ("key", "name", "scopes", "status", "created", "expires"),
            [
                [
                    document["key_id"],
                    document["name"],
                    _listed(key.scopes),
                    document["status"],
                    time_text(key.created_at),
                    time_text(key.expires_at, "never"),
                ]
                for key, document in zip(found, documents, strict=True)
            ],
            whole=("key", "status", "created", "expires"),
            spare=("created", "name"),
        )


def rotate(
    key: KeyArgument,
    *,
    overlap: Annotated[
        str, typer.Option(metavar="TIME", help="How long the old key still works, up to 30d: 0, 90s, 30m, 12h, 7d.")
    ] = "24h",
    days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="Days that the new key is good for (default: as the old one).")
    ] = None,
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key in the place of another."""
    seconds = _seconds(overlap)
    expires_at = None if days is None else int(time.time()) + days * _SECONDS_A_DAY
    with explained():
        made = Stores.of(stack, region, profile).keys().rotate(_key_id(key), overlap_s=seconds, expires_at=expires_at)
    _show_new(made, as_json=as_json)
    if not as_json:
        messages.print(f"The old key works for {overlap} at most.", markup=False, style="dim")


def revoke(
    key: KeyArgument,
    *,
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a key."""
    with explained():
        revoked = Stores.of(stack, region, profile).keys().revoke(_key_id(key))
    if as_json:
        print_json(_document(revoked))
    else:
        messages.print(f"{revoked.key_id} of {revoked.tenant} is revoked.", markup=False, soft_wrap=True)


def bind_role(
    arn: Annotated[str, typer.Argument(metavar="ARN", help="ARN of an IAM role or user.", show_default=False)],
    *,
    tenant: TenantOption,
    scopes: ScopesOption = "predict",
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bind a role or user to a tenant."""
    with explained():
        bound = Stores.of(stack, region, profile).keys().bind_role(arn, tenant, _split(scopes))
    if as_json:
        print_json(_document(bound))
    else:
        messages.print(
            f"{bound.key_id.removeprefix('iam#')} acts for {tenant} with the scopes {_listed(bound.scopes)}.",
            markup=False,
            soft_wrap=True,
        )
        messages.print("If it called before, this holds within 60 s.", markup=False, style="dim")


def _split(scopes: str) -> list[str]:
    return [scope.strip() for scope in scopes.split(",") if scope.strip()]


def _key_id(text: str) -> str:
    """The id in what a user gives: who revokes a leaked key often has all of it, and it must not be shown again."""
    from shared.usecases.manage_keys import role_key_id

    if whole := _WHOLE_KEY.fullmatch(text):
        return whole[1]
    return role_key_id(text) if text.startswith("arn:") else text


def _seconds(text: str) -> int:
    """An overlap in seconds."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    if not (number.isascii() and number.isdecimal() and len(number) <= 9):
        raise Failure(
            f"--overlap: {text!r} is no length of time: 0, 90s, 30m, 12h or 7d, for example.", exit_code=USAGE
        )
    seconds = int(number) * _UNITS[unit]
    if seconds > bounds.MAX_OVERLAP_S:
        raise Failure(f"--overlap: must be at most {bounds.MAX_OVERLAP_S // _SECONDS_A_DAY} days", exit_code=USAGE)
    return seconds


def _show_new(made: "NewKey", *, as_json: bool) -> None:
    from shared.schemas.admin_keys import CreatedKey

    if as_json:
        print_json(CreatedKey.of_text(made.text, made.key, time.time()).model_dump(mode="json"))
        return
    console.print(made.text, markup=False, soft_wrap=True)
    messages.print(
        f"A key of {made.key.tenant} with the scopes {_listed(made.key.scopes)}. Keep it now: it is not shown again.",
        markup=False,
        style="dim",
    )


def _listed(scopes: Iterable[str]) -> str:
    return ", ".join(sorted(scopes))


def _document(key: "ApiKey") -> dict[str, object]:
    from shared.schemas.admin_keys import KeyDocument

    return KeyDocument.of(key, time.time()).model_dump(mode="json")
