import json
from typing import Any

import pytest

from shared.domain.endpoint.checks import problems_of
from shared.domain.endpoint.config import EndpointConfig
from shared.schemas.endpoint import read_config

TWO = [{"name": "main", "version": 1}, {"name": "candidate", "version": "prod", "backend": "triton", "weight": 5}]
BASE: dict[str, Any] = {
    "variants": TWO,
    "labels": {"prod": 2, "v4.2": 1},
    "backends": {"triton": {"kind": "open-inference-http"}},
}

GOOD: dict[str, dict[str, Any]] = {
    "nothing": {},
    "base": BASE,
    "canary": {**BASE, "sticky": "header:x-user-id", "explicit_versions": "variants"},
    "tenants": {**BASE, "sticky": "tenant"},
    "keys": {**BASE, "sticky": "key"},
    "no stickiness": {**BASE, "sticky": "none"},
    "experiment": {**BASE, "experiment": {"name": "e-1", "unit": "key", "arms": {"main": 1, "candidate": 0}}},
    "shadow": {**BASE, "shadow": {"variant": "candidate", "share": 0.1}},
    "auto": {**BASE, "auto": {"candidates": ["function", "container", "triton"]}},
    "hedge": {"timeout_ms": 100, "retries": {"hedge": {"after_ms": 99}}},
    "fallbacks": {
        **BASE,
        "cache": {"ttl_s": 60},
        "fallback": [
            {"kind": "variant", "variant": "main"},
            {"kind": "cached"},
            {"kind": "static", "outputs": {"y": 0}},
        ],
    },
    "limits": {"limits": {"concurrency": 8, "priorities": {"acme": "high", "other-tenant": "low"}}},
    "cache": {"cache": {"ttl_s": 60, "stale_s": 30, "store": "dynamodb", "public": True, "join": True}},
    "thresholds": {
        "thresholds": {"decision": {"output": "y", "at": 0.5, "below": "no", "above": "yes", "class_name": "bad"}},
        "class_labels": {"y": {"bad": "schlecht, übel"}},
        "response": {"outputs": ["y", "decision"], "classes": {"y": ["bad"]}},
    },
    "logging": {"logging": {"inputs": 0.5, "outputs": 1, "redact": ["age"]}},
    "features": {"features": {"on_failure": "defaults", "max_age_s": 60}},
}


@pytest.mark.parametrize("document", GOOD.values(), ids=GOOD)
def test_what_fits_together(document: dict[str, Any]) -> None:
    assert problems_of(read_config(document, "tumor")) == []


def test_the_default_configuration_fits() -> None:
    assert problems_of(EndpointConfig("tumor")) == []


def experiment(**members: Any) -> dict[str, Any]:
    return {"experiment": {"name": "e", "unit": "key", "arms": {"main": 1, "candidate": 1}, **members}}


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


BAD: list[tuple[dict[str, Any], list[str]]] = [
    ({"variants": [{"name": "Main"}]}, ["/variants/0/name"]),
    ({"variants": [{"name": "-x"}, {"name": "a_b"}]}, ["/variants/0/name", "/variants/1/name"]),
    ({"variants": [{"name": "main"}, {"name": "main"}]}, ["/variants/1/name"]),
    ({"variants": [{"name": "main", "version": "canary"}]}, ["/variants/0/version"]),
    ({"variants": [{"name": "main", "backend": "absent"}]}, ["/variants/0/backend"]),
    ({"variants": [{"name": "main", "weight": 0}]}, ["/variants"]),
    ({"labels": {"Prod": 2, "4.2": 1, "prod": 2}}, ["/labels/Prod", "/labels/4.2"]),
    ({"sticky": "user"}, ["/sticky"]),
    ({"sticky": "header:X-User"}, ["/sticky"]),
    ({"sticky": "header:"}, ["/sticky"]),
    ({"sticky": "header:a b"}, ["/sticky"]),
    (experiment(name="E 1"), ["/experiment/name"]),
    (experiment(unit="none"), ["/experiment/unit"]),
    (experiment(arms={"main": 1, "other": 1}), ["/experiment/arms/other"]),
    (experiment(arms={"main": 0, "candidate": 0}), ["/experiment/arms"]),
    ({"shadow": {"variant": "dark"}}, ["/shadow/variant"]),
    ({"backends": {**BASE["backends"], "function": {"kind": "sagemaker"}}}, ["/backends/function"]),
    ({"backends": {**BASE["backends"], "auto": {"kind": "sagemaker"}}}, ["/backends/auto"]),
    ({"backends": {**BASE["backends"], "My/Own": {"kind": "sagemaker"}}}, ["/backends/My~1Own"]),
    ({"backends": {"triton": {"kind": "x", "options": {"a": [1, {"b": 1e999}]}}}}, ["/backends/triton/options/a/1/b"]),
    ({"backends": {"triton": {"kind": "x", "options": {"a": 2**63}}}}, ["/backends/triton/options/a"]),
    ({"backends": {"triton": {"kind": "x", "options": {"a": deep(17)}}}}, ["/backends/triton/options/a" + "/0" * 16]),
    ({"auto": {"candidates": ["function", "absent", "function"]}}, ["/auto/candidates/1", "/auto/candidates/2"]),
    ({"auto": {"candidates": ["auto"]}}, ["/auto/candidates/0"]),
    ({"timeout_ms": 100, "retries": {"hedge": {"after_ms": 100}}}, ["/retries/hedge/after_ms"]),
    (
        {"timeout_ms": 100, "fallback": [{"kind": "static", "outputs": {"y": 1}}]},
        ["/fallback_reserve_ms"],
    ),
    ({"fallback": [{"kind": "variant"}]}, ["/fallback/0/variant"]),
    ({"fallback": [{"kind": "variant", "variant": "absent"}]}, ["/fallback/0/variant"]),
    ({"fallback": [{"kind": "static", "outputs": {"y": 1}, "variant": "main"}]}, ["/fallback/0/variant"]),
    ({"fallback": [{"kind": "static"}]}, ["/fallback/0/outputs"]),
    ({"fallback": [{"kind": "variant", "variant": "main", "outputs": {"y": 1}}]}, ["/fallback/0/outputs"]),
    ({"fallback": [{"kind": "static", "outputs": {"y": [1e999]}}]}, ["/fallback/0/outputs/y/0"]),
    ({"fallback": [{"kind": "cached"}]}, ["/fallback/0"]),
    ({"fallback": [{"kind": "variant", "variant": "main"}] * 2}, ["/fallback/1"]),
    (
        {"fallback": [{"kind": "static", "outputs": {"y": 1}}, {"kind": "variant", "variant": "main"}]},
        ["/fallback/1"],
    ),
    ({"limits": {"priorities": {"No Tenant": "high"}}}, ["/limits/priorities/No Tenant"]),
    ({"cache": {"ttl_s": 1, "join": True}}, ["/cache/join"]),
    ({"thresholds": {"t": {"output": "t", "at": 1, "below": "", "above": ""}}}, ["/thresholds/t/output"]),
    ({"thresholds": {"t": {"output": "y", "at": 1e999, "below": "", "above": ""}}}, ["/thresholds/t/at"]),
    ({"response": {"outputs": ["y", "z", "y"]}}, ["/response/outputs/2"]),
    ({"response": {"outputs": ["y"], "classes": {"z": ["a", "a"]}}}, ["/response/classes/z", "/response/classes/z/1"]),
]


@pytest.mark.parametrize(("document", "pointers"), BAD, ids=[" ".join(pointers) for _, pointers in BAD])
def test_what_does_not_fit_together_is_told_by_its_place(document: dict[str, Any], pointers: list[str]) -> None:
    text = json.dumps({**BASE, **document}).replace("Infinity", "1e999")  # which parsers take for infinite
    config = read_config(text, "tumor")
    assert [problem.pointer for problem in problems_of(config)] == pointers


def test_a_name_that_no_endpoint_has() -> None:
    assert [problem.pointer for problem in problems_of(EndpointConfig("Tumor"))] == ["/endpoint"]
