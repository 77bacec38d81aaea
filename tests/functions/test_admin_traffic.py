"""The route of what an endpoint's traffic showed, on the stores of the template."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from functions.admin import bootstrap
from infra.local.aws_client import isolated_session, local_client
from infra.local.stack import REGION
from shared.adapters.dynamodb_audit import DynamoDBAuditLedger
from shared.domain.principal import Principal
from shared.schemas.admin_traffic import TrafficDocument
from shared.usecases.record_lines import RecordLines
from tests.adapters.samples import unique
from tests.conftest import LocalAws
from tests.functions.support import Answer, Function, event
from tests.functions.test_admin import environment, problem
from tests.log_lines import batch, request

CALLER = Principal("ops", "b7pkv3n6xw2qjr4d", frozenset({"admin"}), "default")
SHADOW = {"variant": "next", "state": "compared", "ms": 4.0, "primary_ms": 2.0, "rows": 4, "agreeing": 3}

pytestmark = pytest.mark.usefixtures("keep_loggers")

Ask = Callable[..., Answer]


@pytest.fixture
def ask(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Ask:
    for name, value in {
        "AWS_ENDPOINT_URL": local_aws.url,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    function = Function(bootstrap.build(environment(local_aws)))

    def ask(name: str, query: str = "", caller: Principal = CALLER) -> Answer:
        made = event("GET", f"/v1/admin/endpoints/{name}/traffic", None, None, {}, caller)
        made["rawQueryString"] = query
        return Answer.of(function.handler(made, function.context))

    return ask


@pytest.fixture
def record(local_aws: LocalAws) -> Callable[..., None]:
    """Records lines as telemetry does, in two shards."""
    stores = local_aws.stack.resources
    dynamodb = local_client(isolated_session(), "dynamodb", local_aws.url)
    ledger = DynamoDBAuditLedger(
        dynamodb, stores["AuditTable"].name, stores["UsageTable"].name, stores["TrafficTable"].name
    )
    lines = RecordLines(ledger, 64)

    def record(*texts: str) -> None:
        lines(batch(*texts, stream=unique("stream")))

    return record


def exposed(model: str, arm: str, **fields: Any) -> str:
    experiment = {"name": "colour", "arm": arm, "unit": "0" * 16}
    return request(model=model, variant=arm, experiment=experiment, **fields)


def test_what_was_counted_is_shown(ask: Ask, record: Callable[..., None]) -> None:
    name = unique("e")
    record(exposed(name, "main", ms=2.0), exposed(name, "next", ms=4.0), exposed(name, "next", status=503))
    record(
        request(model=name, shadow={**SHADOW, "distance": 0.5, "largest": 2.0}, ms=2.0),
        request(model=name, shadow={"variant": "next", "state": "dropped"}, ms=2.0),
        request(model=name, fallback="static", reason="circuit_open", ms=2.0),
        request(model=name, cache="hit", ms=2.0),
    )
    answer = ask(name, "since=2026-11-21&until=2026-11-21")
    assert answer.status == 200, answer.body
    assert TrafficDocument.model_validate_json(answer.body).endpoint == name
    assert answer.json == {
        "endpoint": name,
        "since": "2026-11-21",
        "until": "2026-11-21",
        "variants": {
            "main": {
                "requests": 5,
                "answers": 5,
                "errors": 0,
                "error_rate": 0.0,
                "fallbacks": 1,
                "cache_hits": 1,
                "mean_ms": 2.0,
            },
            "next": {
                "requests": 2,
                "answers": 1,
                "errors": 1,
                "error_rate": 0.5,
                "fallbacks": 0,
                "cache_hits": 0,
                "mean_ms": 4.0,
            },
        },
        "experiments": {
            "colour": {
                "main": {
                    "exposures": 1,
                    "answers": 1,
                    "errors": 0,
                    "error_rate": 0.0,
                    "fallbacks": 0,
                    "mean_ms": 2.0,
                },
                "next": {
                    "exposures": 2,
                    "answers": 1,
                    "errors": 1,
                    "error_rate": 0.5,
                    "fallbacks": 0,
                    "mean_ms": 4.0,
                },
            }
        },
        "shadows": {
            "next": {
                "copied": 2,
                "compared": 1,
                "dropped": 1,
                "failed": 0,
                "incomparable": 0,
                "dropped_share": 0.5,
                "rows": 4,
                "agreeing": 3,
                "agreement_rate": 0.75,
                "mean_distance": 0.5,
                "latency_ratio": pytest.approx(2.0, rel=1e-5),
                "mean_ms": 4.0,
                "primary_mean_ms": 2.0,
                "differences": [{"at_least": 1.0, "below": 10.0, "comparisons": 1}],
            }
        },
        "fallbacks": [{"fallback": "static", "reason": "circuit_open", "requests": 1}],
    }
    empty = ask(name, "since=2026-11-22&until=2026-11-23").json
    assert (empty["variants"], empty["experiments"], empty["shadows"], empty["fallbacks"]) == ({}, {}, {}, [])


def test_without_days_it_is_the_last_thirty(ask: Ask) -> None:
    found = TrafficDocument.model_validate_json(ask(unique("e")).body)
    assert (found.until - found.since).days == 29
    assert abs((datetime.now(UTC).date() - found.until).days) <= 1
    assert found.variants == {}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("since=2026-11-22&until=2026-11-21", (422, "out_of_range")),
        ("since=2024-01-01&until=2026-11-21", (422, "out_of_range")),
        ("since=soon", (422, "wrong_dtype")),
        ("days=3", (422, "unknown_field")),
    ],
)
def test_days_that_are_none_are_refused(ask: Ask, query: str, expected: tuple[int, str]) -> None:
    assert problem(ask(unique("e"), query)) == expected


def test_what_no_endpoint_can_be_called_is_not_found(ask: Ask) -> None:
    assert problem(ask("UP")) == (404, "not_found")


def test_only_administrators_see_it(ask: Ask) -> None:
    other = Principal("acme", "b7pkv3n6xw2qjr4d", frozenset({"predict"}), "default")
    assert problem(ask(unique("e"), caller=other)) == (403, "insufficient_scope")
