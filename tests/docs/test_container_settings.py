"""The table of the container's settings says what the code says."""

import re
from typing import Any

import msgspec
import pytest

from gpu_service.settings import Settings
from shared.domain.settings import variable_of
from tests.conftest import ROOT

FIELDS = msgspec.structs.fields(Settings)


def rows() -> dict[str, list[str]]:
    """Default, allowed values and meaning of each variable in the table."""
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = page.partition("\n### Settings\n")[2].partition("\n### ")[0]
    lines = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in table.splitlines() if line.startswith("| `")]
    return {line[0].strip("`"): line[1:] for line in lines}


def shown(value: Any) -> str:
    if value in (None, ""):
        return "empty"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def allowed(type_: Any) -> str:
    kind = msgspec.inspect.type_info(type_)
    if isinstance(kind, msgspec.inspect.LiteralType):
        return ", ".join(f"`{value}`" for value in kind.values)
    if isinstance(kind, msgspec.inspect.BoolType):
        return "`true`, `false`"
    if isinstance(kind, msgspec.inspect.IntType | msgspec.inspect.FloatType):
        return f"{kind.ge:.10g} or more" if kind.le is None else f"{kind.ge:.10g} to {kind.le:.10g}"
    return "text"


def test_every_setting_is_in_the_table_in_the_order_of_the_code() -> None:
    assert list(rows()) == [variable_of(field) for field in FIELDS]


@pytest.mark.parametrize("field", FIELDS, ids=variable_of)
def test_a_row_has_the_settings_default_and_bounds(field: msgspec.structs.FieldInfo) -> None:
    default, values, meaning = rows()[variable_of(field)]
    assert default == shown(field.default)
    assert values == allowed(field.type)
    assert meaning
