from pathlib import Path

from infra.local.lambda_service.variables import function_environment
from infra.local.stack import FunctionSpec


def environment(**own: str) -> dict[str, str]:
    spec = FunctionSpec("Work", "stack-Work", "work.handler", Path("/code"), 128, 3.0, own)
    base = {"AWS_ENDPOINT_URL": "http://127.0.0.1:4566"}
    return function_environment(
        spec, python=Path("/bin/python"), base=base, runtime_api="127.0.0.1:1", log_stream="stream"
    )


def test_a_variable_that_is_declared_and_left_empty_is_the_stacks() -> None:
    found = environment(AWS_ENDPOINT_URL="", SLUICE_ENDPOINT_NAME="")
    assert found["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4566"
    assert found["SLUICE_ENDPOINT_NAME"] == ""


def test_a_functions_own_value_wins_but_for_what_lambda_reserves() -> None:
    found = environment(AWS_ENDPOINT_URL="http://127.0.0.1:1", AWS_LAMBDA_FUNCTION_NAME="mine")
    assert found["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
    assert found["AWS_LAMBDA_FUNCTION_NAME"] == "stack-Work"
