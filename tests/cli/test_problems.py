"""What went wrong is said once."""

import pytest

from infra.cli.problems import said
from shared.domain.errors import FieldError, OutOfRange, VersionNotFound
from shared.domain.field_errors import refused


@pytest.mark.parametrize(
    ("title", "detail", "places", "message", "lines"),
    [
        ("Not found", "There is no model 'x'.", [], "There is no model 'x'.", ()),
        ("Too many wrong rows", "2 of 2 rows are wrong", [], "Too many wrong rows: 2 of 2 rows are wrong", ()),
        ("Internal error", "", [], "Internal error.", ()),
        ("Wrong type", "/a: must be a number", [("/a", "must be a number")], "Wrong type: /a: must be a number", ()),
        # The API ends the detail of a query's fault like a sentence.
        ("Out of range", "/query/limit: is 0.", [("/query/limit", "is 0")], "Out of range: /query/limit: is 0", ()),
        ("Wrong type", "Two are wrong.", [("/a", "x"), ("/b", "y")], "Two are wrong.", ("/a: x", "/b: y")),
        # A place that says no more than the detail.
        ("Too many", "At least 2 of 9 rows are wrong, too many.", [("/share", "2 of 9 rows are wrong")],
         "At least 2 of 9 rows are wrong, too many.", ()),
    ],
)  # fmt: skip
def test_each_text_once(
    title: str, detail: str, places: list[tuple[str, str]], message: str, lines: tuple[str, ...]
) -> None:
    assert said(title, detail, places) == (message, lines)


def test_more_places_than_are_listed_are_counted() -> None:
    error = refused(OutOfRange, [FieldError(f"/{number}", f"is {number}") for number in range(12)])
    message, lines = said(error.title, error.detail, [(place.pointer, place.detail) for place in error.fields])
    assert message == "Value out of range."
    assert lines == (*(f"/{number}: is {number}" for number in range(8)), "and 4 more places")


def test_a_sentence_stands_for_its_title() -> None:
    error = VersionNotFound("The model 'tumor' has no version 9; its highest is 1.")
    assert said(error.title, error.detail) == (error.detail, ())
