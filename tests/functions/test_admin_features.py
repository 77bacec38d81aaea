"""Features over the admin API, on the AWS services of the local stack."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.domain.principal import Principal
from shared.schemas.admin_features import EntitiesDocument, EntityFeaturesDocument
from tests.adapters.samples import unique
from tests.functions.conftest import LogLines
from tests.functions.support import Answer, Function, event
from tests.functions.test_admin import function, problem, targets

__all__ = ["function"]

pytestmark = pytest.mark.usefixtures("keep_loggers")

Features = Callable[..., Answer]


@pytest.fixture
def admin(function: Function) -> Features:
    """One request of an administrator to a path below `/v1/admin`; its route is told as the gateway does."""
    caller = Principal("ops", unique("key"), frozenset({"admin"}), "default")

    def request(method: str, path: str, body: Any = None, **headers: str) -> Answer:
        route = "/v1/admin/tenants/{tenant}/features/{feature_set}"
        made = event(
            method, f"/v1/admin/{path}", route if method == "POST" else f"{route}/{{proxy+}}", body, headers, caller
        )
        return Answer.of(function.handler(made, function.context))

    return request


@pytest.fixture
def tenant(admin: Features) -> str:
    name = unique("t")
    assert admin("POST", "tenants", {"name": name}).status == 201
    return name


def test_features_of_an_entity(admin: Features, tenant: str, log_lines: LogLines) -> None:
    path = f"tenants/{tenant}/features/customer/c-1"
    given = {"features": {"age": 41, "score": 0.5, "segment": "gold", "vip": True}, "at": "2026-11-20T13:00:00+01:00"}
    stored = EntityFeaturesDocument.model_validate_json(admin("PUT", path, given).body)
    assert (stored.tenant, stored.set, stored.entity, stored.features) == (
        tenant,
        "customer",
        "c-1",
        given["features"],
    )
    assert (stored.at, stored.expires_at) == ("2026-11-20T12:00:00+00:00", None)
    read = admin("GET", path)
    assert read.headers["cache-control"] == "no-store"
    assert EntityFeaturesDocument.model_validate_json(read.body) == stored
    replaced = admin("PUT", path, {"features": {"age": 42}, "expires_at": "2030-01-01T00:00:00Z"}).json
    assert (replaced["features"], replaced["expires_at"]) == ({"age": 42}, "2030-01-01T00:00:00+00:00")
    assert admin("DELETE", path).json == replaced
    assert problem(admin("GET", path)) == (404, "not_found")
    assert problem(admin("DELETE", path)) == (404, "not_found")
    target = f"features:{tenant}/customer"
    assert targets(log_lines)[-6:] == [target, None, target, target, None, target]


@pytest.mark.parametrize("entity", ["a/b//c", "ö ü", "100%", "a#b?c=d&e", "..", "q+r"])
def test_ids_of_all_kinds(admin: Features, tenant: str, entity: str) -> None:
    """The gateway hands on the path decoded, so a slash of an id (`%2F`) is one of the path."""
    path = f"tenants/{tenant}/features/customer/{entity}"
    assert admin("PUT", path, {"features": {"age": 1}}).json["entity"] == entity
    assert admin("GET", path).json["features"] == {"age": 1}


def test_another_tenants_are_not_there(admin: Features, tenant: str) -> None:
    admin("PUT", f"tenants/{tenant}/features/customer/c-1", {"features": {"age": 1}})
    other = unique("t")
    admin("POST", "tenants", {"name": other})
    assert problem(admin("GET", f"tenants/{other}/features/customer/c-1")) == (404, "not_found")
    assert problem(admin("GET", "tenants/absent/features/customer/c-1")) == (404, "tenant_not_found")
    assert problem(admin("GET", f"tenants/{tenant}/features/merchant/c-1")) == (404, "not_found")


@pytest.mark.parametrize(
    ("document", "expected", "pointer"),
    [
        ({}, (422, "missing_field"), "/features"),
        ({"features": {}}, (422, "missing_field"), "/features"),
        ({"features": {"a": None}}, (422, "wrong_dtype"), "/features/a"),
        ({"features": {"a": [1]}}, (422, "wrong_dtype"), "/features/a"),
        ({"features": {"a": 1e300}}, (422, "out_of_range"), "/features/a"),
        ({"features": {"a": "x" * 5000}}, (422, "text_too_long"), "/features/a"),
        ({"features": {"a": 1}, "at": "2026-11-20T12:00:00"}, (422, "wrong_dtype"), "/at"),
        ({"features": {"a": 1}, "at": "2199-01-01T00:00:00Z"}, (422, "out_of_range"), "/at"),
        ({"features": {"a": 1}, "expires_at": "1999-01-01T00:00:00Z"}, (422, "out_of_range"), "/expires_at"),
        ({"features": {"a": 1}, "ttl": 1}, (422, "unknown_field"), "/ttl"),
    ],
)
def test_documents_that_are_wrong(
    admin: Features, tenant: str, document: Any, expected: tuple[int, str], pointer: str
) -> None:
    answer = admin("PUT", f"tenants/{tenant}/features/customer/c-1", document)
    assert problem(answer) == expected
    assert answer.json["errors"][0]["pointer"] == pointer
    assert problem(admin("PUT", f"tenants/{tenant}/features/No-Set/c-1", {"features": {"a": 1}})) == (
        422,
        "out_of_range",
    )
    assert problem(admin("PUT", f"tenants/{tenant}/features/customer/{'e' * 257}", {"features": {"a": 1}})) == (
        422,
        "out_of_range",
    )


def test_several_entities_at_once(admin: Features, tenant: str) -> None:
    path = f"tenants/{tenant}/features/customer"
    rows = [{"entity": f"c{number}", "features": {"n": number}} for number in range(60)]
    rows[7]["features"] = {"n": None}
    headers = {"idempotency-key": unique("key")}
    answer = admin("POST", path, {"entities": rows}, **headers)
    document = EntitiesDocument.model_validate_json(answer.body)
    assert (answer.status, document.stored) == (200, 59)
    (failed,) = document.failed
    assert (failed.index, failed.entity, failed.code) == (7, "c7", "wrong_dtype")
    assert failed.detail == "/features/n: must be a number, text, true or false"
    assert admin("GET", f"{path}/c59").json["features"] == {"n": 59}
    assert problem(admin("GET", f"{path}/c7")) == (404, "not_found")
    again = admin("POST", path, {"entities": rows}, **headers)
    assert (again.body, again.headers["idempotency-replayed"]) == (answer.body, "true")


def test_requests_for_several_that_are_wrong(admin: Features, tenant: str) -> None:
    path = f"tenants/{tenant}/features/customer"
    row = {"entity": "c", "features": {"n": 1}}
    assert problem(admin("POST", path, {"entities": []})) == (422, "out_of_range")
    assert problem(admin("POST", path, {"entities": [row] * 101})) == (422, "out_of_range")
    assert problem(admin("POST", path, {"entities": [{**row, "id": 1}]})) == (422, "unknown_field")
    assert problem(admin("POST", "tenants/absent/features/customer", {"entities": [row]})) == (404, "tenant_not_found")
