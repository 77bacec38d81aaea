"""Injects faults into a running local stack and reports what came of them: `make faults`.

It starts a stack of its own, lets clients of two tenants send to three endpoints whose backends it makes fail and to a
healthy one beside them, and ends with 1 if an outcome is wrong. Times are measured and marked, and never end with 1.
Writes `report.md` and `report.json` into `build/faults`.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.faults.catalogue import Fault, catalogue, quick_catalogue, usual
from benchmarks.faults.endpoints import QUICK, Administrator, Terms
from benchmarks.faults.load import NEEDED, Answer, Client, clients, load
from benchmarks.faults.outcomes import IN_FORCE_S, Outcome, Phases, has_shown, is_calm, judge
from benchmarks.faults.questions import questions
from benchmarks.faults.report import markdown, table
from benchmarks.faults.stack import ROOT, Running, running

_WARM_UP_S = 4.0
_QUICK_CALM_S = 1.0
# At the most, for faults that open circuits; the others last as long as kept configurations, and a little more.
_QUICK_FAULT_S = 12.0
_QUICK_OTHERS_S = 5.5
_QUICK_CLOSED_S = 2.5


def main() -> None:
    """Run, report, and end with 1 if an outcome is wrong."""
    given = _arguments()
    terms = QUICK if given.quick else Terms()
    known = quick_catalogue(terms) if given.quick and not given.only else catalogue(terms)
    faults = [fault for fault in known if not given.only or fault.name in given.only]
    console = Console()
    bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console)
    busy = psutil.cpu_percent(1.0) / 100 * (psutil.cpu_count() or 1)
    with bar:
        shown = bar.add_task("starting a stack", total=None)

        def show(what: str, seconds: float) -> Callable[[float], None]:
            bar.update(shown, description=what, total=seconds, completed=0)
            return lambda passed: bar.update(shown, completed=passed)

        with running() as stack, closing(Administrator(stack)) as administrator:
            keys = administrator.prepare(terms)
            sending = clients(keys, questions(NEEDED), terms, rate=given.rate)
            run = _Run(stack, administrator, sending, terms, given.seconds, quick=given.quick, show=show)
            outcomes = run.all(faults)
    machine = {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "busy": round(busy, 2),
        "load": "each fault as short as it goes"
        if given.quick
        else f"{given.seconds:g} s undisturbed and {given.seconds:g} s with each fault",
    }
    _write(given.out, outcomes, machine)
    console.print(table(outcomes))
    sys.exit(1 if any(outcome.wrong for outcome in outcomes) else 0)


def _arguments() -> argparse.Namespace:
    names = [fault.name for fault in catalogue(Terms())]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--only", action="append", choices=names, metavar="FAULT", help=f"one of: {', '.join(names)}")
    parser.add_argument("--seconds", type=float, default=12.0, help="of load, without and with each fault")
    parser.add_argument("--rate", type=float, default=10.0, help="requests a second of each healthy client")
    parser.add_argument("--quick", action="store_true", help="outcomes only, each fault as short as it goes")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "faults")
    return parser.parse_args()


class _Run:
    """One stack, and the same clients for all faults."""

    def __init__(
        self,
        stack: Running,
        administrator: Administrator,
        sending: Sequence[Client],
        terms: Terms,
        seconds: float,
        *,
        quick: bool,
        show: Callable[[str, float], Callable[[float], None]],
    ) -> None:
        self._stack = stack
        self._administrator = administrator
        self._sending = sending
        self._terms = terms
        self._seconds = seconds
        self._quick = quick
        self._show = show

    def all(self, faults: Sequence[Fault]) -> list[Outcome]:
        """Inject one after the other."""
        self._warm_up()
        return [judge(fault, self._phases(fault), self._terms) for fault in faults]

    def _warm_up(self) -> None:
        """What stands in must be loaded in every environment once, which takes longer than the time kept for it."""
        fault = next(fault for fault in catalogue(self._terms) if fault.name == "5xx")
        for document in (usual(self._terms), fault.document(self._terms), usual(self._terms)):
            self._stack.inject(document)
            self._load("warm-up", _WARM_UP_S / 2 if self._quick else _WARM_UP_S)
        self._load("warm-up", 3 * self._terms.longest_open_s, until=lambda answers: is_calm(fault, answers))

    def _phases(self, fault: Fault) -> Phases:
        terms, name = self._terms, fault.name
        during_s = {"opens": _QUICK_FAULT_S, "closed": _QUICK_CLOSED_S}.get(fault.expected, _QUICK_OTHERS_S)
        before = self._load(f"{name}: undisturbed", _QUICK_CALM_S if self._quick else self._seconds)
        self._stack.inject(fault.document(terms))
        if fault.expected == "moves":
            self._administrator.move("after")
        during = self._load(
            name,
            during_s if self._quick else self._seconds,
            until=lambda answers: self._quick and has_shown(fault, answers),
        )
        self._stack.inject(usual(terms))
        limit_s = terms.longest_open_s + 2 * IN_FORCE_S
        after = self._load(f"{name}: recovery", limit_s, until=lambda answers: is_calm(fault, answers))
        return Phases(before, during, after)

    def _load(
        self, what: str, seconds: float, *, until: Callable[[Sequence[Answer]], bool] = lambda _: False
    ) -> list[Answer]:
        on_time = self._show(what, seconds)
        return asyncio.run(load(self._stack.local.api_url, self._sending, seconds, until=until, on_time=on_time))


def _write(folder: Path, outcomes: Sequence[Outcome], machine: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine, "faults": [outcome.document() for outcome in outcomes]}
    (folder / "report.json").write_text(json.dumps(document, indent=2))
    (folder / "report.md").write_text(markdown(outcomes, machine))


if __name__ == "__main__":
    main()
