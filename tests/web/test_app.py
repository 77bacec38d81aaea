import logging
from typing import Any

import pytest
from fastapi import APIRouter

from shared.domain.errors import NotFound
from shared.schemas.api import Problem, ProtocolProblem
from shared.web.app import create_app
from tests.functions.conftest import LogLines, Serve
from tests.functions.support import GATEWAY_ID, Answer, Function


@pytest.fixture
def function(serve: Serve, log: logging.Logger) -> Function:
    router = APIRouter()

    @router.get("/squares/{number}")
    async def square(number: int) -> dict[str, int]:
        return {"square": number * number}

    @router.get("/fails")
    async def fails() -> None:
        raise RuntimeError("inside")

    @router.get("/v2/squares/{number}")
    async def protocol(number: int) -> dict[str, int]:
        return {"square": number * number}

    @router.get("/v2/fails")
    async def protocol_fails() -> None:
        raise RuntimeError("inside")

    @router.get("/v2")
    async def refuses() -> None:
        raise NotFound("There is nothing.")

    return serve(create_app([router], None, log))


def problem(answer: Answer) -> Problem:
    document = Problem.model_validate_json(answer.body)
    assert answer.headers["content-type"] == "application/problem+json"
    assert document.request_id == answer.headers["x-request-id"]
    assert document.status == answer.status
    return document


def test_a_route_that_is_not_there(function: Function) -> None:
    document = problem(function("GET", "/nothing"))
    assert (document.status, document.code, document.title) == (404, "not_found", "Not Found")


def test_a_method_that_the_route_does_not_take(function: Function) -> None:
    answer = function("POST", "/squares/2")
    document = problem(answer)
    assert (document.status, document.code) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET"


def test_a_parameter_of_the_wrong_type(function: Function) -> None:
    document = problem(function("GET", "/squares/two"))
    assert (document.status, document.code) == (422, "invalid_request")
    assert [field.pointer for field in document.errors] == ["/path/number"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2", 404),
        ("GET", "/v2/", 404),
        ("GET", "/v2/nothing", 404),
        ("POST", "/v2/squares/2", 405),
        ("GET", "/v2/squares/two", 422),
        ("GET", "/v2/fails", 500),
    ],
)
def test_every_error_below_v2_has_the_member_that_its_clients_read(
    function: Function, method: str, path: str, status: int
) -> None:
    answer = function(method, path)
    document = ProtocolProblem.model_validate_json(answer.body)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    assert document.error == document.detail
    assert "error" not in function(method, path.replace("/v2", "/v20")).json


def test_a_trailing_slash_is_another_path(function: Function) -> None:
    assert problem(function("GET", "/squares/2/")).status == 404


def test_an_unexpected_error_is_answered_and_logged_once(function: Function, log_lines: LogLines) -> None:
    document = problem(function("GET", "/fails"))
    assert (document.status, document.code) == (500, "internal")
    assert "inside" not in document.detail
    assert [line["message"] for line in log_lines.lines] == ["unexpected error", "request"]
    assert "RuntimeError: inside" in log_lines.lines[0]["exception"]


@pytest.mark.parametrize(
    ("presented", "expected"),
    [
        ("abc-123_X.~+/=:", "abc-123_X.~+/=:"),
        ("x" * 128, "x" * 128),
        ("x" * 129, GATEWAY_ID),
        ("a b", GATEWAY_ID),
        ("a;b", GATEWAY_ID),
        ("a,b", GATEWAY_ID),
        ("é", GATEWAY_ID),
        ("", GATEWAY_ID),
    ],
)
def test_the_request_id_is_the_callers_if_it_is_well_formed(function: Function, presented: str, expected: str) -> None:
    answer = function("GET", "/squares/2", headers={"x-request-id": presented})
    assert answer.headers["x-request-id"] == expected


def test_without_the_gateway_the_id_is_lambdas(function: Function) -> None:
    event: dict[str, Any] = {
        "version": "2.0",
        "headers": {},
        "requestContext": {"http": {"method": "GET", "path": "/squares/3", "sourceIp": "127.0.0.1"}},
    }
    answer = Answer.of(function.handler(event, function.context))
    assert (answer.status, answer.json) == (200, {"square": 9})
    assert answer.headers["x-request-id"] == function.context.aws_request_id


@pytest.mark.parametrize("host", ["[::1]:8000", "a:b:c", "localhost:port", "a b", ":"])
def test_a_strange_host_header_does_no_harm(function: Function, host: str) -> None:
    assert function("GET", "/squares/2", headers={"host": host}).json == {"square": 4}
