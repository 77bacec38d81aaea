from typing import Any

import pytest

from shared.domain.endpoint.config import MAX_VARIANTS, EndpointConfig, Variant
from shared.domain.endpoint.shares import Versions, with_shares
from shared.domain.errors import OutOfRange, SluiceError, VersionNotFound

PUBLISHED = Versions(frozenset({1, 2, 3}).__contains__, 3)
DEFAULT = EndpointConfig("tumor")
PINNED = EndpointConfig("tumor", variants=(Variant("main", 1, "container"),), labels={"prod": 2, "old": 1})
THREE = EndpointConfig(
    "tumor", variants=(Variant("a", 1, weight=3), Variant("b", "prod", weight=1), Variant("c", 3, weight=0)),
    labels={"prod": 2},
)  # fmt: skip


def weights(config: EndpointConfig) -> dict[str, float]:
    return {variant.name: variant.weight for variant in config.variants}


@pytest.mark.parametrize(
    ("config", "shares", "expected"),
    [
        (PINNED, {"2": 0.05}, {"main": 95, "v2": 5}),
        (PINNED, {"prod": 0.05}, {"main": 95, "v2": 5}),
        (PINNED, {"old": 1}, {"main": 100}),
        (PINNED, {"1": 0.5, "2": 0.25, "3": 0.25}, {"main": 50, "v2": 25, "v3": 25}),
        (PINNED, {"2": 1}, {"main": 0, "v2": 100}),
        (PINNED, {"2": 0}, {"main": 100, "v2": 0}),
        (THREE, {"c": 0.2}, {"a": 60, "b": 20, "c": 20}),
        (THREE, {"3": 0.1, "prod": 0.3}, {"a": 60, "b": 30, "c": 10}),
        (THREE, {"2": 0}, {"a": 100, "b": 0, "c": 0}),
        (THREE, {"a": 0.1, "b": 0.2, "c": 0.7}, {"a": 10, "b": 20, "c": 70}),
        (DEFAULT, {"1": 0.95, "3": 0.05}, {"main": 0, "v1": 95, "v3": 5}),
        (DEFAULT, {"2": 0.05}, {"main": 95, "v2": 5}),
        (DEFAULT, {"3": 1}, {"main": 0, "v3": 100}),
        (DEFAULT, {"main": 1}, {"main": 100}),
    ],
)
def test_shares_are_given_and_the_rest_stays_in_proportion(
    config: EndpointConfig, shares: dict[str, float], expected: dict[str, float]
) -> None:
    for versions in (PUBLISHED, None):
        assert weights(with_shares(config, shares, versions)) == expected


def test_a_new_variant_is_where_most_of_the_traffic_is() -> None:
    made = with_shares(PINNED, {"2": 0.05}, PUBLISHED)
    assert made.variant("v2") == Variant("v2", 2, "container", 5.0)
    assert made.variant("main") == Variant("main", 1, "container", 95.0)


@pytest.mark.parametrize(
    ("config", "shares", "error", "pointer"),
    [
        (PINNED, {"main": 0.6, "2": 0.5}, OutOfRange, "/shares"),
        (PINNED, {"main": 0.6}, OutOfRange, "/shares"),
        (PINNED, {"2": -0.1}, OutOfRange, "/shares/2"),
        (PINNED, {"2": 1.1}, OutOfRange, "/shares/2"),
        (PINNED, {"2": float("nan")}, OutOfRange, "/shares/2"),
        (PINNED, {"2": 0.1, "prod": 0.1}, OutOfRange, "/shares/prod"),
        (PINNED, {"4": 0.1}, VersionNotFound, "/shares/4"),
        (PINNED, {"0": 0.1}, VersionNotFound, "/shares/0"),
        (PINNED, {"9" * 30: 0.1}, VersionNotFound, "/shares/" + "9" * 30),
        (PINNED, {"²": 0.1}, VersionNotFound, "/shares/²"),
        (PINNED, {"staging": 0.1}, VersionNotFound, "/shares/staging"),
        # `main` is the highest version too: 5 % of it would be all of it.
        (DEFAULT, {"3": 0.05}, OutOfRange, "/shares/3"),
        (
            EndpointConfig("tumor", variants=(Variant("a", 1), Variant("b", 1))),
            {"1": 0.5},
            OutOfRange,
            "/shares/1",
        ),
        (EndpointConfig("tumor", variants=(Variant("main", 1), Variant("v2", 1))), {"2": 0.5}, OutOfRange, "/shares/2"),
        (
            EndpointConfig("tumor", variants=tuple(Variant(f"x{number}", 1) for number in range(MAX_VARIANTS))),
            {"2": 0.5},
            OutOfRange,
            "/shares/2",
        ),
    ],
)
def test_shares_that_cannot_be_given(
    config: EndpointConfig, shares: dict[str, float], error: type[SluiceError], pointer: str
) -> None:
    with pytest.raises(error) as raised:
        with_shares(config, shares, PUBLISHED)
    assert [field.pointer for field in raised.value.fields] == [pointer]


def test_what_is_published_is_not_asked_where_it_is_not_known() -> None:
    made: Any = with_shares(PINNED, {"77": 0.5}, None).variant("v77")
    assert (made.version, made.weight) == (77, 50.0)
