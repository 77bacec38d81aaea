"""The outcomes as a table for the terminal and as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from benchmarks.faults.outcomes import HEALTHY_TARGET, LATE_TARGET_MS, Outcome

_COLUMNS = (
    "fault",
    "primary, stood in, refused",
    "opened after s",
    "closed after s",
    "wrong answers",
    "late ms: client",
    "function",
    "healthy p99 ms",
    "× undisturbed",
    "outcome",
)


def _cells(outcome: Outcome) -> list[str]:
    answers = outcome.answers
    return [
        outcome.fault,
        ", ".join(str(answers[name]) for name in ("primary", "stood in", "refused")),
        _span(outcome.opened_s),
        _span(outcome.closed_s),
        str(outcome.wrong_answers),
        _late(outcome.late_client_ms),
        _late(outcome.late_function_ms),
        f"{outcome.healthy_p99_ms:.1f}",
        f"{outcome.ratio:.2f}{' !' if outcome.ratio > HEALTHY_TARGET else ''}",
        "; ".join(outcome.wrong) or "as required",
    ]


def table(outcomes: Sequence[Outcome]) -> Table:
    """For a terminal; what must not be is red."""
    shown = Table(title="Faults")
    for column in _COLUMNS:
        shown.add_column(column, overflow="fold")
    for outcome in outcomes:
        shown.add_row(*_cells(outcome), style="red" if outcome.wrong else "")
    return shown


def markdown(outcomes: Sequence[Outcome], machine: Mapping[str, Any]) -> str:
    """The whole report."""
    lines = [
        f"{machine['date']}, {machine['cores']} cores, of which other programs used {machine['busy']:.1f} beforehand, "
        f"Python {machine['python']}; {machine['load']}. Targets: {LATE_TARGET_MS:.0f} ms beyond the "
        f"deadline at the most, healthy p99 × {HEALTHY_TARGET:g} at the most; `!` marks what missed its target.",
        "",
        "| " + " | ".join(_COLUMNS) + " |",
        "|" + "---|" * len(_COLUMNS),
        *("| " + " | ".join(_cells(outcome)) + " |" for outcome in outcomes),
        "",
    ]
    for outcome in outcomes:
        lines += [f"**{outcome.fault}**: {outcome.what}.", ""]
        for endpoint, counts in outcome.details.items():
            lines.append(f"- `{endpoint}`: " + ", ".join(f"{count} {key}" for key, count in counts.most_common()))
        if behind := outcome.answers["behind"]:
            lines.append(f"- {behind} answers by the configuration from before the change, while it lasted")
        lines += [f"- missed: {missed}" for missed in outcome.missed]
        lines += [
            f"- healthy p99 {outcome.healthy_p99_ms:.1f} ms of {outcome.healthy_answers} answers, undisturbed "
            f"{outcome.calm_p99_ms:.1f} ms; between client and function {outcome.overhead_ms:.1f} ms",
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def _span(seconds: Mapping[str, float]) -> str:
    if not seconds:
        return "–"
    least, most = min(seconds.values()), max(seconds.values())
    return f"{least:.1f}" if len(seconds) == 1 else f"{least:.1f}–{most:.1f}"


def _late(ms: float) -> str:
    if ms <= 0:
        return "in time"
    return f"{ms:.0f}{' !' if ms > LATE_TARGET_MS else ''}"
