"""Version policies."""

import re

import pytest

from gpu_service.models.policy import parse_policies

VERSIONS = [1, 2, 3, 10]


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", {1, 2, 3, 10}),
        ("all", {1, 2, 3, 10}),
        ("latest:1", {10}),
        ("latest:2", {3, 10}),
        ("latest:99", {1, 2, 3, 10}),
        ("specific:1|3", {1, 3}),
        ("specific:4", set()),
        ("latest:1; embed=specific:2", {2}),
        (" latest:1 ; embed = all ;", {1, 2, 3, 10}),
        ("other=latest:1", {1, 2, 3, 10}),
    ],
)
def test_what_a_policy_selects(text: str, selected: set[int]) -> None:
    assert parse_policies(text).of("embed").select(VERSIONS) == selected


def test_a_policy_reads_as_it_is_written() -> None:
    for text in ("all", "latest:2", "specific:1|3"):
        assert str(parse_policies(text).of("any")) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("newest:1", "'newest:1' is no version policy: say all, latest:N or specific:V|V"),
        ("latest", "'latest' is no"),
        ("latest:0", "positive"),
        ("latest:-1", "positive"),
        ("latest:1|2", "is no version policy"),
        ("specific:", "is no version policy"),
        ("specific:1|", "is no version policy"),
        ("specific:1,2", "is no version policy"),
        ("latest:1; all", "a policy for all models already"),
        ("a=all; a=latest:1", "a has a policy already"),
        ("A B=all", "cannot be the name of a model"),
        ("=all", "cannot be the name of a model"),
        ("embed=", "is no version policy"),
    ],
)
def test_what_is_no_policy_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_policies(text)
