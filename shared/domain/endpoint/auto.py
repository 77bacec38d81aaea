"""Which backend `auto` stands for: the cheapest that is expected to meet the deadline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shared.domain.endpoint.config import FUNCTION, AutoRouting

# A backend whose latency is not known is tried for this share of the requests that another could serve.
EXPLORED = 0.05


@dataclass(frozen=True, slots=True)
class Work:
    """What decides about a backend: instances, bytes of inputs, and the milliseconds until the deadline."""

    rows: int
    size: int
    deadline_ms: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is known of a backend: what it rarely exceeds and what it hardly ever stays below, in milliseconds."""

    expected_ms: float | None = None
    least_ms: float | None = None


def choose_backend(
    candidates: Sequence[str],
    auto: AutoRouting,
    work: Work,
    *,
    estimate: Callable[[str], Estimate],
    cost: Callable[[str, float], float],
    draw: float,
) -> str | None:
    """Choose among `candidates`, at least one, the preferred one first; None if none can be done in time.

    `cost` is the price of a call by backend and milliseconds, in any unit; `draw` a random number from 0 to 1. The
    cheapest of those that should be in time wins, else the fastest of those that might be. A backend that nothing is
    known of might: it is tried now and then, to get to know it.
    """
    fitting = [name for name in candidates if name != FUNCTION or _fits(auto, work)] or list(candidates)
    estimates = {name: estimate(name) for name in fitting}
    expected = {name: known.expected_ms for name, known in estimates.items() if known.expected_ms is not None}
    unknown = [name for name in fitting if name not in expected]
    in_time = [(cost(name, ms), ms, name) for name, ms in expected.items() if ms <= work.deadline_ms]
    if in_time and not (unknown and draw < EXPLORED):
        return min(in_time)[2]
    if unknown:
        return unknown[0]
    possible = [(ms, name) for name, ms in expected.items() if (estimates[name].least_ms or 0.0) <= work.deadline_ms]
    return min(possible)[1] if possible else None


def _fits(auto: AutoRouting, work: Work) -> bool:
    return work.rows <= auto.function_max_rows and work.size <= auto.function_max_bytes
