"""The page about endpoints says what the code says, and its examples can be stored."""

import json
import re
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

import pytest

from shared.domain.endpoint import config as parts
from shared.domain.endpoint.checks import problems_of
from shared.schemas.endpoint import read_config
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "endpoints.md").read_text(encoding="utf-8")
PREFIXES = {
    "EndpointConfig": "", "Variant": "variants[].", "BackendChoice": "backends.NAME.", "AutoRouting": "auto.",
    "Experiment": "experiment.", "Shadow": "shadow.", "Hedge": "retries.hedge.", "Retries": "retries.",
    "BreakerSettings": "breaker.", "Fallback": "fallback[].", "EndpointLimits": "limits.",
    "CacheSettings": "cache.", "Threshold": "thresholds.NAME.", "ResponseFilter": "response.",
    "LogSettings": "logging.", "FeatureSettings": "features.",
}  # fmt: skip


def configured() -> dict[str, Field[Any]]:
    """Every field of the document by its path; those of the stores' own values are none."""
    return {
        PREFIXES[part.__name__] + field.name: field
        for part in vars(parts).values()
        if isinstance(part, type) and is_dataclass(part) and part.__module__ == parts.__name__
        if part.__name__ not in {"StoredEndpoint", "EndpointState"}
        for field in fields(part)
    }


def rows() -> dict[str, list[str]]:
    """Default, bounds and meaning of each field in the table."""
    table = PAGE.partition("## Every field")[2]
    lines = [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines() if line[:3] == "| `"
    ]
    return {cells[0].strip("`"): cells[1:] for cells in lines}


def test_the_table_has_every_field_and_no_other() -> None:
    table, known = set(rows()), configured()
    # What only holds others together has no row of its own.
    whole = {path for path in known if any(row.startswith((f"{path}.", f"{path}[")) for row in table)}
    assert table == set(known) - whole


@pytest.mark.parametrize(
    ("path", "field"),
    [(path, field) for path, field in configured().items() if isinstance(field.default, int | float | str)],
)
def test_the_table_has_the_defaults(path: str, field: Field[Any]) -> None:
    default = field.default
    assert default is not MISSING
    if isinstance(default, bool):
        shown = str(default).lower()
    else:
        shown = f"`{default}`" if isinstance(default, str) else re.sub(r"\.0$", "", f"{default:,}")
    assert rows()[path][0] == shown


@pytest.mark.parametrize("example", re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
def test_the_examples_can_be_stored(example: str) -> None:
    assert json.loads(example)
    assert problems_of(read_config(example, "tumor")) == []
