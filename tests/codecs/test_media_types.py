"""The choice among media types. Expected values: RFC 9110, section 12.5.1, and its erratum 7138."""

import pytest

from shared.codecs.media_types import choose_media_type, media_quality, parse_item, parse_list

RFC = "text/*;q=0.3, text/plain;q=0.7, */*;q=0.5"


@pytest.mark.parametrize(
    ("known", "quality"), [("text/plain", 0.7), ("text/html", 0.3), ("image/jpeg", 0.5), ("text/plain2", 0.3)]
)
def test_the_most_precise_range_counts(known: str, quality: float) -> None:
    assert media_quality(known, parse_list(RFC))[0] == quality


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "a/one"),
        (" , ", "a/one"),
        ("*/*", "a/one"),
        ("b/*", "b/two"),
        ("A/ONE;q=0.5, b/two;q=0.6", "b/two"),
        ("a/one;q=0, */*", "b/two"),
        ("b/two, */*", "b/two"),
        ("*/*;q=0", None),
        ("c/other", None),
        ("a/one;q=7", None),
        ("a/one;q=nan, b/two;q=0.1", "b/two"),
        ('a/one; p="x"; Q=0.001', "a/one"),
        ("a/three;q=1.000, a/one;q=0.999", "a/three"),
    ],
)
def test_choice(accept: str, chosen: str | None) -> None:
    assert choose_media_type(accept, ("a/one", "b/two", "a/three")) == chosen


def test_parameters() -> None:
    assert parse_item('Text/CSV; Header = present ;charset="UTF-8"; header=absent; flag') == (
        "text/csv",
        {"header": "present", "charset": "UTF-8"},
    )


def test_a_long_header_is_read_in_part() -> None:
    assert len(parse_list("a/b," * 100_000)) == 64
