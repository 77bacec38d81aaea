"""What came of a fault: judged by outcomes, with the times beside their targets."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import median
from typing import Any, Final

from benchmarks.faults.catalogue import Fault
from benchmarks.faults.endpoints import CHANGING, FAULTY, HEALTHY, Terms
from benchmarks.faults.load import Answer

LATE_TARGET_MS: Final = 50.0
HEALTHY_TARGET: Final = 1.3
OPEN: Final = "circuit_open"
# A change of a configuration has to be in force that soon.
IN_FORCE_S: Final = 5.0
_CALM_S: Final = 1.5
_CALM_ANSWERS: Final = 2


@dataclass(frozen=True, slots=True)
class Phases:
    """Answers before the fault, during it, and from its end until all was well again."""

    before: Sequence[Answer]
    during: Sequence[Answer]
    after: Sequence[Answer]


@dataclass(slots=True)
class Outcome:
    """`wrong` says what must not be, `missed` which targets of times were missed; the rest are figures.

    `opened_s` is from the fault to the first answer that says that the circuit is open, `closed_s` from its end to the
    last one, both by endpoint. Lateness is the worst one, in milliseconds beyond the deadline.
    """

    fault: str
    what: str
    answers: Counter[str] = field(default_factory=Counter)
    details: dict[str, Counter[str]] = field(default_factory=dict)
    opened_s: dict[str, float] = field(default_factory=dict)
    closed_s: dict[str, float] = field(default_factory=dict)
    late_client_ms: float = 0.0
    late_function_ms: float = 0.0
    late_answers: int = 0
    overhead_ms: float = 0.0
    healthy_p99_ms: float = 0.0
    calm_p99_ms: float = 0.0
    healthy_answers: int = 0
    wrong_answers: int = 0
    wrong: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The healthy endpoint's p99 against the undisturbed one."""
        return self.healthy_p99_ms / self.calm_p99_ms if self.calm_p99_ms else 0.0

    def document(self) -> dict[str, Any]:
        """All of it, for JSON."""
        names = [name for name in self.__slots__ if name not in {"details"}]
        details = {endpoint: dict(counts) for endpoint, counts in self.details.items()}
        return {**{name: getattr(self, name) for name in names}, "details": details, "ratio": self.ratio}


def is_calm(fault: Fault, answers: Sequence[Answer]) -> bool:
    """Whether, at the end of these, all that the fault touched is as it was, for some time."""
    if not answers:
        return False
    since = answers[-1].at - _CALM_S
    endpoints = (CHANGING,) if fault.expected == "moves" else tuple(FAULTY)
    for endpoint in endpoints:
        recent = [answer for answer in answers if answer.endpoint == endpoint and answer.at >= since]
        if len(recent) < _CALM_ANSWERS or since < 0:
            return False
        if endpoint == CHANGING:
            if any(answer.variant != "after" for answer in recent):
                return False
        elif any(_is_open(answer) for answer in recent) or not any(not answer.fallback for answer in recent):
            return False
    return True


def has_shown(fault: Fault, answers: Sequence[Answer]) -> bool:
    """Whether the circuits that should open have opened; False for faults that show in another way."""
    if fault.expected != "opens":
        return False
    return {answer.endpoint for answer in answers if _is_open(answer)} >= set(fault.endpoints)


def judge(fault: Fault, phases: Phases, terms: Terms) -> Outcome:
    """What came of it."""
    outcome = Outcome(fault.name, fault.what)
    _count(outcome, phases.during)
    _measure(outcome, phases, terms)
    everything = [*phases.before, *phases.during, *phases.after]
    for verdict, meaning in (
        ("wrong", "answers are not those of their requests"),
        ("unmarked", "stand-ins are not marked"),
    ):
        if found := sum(answer.verdict == verdict for answer in everything):
            outcome.wrong_answers += found
            outcome.wrong.append(f"{found} {meaning}")
    if refused := [answer for answer in everything if answer.endpoint == HEALTHY and answer.status != 200]:
        outcome.wrong.append(f"the healthy endpoint refused {len(refused)}: {refused[0].code}")
    _circuits(outcome, fault, phases, terms)
    match fault.expected:
        case "closed":
            _only_marked(outcome, fault, phases)
        case "none" if not any(not answer.fallback and answer.status == 200 for answer in _of(phases.during, FAULTY)):
            outcome.wrong.append("the configuration in force was not kept")
        case "moves":
            _moves(outcome, phases)
    if fault.expected != "moves" and not is_calm(fault, phases.after):
        outcome.wrong.append("it did not recover")
    return outcome


def _count(outcome: Outcome, during: Sequence[Answer]) -> None:
    for answer in during:
        if answer.endpoint in FAULTY:
            mark = f"{answer.fallback}; {answer.reason}" if answer.fallback else "primary"
            key = mark if answer.status == 200 else f"{answer.status} {answer.code}"
            outcome.details.setdefault(answer.endpoint, Counter())[key] += 1
            if answer.status != 200:
                outcome.answers["refused"] += 1
            else:
                outcome.answers["stood in" if answer.fallback else "primary"] += 1


def _measure(outcome: Outcome, phases: Phases, terms: Terms) -> None:
    overheads = [answer.ms - answer.server_ms for answer in phases.before if answer.server_ms is not None]
    outcome.overhead_ms = median(overheads) if overheads else 0.0
    faulty = _of([*phases.during, *phases.after], FAULTY)
    by_client = [answer.ms - outcome.overhead_ms - _budget(answer, terms) for answer in faulty]
    by_function = [answer.server_ms - _budget(answer, terms) for answer in faulty if answer.server_ms is not None]
    outcome.late_client_ms = max(by_client, default=0.0)
    outcome.late_function_ms = max(by_function, default=0.0)
    outcome.late_answers = sum(ms > LATE_TARGET_MS for ms in by_client)
    if outcome.late_client_ms > LATE_TARGET_MS:
        outcome.missed.append(f"{outcome.late_answers} answers over {LATE_TARGET_MS:.0f} ms late")
    calm, healthy = (
        sorted(one.ms for one in part if one.endpoint == HEALTHY) for part in (phases.before, phases.during)
    )
    outcome.calm_p99_ms, outcome.healthy_p99_ms = p99(calm), p99(healthy)
    outcome.healthy_answers = len(healthy)
    if outcome.ratio > HEALTHY_TARGET:
        outcome.missed.append(f"healthy p99 × {outcome.ratio:.2f}")


def _circuits(outcome: Outcome, fault: Fault, phases: Phases, terms: Terms) -> None:
    expected = set(fault.endpoints) if fault.expected == "opens" else set()
    for endpoint in FAULTY:
        during = [answer.at for answer in phases.during if answer.endpoint == endpoint and _is_open(answer)]
        if during:
            outcome.opened_s[endpoint] = during[0]
        elif endpoint in expected:
            outcome.wrong.append(f"the circuit of {endpoint} did not open")
        if endpoint in expected and during:
            last = [answer.at for answer in phases.after if answer.endpoint == endpoint and _is_open(answer)]
            outcome.closed_s[endpoint] = last[-1] if last else 0.0
            if during[0] > terms.window_s:
                outcome.missed.append(f"{endpoint} opened after {during[0]:.1f} s")


def _only_marked(outcome: Outcome, fault: Fault, phases: Phases) -> None:
    for endpoint in fault.endpoints:
        stood_in = [answer for answer in phases.during if answer.endpoint == endpoint and answer.fallback]
        if not stood_in:
            outcome.wrong.append(f"nothing stood in for {endpoint}")
        # A call now and then may be lost in time on a busy machine; what the fault itself does is most of them.
        if 2 * sum(_is_open(answer) for answer in stood_in) > len(stood_in):
            outcome.wrong.append(f"the circuit of {endpoint} opened")


def _moves(outcome: Outcome, phases: Phases) -> None:
    """Some environments know of the change within the time that it has, and all of them after the fault."""
    outcome.answers["behind"] = sum(
        answer.endpoint == CHANGING and answer.variant == "before" and answer.at > IN_FORCE_S
        for answer in phases.during
    )
    if not any(answer.endpoint == CHANGING and answer.variant == "after" for answer in phases.during):
        outcome.wrong.append("no environment knew of the change")
    late = [answer.at for answer in phases.after if answer.endpoint == CHANGING and answer.variant == "before"]
    outcome.closed_s[CHANGING] = late[-1] if late else 0.0
    if outcome.closed_s[CHANGING] > IN_FORCE_S:
        outcome.wrong.append(f"the change was in force {late[-1]:.1f} s after the fault only")


def _is_open(answer: Answer) -> bool:
    return OPEN in {answer.reason, answer.code}


def _of(answers: Iterable[Answer], endpoints: Iterable[str]) -> list[Answer]:
    wanted = set(endpoints)
    return [answer for answer in answers if answer.endpoint in wanted]


def _budget(answer: Answer, terms: Terms) -> int:
    return min(answer.deadline_ms or terms.timeout_ms, terms.timeout_ms)


def p99(ordered: Sequence[float]) -> float:
    """The 99th percentile of numbers in order, by the nearest rank; 0 for none."""
    return ordered[ceil(0.99 * len(ordered)) - 1] if ordered else 0.0
