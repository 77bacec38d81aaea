import json
from typing import Any

import pytest

from infra.local.event_pattern import MAX_LENGTH, EventPatternError, compile_event_pattern

EVENT: dict[str, Any] = {
    "source": "aws.s3",
    "detail": {
        "bucket": {"name": "data"},
        "object": {"key": "batch/in/acme/iris/a.csv.gz", "size": 300, "ratio": 3.5},
        "tags": ["red", "blue"],
        "parts": [{"n": 1, "ok": True}, {"n": 2, "ok": False}],
        "none": None,
        "empty": "",
        "nothing": [],
    },
}


def detail(**fields: Any) -> dict[str, Any]:
    return {"detail": fields}


def key(*operators: Any) -> dict[str, Any]:
    return detail(object={"key": list(operators)})


def size(*operators: Any) -> dict[str, Any]:
    return detail(object={"size": list(operators)})


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ({"source": ["aws.s3"]}, True),
        ({"source": ["aws.sqs", "aws.s3"]}, True),
        ({"source": ["AWS.S3"]}, False),
        ({"source": ["aws.s3"], "detail": {"bucket": {"name": ["other"]}}}, False),
        ({"source": [{"equals-ignore-case": "AWS.s3"}]}, True),
        ({"missing": ["x"]}, False),
        # numbers and their types
        (size(300), True),
        (size("300"), False),
        (size(300.0), False),
        (size({"numeric": ["=", 300.0]}), True),
        (size({"numeric": [">", 0, "<=", 300]}), True),
        (size({"numeric": [">", 300]}), False),
        (key({"numeric": [">", 0]}), False),
        (detail(object={"ratio": [{"numeric": [">=", 3.5, "<", 4]}]}), True),
        # null, empty, absent
        (detail(none=[None]), True),
        (detail(empty=[None]), False),
        (detail(empty=[""]), True),
        (detail(missing=[{"exists": False}]), True),
        (detail(missing=[{"exists": True}]), False),
        (detail(none=[{"exists": True}]), True),
        (detail(bucket=[{"exists": True}]), False),
        (detail(nothing=[{"exists": False}]), True),
        (detail(deep={"missing": [{"exists": False}]}), True),
        # texts
        (key({"prefix": "batch/in/"}, {"prefix": "other/"}), True),
        (key({"prefix": "BATCH/"}), False),
        (key({"prefix": {"equals-ignore-case": "BATCH/"}}), True),
        (key({"suffix": ".gz"}), True),
        (key({"suffix": {"equals-ignore-case": ".GZ"}}), True),
        (key({"wildcard": "batch/in/*/iris/*.gz"}), True),
        (key({"wildcard": "batch/*/other/*"}), False),
        (key({"wildcard": "batch/in"}), False),
        (size({"prefix": "3"}), False),
        # anything but
        (key({"anything-but": "x"}), True),
        (size({"anything-but": [300, 400]}), False),
        (size({"anything-but": 400}), True),
        (key({"anything-but": {"prefix": "batch/"}}), False),
        (key({"anything-but": {"suffix": [".zip", ".gz"]}}), False),
        (key({"anything-but": {"equals-ignore-case": ["A", "b"]}}), True),
        (key({"anything-but": {"wildcard": "*acme*"}}), False),
        (detail(missing=[{"anything-but": "x"}]), False),
        # lists
        (detail(tags=["blue"]), True),
        (detail(tags=["green"]), False),
        (detail(tags=[{"anything-but": ["red"]}]), True),
        (detail(parts={"n": [1], "ok": [True]}), True),
        (detail(parts={"n": [1], "ok": [False]}), False),
        # or
        ({"$or": [{"source": ["x"]}, {"detail": {"tags": ["red"]}}]}, True),
        ({"$or": [{"source": ["x"]}, {"source": ["y"]}]}, False),
        (detail(**{"$or": [{"empty": ["x"]}, {"none": [None]}]}), True),
    ],
)
def test_a_pattern_says_which_events_it_matches(pattern: dict[str, Any], matches: bool) -> None:
    assert compile_event_pattern(pattern)(EVENT) is matches
    assert compile_event_pattern(json.dumps(pattern))(EVENT) is matches


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "[]",
        "{}",
        '{"a": 1}',
        '{"a": "b"}',
        '{"a": []}',
        '{"a": {}}',
        '{"a": [["b"]]}',
        '{"a": [{}]}',
        '{"a": [{"prefix": "x", "suffix": "y"}]}',
        '{"a": [{"prefix": 1}]}',
        '{"a": [{"prefix": {"suffix": "x"}}]}',
        '{"a": [{"exists": "yes"}]}',
        '{"a": [{"numeric": [">"]}]}',
        '{"a": [{"numeric": ["!=", 1]}]}',
        '{"a": [{"numeric": [">", "1"]}]}',
        '{"a": [{"anything-but": []}]}',
        '{"a": [{"anything-but": {"exists": true}}]}',
        '{"a": [{"anything-but": null}]}',
        '{"a": [{"wildcard": "a**b"}]}',
        r'{"a": [{"wildcard": "a\\x"}]}',
        '{"a": [{"cidr": "10.0.0.0/8"}]}',
        '{"$or": [{"a": ["b"]}]}',
        '{"a": ["' + "x" * MAX_LENGTH + '"]}',
    ],
)
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(EventPatternError):
        compile_event_pattern(pattern)


def test_a_backslash_makes_a_star_an_ordinary_character() -> None:
    matches = compile_event_pattern({"a": [{"wildcard": r"x\*\\*"}]})
    assert matches({"a": r"x*\anything"})
    assert not matches({"a": r"xy\anything"})
