from dataclasses import replace
from typing import Any

import pytest

from shared.domain.endpoint.changes import Change, changes
from shared.domain.endpoint.config import EndpointConfig
from shared.schemas.endpoint import read_config

MAIN = {"name": "main", "version": 1}
CANDIDATE = {"name": "candidate", "version": 2, "weight": 5}


def config(**members: Any) -> EndpointConfig:
    return read_config(members, "tumor")


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ({}, {}, []),
        ({"timeout_ms": 29000}, {"timeout_ms": 1000}, ["~ timeout_ms: 29000 -> 1000"]),
        ({"labels": {"prod": 3}}, {}, ["- labels.prod"]),
        ({}, {"labels": {"prod": 3, "v4.2": 1}}, ["+ labels.prod = 3", '+ labels["v4.2"] = 1']),
        (
            {"variants": [MAIN]},
            {"variants": [CANDIDATE, MAIN]},
            [
                "+ variants[candidate].version = 2",
                '+ variants[candidate].backend = "auto"',
                "+ variants[candidate].weight = 5.0",
            ],
        ),
        ({"variants": [MAIN, CANDIDATE]}, {"variants": [MAIN]}, ["- variants[candidate]"]),
        (
            {"variants": [MAIN, CANDIDATE]},
            {"variants": [{**CANDIDATE, "weight": 10}, MAIN]},
            [
                "~ variants[candidate].weight: 5.0 -> 10.0",
                '~ variants: ["main", "candidate"] -> ["candidate", "main"]',
            ],
        ),
        ({"variants": [MAIN]}, {"variants": [{"name": "main"}]}, ["- variants[main].version"]),
        ({}, {"cache": {"ttl_s": 5, "join": False}}, None),
        ({"cache": {"ttl_s": 5}}, {"cache": {"ttl_s": 6}}, ["~ cache.ttl_s: 5 -> 6"]),
        ({"cache": {"ttl_s": 5}}, {}, ["- cache"]),
        ({}, {"logging": {"redact": ["age"]}}, ['+ logging.redact = ["age"]']),
        (
            {"logging": {"redact": ["age"]}},
            {"logging": {"redact": ["ä", "age"]}},
            ['~ logging.redact: ["age"] -> ["ä", "age"]'],
        ),
        (
            {"fallback": [{"kind": "cached"}, {"kind": "static", "outputs": {"y": 1}}]},
            {"fallback": [{"kind": "static", "outputs": {"y": 1}}]},
            [
                '~ fallback[0].kind: "cached" -> "static"',
                "+ fallback[0].outputs.y = 1",
                "- fallback[1]",
            ],
        ),
        (
            {"backends": {"b": {"kind": "x", "options": {"tls": True}}}},
            {"backends": {"b": {"kind": "x", "options": {"tls": 1}}}},
            ["~ backends.b.options.tls: true -> 1"],
        ),
    ],
)
def test_a_plan_has_a_line_for_each_value(
    before: dict[str, Any], after: dict[str, Any], lines: list[str] | None
) -> None:
    found = [str(change) for change in changes(config(**before), config(**after))]
    expected = lines or [f"+ cache.{text}" for text in ("ttl_s = 5", "stale_s = 0", 'store = "memory"')]
    assert (found if lines is not None else found[:3]) == (expected if lines != [] else [])


def test_a_new_endpoint_shows_its_variants_and_what_differs_from_the_defaults() -> None:
    new = config(variants=[MAIN], timeout_ms=5, retries={"hedge": {"after_ms": 1}})
    assert [str(change) for change in changes(None, new)] == [
        "+ variants[main].version = 1",
        '+ variants[main].backend = "auto"',
        "+ variants[main].weight = 100.0",
        "+ timeout_ms = 5",
        "+ retries.hedge.after_ms = 1",
    ]
    assert changes(None, EndpointConfig("tumor"))[0] == Change("add", "variants[main].backend", None, "auto")


def test_what_is_undone_has_as_many_places() -> None:
    before = config(variants=[MAIN, CANDIDATE], labels={"a": 1}, cache={"ttl_s": 1}, timeout_ms=7)
    assert changes(before, replace(before)) == []
    there = {change.path for change in changes(EndpointConfig("tumor"), before) if change.kind == "change"}
    back = {change.path for change in changes(before, EndpointConfig("tumor")) if change.kind == "change"}
    assert there == back == {"timeout_ms"}


def test_a_long_value_is_cut_in_its_line_only() -> None:
    (change,) = changes(config(), config(logging={"redact": ["x" * 250]}))
    assert str(change).endswith("…")
    assert len(str(change)) < 230
    assert change.after == ["x" * 250]
