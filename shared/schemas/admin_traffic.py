"""Documents of the admin API: what the traffic of an endpoint showed."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Self

from pydantic import Field

from shared.domain.endpoint.traffic_counts import (
    LEAST_DECADE,
    MOST_DECADE,
    ArmTraffic,
    ShadowTraffic,
    Traffic,
    VariantTraffic,
)
from shared.schemas.admin import AdminDocument

Rate = Annotated[float | None, Field(ge=0, le=1)]
MeanMs = Annotated[float | None, Field(description="Mean time of the answers in milliseconds; null without any")]


class VariantCounts(AdminDocument):
    """What a variant was chosen for or, for those with a stand-in, answered.

    `answers` have status 200, `errors` are from 500 on. Of the answers, `fallbacks` are a stand-in's, and `cache_hits`
    were kept.
    """

    requests: int
    answers: int
    errors: int
    error_rate: Rate
    fallbacks: int
    cache_hits: int
    mean_ms: MeanMs

    @classmethod
    def of(cls, found: VariantTraffic) -> Self:
        """The document of a domain value."""
        return cls(**{name: getattr(found, name) for name in cls.model_fields})


class ArmCounts(AdminDocument):
    """Requests that an experiment gave to an arm, whoever answered; of the answers, `fallbacks` are a stand-in's."""

    exposures: int
    answers: int
    errors: int
    error_rate: Rate
    fallbacks: int
    mean_ms: MeanMs

    @classmethod
    def of(cls, found: ArmTraffic) -> Self:
        """The document of a domain value."""
        return cls(**{name: getattr(found, name) for name in cls.model_fields})


class Differences(AdminDocument):
    """Comparisons whose greatest difference was at least `at_least` and less than `below` (null: no bound)."""

    at_least: float
    below: float | None
    comparisons: int


class ShadowCounts(AdminDocument):
    """Copies of requests: `dropped` were not done when the answer was, `incomparable` had no output in common.

    `mean_distance` is the mean over the comparisons of their mean absolute differences. `latency_ratio` is the
    geometric mean of shadow by primary over the copies that were done in time, `mean_ms` and `primary_mean_ms` are
    theirs: the higher `dropped_share` is, the more these are about the quick ones only.
    """

    copied: int
    compared: int
    dropped: int
    failed: int
    incomparable: int
    dropped_share: Rate
    rows: int
    agreeing: int
    agreement_rate: Rate
    mean_distance: float | None
    latency_ratio: float | None
    mean_ms: float | None
    primary_mean_ms: float | None
    differences: list[Differences]

    @classmethod
    def of(cls, found: ShadowTraffic, differences: Mapping[int, int]) -> Self:
        """The document of domain values."""
        members = {name: getattr(found, name) for name in cls.model_fields if name != "differences"}
        return cls(**members, differences=[_differences(decade, count) for decade, count in differences.items()])


class FallbackCounts(AdminDocument):
    """Answers of a stand-in: `fallback` as `X-Sluice-Fallback` names it, `reason` the code of the error behind it."""

    fallback: str
    reason: str
    requests: int


class TrafficDocument(AdminDocument):
    """What was counted from day `since` to day `until` (UTC, both included).

    `experiments` are arms by experiment. What has a name that no configuration can give is `(other)`.
    """

    endpoint: str
    since: date
    until: date
    variants: dict[str, VariantCounts]
    experiments: dict[str, dict[str, ArmCounts]]
    shadows: dict[str, ShadowCounts]
    fallbacks: list[FallbackCounts]

    @classmethod
    def of(cls, endpoint: str, since: date, until: date, found: Traffic) -> Self:
        """The document of a domain value."""
        experiments: dict[str, dict[str, ArmCounts]] = {}
        for (experiment, arm), counts in found.arms.items():
            experiments.setdefault(experiment, {})[arm] = ArmCounts.of(counts)
        return cls(
            endpoint=endpoint,
            since=since,
            until=until,
            variants={name: VariantCounts.of(counts) for name, counts in found.variants.items()},
            experiments=experiments,
            shadows={
                name: ShadowCounts.of(counts, found.differences.get(name, {})) for name, counts in found.shadows.items()
            },
            fallbacks=[
                FallbackCounts(fallback=stand_in, reason=why, requests=count)
                for (stand_in, why), count in found.fallbacks.items()
            ],
        )


def _differences(decade: int, count: int) -> Differences:
    at_least = 0.0 if decade == LEAST_DECADE else float(f"1e{decade}")
    below = None if decade == MOST_DECADE else float(f"1e{decade + 1}")
    return Differences(at_least=at_least, below=below, comparisons=count)
