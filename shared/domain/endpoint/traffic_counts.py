"""What traffic showed, in counters by endpoint and UTC day: variants, arms of experiments, shadows, stand-ins.

Every counter is a whole number that is only ever added to, so sums of batches, shards and days are sums of counters. A
counter is named by what it is of and by itself, such as `variant#main#requests`; no name of a configuration has a `#`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from math import exp, floor, log, log10
from typing import Final, NamedTuple, TypeVar

from shared.domain.endpoint.config import ENDPOINT_NAME, PART_NAME
from shared.domain.request_line import RequestLine, ShadowMember
from shared.domain.usage import day_period

OTHER: Final = "(other)"
"""What has a name that no configuration can give."""
VARIANT: Final = "variant"
ARM: Final = "arm"
SHADOW: Final = "shadow"
FALLBACK: Final = "fallback"
# Decades of the greatest differences: the first is everything below 10⁻⁶, the last everything from 10⁴ on.
LEAST_DECADE: Final = -7
MOST_DECADE: Final = 4
DISTANCE_UNIT: Final = 1e-12
LOG_RATIO_UNIT: Final = 1e-6
# A mean difference above this counts as this: sums stay within the 38 digits of DynamoDB's numbers.
_MOST_DISTANCE = 1e12
_MOST_ROWS = 2**53
_DECADE = "decade"
_OK = 200
_ENDPOINT = re.compile(ENDPOINT_NAME)
_VARIANT = re.compile(PART_NAME)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class VariantTraffic:
    """Requests that a variant was chosen for or, for those with a stand-in, that it answered.

    `answers` are those with status 200, `errors` those from 500 on; `us` are the microseconds of the answers. Of the
    answers, `fallbacks` are marked as a stand-in's and `cache_hits` were kept.
    """

    requests: int = 0
    answers: int = 0
    errors: int = 0
    fallbacks: int = 0
    cache_hits: int = 0
    us: int = 0

    @property
    def error_rate(self) -> float | None:
        """Errors by requests; None without any."""
        return _ratio(self.errors, self.requests)

    @property
    def mean_ms(self) -> float | None:
        """Mean time of the answers in milliseconds; None without any."""
        return _ratio(self.us / 1e3, self.answers)


@dataclass(frozen=True, slots=True)
class ArmTraffic:
    """Requests that an experiment gave to an arm, whoever answered; counted as a variant's are."""

    exposures: int = 0
    answers: int = 0
    errors: int = 0
    fallbacks: int = 0
    us: int = 0

    @property
    def error_rate(self) -> float | None:
        """Errors by exposures; None without any."""
        return _ratio(self.errors, self.exposures)

    @property
    def mean_ms(self) -> float | None:
        """Mean time of the answers in milliseconds; None without any."""
        return _ratio(self.us / 1e3, self.answers)


@dataclass(frozen=True, slots=True)
class ShadowTraffic:
    """Copies of requests for a shadow.

    Of `rows` instances, `agreeing` were the same decision. `distance` is the sum of the comparisons' mean absolute
    differences in `DISTANCE_UNIT`. `timed` copies were done in time: `us` and `primary_us` are their microseconds and
    those of the answers beside them, `log_ratio` the sum of the logarithms of shadow by primary in `LOG_RATIO_UNIT`.
    """

    copied: int = 0
    compared: int = 0
    dropped: int = 0
    failed: int = 0
    incomparable: int = 0
    rows: int = 0
    agreeing: int = 0
    distance: int = 0
    timed: int = 0
    log_ratio: int = 0
    us: int = 0
    primary_us: int = 0

    @property
    def dropped_share(self) -> float | None:
        """Copies that were not done when the answer was; None without any copies."""
        return _ratio(self.dropped, self.copied)

    @property
    def agreement_rate(self) -> float | None:
        """Agreeing rows by compared ones; None without any."""
        return _ratio(self.agreeing, self.rows)

    @property
    def mean_distance(self) -> float | None:
        """Mean over the comparisons of their mean absolute differences; None without any."""
        return _ratio(self.distance * DISTANCE_UNIT, self.compared)

    @property
    def latency_ratio(self) -> float | None:
        """Geometric mean of shadow by primary over the copies that were done in time; None without any."""
        mean = _ratio(self.log_ratio * LOG_RATIO_UNIT, self.timed)
        return None if mean is None else exp(mean)

    @property
    def mean_ms(self) -> float | None:
        """Mean time of those copies in milliseconds."""
        return _ratio(self.us / 1e3, self.timed)

    @property
    def primary_mean_ms(self) -> float | None:
        """Mean time of the answers beside them in milliseconds."""
        return _ratio(self.primary_us / 1e3, self.timed)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Everything that is counted; arms by experiment and arm, stand-ins by what they were and why.

    `differences` are comparisons by shadow and by the decade of their greatest difference: 0 is from 1 to below 10.
    """

    variants: Mapping[str, VariantTraffic]
    arms: Mapping[tuple[str, str], ArmTraffic]
    shadows: Mapping[str, ShadowTraffic]
    differences: Mapping[str, Mapping[int, int]]
    fallbacks: Mapping[tuple[str, str], int]


class TrafficKey(NamedTuple):
    """Where counters are added up: an endpoint, and a period as the store names it."""

    endpoint: str
    period: str


Counted = tuple[TrafficKey, Mapping[str, int]]
"""Counters that are to be added under a key, by their names; none of them is 0."""


def traffic_period(day: date, shard: str) -> str:
    """A day's part of one audit shard: `day#2026-11-21#3`.

    Who writes a shard takes turns anyway, so writers of different shards never wait for one another's counters.
    """
    return f"{day_period(day)}#{shard}"


def traffic_of(line: RequestLine, when: datetime, shard: str) -> Counted | None:
    """What a request at `when` adds; None for one that found no version: the name of its model may be made up."""
    model, variant = line.model, line.variant
    if model is None or not _ENDPOINT.fullmatch(model) or line.version is None or variant is None:
        return None
    answered = line.status == _OK
    common = {
        "answers": int(answered),
        "errors": int(line.status >= 500),
        "fallbacks": int(answered and line.stand_in is not None),
        "us": _us(line.ms) if answered else 0,
    }
    hits = int(answered and line.kept in {"hit", "stale"})
    name = variant if _VARIANT.fullmatch(variant) else OTHER
    counts = _named({"requests": 1, "cache_hits": hits, **common}, VARIANT, name)
    if (exposure := line.exposure) is not None:
        counts |= _named({"exposures": 1, **common}, ARM, exposure.name, exposure.arm)
    if (copy := line.copied) is not None:
        counts |= _named(_copied(copy), SHADOW, copy.variant)
    if (stand_in := line.stand_in) is not None and answered:
        counts |= _named({"requests": 1}, FALLBACK, stand_in, line.why or OTHER)
    return TrafficKey(model, traffic_period(when.astimezone(UTC).date(), shard)), counts


def traffic_in(parts: Iterable[Mapping[str, int]]) -> Traffic:
    """The sum of stored counters; names that are not known are another release's, and left out."""
    sums: dict[tuple[str, ...], dict[str, int]] = {}
    for counters in parts:
        for text, count in counters.items():
            *things, name = text.split("#")
            of_things = sums.setdefault(tuple(things), {})
            of_things[name] = of_things.get(name, 0) + count
    variants: dict[str, VariantTraffic] = {}
    arms: dict[tuple[str, str], ArmTraffic] = {}
    shadows: dict[str, ShadowTraffic] = {}
    differences: dict[str, dict[int, int]] = {}
    fallbacks: dict[tuple[str, str], int] = {}
    for subject, found in sorted(sums.items()):
        match subject:
            case ("variant", variant):
                variants[variant] = _typed(VariantTraffic, found)
            case ("arm", experiment, arm):
                arms[experiment, arm] = _typed(ArmTraffic, found)
            case ("shadow", variant):
                shadows[variant] = _typed(ShadowTraffic, found)
                differences[variant] = dict(sorted(_decades(found)))
            case ("fallback", stand_in, why):
                fallbacks[stand_in, why] = found.get("requests", 0)
    return Traffic(variants, arms, shadows, differences, fallbacks)


def _named(counters: Mapping[str, int], *subject: str) -> dict[str, int]:
    return {"#".join((*subject, name)): count for name, count in counters.items() if count}


def _copied(copy: ShadowMember) -> Mapping[str, int]:
    counts = {"copied": 1, copy.state: 1}
    if copy.state in {"compared", "incomparable"} and copy.ms > 0 and copy.primary_ms > 0:
        ratio = log(copy.ms / copy.primary_ms)
        counts |= {
            "timed": 1,
            "log_ratio": round(ratio / LOG_RATIO_UNIT),
            "us": _us(copy.ms),
            "primary_us": _us(copy.primary_ms),
        }
    if copy.state == "compared":
        rows = min(copy.rows, _MOST_ROWS)
        counts |= {
            "rows": rows,
            "agreeing": min(copy.agreeing, rows),
            "distance": round(min(copy.distance, _MOST_DISTANCE) / DISTANCE_UNIT),
            f"{_DECADE}{_decade(copy.largest)}": 1,
        }
    return counts


def _decade(difference: float) -> int:
    if difference < 10.0 ** (LEAST_DECADE + 1):
        return LEAST_DECADE
    return min(floor(log10(difference)), MOST_DECADE)


def _decades(counters: Mapping[str, int]) -> Iterable[tuple[int, int]]:
    for decade in range(LEAST_DECADE, MOST_DECADE + 1):
        if count := counters.get(f"{_DECADE}{decade}", 0):
            yield decade, count


def _typed(type_: type[_T], counters: Mapping[str, int]) -> _T:
    return type_(**{field.name: counters.get(field.name, 0) for field in fields(type_)})  # type: ignore[arg-type]


def _ratio(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def _us(ms: float) -> int:
    return round(min(max(ms, 0.0), 86_400_000.0) * 1000)
