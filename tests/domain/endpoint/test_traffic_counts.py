"""What lines add to the counters of an endpoint, and what the counters say."""

from collections.abc import Mapping
from datetime import UTC, datetime
from math import exp, log
from typing import Any

import pytest

from shared.domain.audit import MAX_COUNTERS
from shared.domain.endpoint.traffic_counts import (
    LEAST_DECADE,
    MOST_DECADE,
    OTHER,
    ArmTraffic,
    ShadowTraffic,
    Traffic,
    TrafficKey,
    VariantTraffic,
    traffic_in,
    traffic_of,
)
from shared.domain.request_line import RequestLine, parse_line
from tests.log_lines import NOON, request

KEY = TrafficKey("tumor", "day#2026-11-21#0")
COMPARED = {
    "variant": "next",
    "state": "compared",
    "ms": 4.0,
    "primary_ms": 2.0,
    "rows": 2,
    "agreeing": 1,
    "distance": 0.25,
    "largest": 0.5,
}


def line(**fields: Any) -> RequestLine:
    found = parse_line(request(**fields))
    assert isinstance(found, RequestLine)
    return found


def counters(found: RequestLine) -> Mapping[str, int]:
    counted = traffic_of(found, NOON, "0")
    assert counted is not None
    assert counted[0] == KEY
    assert 0 not in counted[1].values()
    return counted[1]


def shown(*lines: RequestLine) -> Traffic:
    return traffic_in(map(counters, lines))


def exposed(arm: str, **fields: Any) -> RequestLine:
    return line(variant=arm, experiment={"name": "colour", "arm": arm, "unit": "0123456789abcdef"}, **fields)


def test_a_variant_s_requests_are_counted_by_what_became_of_them() -> None:
    found = shown(
        line(ms=2.0),
        line(ms=4.0, cache="hit"),
        line(ms=0.5, cache="stale"),
        line(cache="miss", ms=1.5),
        line(status=404, ms=9.0),
        line(status=503, ms=9.0),
        line(variant="next", status=500),
    )
    assert found.variants == {
        "main": VariantTraffic(requests=6, answers=4, errors=1, cache_hits=2, us=8000),
        "next": VariantTraffic(requests=1, errors=1),
    }
    main, following = found.variants.values()
    assert (main.mean_ms, main.error_rate) == (2.0, 1 / 6)
    assert (following.mean_ms, following.error_rate) == (None, 1.0)
    assert (found.arms, found.shadows, found.fallbacks) == ({}, {}, {})


def test_an_arm_keeps_its_exposures_whoever_answers() -> None:
    found = shown(
        exposed("a", ms=1.0),
        exposed("a", status=502),
        exposed("b", ms=3.0),
        line(
            ms=5.0,
            variant="a",
            experiment={"name": "colour", "arm": "b", "unit": "f" * 16},
            fallback="variant=a",
            reason="circuit_open",
        ),
    )
    assert found.arms == {
        ("colour", "a"): ArmTraffic(exposures=2, answers=1, errors=1, us=1000),
        ("colour", "b"): ArmTraffic(exposures=2, answers=2, fallbacks=1, us=8000),
    }
    assert found.arms["colour", "b"].mean_ms == 4.0
    assert found.variants["a"] == VariantTraffic(requests=3, answers=2, errors=1, fallbacks=1, us=6000)


def test_stand_ins_are_counted_by_kind_and_reason() -> None:
    found = shown(
        line(fallback="static", reason="backend_timeout"),
        line(fallback="static", reason="backend_timeout"),
        line(fallback="cached", reason="circuit_open"),
        line(fallback="variant=small", reason="overloaded"),
        line(fallback="static"),
        line(fallback="static", reason="overloaded", status=422),  # the answer was too large: nobody got it
    )
    assert found.fallbacks == {
        ("cached", "circuit_open"): 1,
        ("static", OTHER): 1,
        ("static", "backend_timeout"): 2,
        ("variant=small", "overloaded"): 1,
    }
    assert found.variants["main"].fallbacks == 5


def test_a_shadow_is_told_by_what_its_copies_gave() -> None:
    found = shown(
        line(shadow=COMPARED),
        line(shadow={**COMPARED, "agreeing": 2, "ms": 1.0, "distance": 0.75, "largest": 12.0}),
        line(shadow={"variant": "next", "state": "dropped"}),
        line(shadow={"variant": "next", "state": "failed", "ms": 100.0, "primary_ms": 1.0, "code": "backend_error"}),
        line(shadow={"variant": "next", "state": "incomparable", "ms": 2.0, "primary_ms": 2.0}),
    )
    (shadow,) = found.shadows.values()
    counts = ShadowTraffic(
        copied=5,
        compared=2,
        dropped=1,
        failed=1,
        incomparable=1,
        rows=4,
        agreeing=3,
        distance=10**12,
        timed=3,
        log_ratio=0,
        us=7000,
        primary_us=6000,
    )
    assert shadow == counts
    assert (shadow.agreement_rate, shadow.mean_distance, shadow.dropped_share) == (0.75, 0.5, 0.2)
    assert shadow.latency_ratio == 1.0  # twice as long, half as long, and the same
    assert (shadow.mean_ms, shadow.primary_mean_ms) == (7 / 3, 2.0)
    assert found.differences == {"next": {-1: 1, 1: 1}}
    assert found.variants["main"].requests == 5


def test_a_ratio_is_the_geometric_mean() -> None:
    pairs = [(1.0, 3.0), (7.5, 0.5), (2.0, 2.5), (0.001, 900.0)]
    found = shown(*[line(shadow={**COMPARED, "ms": ms, "primary_ms": primary}) for ms, primary in pairs])
    expected = exp(sum(log(ms / primary) for ms, primary in pairs) / len(pairs))
    assert found.shadows["next"].latency_ratio == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("largest", "decade"),
    [
        (0.0, LEAST_DECADE),
        (9.99e-7, LEAST_DECADE),
        (1e-6, -6),
        (0.0999, -2),
        (0.1, -1),
        (1.0, 0),
        (9.99, 0),
        (1000.0, 3),
        (1e4, MOST_DECADE),
        (1e300, MOST_DECADE),
    ],
)
def test_the_greatest_difference_has_a_decade(largest: float, decade: int) -> None:
    assert shown(line(shadow={**COMPARED, "largest": largest})).differences == {"next": {decade: 1}}


def test_nothing_has_no_rates() -> None:
    shadow = ShadowTraffic()
    assert {shadow.dropped_share, shadow.agreement_rate, shadow.mean_distance, shadow.latency_ratio} == {None}
    assert {shadow.mean_ms, shadow.primary_mean_ms, VariantTraffic().mean_ms, ArmTraffic().error_rate} == {None}
    assert traffic_in([]) == Traffic({}, {}, {}, {}, {})


@pytest.mark.parametrize(
    "fields", [{"model": None}, {"model": "../etc"}, {"model": "x" * 65}, {"version": None}, {"variant": None}]
)
def test_what_reached_no_version_is_not_counted(fields: dict[str, Any]) -> None:
    assert traffic_of(line(**fields), NOON, "0") is None


def test_a_day_is_one_of_utc_and_every_shard_has_its_part() -> None:
    late = datetime.fromisoformat("2026-11-30T23:30:00-01:00")
    counted = traffic_of(line(), late, "12")
    assert counted is not None
    assert counted[0] == TrafficKey("tumor", "day#2026-12-01#12")
    assert late.astimezone(UTC).day == 1


def test_a_name_that_no_configuration_has_is_another() -> None:
    assert set(shown(line(variant="no#name"), line(variant="x" * 99)).variants) == {OTHER}


def test_numbers_stay_within_a_counter() -> None:
    huge = {**COMPARED, "distance": 1e300, "rows": 10**40, "agreeing": 10**41, "ms": 8e7}
    flat = counters(line(ms=1e300, shadow=huge))
    assert all(isinstance(count, int) and abs(count) < 10**25 for count in flat.values())
    assert traffic_in([flat]).shadows["next"].agreement_rate == 1.0


def test_counters_of_another_release_are_left_out() -> None:
    known = {"variant#main#requests": 1}
    strange = {"variant#main#carats": 5, "planet#mars#requests": 1, "x": 1, "arm#a": 2, "shadow#s#decade99": 1}
    found = traffic_in([known, strange])
    assert found.variants == {"main": VariantTraffic(requests=1)}
    assert (found.arms, found.fallbacks, found.differences) == ({}, {}, {"s": {}})


def test_one_line_has_few_counters() -> None:
    full = exposed("a", shadow=COMPARED, cache="hit", fallback="static", reason="overloaded")
    assert len(counters(full)) < MAX_COUNTERS / 4
