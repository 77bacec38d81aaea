"""`sluice features`: what a tenant's entities have in the feature store."""

from collections.abc import Sequence
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from infra.cli.deployed import ProfileOption, RegionOption, StackOption
from infra.cli.options import JsonOption, help_text
from infra.cli.output import USAGE, Failure, console, messages, plain, print_json
from infra.cli.stores import explained, find_stores
from infra.cli.tables import print_table
from infra.cli.times import time_text
from shared.domain.new_features import NewFeatures

if TYPE_CHECKING:
    from shared.domain.features import FeatureRecord
    from shared.usecases.manage_features import ManageFeatures

GROUP_HELP: Final = "Features: what models are given for the ids that callers send."
PUT_HELP = help_text(
    "Store features: of one entity, or of all in a file.",
    "What an entity has in the set is replaced as a whole. With --file, every column of the CSV or Parquet file is a "
    "feature but the one with the ids and the one with the times; empty cells are none. Storing again what is stored "
    "changes nothing, so a run that broke off is simply repeated. Values are numbers, true and false, else text; where "
    "text looks like a number, quote it (zip='\"01234\"') or name its column with --text. Without --stack the features "
    "are the local stack's; with it, that deployed stack's, written with your own AWS credentials.",
    "sluice features put --set customer c-17 age=41 segment=gold",
    "sluice features put --set customer --tenant acme --file customers.parquet --entity-column id --at updated_at",
    "sluice features put --set customer --tenant acme --file customers.csv --entity-column id --stack sluice-dev",
)
GET_HELP = help_text(
    "Show the features of an entity.", "As they were last stored.", "sluice features get --set customer c-17"
)
DELETE_HELP = help_text(
    "Remove the features of an entity.", "Of one set.", "sluice features delete --set customer c-17"
)

_LOCAL_TENANT: Final = "demo"
_OUTPUTS: Final = ("FeaturesTableName", "TenantsTableName", "UsageTableName")
_DAY_S: Final = 86_400

SetOption = Annotated[str, typer.Option("--set", help="Set of features.", metavar="SET")]
TenantOption = Annotated[
    str | None,
    typer.Option(metavar="TENANT", help=f"Tenant that owns them (default, of the local stack: {_LOCAL_TENANT})."),
]
EntityArgument = Annotated[str, typer.Argument(metavar="ENTITY", help="Id of an entity.", show_default=False)]


def put(
    entity: Annotated[
        str | None, typer.Argument(metavar="ENTITY", help="Id of the entity.", show_default=False)
    ] = None,
    values: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=VALUE…", help="Its features.", show_default=False)
    ] = None,
    *,
    set_: SetOption,
    tenant: TenantOption = None,
    file: Annotated[Path | None, typer.Option(help="CSV or Parquet file (.parquet, .pq).", metavar="FILE")] = None,
    entity_column: Annotated[str | None, typer.Option(help="Its column with ids.", metavar="COLUMN")] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN|TIME",
            help="When the values held: its column with times, or for one entity the time (default: now).",
        ),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="Column that is text, whatever it looks like.", metavar="COLUMN")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, max=3650, help="They end after so many days.")] = None,
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Store features."""
    expires_at = None if days is None else int(time()) + days * _DAY_S
    if (file is None) == (entity is None):
        raise Failure("Name an ENTITY with its NAME=VALUE, or a file with --file.", exit_code=USAGE)
    if file is not None and entity_column is None:
        raise Failure("--file needs --entity-column: which of its columns has the ids?", exit_code=USAGE)
    if file is None and (entity_column or text):
        raise Failure("--entity-column and --text belong to --file.", exit_code=USAGE)
    owner, features = _of_tenant(tenant, stack, region, profile)
    if file is not None and entity_column is not None:
        from infra.cli.feature_files import Columns
        from infra.cli.feature_upload import Target, put_file

        columns = Columns(entity_column, at, frozenset(text or ()))
        put_file(Target(features, owner, set_), file, columns, expires_at, as_json=as_json)
    elif entity is not None:
        _put_one(features, owner, set_, _new(entity, values or (), at, expires_at), as_json=as_json)


def get(
    entity: EntityArgument,
    *,
    set_: SetOption,
    tenant: TenantOption = None,
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show features."""
    owner, features = _of_tenant(tenant, stack, region, profile)
    with explained():
        record = features.get(owner, set_, entity)
    if as_json:
        print_json(_document(owner, record))
        return
    ends = f", until {time_text(record.expires_at)}" if record.expires_at else ""
    heading = f"{entity} in {set_} of {owner}, as of {time_text(record.at)}{ends}"
    console.print(plain(heading), style="bold", markup=False, soft_wrap=True)
    features_by_name = sorted(record.values.items())
    print_table(("feature", "value"), [[name, _shown(value)] for name, value in features_by_name], whole=("feature",))


def delete(
    entity: EntityArgument,
    *,
    set_: SetOption,
    tenant: TenantOption = None,
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove features."""
    owner, features = _of_tenant(tenant, stack, region, profile)
    with explained():
        record = features.delete(owner, set_, entity)
    if as_json:
        print_json(_document(owner, record))
    else:
        messages.print(plain(f"Removed {len(record.values)} features of {entity}."), markup=False, soft_wrap=True)


def _of_tenant(
    tenant: str | None, stack: str | None, region: str | None, profile: str | None
) -> "tuple[str, ManageFeatures]":
    """Whose features these are, and where they are kept."""
    if tenant is None and stack is not None:
        raise Failure("--stack needs --tenant: whose features are they?", exit_code=USAGE)
    from shared.adapters.dynamodb_features import DynamoDBFeatures
    from shared.adapters.dynamodb_tenants import DynamoDBTenants
    from shared.usecases.manage_features import ManageFeatures

    with explained():
        make, (table, tenants, usage) = find_stores(stack, region, profile, _OUTPUTS)
        dynamodb = make("dynamodb")
    features = ManageFeatures(DynamoDBFeatures(dynamodb, table), DynamoDBTenants(dynamodb, tenants, usage))
    return tenant or _LOCAL_TENANT, features


def _new(entity: str, values: Sequence[str], at: str | None, expires_at: int | None) -> NewFeatures:
    from infra.cli.feature_files import seconds_of, value_of

    features: dict[str, object] = {}
    for given in values:
        name, equals, value = given.partition("=")
        if not equals or not name or name in features:
            raise Failure(f"{given!r}: features are given once each, as NAME=VALUE.", exit_code=USAGE)
        features[name] = value_of(value)
    with explained():
        return NewFeatures(entity, features, None if at is None else seconds_of(at), expires_at)


def _put_one(features: "ManageFeatures", tenant: str, set_: str, new: NewFeatures, *, as_json: bool) -> None:
    with explained():
        record = features.put(tenant, set_, new)
    if as_json:
        print_json(_document(tenant, record))
    else:
        count = len(record.values)
        number = "1 feature" if count == 1 else f"{count} features"
        messages.print(plain(f"{new.entity} has {number} in {set_}."), markup=False, soft_wrap=True)


def _document(tenant: str, record: "FeatureRecord") -> dict[str, Any]:
    from shared.schemas.admin_features import EntityFeaturesDocument

    return EntityFeaturesDocument.of(tenant, record).model_dump(mode="json")


def _shown(value: object) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
