import json
from typing import Any

import pytest

from infra.local.log_delivery.pattern import MAX_CHARACTERS, PatternError, compile_pattern

REQUEST: dict[str, Any] = {"message": "request", "status": 503, "ok": True, "steps_ms": {"model": 12.5}, "route": "a/b"}


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("", True),
        ("   ", True),
        ('{ $.message = "request" }', True),
        ('{$.message="request"}', True),
        ('{ $.message = "Request" }', False),
        ('{ $.message != "authorization" }', True),
        ('{ $.message != "request" }', False),
        ('{ $.message = "authorization" || $.message = "request" }', True),
        ('{ $.message = "request" && $.status >= 500 }', True),
        ('{ $.message = "request" && $.status < 500 }', False),
        # && binds more tightly than ||.
        ('{ $.message = "request" || $.status = 1 && $.status = 2 }', True),
        ('{ ($.message = "request" || $.status = 1) && $.status = 2 }', False),
        ('{ $.message = "req*" }', True),
        ('{ $.route = "*/b" }', True),
        ('{ $.route = "*.b" }', False),
        ("{ $.steps_ms.model > 12.4 }", True),
        ("{ $.steps_ms.model = 12.5 }", True),
        ("{ $.status != 503 }", False),
        ('{ $.status = "503" }', False),
        ("{ $.ok = 1 }", False),
        ('{ $.missing = "" }', False),
        ('{ $.missing != "x" }', False),
        ("{ $.message.deeper = 1 }", False),
        ("request", True),
        ("request 503", True),
        ("request 504", False),
        ('"\\"status\\": 503"'.replace("\\", ""), None),
        ('"ok"', True),
        ('"not ok"', False),
    ],
)
def test_a_pattern_says_which_lines_it_matches(pattern: str, matches: bool | None) -> None:
    if matches is None:
        with pytest.raises(PatternError):
            compile_pattern(pattern)
    else:
        assert compile_pattern(pattern)(json.dumps(REQUEST)) is matches


@pytest.mark.parametrize("line", ["START RequestId: 1", '{"message": "request"', '["request"]', "{}", '"request"', ""])
def test_what_is_no_json_object_matches_no_json_pattern(line: str) -> None:
    assert compile_pattern('{ $.message = "request" }')(line) is False


@pytest.mark.parametrize(
    "pattern",
    [
        "{ }",
        "{ $.a }",
        "{ $.a = }",
        "{ $.a = b }",
        "{ $.a[0] = 1 }",
        "{ $.* = 1 }",
        "{ $.a IS NULL }",
        "{ $.a NOT EXISTS }",
        "{ $.a = %regex% }",
        '{ $.a = "b" ) }',
        '{ ($.a = "b" }',
        '{ $.a = "b" $.c = "d" }',
        '{ $.a > "b" }',
        "{ $.a = 5* }",
        '{ $.a && $.b = "c" }',
        '{ "a" = $.a }',
        '{ $.a = "quote \\" inside" }',
        "[a, b, c]",
        "%regex%",
        "?either ?or",
        "-without",
        '"open',
        "half{",
        "x" * (MAX_CHARACTERS + 1),
    ],
)
def test_what_is_not_known_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        compile_pattern(pattern)
