"""`sluice plans`: how often tenants may call."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from infra.cli.deployed import ProfileOption, RegionOption, StackOption
from infra.cli.options import JsonOption, help_text
from infra.cli.output import USAGE, Failure, messages, print_json
from infra.cli.stores import Stores, explained
from infra.cli.tables import print_facts, print_table
from shared.domain.errors import PlanNotFound
from shared.domain.plans import DEFAULT_PLAN, OnLimiterFailure, Plan, Rate

if TYPE_CHECKING:
    from shared.usecases.manage_tenants import ManageTenants

GROUP_HELP: Final = "Plans: how often the tenants that have them may call."
LIST_HELP = help_text(
    "List all plans.",
    "Rates are requests a second, and in brackets how many at once. The plan `default` is built in until it is set.",
    "sluice plans list --stack sluice-dev",
)
SHOW_HELP = help_text("Show one plan.", "With all that it sets.", "sluice plans show default")
SET_HELP = help_text(
    "Create a plan, or change what is named of one.",
    "What a new plan does not name is as in the plan `default`. Quotas count requests in a UTC day or month. The "
    "plan holds within a minute, and once the gateway's cached authorizations have aged.",
    "sluice plans set large --key-rate 200 --key-burst 400 --tenant-rate 1000 --tenant-burst 2000 --shards 4",
    "sluice plans set trial --daily-quota 1000 --max-keys 2 --stack sluice-dev",
    "sluice plans set trial --daily-quota none",
)
_NONE: Final = "none"


def list_(
    *,
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show all plans."""
    with explained():
        found = Stores.of(stack, region, profile).tenants().plans()
    if as_json:
        print_json({"plans": [_document(plan) for plan in found]})
        return
    header = ("name", "key", "tenant", "a day", "a month", "shards", "keys", "limiter down")
    print_table(
        header,
        [
            [
                plan.name,
                _rate(plan.key),
                _rate(plan.tenant),
                _quota(plan.daily_quota),
                _quota(plan.monthly_quota),
                plan.shards,
                plan.max_keys,
                plan.on_limiter_failure.value,
            ]
            for plan in found
        ],
        whole=header,
        spare=("limiter down", "shards", "keys", "a month"),
    )


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a plan.", show_default=False)],
    *,
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a plan."""
    with explained():
        plan = Stores.of(stack, region, profile).tenants().plan(name)
    if as_json:
        print_json(_document(plan))
        return
    print_facts(
        {
            "name": plan.name,
            "key": _rate(plan.key),
            "tenant": _rate(plan.tenant),
            "a day": _quota(plan.daily_quota),
            "a month": _quota(plan.monthly_quota),
            "shards": plan.shards,
            "keys": plan.max_keys,
            "limiter down": plan.on_limiter_failure.value,
        }
    )


def set_(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and dashes.", show_default=False)
    ],
    *,
    key_rate: Annotated[float | None, typer.Option(help="Requests a second of each key.")] = None,
    key_burst: Annotated[int | None, typer.Option(help="Requests of a key at once.")] = None,
    tenant_rate: Annotated[float | None, typer.Option(help="Requests a second of the tenant.")] = None,
    tenant_burst: Annotated[int | None, typer.Option(help="Requests of the tenant at once.")] = None,
    daily_quota: Annotated[str | None, typer.Option(metavar="N|none", help="Requests a UTC day.")] = None,
    monthly_quota: Annotated[str | None, typer.Option(metavar="N|none", help="Requests a UTC month.")] = None,
    shards: Annotated[
        int | None,
        typer.Option(help="Items that the tenant's bucket is spread over, for more than some hundred a second."),
    ] = None,
    on_limiter_failure: Annotated[
        OnLimiterFailure | None, typer.Option(help="Whether requests pass while they cannot be counted.")
    ] = None,
    max_keys: Annotated[int | None, typer.Option(help="Usable keys of a tenant.")] = None,
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Store a plan."""
    given = {
        "daily_quota": daily_quota,
        "monthly_quota": monthly_quota,
        "shards": shards,
        "on_limiter_failure": on_limiter_failure,
        "max_keys": max_keys,
    }
    changes: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    for field in ("daily_quota", "monthly_quota"):
        if field in changes:
            changes[field] = _number(changes[field], f"--{field.replace('_', '-')}")
    if not changes and all(number is None for number in (key_rate, key_burst, tenant_rate, tenant_burst)):
        raise Failure("Name what the plan is to have: --key-rate, --daily-quota or others.", exit_code=USAGE)
    with explained():
        tenants = Stores.of(stack, region, profile).tenants()
        before = _before(tenants, name)
        changes["key"] = _changed(before.key, key_rate, key_burst)
        changes["tenant"] = _changed(before.tenant, tenant_rate, tenant_burst)
        plan = tenants.put_plan(replace(before, **changes))
    if as_json:
        print_json(_document(plan))
    else:
        messages.print(_sentence(plan), markup=False, soft_wrap=True)


def _before(tenants: "ManageTenants", name: str) -> Plan:
    try:
        return tenants.plan(name)
    except PlanNotFound:
        return replace(DEFAULT_PLAN, name=name)


def _changed(before: Rate, per_second: float | None, burst: int | None) -> Rate:
    return Rate(before.per_second if per_second is None else per_second, before.burst if burst is None else burst)


def _number(text: str, option: str) -> int | None:
    if text == _NONE:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 20):
        raise Failure(f"{option}: {text!r} is no quota: a number of requests, or none.", exit_code=USAGE)
    return int(text)


def _sentence(plan: Plan) -> str:
    quotas = [
        f"{'no quota' if quota is None else f'{quota} requests'} a {period}"
        for quota, period in ((plan.daily_quota, "day"), (plan.monthly_quota, "month"))
    ]
    return (
        f"The plan {plan.name}: {_rate(plan.key)} for a key, {_rate(plan.tenant)} for a tenant; {', '.join(quotas)}; "
        f"{plan.on_limiter_failure} while the limiter is down."
    )


def _rate(rate: Rate) -> str:
    return f"{rate.per_second:g}/s ({rate.burst})"


def _quota(quota: int | None) -> str:
    return "–" if quota is None else str(quota)


def _document(plan: Plan) -> dict[str, Any]:
    from shared.schemas.admin import PlanDocument

    return PlanDocument.of(plan).model_dump(mode="json")
