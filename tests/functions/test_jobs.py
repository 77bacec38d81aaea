"""The routes of jobs through the whole function."""

import logging
from dataclasses import replace
from datetime import UTC, datetime
from time import time
from typing import Any
from urllib.parse import quote

import pytest

from shared.domain.batches import BatchState
from shared.domain.errors import BackendUnavailable, FieldError
from shared.domain.jobs import (
    KEPT_S,
    LEASE_S,
    Job,
    JobProblem,
    JobRequest,
    JobResult,
    ObjectRef,
    Outcome,
    new_job_id,
)
from shared.domain.principal import Principal
from shared.schemas.api import Problem
from shared.schemas.jobs import JobDocument, JobList
from shared.usecases.manage_jobs import ManageJobs
from tests.fakes import MemoryJobObjects, MemoryJobQueue, MemoryJobs
from tests.functions.api_parts import api_application
from tests.functions.conftest import LogLines, Serve
from tests.functions.support import CALLER, Answer, Function, event

ANSWER = b'{"predictions":[[1.5,null]],"model":{"name":"pair"}}'
JSON_RESULT = JobResult("application/json", len(ANSWER), (("X-Prediction-Id", "p"),), inline=ANSWER)
STRANGER = replace(CALLER, tenant="rival")


class World:
    """The function, and the stores behind it."""

    def __init__(self, serve: Serve, log: logging.Logger) -> None:
        self.store, self.queue, self.objects = MemoryJobs(), MemoryJobQueue(), MemoryJobObjects()
        jobs = ManageJobs(self.store, self.queue, self.objects, lambda job: None)
        self.function: Function = serve(api_application(log, jobs=jobs))

    def __call__(self, method: str, path: str, principal: Principal | None = CALLER) -> Answer:
        """One request; a query is behind the path."""
        path, _, query = path.partition("?")
        made = event(method, path, principal=principal)
        made["rawQueryString"] = query
        return Answer.of(self.function.handler(made, self.function.context))

    def add(self, at: float | None = None, **changes: Any) -> str:
        now = time() if at is None else at
        request = JobRequest(None, {}, inline=b"{}")
        made = Job(
            *(new_job_id(now), "prediction", "acme", "key", "pair", request),
            *(now, now + 60, int(now) + KEPT_S, "request"),
            due_at=now + 60,
        )
        self.store.add(replace(made, **changes))
        return made.job_id

    def ended(self, outcome: Outcome, **changes: Any) -> str:
        job_id = self.add(**changes)
        self.store.claim(job_id, "one", time(), LEASE_S)
        assert self.store.finish(job_id, outcome, time(), owner="one")
        return job_id


@pytest.fixture
def world(serve: Serve, log: logging.Logger) -> World:
    return World(serve, log)


def problem(answer: Answer) -> Problem:
    assert answer.headers["content-type"] == "application/problem+json"
    return Problem.model_validate_json(answer.body)


def test_a_queued_job(world: World, log_lines: LogLines) -> None:
    at = datetime(2099, 11, 21, 9, 30, 0, 250_000, UTC).timestamp()
    job_id = world.add(at)
    answer = world("GET", f"/v1/jobs/{job_id}")
    assert (answer.status, answer.headers["retry-after"], answer.headers["cache-control"]) == (200, "2", "no-store")
    assert answer.json == {
        "job_id": job_id,
        "kind": "prediction",
        "model": {"name": "pair"},
        "state": "queued",
        "progress": None,
        "attempts": 0,
        "created_at": "2099-11-21T09:30:00.250Z",
        "start_by": "2099-11-21T09:31:00.250Z",
        "expires_at": "2099-11-28T09:30:00.000Z",
    }
    JobDocument.model_validate_json(answer.body)
    (line,) = log_lines.requests()
    assert (line["model"], line["target"]) == ("pair", f"job:{job_id}")


def test_a_running_job_shows_its_progress(world: World) -> None:
    job_id = world.add(rows_total=10)
    world.store.claim(job_id, "one", time(), LEASE_S)
    world.store.renew(job_id, "one", time() + 30, 4)
    shown = JobDocument.model_validate_json(world("GET", f"/v1/jobs/{job_id}").body)
    assert (shown.state, shown.attempts, shown.started_at is not None) == ("running", 1, True)
    assert shown.progress is not None
    assert (shown.progress.rows_done, shown.progress.rows_total) == (4, 10)


def test_a_batch_shows_what_only_a_batch_has(world: World) -> None:
    state = BatchState(source="s3://data/batch/in/acme/pair/rows.csv", name="rows.csv", size=5)
    shown = JobDocument.model_validate_json(
        world("GET", f"/v1/jobs/{world.add(kind='batch', batch=state.encode())}").body
    )
    assert shown.batch is not None
    assert (shown.kind, shown.batch["source"]) == ("batch", "s3://data/batch/in/acme/pair/rows.csv")


def test_a_file_that_was_dropped_where_no_model_is_hides_no_other_job(world: World) -> None:
    failed = Outcome("failed", problem=JobProblem("model_not_found", "Not found", "A name has lower-case letters."))
    names = ("Tumor", "-", "ü b", "x" * 64)
    made = {
        world.ended(failed, kind="batch", model=name, batch=BatchState(source="s3://b/k", name="k").encode()): name
        for name in names
    }
    page = world("GET", "/v1/jobs")
    assert page.status == 200
    assert {job["job_id"]: job["model"] for job in page.json["jobs"]} == made
    for job_id, name in made.items():
        assert world("GET", f"/v1/jobs/{job_id}").json["model"]["name"] == name


def test_a_failed_job_says_why(world: World) -> None:
    why = JobProblem("wrong_shape", "Wrong shape", "It is.", (FieldError("/instances/0", "2 values"),))
    answer = world("GET", f"/v1/jobs/{world.ended(Outcome('failed', problem=why))}")
    assert "retry-after" not in answer.headers
    errors = [{"pointer": "/instances/0", "detail": "2 values"}]
    assert answer.json["problem"] == {
        "code": "wrong_shape",
        "title": "Wrong shape",
        "detail": "It is.",
        "errors": errors,
    }
    JobDocument.model_validate_json(answer.body)


def test_a_small_json_result_is_in_the_document_as_it_is(world: World) -> None:
    ran = Outcome("succeeded", JSON_RESULT, version=2, variant="main", backend="function", cost_nusd=1500, rows_done=1)
    job_id = world.ended(ran)
    answer = world("GET", f"/v1/jobs/{job_id}")
    assert ANSWER in answer.body
    shown = JobDocument.model_validate_json(answer.body)
    assert (shown.model.version, shown.model.variant, shown.model.backend) == (2, "main", "function")
    assert shown.cost_usd == 0.0000015
    assert answer.json["result"] == {
        "media_type": "application/json",
        "size": len(ANSWER),
        "href": f"/v1/jobs/{job_id}/result",
        "document": {"predictions": [[1.5, None]], "model": {"name": "pair"}},
    }
    result = world("GET", f"/v1/jobs/{job_id}/result")
    assert (result.status, result.body, result.headers["x-prediction-id"]) == (200, ANSWER, "p")
    assert (result.headers["content-type"], result.headers["x-content-type-options"]) == ("application/json", "nosniff")


@pytest.mark.parametrize(
    "result",
    [
        JobResult("application/x-npy", 4, inline=b"\x93NUM"),
        JobResult("application/json", 4, (("Inference-Header-Content-Length", "2"),), inline=b"{}\x00\xff"),
        JobResult("text/csv", 0, inline=b""),
    ],
)
def test_a_small_result_of_another_kind_is_at_its_address(world: World, result: JobResult) -> None:
    job_id = world.ended(Outcome("succeeded", result))
    assert "document" not in world("GET", f"/v1/jobs/{job_id}").json["result"]
    answer = world("GET", f"/v1/jobs/{job_id}/result")
    assert (answer.status, answer.body) == (200, result.inline)
    assert answer.headers["content-type"].startswith(result.media_type)
    for name, value in result.headers:
        assert answer.headers[name.lower()] == value


def test_a_large_result_is_an_address(world: World) -> None:
    stored = JobResult("text/csv", 9_000_000, stored=ObjectRef("data", "jobs/out/acme/j/one"))
    job_id = world.ended(Outcome("succeeded", stored))
    shown = JobDocument.model_validate_json(world("GET", f"/v1/jobs/{job_id}").body)
    assert shown.result is not None
    assert shown.result.url is not None
    answer = world("GET", f"/v1/jobs/{job_id}/result")
    assert (answer.status, answer.headers["location"], answer.body) == (303, shown.result.url, b"")


def test_what_has_no_result_says_so(world: World) -> None:
    for job_id in (world.add(), world.ended(Outcome("cancelled"))):
        answer = world("GET", f"/v1/jobs/{job_id}/result")
        assert (answer.status, problem(answer).code) == (409, "no_result")


def test_a_job_is_cancelled_once_and_told_again(world: World) -> None:
    job_id = world.add()
    for _ in range(2):
        answer = world("DELETE", f"/v1/jobs/{job_id}")
        assert (answer.status, answer.json["state"]) == (200, "cancelled")
    done = world.ended(Outcome("succeeded", JSON_RESULT))
    answer = world("DELETE", f"/v1/jobs/{done}")
    assert (answer.status, problem(answer).code) == (409, "job_finished")


def test_a_cancelled_job_is_run_again(world: World) -> None:
    job_id = world.ended(Outcome("cancelled"))
    answer = world("POST", f"/v1/jobs/{job_id}/retry")
    assert (answer.status, answer.json["state"], answer.headers["retry-after"]) == (200, "queued", "2")
    assert world.queue.sent == [("acme", job_id, 0.0)]
    again = world("POST", f"/v1/jobs/{job_id}/retry")
    assert (again.status, problem(again).code) == (409, "conflict")


ROUTES = [("GET", ""), ("GET", "/result"), ("DELETE", ""), ("POST", "/retry")]


@pytest.mark.parametrize(("method", "rest"), ROUTES)
def test_a_job_of_another_tenant_and_one_that_never_was_are_the_same(world: World, method: str, rest: str) -> None:
    own = world.ended(Outcome("failed", problem=JobProblem("c", "t", "d")))
    before = dict(world.store.jobs)
    found = [
        world(method, f"/v1/jobs/{job_id}{rest}", principal=STRANGER)
        for job_id in (own, new_job_id(), "x", "0" * 500, quote("é"), "..%2f..")
    ]
    assert {(answer.status, problem(answer).code, problem(answer).detail) for answer in found} == {
        (404, "job_not_found", "There is no such job.")
    }
    assert (world.store.jobs, world.queue.sent) == (before, [])


@pytest.mark.parametrize(("method", "rest"), [*ROUTES, ("GET", "?list")])
def test_a_caller_needs_a_scope(world: World, method: str, rest: str) -> None:
    path = "/v1/jobs" if rest == "?list" else f"/v1/jobs/{world.add()}{rest}"
    unscoped = world(method, path, principal=replace(CALLER, scopes=frozenset({"admin", "ingest"})))
    assert (unscoped.status, problem(unscoped).code) == (403, "insufficient_scope")
    assert world(method, path, principal=None).status == 401


def test_a_list_is_in_pages(world: World) -> None:
    now = time()
    ids = [world.add(now - number, kind="batch" if number % 2 else "prediction") for number in range(7)]
    world.add(tenant="rival")
    first = world("GET", "/v1/jobs?limit=4")
    page = JobList.model_validate_json(first.body)
    assert [job.job_id for job in page.jobs] == ids[:4]
    rest = JobList.model_validate_json(world("GET", f"/v1/jobs?limit=4&cursor={page.next}").body)
    assert ([job.job_id for job in rest.jobs], rest.next) == (ids[4:], None)
    batches = world("GET", "/v1/jobs?kind=batch&state=queued,running&model=pair").json
    assert [job["job_id"] for job in batches["jobs"]] == ids[1::2]
    assert first.headers["cache-control"] == "no-store"
    moments = [datetime.fromtimestamp(now - back, UTC).isoformat().replace("+00:00", "Z") for back in (4.5, 1.5)]
    between = world("GET", f"/v1/jobs?since={moments[0]}&until={moments[1]}").json
    assert [job["job_id"] for job in between["jobs"]] == ids[2:5]


def test_a_list_shows_the_models_that_the_caller_may_use(world: World) -> None:
    world.add(model="other")
    own = world.add(model="mine")
    caller = replace(CALLER, scopes=frozenset({"predict:mine"}))
    assert [job["job_id"] for job in world("GET", "/v1/jobs", principal=caller).json["jobs"]] == [own]
    refused = world("GET", "/v1/jobs?model=other", principal=caller)
    assert (refused.status, problem(refused).code) == (403, "insufficient_scope")


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/query/limit"),
        ("limit=101", "/query/limit"),
        ("limit=1e2", "/query/limit"),
        ("limit=" + "9" * 5000, "/query/limit"),
        ("limit=1&limit=2", "/query/limit"),
        ("state=done", "/query/state"),
        ("state=queued,queued,queued,queued,queued,queued", "/query/state"),
        ("state=", "/query/state"),
        ("kind=file", "/query/kind"),
        ("model=" + "x" * 65, "/query/model"),
        ("model=A%00", "/query/model"),
        ("since=yesterday", "/query/since"),
        ("since=2026-11-21T00:00:00", "/query/since"),
        ("until=99999-01-01T00:00:00Z", "/query/until"),
        ("cursor=", "/query/cursor"),
        ("cursor=" + "0" * 31, "/query/cursor"),
        ("cursor=" + "G" * 32, "/query/cursor"),
        ("cursor=" + "0" * 32 + "%0A", "/query/cursor"),
        ("cursor=%7B%22tenant%22%3A%22rival%22%7D", "/query/cursor"),
        ("tenant=rival", "/query/tenant"),
    ],
)
def test_a_wrong_parameter_is_named(world: World, query: str, pointer: str) -> None:
    world.add()
    answer = world("GET", f"/v1/jobs?{query}")
    assert answer.status == 422
    (place, *_) = problem(answer).errors
    assert place.pointer.startswith(pointer)
    assert len(answer.body) < 2000


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("since=yesterday", "must be a time with its offset from UTC (RFC 3339), such as 2026-11-21T10:00:00Z"),
        (
            "cursor=1",
            "must be of the form ^[0-9a-f]{32}$, such as 019a0c2b1f7e4d3c2b1a09f8e7d6c5b4: "
            "The `next` of the answer before",
        ),
        ("state=queued,done", "must be 'queued', 'running', 'succeeded', 'failed' or 'cancelled'"),
        ("limit=many", "must be a whole number, such as 20"),
    ],
)
def test_a_wrong_parameter_is_told_what_was_expected(world: World, query: str, detail: str) -> None:
    (told,) = problem(world("GET", f"/v1/jobs?{query}")).errors or ()
    assert (told.pointer.split("/")[2], told.detail) == (query.partition("=")[0], detail)


@pytest.mark.parametrize("query", ["since=0001-01-01T00:00:00Z", "until=9999-12-31T23:59:59Z", "cursor=" + "f" * 32])
def test_the_widest_bounds_show_everything(world: World, query: str) -> None:
    job_id = world.add()
    assert [job["job_id"] for job in world("GET", f"/v1/jobs?{query}").json["jobs"]] == [job_id]


@pytest.mark.parametrize("cursor", ["0" * 32, "0" * 31 + "1"])
def test_a_cursor_behind_the_last_job_ends_the_list(world: World, cursor: str) -> None:
    world.add()
    world.add(tenant="rival")
    assert world("GET", f"/v1/jobs?cursor={cursor}").json == {"jobs": [], "next": None}


def test_a_store_that_is_away_is_told_so(world: World) -> None:
    job_id = world.add()
    world.store.error = BackendUnavailable("The store of jobs cannot be reached.")
    for method, rest in ROUTES:
        assert world(method, f"/v1/jobs/{job_id}{rest}").status == 503
    assert world("GET", "/v1/jobs").status == 503
