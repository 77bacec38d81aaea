"""What the composition roots have in common: the cost of requests."""

import pytest

from shared.adapters.aws_calls import AwsCalls
from shared.bootstrap.http import HttpSettings, architecture, observed
from shared.domain.settings import load

ENVIRON = {"POWERTOOLS_SERVICE_NAME": "predict", "SLUICE_LIMITS_TABLE": "limits"}


def test_the_cost_follows_the_functions_memory_and_the_stacks_prices() -> None:
    prices = '{"date":"2027-01-02","http_request":0,"lambda_request":0,"gb_second_x86_64":1e-6,"gb_second_arm64":1e-6}'
    environ = {**ENVIRON, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "2048", "SLUICE_PRICES": prices}
    costs = observed(load(HttpSettings, environ), AwsCalls()).costs
    assert costs is not None
    assert costs.prices_date == "2027-01-02"
    assert costs.nusd(1000, {}, {}) == 2_000


def test_nothing_is_paid_outside_lambda() -> None:
    assert observed(load(HttpSettings, ENVIRON), AwsCalls()).costs is None


@pytest.mark.parametrize(("machine", "expected"), [("x86_64", "x86_64"), ("aarch64", "arm64"), ("arm64", "arm64")])
def test_the_architecture_is_named_as_lambda_does(monkeypatch: pytest.MonkeyPatch, machine: str, expected: str) -> None:
    class Name:
        def __init__(self) -> None:
            self.machine = machine

    monkeypatch.setattr("os.uname", Name)
    assert architecture() == expected
