"""The routes of endpoint configurations, on the stores of the template."""

import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.session import Session
from pydantic import TypeAdapter

from functions.admin import bootstrap
from infra.local.stack import REGION
from shared.adapters.aws import client
from shared.adapters.dynamodb_models import DynamoDBModels
from shared.domain.principal import Principal
from shared.schemas.api import Problem
from shared.schemas.endpoint import EndpointDocument, EndpointHistory, EndpointList, EndpointPlan
from tests.adapters.samples import unique
from tests.conftest import LocalAws
from tests.functions.conftest import LogLines
from tests.functions.support import Answer, Function, event, published
from tests.functions.test_admin import environment, problem, targets

CALLER = Principal("ops", "b7pkv3n6xw2qjr4d", frozenset({"admin"}), "default")
DOCUMENT = TypeAdapter(EndpointDocument)

pytestmark = pytest.mark.usefixtures("keep_loggers")

Admin = Callable[..., Answer]


@pytest.fixture
def admin(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch, log_lines: LogLines) -> Iterator[Admin]:
    """One request of an administrator; `match` is the ETag that is sent."""
    for name, value in {
        "AWS_ENDPOINT_URL": local_aws.url,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    function = Function(bootstrap.build(environment(local_aws)))

    def request(
        method: str, path: str, body: Any = None, *, match: str = "", query: str = "", **headers: str
    ) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent |= {"if-match": match} if match else {}
        made = event(method, f"/v1/admin/endpoints{path}", None, body, sent, CALLER)
        made["rawQueryString"] = query
        return Answer.of(function.handler(made, function.context))

    log = logging.getLogger("functions.admin")
    log.addHandler(log_lines)
    yield request
    log.removeHandler(log_lines)


@pytest.fixture
def model(local_aws: LocalAws, aws_session: Session) -> str:
    """A model of which versions 1 and 2 are published."""
    name = unique("model")
    registry = DynamoDBModels(
        client("dynamodb", session=aws_session, endpoint_url=local_aws.url), local_aws.models_table
    )
    assert all(registry.add(published(name, number)) for number in (1, 2))
    return name


def document(answer: Answer) -> EndpointDocument:
    assert answer.status == 200, answer.body
    found = DOCUMENT.validate_json(answer.body, strict=True)
    assert answer.headers.get("etag", f'"{found.revision}"') == f'"{found.revision}"'
    return found


def pointers(answer: Answer) -> list[str]:
    return [fault.pointer for fault in Problem.model_validate_json(answer.body).errors]


def test_an_endpoint_is_configured_one_revision_at_a_time(admin: Admin, log_lines: LogLines) -> None:
    name = unique("model")
    read = admin("GET", f"/{name}")
    before = document(read)
    assert (before.revision, before.changed_at, before.changed_by) == (0, None, "")
    assert read.headers["etag"] == '"0"'

    body = {"variants": [{"name": "main", "version": 1}], "logging": {"inputs": 0.1, "redact": ["age"]}}
    put = admin("PUT", f"/{name}", body, if_none_match="*", query="note=First%20try")
    after = document(put)
    assert (after.revision, after.changed_by, after.note) == (1, CALLER.key_id, "First try")
    assert (after.logging.inputs, after.logging.redact, after.timeout_ms) == (0.1, ("age",), 29_000)
    changed_at = datetime.fromisoformat(after.changed_at or "")
    assert abs((datetime.now(UTC) - changed_at).total_seconds()) < 60
    assert put.headers["etag"] == '"1"'
    assert admin("GET", f"/{name}").json == put.json

    for late in ({"if_none_match": "*"}, {"match": '"0"'}, {"match": '"2"'}, {"match": 'W/"1"'}, {"match": '"x"'}):
        assert problem(admin("PUT", f"/{name}", body, **late)) == (412, "precondition_failed")
    for none in ({}, {"match": "*"}, {"if_none_match": '"1"'}):
        assert problem(admin("PUT", f"/{name}", body, **none)) == (428, "precondition_required")
    assert document(admin("GET", f"/{name}")).revision == 1

    # What was read can be sent back; that changes nothing, and makes no revision.
    assert document(admin("PUT", f"/{name}", put.json, match=put.headers["etag"])).revision == 1
    again = document(admin("PUT", f"/{name}", {**put.json, "timeout_ms": 500}, match="1"))
    assert (again.revision, again.timeout_ms, again.note, again.logging.inputs) == (2, 500, "", 0.1)
    assert set(targets(log_lines)) == {None, f"endpoint:{name}"}


def test_a_plan_changes_nothing(admin: Admin, model: str, log_lines: LogLines) -> None:
    body: dict[str, Any] = {"variants": [{"name": "main", "version": 1}], "timeout_ms": 1000}
    planned = admin("PUT", f"/{model}", body, query="dry_run=true")
    plan = EndpointPlan.model_validate_json(planned.body)
    assert planned.headers["etag"] == '"0"'
    assert [change.text for change in plan.changes] == [
        "+ variants[main].version = 1",
        '+ variants[main].backend = "auto"',
        "+ variants[main].weight = 100.0",
        "+ timeout_ms = 1000",
    ]
    assert document(admin("GET", f"/{model}")).revision == 0
    etag = admin("PUT", f"/{model}", body, if_none_match="*").headers["etag"]
    body["variants"].append({"name": "candidate", "version": 2, "weight": 5})
    plan = EndpointPlan.model_validate_json(admin("PUT", f"/{model}", body, query="dry_run=true", match=etag).body)
    assert [change.path for change in plan.changes] == [
        f"variants[candidate].{member}" for member in ("version", "backend", "weight")
    ]
    assert (plan.revision, plan.changes[2].before, plan.changes[2].after) == (1, None, 5.0)
    assert problem(admin("PUT", f"/{model}", body, query="dry_run=true", match='"7"')) == (412, "precondition_failed")
    rolled = admin("POST", f"/{model}/rollback", {"revision": 1}, query="dry_run=true")
    assert EndpointPlan.model_validate_json(rolled.body).changes == []
    traffic = admin("PATCH", f"/{model}/traffic", {"shares": {"2": 0.25}}, query="dry_run=true")
    assert "~ variants[main].weight: 100.0 -> 75.0" in [
        change.text for change in EndpointPlan.model_validate_json(traffic.body).changes
    ]
    assert [found.revision for found in history(admin, model).revisions] == [1]
    assert targets(log_lines).count(f"endpoint:{model}") == 1


def history(admin: Admin, name: str, query: str = "") -> EndpointHistory:
    answer = admin("GET", f"/{name}/history", query=query)
    assert answer.status == 200, answer.body
    return EndpointHistory.model_validate_json(answer.body)


def test_the_history_is_read_and_rolled_back_to(admin: Admin) -> None:
    name, etag = unique("model"), '"0"'
    for timeout_ms in (100, 200, 300):
        etag = admin("PUT", f"/{name}", {"timeout_ms": timeout_ms}, match=etag).headers["etag"]
    page = history(admin, name, "limit=2")
    assert ([found.revision for found in page.revisions], page.next) == ([3, 2], "2")
    page = history(admin, name, f"limit=2&page={page.next}")
    assert ([found.revision for found in page.revisions], page.next) == ([1], None)
    first = document(admin("GET", f"/{name}/history/1"))
    assert (first.revision, first.timeout_ms) == (1, 100)

    stale = admin("POST", f"/{name}/rollback", {"revision": 1}, match='"2"')
    assert problem(stale) == (412, "precondition_failed")
    assert problem(admin("POST", f"/{name}/rollback", {"revision": 1})) == (428, "precondition_required")
    once = {"match": '"3"', "idempotency_key": unique("once")}
    back = admin("POST", f"/{name}/rollback", {"revision": 1, "note": "Too slow"}, **once)
    now = document(back)
    assert (now.revision, now.timeout_ms, now.note, now.changed_by) == (4, 100, "Too slow", CALLER.key_id)
    # A repeated request gets the first answer, with its ETag, and makes no second revision.
    repeated = admin("POST", f"/{name}/rollback", {"revision": 1, "note": "Too slow"}, **once)
    assert (repeated.json, repeated.headers["etag"]) == (back.json, '"4"')
    assert repeated.headers["idempotency-replayed"] == "true"
    assert document(admin("POST", f"/{name}/rollback", {"revision": 2}, match='"4"')).note == "Back to revision 2"
    for missing in ("9", "0", "x", "-1", "9" * 30):
        assert problem(admin("GET", f"/{name}/history/{missing}")) == (404, "revision_not_found")
    assert problem(admin("POST", f"/{name}/rollback", {"revision": 9}, match='"5"')) == (404, "revision_not_found")


def test_traffic_is_split_by_version_label_and_variant(admin: Admin, model: str) -> None:
    body = {"variants": [{"name": "main", "version": "prod"}], "labels": {"prod": 1}}
    admin("PUT", f"/{model}", body, if_none_match="*")
    canary = document(admin("PATCH", f"/{model}/traffic", {"shares": {"2": 0.05}, "note": "Canary"}, match='"1"'))
    assert {v.name: (v.version, v.weight) for v in canary.variants} == {"main": ("prod", 95.0), "v2": (2, 5.0)}
    assert (canary.revision, canary.note) == (2, "Canary")
    half = document(admin("PATCH", f"/{model}/traffic", {"shares": {"prod": 0.5}}, match='"2"'))
    assert {v.name: v.weight for v in half.variants} == {"main": 50.0, "v2": 50.0}
    whole = document(admin("PATCH", f"/{model}/traffic", {"shares": {"v2": 1}}, match='"3"'))
    assert {v.name: v.weight for v in whole.variants} == {"main": 0.0, "v2": 100.0}
    faults = [
        ({"shares": {"v2": 0.6, "main": 0.5}}, (422, "out_of_range"), "/shares"),
        ({"shares": {"v2": 0.6}}, (422, "out_of_range"), "/shares"),
        ({"shares": {"nobody": 0.6}}, (404, "version_not_found"), "/shares/nobody"),
        ({"shares": {"v2": 1.5}}, (422, "out_of_range"), "/shares/v2"),
        ({"shares": {}}, (422, "out_of_range"), "/shares"),
        ({"shares": {"prod": 0.5, "1": 0.5}}, (422, "out_of_range"), "/shares/1"),
        ({}, (422, "missing_field"), "/shares"),
    ]
    for sent, expected, where in faults:
        answer = admin("PATCH", f"/{model}/traffic", sent, match='"4"')
        assert (problem(answer), pointers(answer)) == (expected, [where]), sent
    assert problem(admin("PATCH", f"/{model}/traffic", {"shares": {"v2": 1}}, match='"3"'))[0] == 412
    assert problem(admin("PATCH", f"/{model}/traffic", {"shares": {"v2": 1}}))[0] == 428


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"timeout_ms": 0}, 422, "/timeout_ms"),
        ({"log_inputs": 0.5}, 422, "/log_inputs"),
        ({"logging": {"inputs": 1.1}}, 422, "/logging/inputs"),
        ({"variants": [{"name": "main", "version": "prod"}]}, 422, "/variants/0/version"),
        ({"variants": [{"name": "main", "backend": "absent"}]}, 422, "/variants/0/backend"),
        ({"backends": {"b": {"kind": "no-such-kind"}}}, 422, "/backends/b/kind"),
        ({"backends": {"b": {"kind": "open-inference-http", "options": {"strange": 1}}}}, 422, None),
        ({"endpoint": "another"}, 422, "/endpoint"),
        ("not json", 400, None),
        (b'{"timeout_ms": 1, "timeout_ms": 2}', 422, "/timeout_ms"),
        (b'{"thresholds": {"t": {"output": "y", "at": NaN, "below": "", "above": ""}}}', 400, None),
        (json.dumps({"labels": {"x": 1}}).encode() + b" " * 70_000, 413, None),
    ],
)
def test_configurations_that_cannot_be(admin: Admin, body: Any, status: int, pointer: str | None) -> None:
    name = unique("model")
    answer = admin("PUT", f"/{name}", body, match='"0"')
    assert problem(answer)[0] == status
    if pointer is not None:
        assert pointers(answer) == [pointer]
    assert document(admin("GET", f"/{name}")).revision == 0


def test_names_that_no_endpoint_has(admin: Admin) -> None:
    for answer in (
        admin("GET", "/Any"),
        admin("PUT", "/Any", {}, match='"0"'),
        admin("GET", "/Any/history"),
        admin("GET", "/Any/history/1"),
        admin("POST", "/Any/rollback", {"revision": 1}, match='"0"'),
        admin("PATCH", "/Any/traffic", {"shares": {"1": 1}}, match='"0"'),
    ):
        assert problem(answer) == (404, "not_found")


def test_endpoints_are_listed_in_pages_that_fit(admin: Admin) -> None:
    names = sorted(unique("model") for _ in range(3))
    wide = {"class_labels": {"y": {f"class {number}": "x" * 250 for number in range(200)}}}
    for name in names:
        assert admin("PUT", f"/{name}", wide, if_none_match="*").status == 200
    found: list[str] = []
    query = "limit=1"
    while True:
        page = EndpointList.model_validate_json(admin("GET", "", query=query).body)
        found += [one.endpoint for one in page.endpoints]
        if page.next is None:
            break
        query = f"limit=2&page={page.next}"
    assert [name for name in found if name in names] == names
    assert found == sorted(set(found))


def test_a_long_history_is_answered_in_parts_of_some_megabytes(admin: Admin) -> None:
    name, etag = unique("model"), '"0"'
    labels = {f"class {number}": "x" * 250 for number in range(220)}
    for number in range(75):
        labels["class 0"] = f"{number}"
        etag = admin("PUT", f"/{name}", {"class_labels": {"y": labels}}, match=etag).headers["etag"]
    page = history(admin, name, "limit=100")
    assert 1 < len(page.revisions) < 75
    assert page.next == str(page.revisions[-1].revision)
    rest = history(admin, name, f"limit=100&page={page.next}")
    assert [found.revision for found in (*page.revisions, *rest.revisions)] == list(range(75, 0, -1))
