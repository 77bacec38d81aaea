"""Markdown and a plot from what `serving` has found."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from statistics import median
from typing import Any

Report = Mapping[str, Any]
Key = tuple[str, str, str, int]


def summaries(report: Report) -> dict[Key, dict[str, Any]]:
    """Medians and spread over the rounds, by model, server, door and connections."""
    groups: dict[Key, list[Mapping[str, Any]]] = {}
    for sample in report["samples"]:
        key = (sample["model"], sample["server"], sample["door"], sample["connections"])
        groups.setdefault(key, []).append(sample)
    return {key: _summary(samples) for key, samples in groups.items()}


def _summary(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def middle(name: str) -> float:
        return float(median(sample[name] for sample in samples))

    rates = [sample["rps"] for sample in samples]
    return {
        **{name: middle(name) for name in ("rps", "p50", "p90", "p99", "generator_cpu", "server_cpu", "other_cpu")},
        "least": min(rates),
        "most": max(rates),
        "failed": sum(sample["failed"] for sample in samples),
    }


def markdown(report: Report) -> str:
    """The whole report as text."""
    machine, plan = report["machine"], report["plan"]
    lines = [
        f"{machine['date']}, {machine['cores']} cores ({machine['processor']}), Python {machine['python']}, "
        f"ONNX Runtime {machine['onnxruntime']}; {plan['rounds']} interleaved rounds of {plan['seconds']:g} s: median "
        "(least–most). ×: of the baseline's JSON at the same concurrency. %: of the raw ceiling.",
        "",
    ]
    found = summaries(report)
    for model in plan["models"]:
        lines += _model(report, found, model)
    lines += [*_generator(report, found), *_starts(report), *_overload(report)]
    if report["not_measured"]:
        lines += ["## Not measured", ""]
        lines += [f"- {name}: `{' '.join(reason.split())[:400]}`" for name, reason in report["not_measured"].items()]
    return "\n".join(lines).rstrip() + "\n"


def ceiling_of(report: Report, model: str) -> float:
    """The best rows a second over all rounds' medians."""
    runs = report["ceilings"].get(model, [])
    return float(median(run["best_rows_per_second"] for run in runs)) if runs else 0.0


def _model(report: Report, found: Mapping[Key, Mapping[str, Any]], model: str) -> list[str]:
    rows = {key: value for key, value in found.items() if key[0] == model}
    if not rows:
        return []
    raw, runs = ceiling_of(report, model), report["ceilings"][model]
    lone = {threads: median(run["lone_ms"][threads] for run in runs) for threads in runs[0]["lone_ms"]}
    times = ", ".join(f"{value:.3g} ms with {threads}" for threads, value in lone.items())
    lines = [
        f"## {model}",
        "",
        f"Raw `session.run`: {raw:,.0f} rows/s at best ({runs[-1]['best']}); one row {times}.",
        "",
    ]
    lines += [
        "| server | c | requests/s | × baseline | % ceiling | p50 ms | p99 ms | failed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (_, server, door, connections), row in sorted(rows.items(), key=lambda item: (item[0][3], -item[1]["rps"])):
        base = rows.get((model, "baseline", "json", connections))
        ratio = f"{row['rps'] / base['rps']:.2f}" if base and base["rps"] else "–"
        rate = f"{row['rps']:,.0f} ({row['least']:,.0f}–{row['most']:,.0f})"
        share = f"{row['rps'] / raw:.0%}" if raw else "–"
        cells = (
            f"{server} {door}",
            connections,
            rate,
            ratio,
            share,
            _short(row["p50"]),
            _short(row["p99"]),
            row["failed"],
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    disturbed = median(row["other_cpu"] for row in rows.values())
    if disturbed > 0.15:
        lines += ["", f"Other programs used {disturbed:.2f} processors meanwhile: these figures are disturbed."]
    return [*lines, ""]


def _generator(report: Report, found: Mapping[Key, Mapping[str, Any]]) -> list[str]:
    if not report["generator"]:
        return []
    most: dict[tuple[str, int], float] = {}
    for (model, _, _, connections), row in found.items():
        most[model, connections] = max(most.get((model, connections), 0.0), row["rps"])
    lines = ["## The generator", "", "The same requests against a server that does nothing but answer.", ""]
    lines += [
        "| model | protocol | c | requests/s | p50 ms | the fastest server's share |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["generator"]:
        share = most.get((row["model"], row["connections"]), 0.0) / row["rps"] if row["rps"] else 0.0
        cells = (
            row["model"],
            row["protocol"],
            row["connections"],
            f"{row['rps']:,.0f}",
            _short(row["p50"]),
            f"{share:.0%}",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return [*lines, ""]


def _starts(report: Report) -> list[str]:
    names = list(dict.fromkeys(row["server"] for row in report["starts"]))
    lines = ["## Start and memory", "", "| server | start to first right answer s | idle PSS MiB |", "|---|---|---|"]
    for name in names:
        rows = [row for row in report["starts"] if row["server"] == name]
        lines.append(
            f"| {name} | {_spread(row['ready_s'] for row in rows)} | {_spread(row['idle_pss_mib'] for row in rows)} |"
        )
    lines += [f"| {row['server']}, for {row['model']} | – | {row['idle_pss_mib']} |" for row in report["memory"]]
    return [*lines, ""] if len(lines) > 4 else []


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _spread(values: Iterable[float]) -> str:
    ordered = sorted(values)
    return f"{median(ordered):g} ({ordered[0]:g}–{ordered[-1]:g})"


def _overload(report: Report) -> list[str]:
    if not report["overload"]:
        return []
    lines = ["## Twice the capacity offered", ""]
    lines += ["| model | capacity/s | offered/s | in time/s | % of capacity | late | refused | refusal p50 / p99 ms |"]
    lines[-1] += " errors, unsent | PSS MiB before, most, after |"
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    for row in report["overload"]:
        refused, memory = row["refusals_ms"], row["pss_mib"]
        lines.append(
            f"| {row['model']} | {row['capacity_rps']:,.0f} | {row['offered_rps']:,.0f} | {row['in_time_rps']:,.0f} "
            f"| {row['in_time_share_of_capacity']:.0%} | {row['late']} | {refused['count']} "
            f"| {_short(refused['p50'])} / {_short(refused['p99'])} | {row['errors']}, {row['unsent']} "
            f"| {memory['before']}, {memory['most']}, {memory['after']} |"
        )
    return [*lines, ""]


_WIDTH, _LEFT, _BAR, _GAP = 760, 190, 16, 40
_COLOURS = {"ours": "#0b6e4f", "baseline": "#b04a2f"}


def plot(report: Report) -> str:
    """Requests a second at the highest concurrency as SVG bars with their spread, one panel for each model."""
    found = summaries(report)
    most = max((key[3] for key in found), default=0)
    pieces: list[str] = []
    y = 30.0
    for model in report["plan"]["models"]:
        rows = {key: row for key, row in found.items() if key[0] == model and key[3] == most}
        bars = sorted(
            ((f"{key[1]} {key[2]}", key[1], row) for key, row in rows.items()), key=lambda bar: -bar[2]["rps"]
        )
        if not bars:
            continue
        panel, y = _panel(f"{model}: requests/s, {most} connections", bars, ceiling_of(report, model), y)
        pieces += panel
    style = "font-family:sans-serif;font-size:12px"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y:.0f}" style="{style}">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *pieces, "</svg>"]) + "\n"


def _panel(
    title: str, bars: Sequence[tuple[str, str, Mapping[str, Any]]], raw: float, y: float
) -> tuple[list[str], float]:
    longest = max(row["most"] for _, _, row in bars)
    # A ceiling far away would leave no room for the bars; it is then only named.
    shown = raw if 0 < raw <= 2 * longest else 0.0
    scale = (_WIDTH - _LEFT - 90) / max(longest, shown)
    note = f" (raw ceiling {raw:,.0f} rows/s)" if raw else ""
    pieces = [f'<text x="10" y="{y:.0f}" font-weight="bold">{escape(title + note)}</text>']
    top = y + 8
    for name, server, row in bars:
        y += _BAR + 6
        width, colour = row["rps"] * scale, _COLOURS.get(server, "#8a94a6")
        low, high, middle = _LEFT + row["least"] * scale, _LEFT + row["most"] * scale, y + 1 - _BAR / 2 + 4
        pieces += [
            f'<text x="{_LEFT - 8}" y="{y:.0f}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{_LEFT}" y="{y - _BAR + 4:.0f}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>',
            f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}" stroke="black"/>',
            f'<text x="{max(high, _LEFT + width) + 6:.1f}" y="{y:.0f}">{row["rps"]:,.0f}</text>',
        ]
    if shown:
        x = _LEFT + shown * scale
        pieces.append(f'<path d="M{x:.1f} {top:.0f}V{y + 6:.0f}" stroke="#333" stroke-dasharray="4 3"/>')
    return pieces, y + _GAP
