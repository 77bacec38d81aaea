import logging
import re
from typing import Any

import pytest
from fastapi import APIRouter
from starlette.requests import Request

from shared.domain.cost import RequestCosts
from shared.domain.errors import CircuitOpen, LimiterUnavailable, RateLimited
from shared.domain.prices import LIST_PRICES
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
        if name == "breaks":
            raise ZeroDivisionError
        if name == "open":
            record.log.update(version=3, variant="main")
            raise CircuitOpen("It fails too often.", retry_after_s=1.0)
        if name == "job":
            record.log.update(version=3, variant="main")
            return 1
        if name == "small":
            record.log.update(fallback="variant=small", reason="circuit_open")
        record.log.update(version=3, variant="main", rows=2)
        record.instance_share_nusd = 1_000_000.0 if name == "container" else 0.0
        record.steps["run"] = 1.25
        record.headers["RateLimit"] = '"key";r=1;t=1'
        return 1

    calls = {"dynamodb.UpdateItem": 1, "dynamodb.GetItem": 2, "s3.GetObject": 1}
    observed = Observed(
        RequestMetrics("Sluice/test"),
        calls=lambda: calls,
        items=lambda: {"dynamodb.BatchGetItem": 8},
        costs=RequestCosts(LIST_PRICES, 1769, "x86_64"),
    )
    return serve(create_app([routes], None, log, observed))


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
    assert (request["fallbacks"], request["circuit_open"]) == (0, 0)
    assert request["_aws"]["Timestamp"] > 1_700_000_000_000


@pytest.mark.parametrize(("name", "errors", "throttled"), [("fails", 1, 0), ("throttled", 0, 1)])
def test_a_name_that_reached_no_version_is_no_dimension(
    function: Function, log_lines: LogLines, name: str, errors: int, throttled: int
) -> None:
    request = line(function, name, log_lines)
    assert {dimensions for dimensions, _ in metrics(request)} == {("service", "route")}
    assert (request["errors"], request["throttled"]) == (errors, throttled)


def test_a_stand_in_counts_for_the_model(function: Function, log_lines: LogLines) -> None:
    request = line(function, "small", log_lines)
    of_model = {metric for dimensions, metric in metrics(request) if dimensions == ("model", "variant")}
    assert of_model == {"ms", "rows", "errors", "fallbacks", "circuit_open"}
    assert (request["fallbacks"], request["circuit_open"], request["errors"]) == (1, 1, 0)


def test_a_failure_counts_for_the_variant_that_it_was_sent_to(function: Function, log_lines: LogLines) -> None:
    request = line(function, "open", log_lines)
    of_model = {metric for dimensions, metric in metrics(request) if dimensions == ("model", "variant")}
    assert of_model == {"errors", "fallbacks", "circuit_open"}
    assert (request["errors"], request["fallbacks"], request["circuit_open"]) == (1, 0, 1)


def test_what_is_answered_later_has_no_time_and_no_rows(function: Function, log_lines: LogLines) -> None:
    assert {dimensions for dimensions, _ in metrics(line(function, "job", log_lines))} == {("service", "route")}


def test_a_line_has_steps_calls_and_cost(function: Function, log_lines: LogLines) -> None:
    request = line(function, "tumor", log_lines)
    assert request["steps_ms"] == {"run": 1.25}
    assert request["aws_calls"] == {"dynamodb.UpdateItem": 1, "dynamodb.GetItem": 2, "s3.GetObject": 1}
    # What the calls and the two requests cost, and then the time.
    assert 1_200 + 625 + 250 + 400 + 1_000 < request["cost_nusd"] < 1_000_000


@pytest.mark.parametrize("name", ["tumor", "container", "fails", "throttled", "breaks"])
def test_every_answer_says_what_its_line_says_it_cost(function: Function, log_lines: LogLines, name: str) -> None:
    answer = function("GET", f"/things/{name}", route="/things/{name}")
    cost = log_lines.requests()[-1]["cost_nusd"]
    assert answer.headers["x-sluice-cost-usd"] == f"{cost / 1e9:.9f}"
    assert answer.headers["x-sluice-prices-date"] == LIST_PRICES.date
    assert (cost > 1_000_000) == (name == "container")


def test_no_answer_says_what_it_cost_where_nothing_is_paid(
    serve: Serve, log: logging.Logger, log_lines: LogLines
) -> None:
    assert "x-sluice-cost-usd" not in serve(create_app([], None, log))("GET", "/nothing").headers
    assert "cost_nusd" not in log_lines.requests()[0]


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
