"""Tables and facts in terminals that are too narrow for them."""

from collections.abc import Mapping

import pytest

from infra.cli.tables import print_facts, print_table
from infra.cli.times import day_of, time_text

ID, OTHER = "0" * 32, "1" * 32
TIME = "2026-11-21 17:44:30Z"
HEADER = ("job", "kind", "model", "created", "note")
ROWS = [[ID, "prediction", "tumor", TIME, "a note of some words"], [OTHER, "batch", "digits", TIME, "another"]]


def shown(capsys: pytest.CaptureFixture[str]) -> tuple[list[str], str]:
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err


def table() -> None:
    print_table(HEADER, ROWS, whole=("job", "model", "created"), spare=("kind", "note", "model"))


@pytest.mark.parametrize(
    ("columns", "left", "gone"),
    [
        ("200", HEADER, None),
        ("100", HEADER, None),
        ("84", ("job", "model", "created", "note"), "kind"),
        ("80", ("job", "model", "created"), "kind, note"),
        ("60", ("job", "created"), "kind, note, model"),
        ("20", ("job", "created"), "kind, note, model"),
    ],
)
def test_columns_give_way_and_ids_and_times_never(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str, left: tuple[str, ...], gone: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    table()
    lines, said = shown(capsys)
    assert lines[0].split() == list(left)
    for job in (ID, OTHER):
        (row,) = (line for line in lines if job in line)
        assert TIME in row
    assert said.startswith(f"Too narrow for: {gone}.") if gone else not said
    assert all(len(line) <= max(int(columns), 56) for line in lines)


def test_in_a_pipe_a_row_is_a_line_with_all_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(("id", "text"), [[ID, "word " * 60]], spare=("text",))
    lines, said = shown(capsys)
    assert (len(lines), lines[1].split()) == (2, [ID, *["word"] * 60])
    assert said == ""


def test_facts_are_broken_between_words_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    digest = "d" * 64
    facts: Mapping[str, object] = {"id": "a", "digest": digest, "text": "some [red]words[/red] to read", "none": None}
    print_facts({**facts, "empty": "", "zero": 0})
    lines, _ = shown(capsys)
    assert lines == ["id      a", f"digest  {digest}", "text    some [red]words[/red]", "        to read", "zero    0"]


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ("2026-11-21T17:44:30.999Z", TIME),
        ("2026-11-21T18:44:30+01:00", TIME),
        ("2026-11-21T17:44:30+00:00", TIME),
        ("2026-11-21T17:44:30", TIME),
        (1795283070, TIME),
        (1795283070.9, TIME),
        (None, "never"),
        ("soon", "soon"),
    ],
)
def test_times_are_in_one_form(moment: str | float | None, text: str) -> None:
    assert time_text(moment, "never") == text


def test_days_are_read() -> None:
    assert day_of(None) is None
    assert str(day_of("2026-11-21")) == "2026-11-21"
