"""`sluice tenants`: who owns keys, and what they used."""

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from infra.cli.deployed import ProfileOption, RegionOption, StackOption
from infra.cli.options import JsonOption, help_text
from infra.cli.output import USAGE, Failure, console, messages, plain, print_json, size_text
from infra.cli.stores import Stores, explained
from infra.cli.tables import print_facts, print_table
from infra.cli.times import day_of, time_text

if TYPE_CHECKING:
    from shared.domain.tenants import Tenant
    from shared.schemas.admin_usage import QuotaState, UsageDocument

GROUP_HELP: Final = "Tenants: who owns keys, by which plan, and what they used."
CREATE_HELP = help_text(
    "Create a tenant.",
    "Keys belong to a tenant, and its plan says how often they may call (`sluice plans list`). Without --stack the "
    "tenant is the local stack's; with it, that deployed stack's, written with your own AWS credentials.",
    "sluice tenants create acme",
    "sluice tenants create acme --plan large --description 'Rockets and anvils' --stack sluice-dev",
)
LIST_HELP = help_text("List all tenants.", "By name, with their plans.", "sluice tenants list --stack sluice-dev")
SHOW_HELP = help_text("Show one tenant.", "With its plan and description.", "sluice tenants show acme")
UPDATE_HELP = help_text(
    "Change a tenant: what is not named stays.",
    "A suspended tenant's credentials are refused, once the gateway's cached authorizations have aged.",
    "sluice tenants update acme --plan large",
    "sluice tenants update acme --suspend",
    "sluice tenants update acme --resume",
)
USAGE_HELP = help_text(
    "Show what a tenant used, by day, and of its quotas.",
    "Days are UTC days. Usage lags behind the requests by the seconds that the log takes. With --by-model the rows are "
    "models; what reached none, refused requests for example, is `no model`.",
    "sluice tenants usage acme",
    "sluice tenants usage acme --by-model",
    "sluice tenants usage acme --since 2026-10-01 --until 2026-10-31 --stack sluice-dev --json",
)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of a tenant.", show_default=False)]
_NUMBERS: Final = ("requests", "errors", "rows", "in", "out", "model s", "USD")


def create(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and dashes.", show_default=False)
    ],
    *,
    plan: Annotated[str, typer.Option(metavar="PLAN", help="Plan whose limits hold for it.")] = "default",
    description: Annotated[str, typer.Option(metavar="TEXT", help="A text, for you.")] = "",
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a tenant."""
    with explained():
        made = Stores.of(stack, region, profile).tenants().create(name, plan, description)
    _show(made, f"The tenant {made.name} has the plan {made.plan}.", as_json=as_json)


def list_(
    *,
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show all tenants."""
    with explained():
        found = Stores.of(stack, region, profile).tenants().list()
    documents = [_document(tenant) for tenant in found]
    if as_json:
        print_json({"tenants": documents})
    elif not documents:
        messages.print("There is no tenant yet: `sluice tenants create NAME`.")
    else:
        print_table(
            ("name", "plan", "status", "created", "description"),
            [
                [
                    document["name"],
                    document["plan"],
                    _status(document),
                    time_text(document["created_at"]),
                    document["description"],
                ]
                for document in documents
            ],
            whole=("name", "plan", "status", "created"),
            spare=("created",),
        )


def show(
    name: NameArgument,
    *,
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a tenant."""
    with explained():
        document = _document(Stores.of(stack, region, profile).tenants().get(name))
    if as_json:
        print_json(document)
        return
    print_facts(
        {
            "name": document["name"],
            "plan": document["plan"],
            "status": _status(document),
            "created": time_text(document["created_at"]),
            "description": document["description"],
        }
    )


def update(
    name: NameArgument,
    *,
    plan: Annotated[str | None, typer.Option(metavar="PLAN", help="Plan whose limits hold from now on.")] = None,
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="A text, for you.")] = None,
    suspended: Annotated[
        bool | None, typer.Option("--suspend/--resume", help="Refuse its credentials, or take them again.")
    ] = None,
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a tenant."""
    if plan is None and description is None and suspended is None:
        raise Failure("Name what is to change: --plan, --description, --suspend or --resume.", exit_code=USAGE)
    with explained():
        tenants = Stores.of(stack, region, profile).tenants()
        changed = tenants.update(name, plan=plan, suspended=suspended, description=description)
    _show(changed, _changes(changed, suspended, described=description is not None), as_json=as_json)


def usage(
    name: NameArgument,
    *,
    since: Annotated[
        str | None,
        typer.Option(metavar="DAY", help="First day, such as 2026-11-01 (default: the first of the month of --until)."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="DAY", help="Last day (default: today).")] = None,
    by_model: Annotated[bool, typer.Option("--by-model", help="Show models in place of days.")] = False,
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a tenant used."""
    days = day_of(since), day_of(until)
    from shared.schemas.admin_usage import UsageDocument

    with explained():
        used = Stores.of(stack, region, profile).tenants().usage(name, *days)
    document = UsageDocument.of(name, used.plan, used.standing, used.since, used.until, used.rows)
    if as_json:
        print_json(document.model_dump(mode="json"))
    else:
        _show_usage(document, by_model=by_model)


def _show_usage(document: "UsageDocument", *, by_model: bool) -> None:
    if document.days:
        rows = _by_model(document) if by_model else [[day.day.isoformat(), *_numbers(day)] for day in document.days]
        header = ("model" if by_model else "day", *_NUMBERS)
        print_table(
            header,
            [*rows, ["total", *_numbers(document.total)]],
            right=_NUMBERS,
            whole=header,
            spare=("in", "out", "model s", "rows"),
        )
    else:
        console.print(f"No request from {document.since} to {document.until}.", markup=False)
    for name, state in (("today", document.today), ("this month", document.month)):
        console.print(plain(f"{name}: {_share(state)} (plan {document.plan})"), markup=False)


def _by_model(document: "UsageDocument") -> list[list[str]]:
    """Rows of the models, the dearest first; what reached none comes last."""
    from shared.schemas.admin_usage import UsageCounters

    used: dict[str, list[UsageCounters]] = {}
    for day in document.days:
        for model, counters in day.models.items():
            used.setdefault(model, []).append(counters)
    sums = {model: UsageCounters.sum(counters) for model, counters in used.items()}
    reached = UsageCounters.sum(sums.values())
    none = UsageCounters(
        **{name: max(getattr(document.total, name) - count, 0) for name, count in reached.model_dump().items()}
    )
    dearest = sorted(sums.items(), key=lambda item: (-item[1].cost_usd, item[0]))
    return [[model, *_numbers(counters)] for model, counters in [*dearest, ("no model", none)]]


def _numbers(used: Any) -> list[str]:
    sizes = size_text(used.bytes_in), size_text(used.bytes_out)
    return [
        *(str(number) for number in (used.requests, used.errors, used.rows)),
        *sizes,
        f"{used.model_s:.1f}",
        f"{used.cost_usd:.6f}",
    ]


def _share(state: "QuotaState") -> str:
    if state.quota is None:
        return f"{state.used} requests, no quota"
    share = f", {state.used / state.quota:.1%}" if state.quota else ""
    return f"{state.used} of {state.quota} requests{share}"


def _show(tenant: "Tenant", sentence: str, *, as_json: bool) -> None:
    if as_json:
        print_json(_document(tenant))
    else:
        messages.print(sentence, markup=False, soft_wrap=True)


def _changes(tenant: "Tenant", suspended: bool | None, *, described: bool) -> str:
    said = [] if suspended is None else ["is suspended" if suspended else "is resumed"]
    if described:
        said.append("has a new description")
    plan = f"on the plan {tenant.plan}"
    text = f"{' and '.join(said)}, {plan}" if said else f"is {plan}"
    still = "; it is suspended" if tenant.suspended and suspended is None else ""
    return f"The tenant {tenant.name} {text}{still}."


def _status(document: dict[str, Any]) -> str:
    return "suspended" if document["suspended"] else "active"


def _document(tenant: "Tenant") -> dict[str, Any]:
    from shared.schemas.admin import TenantDocument

    return TenantDocument.of(tenant).model_dump(mode="json")
