"""The running API keeps to its contract, `/openapi.json`: whatever is asked, no 5xx and only declared answers."""

import json
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from functions.api.documentation import CONTRACT
from tests.e2e.callers import Caller, Callers

pytestmark = pytest.mark.e2e

CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
FEW = hypothesis.settings(
    max_examples=6,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)
MODELS = ("tumor", "digits", "embed")


def open_contract(text: bytes | str) -> dict[str, Any]:
    """The contract without its credentials, which the tests add: else most requests would end at the gateway."""
    document: dict[str, Any] = json.loads(text)
    for operations in document["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)
    return document


schema = schemathesis.openapi.from_dict(open_contract(CONTRACT.read_text()))
schema.config.generation.modes = list(schemathesis.GenerationMode)


@pytest.fixture(scope="module")
def known(callers: Callers) -> tuple[Caller, dict[str, str]]:
    """A key of a tenant of this test's own, and what stands for each parameter of a path once it is asked for."""
    plan = callers.plan()
    caller = callers.caller(callers.tenant(plan), ["predict", "webhooks", "admin"])
    other = callers.caller(caller.tenant)
    names = {"model": "tumor", "version": "1", "plan": plan, "tenant": caller.tenant, "endpoint": "of-no-model"}
    names |= {"job_id": "0" * 32, "revision": "1", "feature_set": "customer", "entity": "c1"}
    names |= {"upload_id": "0" * 32, "webhook_id": f"wh_{'0' * 24}", "delivery_id": f"msg_{'0' * 32}"}
    return caller, {**names, "key_id": other.key_id}


@schema.parametrize()
@FEW
def test_answers_are_as_the_contract_says(case: schemathesis.Case[Any], known: tuple[Caller, dict[str, str]]) -> None:
    """Arguments that the contract allows, and others; then once more with names of what is there."""
    caller, names = known
    check(case, caller)
    case.path_parameters |= {name: names[name] for name in case.path_parameters}
    if isinstance(case.body, dict) and isinstance(case.body.get("tenant"), str):
        case.body["tenant"] = caller.tenant
    check(case, caller)


@pytest.mark.parametrize("model", MODELS)
def test_what_a_models_own_operation_allows_is_predicted(model: str, api: httpx.Client, known: Any) -> None:
    caller, _ = known
    served = schemathesis.openapi.from_dict(open_contract(api.get("/openapi.json").content))
    operation = served[f"/v1/models/{model}/predict"]["POST"]

    @FEW
    @hypothesis.given(case=operation.as_strategy())
    def ask(case: schemathesis.Case[Any]) -> None:
        check(case, caller)

    ask()


def check(case: schemathesis.Case[Any], caller: Caller) -> None:
    url = str(caller.client.base_url)
    response = case.call(base_url=url, headers={"Authorization": caller.client.headers["Authorization"]}, timeout=40)
    if response.status_code == 431:  # a path of kilobytes: it came no further than the gateway's parser of HTTP
        return
    assert response.status_code < 500, response.text
    case.validate_response(response, checks=CHECKS)
