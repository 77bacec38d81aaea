"""YAML as JSON has it."""

from typing import Any

import pytest

from infra.cli.yaml_documents import MAX_VALUES, YamlProblem, read_yaml


def values(text: str) -> list[Any]:
    return [document.value for document in read_yaml(text)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("True", True),
        ("false", False),
        ("~", None),
        ("010", 10),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("0x1f", "0x1f"),
        ("1e3", 1000.0),
        ("-2.5", -2.5),
        ('"1e3"', "1e3"),
        ("2026-11-21", "2026-11-21"),
        (".inf", ".inf"),
        ("größe ✓", "größe ✓"),
        ("{1: a, no: b}", {"1": "a", "no": "b"}),
        ("[[], {}]", [[], {}]),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
    ],
)
def test_scalars_are_those_of_the_core_schema_and_names_are_text(text: str, value: Any) -> None:
    (found,) = values(f"v: {text}" if "\n" not in text else text)
    found = found["v"] if "\n" not in text else found
    assert (found, type(found)) == (value, type(value))


def test_several_documents_and_empty_ones() -> None:
    documents = list(read_yaml("---\na: 1\n---\n# nothing\n---\nb:\n  - c: 2\n    d~/e: 3\n"))
    assert [document.value for document in documents] == [{"a": 1}, {"b": [{"c": 2, "d~/e": 3}]}]
    second = documents[1]
    assert [second.line(where) for where in ("", "/b", "/b/0/c", "/b/0/d~0~1e", "/b/0/absent/x", "/z")] == [
        6,
        6,
        7,
        8,
        7,
        6,
    ]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a is given twice"),
        ("a: 1\n b: 2\n", 2, "mapping values are not allowed"),
        ("a:\n  - [1\n", 3, "expected ',' or ']'"),
        ("a: !!python/object/apply:os.system [x]\n", 1, "is no type that JSON has"),
        ("a: !!binary AAAA\n", 1, "binary is no type"),
        ("a: !!set {x}\n", 1, "set is no type"),
        ("a: 1\n? [x]\n: 2\n", 2, "must be text"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", 3, "write the members out"),
        ("a: &x [*x]\n", 1, "nested deeper than"),
        ("a: *x\n", 1, "undefined alias"),
        ("[" * 5000, 0, "nested too deep"),
        ("a: \x07\n", 0, "unacceptable character"),
    ],
)
def test_what_cannot_be_read_has_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(YamlProblem) as caught:
        values(text)
    assert (caught.value.line, said in caught.value.detail) == (line, True), caught.value.detail


def test_aliases_cannot_grow_without_bound() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(YamlProblem, match=str(MAX_VALUES)):
        values("\n".join(lines))
