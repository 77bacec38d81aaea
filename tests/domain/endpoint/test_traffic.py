"""Weights are exact to within sampling error, sticky keys stay, and a moved weight moves only its share."""

from collections import Counter
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.endpoint.config import EndpointConfig, Experiment, Variant
from shared.domain.endpoint.traffic import Caller, choose_variant, weighted_choice
from shared.domain.errors import BackendUnavailable

KEYS = [f"user-{number}" for number in range(40_000)]


def caller(tenant: str = "acme", key_id: str = "k1", **headers: str) -> Caller:
    return Caller(tenant, key_id, {name.replace("_", "-"): value for name, value in headers.items()}.get)


@pytest.mark.parametrize("weights", [{"a": 95, "b": 5}, {"a": 1, "b": 1, "c": 2}, {"a": 0.001, "b": 0.003}])
def test_shares_follow_the_weights(weights: dict[str, float]) -> None:
    counted = Counter(weighted_choice(weights, key, "tumor") for key in KEYS)
    total = sum(weights.values())
    for name, weight in weights.items():
        share = weight / total
        deviation = sqrt(share * (1 - share) / len(KEYS))
        assert abs(counted[name] / len(KEYS) - share) < 5 * deviation


@pytest.mark.parametrize(("before", "after"), [(5, 10), (10, 5), (0, 20), (20, 0)])
def test_a_moved_weight_moves_only_that_share(before: float, after: float) -> None:
    moved: Counter[tuple[str | None, str | None]] = Counter()
    for key in KEYS:
        old = weighted_choice({"a": 50, "b": 50 - before, "c": before}, key, "tumor")
        new = weighted_choice({"a": 50, "b": 50 - after, "c": after}, key, "tumor")
        moved[old, new] += 1
    changed = {pair: count for pair, count in moved.items() if pair[0] != pair[1]}
    # b and c exchange some; `a`, whose share stays, loses to nobody but by the changed sum of b's and c's draws.
    share = abs(after - before) / 100
    assert sum(changed.values()) / len(KEYS) < 1.6 * share
    direction = ("b", "c") if after > before else ("c", "b")
    assert changed.get((direction[1], direction[0]), 0) == 0


@given(
    weights=st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 1e6), min_size=2),
    key=st.text(max_size=40),
    factor=st.floats(1.01, 100),
    data=st.data(),
)
def test_a_grown_weight_takes_keys_and_gives_none_away(
    weights: dict[str, float], key: str, factor: float, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(weights)))
    before = weighted_choice(weights, key, "e")
    after = weighted_choice({**weights, name: weights[name] * factor}, key, "e")
    assert after in {before, name}


def test_the_same_key_gets_the_same_variant_and_endpoints_split_apart() -> None:
    weights = {"a": 1.0, "b": 1.0}
    one = [weighted_choice(weights, key, "one") for key in KEYS[:1000]]
    assert one == [weighted_choice(weights, key, "one") for key in KEYS[:1000]]
    two = [weighted_choice(weights, key, "two") for key in KEYS[:1000]]
    same = sum(left == right for left, right in zip(one, two, strict=True))
    assert 400 < same < 600


def test_a_weight_of_zero_takes_nothing() -> None:
    assert {weighted_choice({"a": 0, "b": 1e-9}, key, "x") for key in KEYS[:500]} == {"b"}
    assert weighted_choice({"a": 0}, "k", "x") is None


TWO = (Variant("main", weight=50), Variant("next", version=2, weight=50))


def test_a_sticky_header_keeps_a_caller_within_its_tenant() -> None:
    config = EndpointConfig("tumor", TWO)
    chosen = {choose_variant(config, caller(x_sluice_sticky_key="u7"))[0].name for _ in range(50)}
    assert len(chosen) == 1
    by_tenant = {choose_variant(config, caller(f"t{n}", x_sluice_sticky_key="u7"))[0].name for n in range(50)}
    assert by_tenant == {"main", "next"}


def test_without_a_sticky_key_every_request_is_drawn() -> None:
    config = EndpointConfig("tumor", TWO)
    counted = Counter(choose_variant(config, caller())[0].name for _ in range(2000))
    assert 850 < counted["main"] < 1150


@pytest.mark.parametrize("source", ["tenant", "key"])
def test_tenants_and_keys_can_be_sticky(source: str) -> None:
    config = EndpointConfig("tumor", TWO, sticky=source)
    assert len({choose_variant(config, caller("t1", "k1"))[0].name for _ in range(50)}) == 1
    assert len({choose_variant(config, caller(f"t{n}", f"k{n}"))[0].name for n in range(50)}) == 2


def test_an_experiment_overrides_the_weights_and_tells_its_exposure() -> None:
    experiment = Experiment("colour", "header:x-user", {"main": 1, "next": 1})
    config = EndpointConfig("tumor", (Variant("main", weight=100), Variant("next", weight=0)), experiment=experiment)
    counted: Counter[str] = Counter()
    units = set()
    for number in range(4000):
        variant, exposure = choose_variant(config, caller(x_user=f"u{number}"))
        assert exposure is not None
        assert (exposure.experiment, exposure.arm) == ("colour", variant.name)
        assert f"u{number}" not in exposure.unit
        counted[variant.name] += 1
        units.add(exposure.unit)
    assert abs(counted["main"] - 2000) < 160
    assert len(units) == 4000
    # Who has no unit is not part of it.
    assert choose_variant(config, caller()) == (config.variants[0], None)


def test_a_renamed_experiment_splits_anew() -> None:
    def arms(name: str) -> list[str]:
        experiment = Experiment(name, "header:x-user", {"main": 1, "next": 1})
        config = EndpointConfig("tumor", TWO, experiment=experiment)
        return [choose_variant(config, caller(x_user=f"u{number}"))[0].name for number in range(1000)]

    same = sum(left == right for left, right in zip(arms("first"), arms("second"), strict=True))
    assert 400 < same < 600


def test_no_traffic_for_any_variant_is_told() -> None:
    with pytest.raises(BackendUnavailable, match="all weights are 0"):
        choose_variant(EndpointConfig("tumor", (Variant("main", weight=0),)), caller())
