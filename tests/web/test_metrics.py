import logging
import re
from typing import Any

import pytest
from fastapi import APIRouter
from starlette.requests import Request

from shared.domain.errors import LimiterUnavailable, RateLimited
from shared.web.app import create_app
from shared.web.metrics import RequestMetrics
from shared.web.middleware import Observed
from shared.web.requests import record_of
from tests.functions.conftest import LogLines, Serve
from tests.functions.support import Function


@pytest.fixture
def function(serve: Serve, log: logging.Logger) -> Function:
    routes = APIRouter()

    @routes.get("/things/{name}")
    async def thing(request: Request, name: str) -> int:
        record = record_of(request.scope)
        record.log["model"] = name
        if name == "fails":
            raise LimiterUnavailable("The limiter is down.")
        if name == "throttled":
            raise RateLimited("Too many.", retry_after_s=1.2)
        record.log.update(version=3, variant="main", rows=2)
        record.steps["run"] = 1.25
        record.headers["RateLimit"] = '"key";r=1;t=1'
        return 1

    calls = {"dynamodb.UpdateItem": 1, "dynamodb.GetItem": 2, "s3.GetObject": 1}
    return serve(
        create_app([routes], None, log, Observed(RequestMetrics("Sluice/test"), calls=lambda: calls, memory_mb=1769))
    )


def line(function: Function, name: str, lines: LogLines) -> dict[str, Any]:
    function("GET", f"/things/{name}", route="/things/{name}")
    return lines.requests()[-1]


def metrics(request: dict[str, Any]) -> set[tuple[tuple[str, ...], str]]:
    """Pairs of dimensions and metric, each of which the line must hold."""
    found = set()
    for directive in request["_aws"]["CloudWatchMetrics"]:
        assert directive["Namespace"] == "Sluice/test"
        for dimensions in directive["Dimensions"]:
            assert all(isinstance(request[name], str) for name in dimensions)
            for metric in directive["Metrics"]:
                assert isinstance(request[metric["Name"]], int | float)
                found.add((tuple(dimensions), metric["Name"]))
    return found


def test_a_prediction_counts_for_its_route_and_its_model(function: Function, log_lines: LogLines) -> None:
    request = line(function, "tumor", log_lines)
    assert {(("service", "route"), "ms"), (("model", "variant"), "rows")} <= metrics(request)
    assert (request["errors"], request["throttled"], request["rows"]) == (0, 0, 2)
    assert request["_aws"]["Timestamp"] > 1_700_000_000_000


@pytest.mark.parametrize(("name", "errors", "throttled"), [("fails", 1, 0), ("throttled", 0, 1)])
def test_a_name_that_reached_no_version_is_no_dimension(
    function: Function, log_lines: LogLines, name: str, errors: int, throttled: int
) -> None:
    request = line(function, name, log_lines)
    assert {dimensions for dimensions, _ in metrics(request)} == {("service", "route")}
    assert (request["errors"], request["throttled"]) == (errors, throttled)


def test_a_line_has_steps_calls_and_cost(function: Function, log_lines: LogLines) -> None:
    request = line(function, "tumor", log_lines)
    assert request["steps_ms"] == {"run": 1.25}
    assert request["aws_calls"] == {"dynamodb.UpdateItem": 1, "dynamodb.GetItem": 2, "s3.GetObject": 1}
    assert request["cost_nusd"] > 0


def test_gathered_headers_and_times_are_in_the_answer(function: Function) -> None:
    headers = function("GET", "/things/tumor").headers
    assert headers["ratelimit"] == '"key";r=1;t=1'
    assert re.fullmatch(r"run;dur=1\.250, total;dur=\d+\.\d{3}", headers["server-timing"])


def test_what_may_fare_better_later_says_when(function: Function) -> None:
    assert function("GET", "/things/throttled").headers["retry-after"] == "2"
    assert function("GET", "/things/fails").headers["retry-after"] == "1"


def test_without_a_namespace_there_are_no_metrics(serve: Serve, log: logging.Logger, log_lines: LogLines) -> None:
    serve(create_app([], None, log))("GET", "/nothing")
    assert not {"_aws", "errors", "throttled"} & set(log_lines.requests()[0])
