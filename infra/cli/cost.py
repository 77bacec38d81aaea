"""`sluice cost`: what a load costs on each way to run a model, and where one becomes cheaper than another."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from infra.cli.options import JsonOption, help_text
from infra.cli.output import USAGE, Failure, console, messages, plain, print_json
from infra.cli.tables import print_table

if TYPE_CHECKING:
    from infra.cli.cost_comparison import BreakEven, Setup, Way
    from shared.domain.prices import PriceTable

HELP: Final = help_text(
    "Compare what a load costs on the function and on SageMaker.",
    "Takes list prices (docs/cost.md) unless --prices has others, and no free tier. Every way goes through the API and "
    "the predict function; real-time endpoints scale with the load and keep one instance, asynchronous ones scale to "
    "none. Break-even points are requests a second at which the cheaper way changes.",
    "sluice cost --rps 20 --latency-ms 15",
    "sluice cost --rps 50 --function-ms 180 --container-ms 12 --instance-type ml.g5.xlarge --hours-per-day 10",
    "sluice cost --rps 5 --latency-ms 40 --prices prices.json --svg cost.svg",
)
NOT_IN_IT: Final = (
    "Not in it: data transfer, cold starts and snapshots, storage, authorizations, telemetry, polling for jobs, "
    "free tiers, Savings Plans."
)
# Calls at once without asking AWS for more. Sources: Lambda quotas; SageMaker API, ProductionVariantServerlessConfig.
_MOST_AT_ONCE: Final = {"function": 1000, "serverless": 200}
_MAX_PRICES: Final = 64 * 1024
_SMALLEST_USD: Final = 0.01


def cost(
    *,
    rps: Annotated[float, typer.Option(help="Requests a second while there is traffic.", min=0.0001, max=1_000_000)],
    latency_ms: Annotated[
        float | None, typer.Option(help="Milliseconds that a call takes, wherever it runs.", min=0.1, max=3_600_000)
    ] = None,
    function_ms: Annotated[
        float | None, typer.Option(help="In the function, all in all.", min=0.1, max=900_000)
    ] = None,
    container_ms: Annotated[
        float | None, typer.Option(help="On an instance of SageMaker's.", min=0.1, max=3_600_000)
    ] = None,
    serverless_ms: Annotated[
        float | None,
        typer.Option(
            help="On a serverless endpoint (default: --latency-ms, or as in the function).", min=0.1, max=60_000
        ),
    ] = None,
    front_ms: Annotated[
        float, typer.Option(help="What the function needs of its own beside a backend.", min=0, max=10_000)
    ] = 5.0,
    rows: Annotated[int, typer.Option(help="Instances (rows) of a request.", min=1, max=65_536)] = 1,
    row_bytes: Annotated[int, typer.Option(help="Bytes of a row, in and out together.", min=0, max=6_291_456)] = 1_000,
    memory_mb: Annotated[int, typer.Option(help="Memory of the predict function.", min=128, max=10_240)] = 1769,
    architecture: Annotated[Literal["x86_64", "arm64"], typer.Option(help="Its processor.")] = "x86_64",
    serverless_memory_mb: Annotated[
        int | None,
        typer.Option(help="Of a serverless endpoint, 1024 to 6144 (default: the size that has --memory-mb)."),
    ] = None,
    instance_type: Annotated[str, typer.Option(metavar="TYPE", help="Of the instances.")] = "ml.g5.xlarge",
    instances: Annotated[
        int | None, typer.Option(help="A fixed number of real-time instances (default: by the load).", min=1, max=1000)
    ] = None,
    concurrency: Annotated[int, typer.Option(help="Calls that an instance runs at once.", min=1, max=1000)] = 5,
    utilisation: Annotated[
        float, typer.Option(help="Share of its capacity that an instance is used to.", min=0.01, max=1)
    ] = 0.7,
    hours_per_day: Annotated[float | None, typer.Option(help="Hours of a day with traffic.", min=0.01, max=24)] = None,
    duty: Annotated[float | None, typer.Option(help="The same as a share of the time.", min=0.0005, max=1)] = None,
    prices: Annotated[
        str | None, typer.Option(help="Other prices: a JSON file, or JSON itself.", metavar="FILE|JSON")
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Write the plot to this file.", metavar="FILE")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the ways."""
    from infra.cli.cost_comparison import MAX_INSTANCES, Setup, break_evens, ways
    from infra.cli.cost_plot import decades, svg_plot

    table = _prices(prices)
    if hours_per_day is not None and duty is not None:
        raise Failure("--hours-per-day and --duty say the same: give one of them.", exit_code=USAGE)
    in_function = _time(function_ms, latency_ms, "--function-ms")
    setup = Setup(
        duty=duty or (hours_per_day or 24) / 24,
        rows=rows,
        row_bytes=row_bytes,
        memory_mb=memory_mb,
        architecture=architecture,
        function_ms=in_function,
        front_ms=front_ms,
        serverless_ms=serverless_ms or latency_ms or in_function,
        serverless_memory_mb=_serverless_memory(serverless_memory_mb, memory_mb),
        container_ms=_time(container_ms, latency_ms, "--container-ms"),
        usd_per_hour=_hourly(table, instance_type),
        concurrency=concurrency,
        utilisation=utilisation,
        instances=instances,
    )
    found = ways(setup, table)
    until = max(rps, setup.instance_rps * MAX_INSTANCES)
    evens = break_evens(found, until)
    points = decades(rps)
    curves = {name: [way.usd(point) for point in points] for name, way in found.items()}
    notes = list(_notes(setup, found, rps))
    title = f"US dollars a month, prices of {table.region}, {table.date}"
    if svg is not None:
        svg.write_text(svg_plot(points, curves, title), encoding="utf-8")
    if as_json:
        print_json(_document(table, setup, found, evens, rps, {"rps": points, **curves}, notes))
        return
    _show(table, setup, found, rps, instance_type)
    _show_break_evens(evens)
    _show_plot(points, curves)
    for note in [*notes, NOT_IN_IT]:
        console.print(plain(note), markup=False)
    if svg is not None:
        messages.print(f"The plot is in {svg}.", markup=False, soft_wrap=True)


def _prices(given: str | None) -> "PriceTable":
    from shared.domain.prices import LIST_PRICES, read_prices

    if given is None:
        return LIST_PRICES
    text: str | bytes = given
    if not given.lstrip().startswith("{"):
        from infra.cli.options import read_input

        text = read_input(given, _MAX_PRICES)
    try:
        return read_prices(text)
    except ValueError as error:
        raise Failure(f"--prices: {error}.", exit_code=USAGE) from None


def _time(given: float | None, everywhere: float | None, option: str) -> float:
    found = given or everywhere
    if found is None:
        raise Failure(f"Say how long a call takes: {option}, or --latency-ms for every way.", exit_code=USAGE)
    return found


def _serverless_memory(given: int | None, memory_mb: int) -> int:
    from shared.domain.prices import SERVERLESS_MEMORY_MB, serverless_memory_mb

    if given is None:
        return serverless_memory_mb(memory_mb) or SERVERLESS_MEMORY_MB[-1]
    if given not in SERVERLESS_MEMORY_MB:
        sizes = ", ".join(map(str, SERVERLESS_MEMORY_MB))
        raise Failure(f"--serverless-memory-mb is one of {sizes}.", exit_code=USAGE)
    return given


def _hourly(table: "PriceTable", instance_type: str) -> float:
    found = table.hourly(instance_type)
    if found is None:
        example = f'--prices \'{{"date":"{table.date}","instance_hour":{{"{instance_type}":1.23}}}}\''
        raise Failure(
            f"The table has no price of {instance_type}.",
            exit_code=USAGE,
            details=(f"It has {', '.join(table.instance_hour)}.", f"Another is given so: {example}"),
        )
    return found


def _notes(setup: "Setup", found: "Mapping[str, Way]", rps: float) -> Iterator[str]:
    from infra.cli.cost_comparison import FUNCTION, SERVERLESS

    needed = found["asynchronous"].instances(rps)
    if setup.instances is not None and needed > setup.instances:
        yield (
            f"{setup.instances} instances take {setup.instances * setup.instance_rps:.4g} requests a second: "
            f"the comparison has the {needed} that the load needs."
        )
    for name, ms in ((FUNCTION, setup.function_ms), (SERVERLESS, setup.serverless_ms)):
        at_once = rps * ms / 1000
        if at_once > _MOST_AT_ONCE[name]:
            yield f"{name}: {at_once:.0f} calls at once, of which AWS grants {_MOST_AT_ONCE[name]} unasked."
    if setup.memory_mb > setup.serverless_memory_mb:
        yield f"serverless: has {setup.serverless_memory_mb} MB, which is less than the function's."


def _show(table: "PriceTable", setup: "Setup", found: "Mapping[str, Way]", rps: float, instance_type: str) -> None:
    way = next(iter(found.values()))
    million = way.requests(rps) / 1e6
    console.print(
        f"{million:,.3f} million requests a month: {rps:g} a second for {setup.duty:.3g} of the time, "
        f"{setup.rows} {'row' if setup.rows == 1 else 'rows'} each.\n"
        f"Prices of {table.region} in US dollars, {table.date}.\n",
        markup=False,
        soft_wrap=True,
    )
    names: dict[str, None] = {}
    for each in found.values():
        names |= dict.fromkeys(part.name for part in each.parts)
    rows = [[name, *(_amount(each, name, million) for each in found.values())] for name in names]
    rows.append(["instances", *(_usd(each.instance_hours(rps) * each.usd_per_hour) for each in found.values())])
    rows.append(["a month", *(_usd(each.usd(rps), zero="0.00") for each in found.values())])
    per_million = [each.usd(rps) / (million * setup.rows) for each in found.values()]
    rows.append(["a million rows", *(f"{usd:,.4g}" if usd < 1 else f"{usd:,.2f}" for usd in per_million)])
    print_table(("", *found), rows, right=tuple(found))
    console.print()
    for name, formulas in _formulas(found).items():
        console.print(plain(f"{name}: {formulas}"), markup=False, soft_wrap=True)
    fleets = ", ".join(
        f"{each.name} {each.instances(rps)} ({each.instance_hours(rps):,.0f} h)"
        for each in found.values()
        if each.scaling != "none"
    )
    console.print(
        f"instances: {instance_type} at {setup.usd_per_hour:g} an hour, {setup.instance_rps:.4g} requests a second "
        f"each; {fleets}\n",
        markup=False,
        soft_wrap=True,
    )


def _formulas(found: "Mapping[str, Way]") -> Mapping[str, str]:
    """How each part comes about for one request; by way where they differ."""
    told: dict[str, dict[str, list[str]]] = {}
    for way in found.values():
        for part in way.parts:
            told.setdefault(part.name, {}).setdefault(part.formula, []).append(way.name)
    return {
        name: "; ".join(
            formula if len(formulas) == 1 else f"{', '.join(users)} {formula}" for formula, users in formulas.items()
        )
        for name, formulas in told.items()
    }


def _amount(way: "Way", name: str, million: float) -> str:
    return _usd(sum(part.usd_per_million for part in way.parts if part.name == name) * million)


def _usd(amount: float, zero: str = "-") -> str:
    if amount == 0:
        return zero
    return f"{amount:,.2f}" if amount >= _SMALLEST_USD else "<0.01"


def _show_break_evens(evens: "Sequence[BreakEven]") -> None:
    rows = [[" and ".join(even.between), _told(even)] for even in evens]
    print_table(("break-even", "cheaper, by requests a second"), rows, whole=("break-even",))
    console.print()


def _told(even: "BreakEven") -> str:
    crossings = even.crossings
    if not crossings:
        return f"{even.at_first} at every load up to {even.until:,.0f}"
    first, last = crossings[0], crossings[-1]
    said = f"{even.at_first} below {first.rps:,.4g}, {first.cheaper} from there"
    if len(crossings) == 1:
        return said
    if last.cheaper == first.cheaper:
        more = len(crossings) - 1
        return f"{said}; with the fleet's steps it changes {more} times more, the last at {last.rps:,.4g}"
    return f"{said}; from {last.rps:,.4g} on {last.cheaper} again ({len(crossings)} changes)"


def _show_plot(points: Sequence[float], curves: Mapping[str, Sequence[float]]) -> None:
    from infra.cli.cost_plot import terminal_plot

    coloured = console.is_terminal and console.color_system is not None
    typer.echo(terminal_plot(points, curves, width=min(console.width, 100), coloured=coloured))


def _document(
    table: "PriceTable",
    setup: "Setup",
    found: "Mapping[str, Way]",
    evens: "Sequence[BreakEven]",
    rps: float,
    curves: Mapping[str, Sequence[float]],
    notes: Sequence[str],
) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "prices": {"date": table.date, "region": table.region},
        "load": {"rps": rps, **asdict(setup)},
        "ways": {
            name: {
                "usd_per_month": way.usd(rps),
                "usd_per_million_rows": way.usd(rps) / (way.requests(rps) * setup.rows / 1e6),
                "requests": way.requests(rps),
                "parts": [
                    {"name": part.name, "usd": part.usd_per_million * way.requests(rps) / 1e6, "formula": part.formula}
                    for part in way.parts
                ],
                "instances": way.instances(rps),
                "instance_hours": way.instance_hours(rps),
                "instances_usd": way.instance_hours(rps) * way.usd_per_hour,
            }
            for name, way in found.items()
        },
        "break_even": [asdict(even) for even in evens],
        "curves": {name: list(values) for name, values in curves.items()},
        "notes": [*notes, NOT_IN_IT],
    }
