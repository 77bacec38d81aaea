import json
from datetime import date
from typing import Any

import pytest
from pydantic import TypeAdapter

from shared.domain.endpoint.changes import changes
from shared.domain.endpoint.config import (
    BackendChoice,
    CacheSettings,
    EndpointConfig,
    Experiment,
    Fallback,
    Hedge,
    LogSettings,
    Retries,
    Shadow,
    StoredEndpoint,
    Threshold,
    Variant,
)
from shared.domain.errors import (
    InvalidRequest,
    MissingField,
    NotJson,
    OutOfRange,
    PayloadTooLarge,
    TextTooLong,
    UnknownField,
    WrongDtype,
)
from shared.schemas.endpoint import EndpointDocument, EndpointPlan, encoded, plan_of, read_config, to_document


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, EndpointConfig("m")),
        ({"endpoint": "m", "timeout_ms": 5}, EndpointConfig("m", timeout_ms=5)),
        (
            {"variants": [{"name": "a", "version": 3}, {"name": "b", "version": "prod", "weight": 0.5}]},
            EndpointConfig("m", variants=(Variant("a", 3), Variant("b", "prod", weight=0.5))),
        ),
        (
            {"experiment": {"name": "e", "unit": "key", "arms": {"a": 1, "b": 2}}},
            EndpointConfig("m", experiment=Experiment("e", "key", {"a": 1.0, "b": 2.0})),
        ),
        ({"shadow": {"variant": "dark", "share": 1}}, EndpointConfig("m", shadow=Shadow("dark", 1.0))),
        (
            {"backends": {"sm": {"kind": "sagemaker", "options": {"deep": [{"a": None}]}, "usd_per_hour": 1}}},
            EndpointConfig("m", backends={"sm": BackendChoice("sagemaker", {"deep": [{"a": None}]}, 1.0)}),
        ),
        (
            {"retries": {"attempts": 0, "hedge": {"after_ms": 5}}},
            EndpointConfig("m", retries=Retries(0, hedge=Hedge(5))),
        ),
        (
            {"fallback": [{"kind": "cached", "max_age_s": 9}, {"kind": "static", "outputs": {"y": [1]}}]},
            EndpointConfig("m", fallback=(Fallback("cached", max_age_s=9), Fallback("static", outputs={"y": [1]}))),
        ),
        ({"cache": {"ttl_s": 60, "public": True}}, EndpointConfig("m", cache=CacheSettings(60, public=True))),
        (
            {"thresholds": {"t": {"output": "y", "at": 1, "below": "", "above": "x"}}},
            EndpointConfig("m", thresholds={"t": Threshold("y", 1.0, "", "x")}),
        ),
        ({"logging": {"redact": ["age"]}}, EndpointConfig("m", logging=LogSettings(redact=("age",)))),
        ({"cache": None, "shadow": None, "experiment": None}, EndpointConfig("m")),
    ],
)
def test_a_document_is_read(document: dict[str, Any], expected: EndpointConfig) -> None:
    """As JSON, and as the value that YAML or JSON stands for; what was got is read again, and is the same."""
    assert read_config(document, "m") == expected
    assert read_config(json.dumps(document), "m") == expected
    assert read_config(json.dumps(document).encode(), "m") == expected
    stored = StoredEndpoint(expected, 7, 1_763_700_000, "k" * 16, "why")
    shown = encoded(EndpointDocument.of(stored))
    assert read_config(shown, "m") == expected
    assert read_config(to_document(expected), "m") == expected
    got = json.loads(shown)
    assert {name: got.pop(name) for name in ("revision", "changed_at", "changed_by", "note")} == {
        "revision": 7, "changed_at": "2025-11-21T04:40:00+00:00", "changed_by": "k" * 16, "note": "why",
    }  # fmt: skip
    assert got == to_document(expected)


BAD: list[tuple[Any, type[InvalidRequest], list[str] | None]] = [
    ({"nope": 1}, UnknownField, ["/nope"]),
    ({"log_inputs": 0.5, "version": 0}, UnknownField, ["/log_inputs", "/version"]),
    ({"variants": [{}]}, MissingField, ["/variants/0/name"]),
    ({"variants": []}, OutOfRange, ["/variants"]),
    ({"variants": [{"name": f"v{number}"} for number in range(17)]}, OutOfRange, ["/variants"]),
    ({"variants": [{"name": "a", "version": 0}]}, OutOfRange, ["/variants/0/version"]),
    ({"variants": [{"name": "a", "version": 1.5}]}, WrongDtype, ["/variants/0/version"]),
    ({"variants": [{"name": "a", "version": "x" * 33}]}, TextTooLong, ["/variants/0/version"]),
    ({"variants": [{"name": "a", "weight": "5"}]}, WrongDtype, ["/variants/0/weight"]),
    ({"variants": [{"name": "a", "weight": -1}]}, OutOfRange, ["/variants/0/weight"]),
    ({"variants": [{"name": "a", "colour": 1}]}, UnknownField, ["/variants/0/colour"]),
    ({"variants": {"a": 1}}, WrongDtype, ["/variants"]),
    ({"labels": {"prod": "2"}}, WrongDtype, ["/labels/prod"]),
    ({"labels": {"": 2}}, OutOfRange, ["/labels/"]),
    ({"labels": {"constrained-int": "a", "constrained-str": "b"}}, WrongDtype, None),
    ({"explicit_versions": "some"}, OutOfRange, ["/explicit_versions"]),
    ({"sticky": 5}, WrongDtype, ["/sticky"]),
    ({"experiment": {"name": "e", "unit": "key", "arms": {"a": 1}}}, OutOfRange, ["/experiment/arms"]),
    ({"shadow": {"variant": "a", "share": 1.1}}, OutOfRange, ["/shadow/share"]),
    ({"backends": {"b": {"options": {}}}}, MissingField, ["/backends/b/kind"]),
    ({"auto": {"candidates": "function"}}, WrongDtype, ["/auto/candidates"]),
    ({"timeout_ms": True}, WrongDtype, ["/timeout_ms"]),
    ({"timeout_ms": 29_001}, OutOfRange, ["/timeout_ms"]),
    ({"retries": {"attempts": 4}}, OutOfRange, ["/retries/attempts"]),
    ({"retries": {"hedge": {}}}, MissingField, ["/retries/hedge/after_ms"]),
    ({"breaker": {"failure_rate": 0}}, OutOfRange, ["/breaker/failure_rate"]),
    ({"fallback": [{"kind": "guess"}]}, OutOfRange, ["/fallback/0/kind"]),
    ({"limits": {"priorities": {"acme": "urgent"}}}, OutOfRange, ["/limits/priorities/acme"]),
    ({"limits": []}, WrongDtype, ["/limits"]),
    ({"cache": {"ttl_s": 0}}, OutOfRange, ["/cache/ttl_s"]),
    ({"cache": {"ttl": 5}}, MissingField, ["/cache/ttl_s", "/cache/ttl"]),
    ({"thresholds": {"t": {"output": "y", "at": 1, "below": ""}}}, MissingField, ["/thresholds/t/above"]),
    ({"class_labels": {"a/b": {"~": 1}}}, WrongDtype, ["/class_labels/a~1b/~0"]),
    ({"response": {"classes": {"y": []}}}, OutOfRange, ["/response/classes/y"]),
    ({"logging": {"inputs": 1.5, "redact": [""]}}, OutOfRange, ["/logging/inputs", "/logging/redact/0"]),
    ({"features": {"on_failure": "guess"}}, OutOfRange, ["/features/on_failure"]),
    ({"endpoint": "another"}, OutOfRange, ["/endpoint"]),
    ({"endpoint": None}, WrongDtype, ["/endpoint"]),
    ([], WrongDtype, [""]),
    (None, WrongDtype, [""]),
    ({"timeout_ms": date(2026, 11, 21)}, NotJson, []),
    ({"thresholds": {"t": {"output": "y", "at": float("inf"), "below": "", "above": ""}}}, NotJson, []),
    ("{", NotJson, []),
    ('{"cache": {"ttl_s": 1, "ttl_s": 2}}', UnknownField, ["/ttl_s"]),
    ('{"backends": {"b": {"kind": "x", "options": {"a": NaN}}}}', NotJson, []),
    (b'{"note": "\xff"}', NotJson, []),
    ({"class_labels": {"y": {}}}, OutOfRange, ["/class_labels/y"]),
    ({"labels": {f"l{number}": number for number in range(9000)}}, PayloadTooLarge, []),
]  # fmt: skip


@pytest.mark.parametrize(("document", "error", "pointers"), BAD)
def test_a_document_that_cannot_be_is_refused_by_its_places(
    document: Any, error: type[InvalidRequest], pointers: list[str] | None
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_config(document, "m")
    assert type(raised.value) is error
    if pointers is not None:
        assert [field.pointer for field in raised.value.fields] == pointers


def test_of_many_faults_eight_are_told() -> None:
    with pytest.raises(WrongDtype, match=r"\(and 19 more\)") as raised:
        read_config({"labels": {f"l{number}": "x" for number in range(20)}}, "m")
    assert len(raised.value.fields) == 8


def test_the_plan_of_a_change_is_a_document() -> None:
    after = EndpointConfig("m", timeout_ms=5)
    plan = plan_of(3, changes(EndpointConfig("m"), after))
    assert json.loads(plan.model_dump_json()) == {
        "revision": 3,
        "changes": [
            {
                "kind": "change", "path": "timeout_ms", "before": 29_000, "after": 5,
                "text": "~ timeout_ms: 29000 -> 5",
            }
        ],
    }  # fmt: skip
    assert EndpointPlan.model_validate_json(plan.model_dump_json()) == plan


def test_the_schema_describes_every_member() -> None:
    schema = TypeAdapter(EndpointDocument).json_schema()
    for name, part in {"EndpointDocument": schema, **schema["$defs"]}.items():
        assert part["additionalProperties"] is False, name
        for member, described in part["properties"].items():
            assert described.get("description"), f"{name}.{member}"
    read_only = [name for name, member in schema["properties"].items() if member.get("readOnly")]
    assert read_only == ["revision", "changed_at", "changed_by", "note"]
