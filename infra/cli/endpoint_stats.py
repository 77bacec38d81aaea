"""`sluice endpoints stats`: what the traffic of an endpoint showed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from infra.cli.deployed import ProfileOption, RegionOption, StackOption
from infra.cli.endpoint_access import told
from infra.cli.options import JsonOption, help_text
from infra.cli.output import console, plain, print_json
from infra.cli.stores import find_stores
from infra.cli.tables import print_table
from infra.cli.times import day_of

if TYPE_CHECKING:
    from shared.domain.endpoint.traffic_counts import ArmTraffic, ShadowTraffic, Traffic, VariantTraffic

HELP = help_text(
    "Show what the traffic of an endpoint showed.",
    "By variants, experiments, shadows and fallbacks. Days are UTC days, both included. What is shown lags behind the "
    "requests by the seconds that the log takes. A shadow's times are those of the copies that were done in time, "
    "beside the answers that were given.",
    "sluice endpoints stats tumor",
    "sluice endpoints stats tumor --since 2026-11-01 --until 2026-11-07 --stack sluice-dev",
)

_OUTPUTS: Final = ("TrafficTableName",)
_NONE: Final = "–"
_COUNTS: Final = ("errors", "error rate", "fallbacks", "mean ms")


def stats(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of an endpoint: that of its model.", show_default=False)
    ],
    *,
    since: Annotated[
        str | None, typer.Option(help="First day, such as 2026-11-01 (default: 29 days before --until).", metavar="DAY")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Last day (default: today).", metavar="DAY")] = None,
    stack: StackOption = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show counters."""
    days = day_of(since), day_of(until)
    from shared.adapters.dynamodb_traffic import DynamoDBTraffic
    from shared.usecases.read_traffic import ReadTraffic

    with told():
        make, (table,) = find_stores(stack, region, profile, _OUTPUTS)
        found = ReadTraffic(DynamoDBTraffic(make("dynamodb"), table))(name, *days)
    if as_json:
        from shared.schemas.admin_traffic import TrafficDocument

        print_json(TrafficDocument.of(name, found.since, found.until, found.traffic).model_dump(mode="json"))
        return
    span = f"from {found.since} to {found.until}"
    if not found.traffic.variants:
        console.print(plain(f"No request of {name} reached a version {span}."), markup=False, soft_wrap=True)
        return
    console.print(plain(f"{name} {span}"), style="bold", markup=False)
    _show(found.traffic)


def _show(traffic: "Traffic") -> None:
    total = sum(found.requests for found in traffic.variants.values())
    _table(
        ("variant", "requests", "share", "cached", *_COUNTS),
        [
            [name, found.requests, _share(found.requests / total if total else None), found.cache_hits, *_counts(found)]
            for name, found in traffic.variants.items()
        ],
    )
    if traffic.arms:
        _table(
            ("experiment", "arm", "exposures", *_COUNTS),
            [[experiment, arm, found.exposures, *_counts(found)] for (experiment, arm), found in traffic.arms.items()],
        )
    if traffic.shadows:
        _table(
            ("shadow", "copies", "dropped", "failed", "compared", "agreement", "distance", "ms", "beside ms", "ratio"),
            [[name, *_shadow(found)] for name, found in traffic.shadows.items()],
        )
        _show_differences(traffic.differences)
    if traffic.fallbacks:
        _table(
            ("fallback", "since", "answers"),
            [[stand_in, why, count] for (stand_in, why), count in traffic.fallbacks.items()],
            left=2,
        )


def _show_differences(differences: Mapping[str, Mapping[int, int]]) -> None:
    from shared.domain.endpoint.traffic_counts import LEAST_DECADE, MOST_DECADE

    rows = [
        [
            name,
            "0" if decade == LEAST_DECADE else f"1e{decade}",
            _NONE if decade == MOST_DECADE else f"1e{decade + 1}",
            count,
        ]
        for name, decades in differences.items()
        for decade, count in decades.items()
    ]
    if rows:
        _table(("greatest difference", "from", "below", "comparisons"), rows)


def _counts(found: "VariantTraffic | ArmTraffic") -> list[Any]:
    return [found.errors, _share(found.error_rate), found.fallbacks, _number(found.mean_ms, ".1f")]


def _shadow(found: "ShadowTraffic") -> list[Any]:
    return [
        found.copied,
        _share(found.dropped_share),
        found.failed,
        found.compared,
        _share(found.agreement_rate),
        _number(found.mean_distance, ".3g"),
        _number(found.mean_ms, ".1f"),
        _number(found.primary_mean_ms, ".1f"),
        _number(found.latency_ratio, ".2f"),
    ]


def _share(value: float | None) -> str:
    from infra.cli.endpoint_text import percent

    return _NONE if value is None else percent(round(value, 4))


def _number(value: float | None, form: str) -> str:
    return _NONE if value is None else format(value, form)


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]], *, left: int = 1) -> None:
    console.print()
    print_table(header, rows, right=header[left:], whole=header)
