"""Routes of webhooks, on the stores of the local stack and with real idempotency."""

import logging
from typing import TYPE_CHECKING, Any

import pytest
from botocore.session import Session

from functions.api.webhook_answers import PATH
from infra.openapi import contract
from shared.adapters.aws import client
from shared.adapters.dynamodb_deliveries import DynamoDBDeliveries
from shared.adapters.dynamodb_webhooks import DynamoDBWebhooks
from shared.adapters.idempotency import PowertoolsIdempotency
from shared.adapters.webhook_seal import WebhookSeal
from shared.domain.principal import Principal
from shared.domain.webhook_signature import secret_of
from shared.domain.webhooks import EVENT_TYPES, MAX_WEBHOOKS, Delivery, new_delivery_id
from shared.schemas.api import Problem
from shared.schemas.webhooks import DeliveryDocument, Event, WebhookWithSecret
from shared.usecases.admit import Admit
from shared.usecases.manage_webhooks import ManageWebhooks
from shared.web.admission import Door
from shared.web.callers import Callers
from tests.adapters.samples import unique
from tests.conftest import LocalAws
from tests.functions.api_parts import api_application
from tests.functions.conftest import LogLines, Serve
from tests.functions.support import Answer, Unlimited, event
from tests.memory_webhooks import InMemoryQueue

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

KEY = b"k" * 64
URL = "https://example.com/hook"


class Setting:
    """The function, and what is behind it."""

    def __init__(self, local_aws: LocalAws, session: Session, serve: Serve, log: logging.Logger) -> None:
        stores = {name: resource.name for name, resource in local_aws.stack.resources.items()}
        self.dynamodb: DynamoDBClient = client("dynamodb", session=session, endpoint_url=local_aws.url)
        self.webhooks = DynamoDBWebhooks(self.dynamodb, stores["WebhooksTable"], WebhookSeal(lambda: KEY))
        self.deliveries = DynamoDBDeliveries(self.dynamodb, stores["DeliveriesTable"])
        self.queue = InMemoryQueue()
        self.idempotency_table = stores["IdempotencyTable"]
        idempotency = PowertoolsIdempotency(
            self.dynamodb,
            self.idempotency_table,
            lambda: client("s3", session=session, endpoint_url=local_aws.url),
            stores["DataBucket"],
            1,
        )
        door = Door(Callers(), Admit(Unlimited()), idempotency, pepper=lambda: KEY)
        manage = ManageWebhooks(self.webhooks, self.deliveries, self.queue)
        self.function = serve(api_application(log, door=door, webhooks=manage))
        self.tenant = unique("t")

    def __call__(
        self, method: str, path: str = "", body: Any = None, *, tenant: str = "", query: str = "", **headers: str
    ) -> Answer:
        caller = Principal(tenant or self.tenant, "k" * 16, frozenset({"webhooks"}), "demo")
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        made = event(method, f"{PATH}{path}", None, body, sent, caller)
        made["rawQueryString"] = query
        return Answer.of(self.function.handler(made, self.function.context))

    def made(self, **members: Any) -> WebhookWithSecret:
        answer = self("POST", "", {"url": URL, **members})
        assert answer.status == 201, answer.body
        return WebhookWithSecret.model_validate_json(answer.body)


@pytest.fixture
def api(local_aws: LocalAws, aws_session: Session, serve: Serve, log: logging.Logger) -> Setting:
    return Setting(local_aws, aws_session, serve, log)


def problem(answer: Answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status, Problem.model_validate_json(answer.body).code


def test_a_webhook_from_its_making_to_its_end(api: Setting, log_lines: LogLines) -> None:
    answer = api("POST", "", {"url": URL, "events": ["batch.failed", "job.failed"], "description": "mine"})
    made = WebhookWithSecret.model_validate_json(answer.body)
    assert (answer.status, answer.headers["location"]) == (201, f"{PATH}/{made.webhook_id}")
    assert answer.headers["cache-control"] == "no-store"
    assert (made.url, made.events, made.enabled) == (URL, ("job.failed", "batch.failed"), True)
    assert api.webhooks.signing(api.tenant, made.webhook_id)[1].current == secret_of(made.secret)
    one = f"/{made.webhook_id}"
    plain = {name: value for name, value in answer.json.items() if name != "secret"}
    assert api("GET", one).json == plain
    assert api("GET").json == {"webhooks": [plain]}
    changed = api("PATCH", one, {"enabled": False, "url": "https://example.org/"}).json
    assert changed == {**plain, "enabled": False, "disabled_reason": "paused", "url": "https://example.org/"}
    rotated = api("POST", f"{one}/rotate")
    assert rotated.status == 200
    assert rotated.json["secret"] != made.secret
    assert rotated.json["previous_until"] > rotated.json["rotated_at"]
    assert api("POST", f"{one}/rotate", {"overlap_s": 0}).status == 200
    assert api("DELETE", one).json["webhook_id"] == made.webhook_id
    for method, path in (("GET", one), ("DELETE", one), ("GET", f"{one}/deliveries"), ("POST", f"{one}/test")):
        assert problem(api(method, path)) == (404, "webhook_not_found")
    assert made.secret not in log_lines.text
    assert rotated.json["secret"] not in log_lines.text
    assert log_lines.requests()[1]["target"] == f"webhook:{made.webhook_id}"


def test_wrong_events_and_cursors_are_told_what_was_expected(api: Setting) -> None:
    one = f"/{api.made().webhook_id}"
    every = "must be 'job.succeeded', 'job.failed', 'job.cancelled', 'batch.succeeded', 'batch.failed' or"
    for answer in (
        api("POST", "", {"url": URL, "events": ["job.failed", "job.done"]}),
        api("PATCH", one, {"events": ["job.failed", "job.done"]}),
    ):
        (told,) = answer.json["errors"]
        assert (answer.status, told["pointer"]) == (422, "/events/1")
        assert told["detail"] == f"{every} 'batch.cancelled'"
    (told,) = api("PATCH", one, {"events": "job.done"}).json["errors"]
    assert told == {"pointer": "/events", "detail": 'must be a list, such as ["job.succeeded"]'}
    (told,) = api("GET", f"{one}/deliveries", query="cursor=x").json["errors"]
    assert "such as msg_019a0c2b1f7e4d3c2b1a09f8e7d6c5b4: The `next` of the answer before" in told["detail"]


def test_without_events_it_is_told_of_all(api: Setting) -> None:
    assert api.made().events == EVENT_TYPES
    assert set(EVENT_TYPES) == set(Event.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (422, "missing_field")),
        ({"url": 5}, (422, "wrong_dtype")),
        ({"url": "http://example.com/"}, (422, "out_of_range")),
        ({"url": "https://169.254.169.254/"}, (422, "out_of_range")),
        ({"url": "http://127.0.0.1:9000/"}, (422, "out_of_range")),
        ({"url": f"https://example.com/{'a' * 3000}"}, (422, "text_too_long")),
        ({"url": URL, "events": []}, (422, "out_of_range")),
        ({"url": URL, "events": ["job.started"]}, (422, "out_of_range")),
        ({"url": URL, "description": "x" * 201}, (422, "text_too_long")),
        ({"url": URL, "secret": "whsec_mine"}, (422, "unknown_field")),
        ("{", (400, "not_json")),
    ],
)
def test_what_is_wrong_is_refused(api: Setting, body: Any, expected: tuple[int, str]) -> None:
    assert problem(api("POST", "", body)) == expected
    assert api("GET").json == {"webhooks": []}


def test_changes_that_are_none(api: Setting) -> None:
    one = f"/{api.made().webhook_id}"
    for body in ({}, {"enabled": "no"}, {"url": "https://localhost/"}, {"secret": "x"}):
        assert problem(api("PATCH", one, body))[0] == 422
    assert problem(api("POST", f"{one}/rotate", {"overlap_s": 10**9})) == (422, "out_of_range")
    assert problem(api("GET", f"{one}/deliveries", query="limit=0")) == (422, "out_of_range")
    assert problem(api("GET", f"{one}/deliveries", query="cursor=x"))[0] == 422


def test_ten_are_the_most(api: Setting) -> None:
    for _ in range(MAX_WEBHOOKS):
        api.made()
    assert problem(api("POST", "", {"url": URL})) == (409, "conflict")
    assert api("POST", "", {"url": URL}, tenant=unique("t")).status == 201


def test_a_repeated_request_shows_the_same_secret_and_the_table_does_not(api: Setting) -> None:
    key = unique("key")
    first = api("POST", "", {"url": URL}, idempotency_key=key)
    again = api("POST", "", {"url": URL}, idempotency_key=key)
    assert (first.status, again.status) == (201, 201)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json == first.json
    assert len(api("GET").json["webhooks"]) == 1
    secret = first.json["secret"]
    pages = api.dynamodb.get_paginator("scan").paginate(TableName=api.idempotency_table)
    assert not any(secret in repr(item) for page in pages for item in page["Items"])


def test_a_test_and_what_came_of_it(api: Setting) -> None:
    made = api.made()
    answer = api("POST", f"/{made.webhook_id}/test")
    sent = DeliveryDocument.model_validate_json(answer.body)
    assert (answer.status, sent.event, sent.state, sent.attempts) == (202, "webhook.test", "pending", ())
    assert sent.payload["type"] == "webhook.test"
    assert api.queue.sent == [(api.tenant, made.webhook_id, sent.delivery_id)]
    assert answer.headers["location"] == f"{PATH}/{made.webhook_id}/deliveries/{sent.delivery_id}"
    path = answer.headers["location"].removeprefix(PATH)
    assert api("GET", path).json == answer.json
    assert api("POST", f"{path}/redeliver").status == 202
    assert len(api.queue.sent) == 2
    api("PATCH", f"/{made.webhook_id}", {"enabled": False})
    assert problem(api("POST", f"{path}/redeliver")) == (409, "conflict")


def test_the_log_page_by_page(api: Setting) -> None:
    made = api.made()
    stored = [
        api.deliveries.add(
            Delivery(
                new_delivery_id(2e9 + at),
                made.webhook_id,
                api.tenant,
                "job.failed",
                b"{}",
                2e9,
                3_000_000_000,
                next_at=2e9,
            )
        )
        for at in range(3)
    ]
    path = f"/{made.webhook_id}/deliveries"
    first = api("GET", path, query="limit=2").json
    second = api("GET", path, query=f"limit=2&cursor={first['next']}").json
    found = [each["delivery_id"] for page in (first, second) for each in page["deliveries"]]
    assert found == [each.delivery_id for each in stored[::-1]]
    assert second["next"] is None


def test_what_is_anothers_does_not_exist(api: Setting) -> None:
    made = api.made()
    sent = api("POST", f"/{made.webhook_id}/test").json["delivery_id"]
    other = unique("t")
    own = api("POST", "", {"url": URL}, tenant=other).json["webhook_id"]
    one = f"/{made.webhook_id}"
    for method, path, body in (
        ("GET", one, None),
        ("PATCH", one, {"enabled": False}),
        ("DELETE", one, None),
        ("POST", f"{one}/rotate", None),
        ("POST", f"{one}/test", None),
        ("GET", f"{one}/deliveries", None),
        ("GET", f"{one}/deliveries/{sent}", None),
        ("POST", f"{one}/deliveries/{sent}/redeliver", None),
        ("GET", f"/{own}/deliveries/{sent}", None),
        ("POST", f"/{own}/deliveries/{sent}/redeliver", None),
        ("GET", "/nonsense", None),
    ):
        assert problem(api(method, path, body, tenant=other)) == (404, "webhook_not_found")
    assert api("GET", one).json["enabled"] is True
    assert [each["webhook_id"] for each in api("GET", tenant=other).json["webhooks"]] == [own]
    assert len(api.queue.sent) == 1


@pytest.mark.parametrize("scope", ["jobs", "predict", "admin"])
def test_the_scope_is_webhooks_and_no_other(api: Setting, scope: str) -> None:
    caller = Principal(api.tenant, "k" * 16, frozenset({scope}), "demo")
    answer = api.function("POST", PATH, body={"url": URL}, principal=caller)
    assert problem(answer) == (403, "insufficient_scope")


def test_every_route_is_in_the_contract() -> None:
    paths = {path: set(routes) for path, routes in contract()["paths"].items() if path.startswith(PATH)}
    one = f"{PATH}/{{webhook_id}}"
    assert paths == {
        PATH: {"get", "post"},
        one: {"get", "patch", "delete"},
        f"{one}/rotate": {"post"},
        f"{one}/test": {"post"},
        f"{one}/deliveries": {"get"},
        f"{one}/deliveries/{{delivery_id}}": {"get"},
        f"{one}/deliveries/{{delivery_id}}/redeliver": {"post"},
    }
