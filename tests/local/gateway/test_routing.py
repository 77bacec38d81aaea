import pytest

from infra.local.gateway.routing import Router
from tests.local.gateway.conftest import route

# The first five are the example of AWS's documentation.
ROUTER = Router(
    route(key)
    for key in (
        "$default",
        "ANY /{proxy+}",
        "GET /pets/{proxy+}",
        "GET /pets/dog/{id}",
        "GET /pets/dog/1",
        "ANY /pets/dog/1",
        "POST /v1/models/{model}/predict",
        "POST /v1/models/{model}/{action}",
        "GET /v1/models",
        "GET /",
    )
)


@pytest.mark.parametrize(
    ("method", "path", "key", "parameters"),
    [
        ("GET", "/pets/dog/1", "GET /pets/dog/1", {}),
        ("GET", "/pets/dog/2", "GET /pets/dog/{id}", {"id": "2"}),
        ("GET", "/pets/cat/1", "GET /pets/{proxy+}", {"proxy": "cat/1"}),
        ("POST", "/test/5", "ANY /{proxy+}", {"proxy": "test/5"}),
        ("POST", "/pets/dog/1", "ANY /pets/dog/1", {}),
        ("POST", "/v1/models/m/predict", "POST /v1/models/{model}/predict", {"model": "m"}),
        ("POST", "/v1/models/m/explain", "POST /v1/models/{model}/{action}", {"model": "m", "action": "explain"}),
        ("POST", "/v1/models//predict", "ANY /{proxy+}", {"proxy": "v1/models//predict"}),
        ("GET", "/v1/models", "GET /v1/models", {}),
        ("GET", "/v1/models/", "ANY /{proxy+}", {"proxy": "v1/models/"}),
        ("GET", "/", "GET /", {}),
        ("POST", "/", "$default", {}),
    ],
)
def test_the_most_specific_route_is_taken(method: str, path: str, key: str, parameters: dict[str, str]) -> None:
    match = ROUTER.match(method, path)
    assert match is not None
    assert (match.route.key, match.path_parameters) == (key, parameters)


def test_without_a_default_route_there_may_be_none() -> None:
    router = Router([route("GET /v1/models"), route("POST /v1/models/{model}/predict")])
    for method, path in [("POST", "/v1/models"), ("GET", "/v1/models/"), ("GET", "/V1/models"), ("GET", "")]:
        assert router.match(method, path) is None
