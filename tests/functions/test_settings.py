"""Template and settings name the same variables."""

from importlib import import_module

import msgspec
import pytest

from infra.local.stack import StackSpec
from shared.domain.settings import load, variable_of


@pytest.mark.parametrize("function", ["AuthorizerFunction", "PredictFunction", "ApiFunction"])
def test_the_template_sets_what_the_function_reads(stack: StackSpec, function: str) -> None:
    spec = stack.functions[function]
    settings: type[msgspec.Struct] = import_module(spec.handler.rsplit(".", 2)[0] + ".settings").Settings
    fields = {variable_of(field): field for field in msgspec.structs.fields(settings)}
    given = {name for name in spec.environment if name.startswith(("SLUICE_", "POWERTOOLS_"))}
    assert given <= fields.keys()
    assert {name for name, field in fields.items() if field.required} <= given
    assert load(settings, spec.environment)
