"""Settings read from an environment."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta

from shared.domain.settings import SettingsError, load


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    size: Annotated[int, Meta(ge=1)] = 1


class Example(msgspec.Struct, frozen=True, kw_only=True):
    table: str
    folder: Path = Path("/default")
    threads: Annotated[int, Meta(ge=1, le=8)] = 2
    seconds: Annotated[float, Meta(gt=0)] = 1.0
    verbose: bool = False
    level: Literal["low", "high"] = "low"
    optional: str | None = None
    part: Part = Part(name="none")
    port: Annotated[int, Meta(ge=1)] = msgspec.field(default=80, name="EXACT_NAME")

    def __post_init__(self) -> None:
        if self.verbose and self.level == "low":
            raise ValueError("SLUICE_VERBOSE needs SLUICE_LEVEL=high")


def test_defaults() -> None:
    assert load(Example, {"SLUICE_TABLE": "t"}) == Example(table="t")


def test_every_type() -> None:
    environ = {
        "SLUICE_TABLE": "t",
        "SLUICE_FOLDER": "/x",
        "SLUICE_THREADS": " 3 ",
        "SLUICE_SECONDS": "0.5",
        "SLUICE_VERBOSE": "true",
        "SLUICE_LEVEL": "high",
        "SLUICE_OPTIONAL": "text",
        "SLUICE_PART": '{"name": "a", "size": 3}',
        "EXACT_NAME": "8080",
        "SLUICE_UNKNOWN": "ignored",
    }
    expected = Example(
        table="t",
        folder=Path("/x"),
        threads=3,
        seconds=0.5,
        verbose=True,
        level="high",
        optional="text",
        part=Part(name="a", size=3),
        port=8080,
    )
    assert load(Example, environ) == expected


def test_empty_is_unset() -> None:
    assert load(Example, {"SLUICE_TABLE": "t", "SLUICE_THREADS": "", "EXACT_NAME": " "}) == Example(table="t")
    with pytest.raises(SettingsError, match="SLUICE_TABLE is not set"):
        load(Example, {"SLUICE_TABLE": ""})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SLUICE_THREADS", "9"),
        ("SLUICE_THREADS", "hunter2"),
        ("SLUICE_SECONDS", "nan"),
        ("SLUICE_SECONDS", "inf"),
        ("SLUICE_VERBOSE", "hunter2"),
        ("SLUICE_LEVEL", "hunter2"),
        ("EXACT_NAME", "-7"),
        ("SLUICE_PART", "hunter2"),
        ("SLUICE_PART", '{"size": 2}'),
        ("SLUICE_PART", '{"name": "hunter2", "size": 0}'),
        ("SLUICE_PART", '{"name": "n", "other": "hunter2"}'),
    ],
)
def test_a_wrong_value_is_named_and_not_shown(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{variable}: ") as caught:
        load(Example, {"SLUICE_TABLE": "t", variable: value})
    assert "hunter2" not in str(caught.value)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(SettingsError, match=r"SLUICE_TABLE is not set; SLUICE_THREADS: .*; EXACT_NAME: "):
        load(Example, {"SLUICE_THREADS": "0", "EXACT_NAME": "0"})


def test_rules_between_settings() -> None:
    with pytest.raises(SettingsError, match="SLUICE_VERBOSE needs"):
        load(Example, {"SLUICE_TABLE": "t", "SLUICE_VERBOSE": "1"})
