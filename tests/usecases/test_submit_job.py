"""What is stored, and in which order, when a job is taken on."""

from dataclasses import replace
from typing import Any

import pytest

from shared.domain.endpoint.config import EndpointConfig, Experiment, Variant
from shared.domain.errors import BackendUnavailable, InsufficientScope
from shared.domain.jobs import (
    KEPT_S,
    MAX_INLINE_BODY,
    OVERDUE_S,
    START_WITHIN_S,
    Job,
    JobRequest,
    ObjectRef,
    new_job_id,
)
from shared.domain.principal import Principal
from shared.usecases.submit_job import Submission, SubmitJob
from tests.fakes import MemoryJobObjects, MemoryJobQueue, MemoryJobs

NOW = 1_763_700_000.5
CALLER = Principal("acme", "k1", frozenset({"predict"}), "demo")
PLAIN = EndpointConfig("pair")
ASKED = Submission("pair", None, {}, "request", "00-1-2-01", body=b"{}", rows_total=1)


class World:
    def __init__(self) -> None:
        self.store, self.queue, self.objects = MemoryJobs(lambda: NOW), MemoryJobQueue(), MemoryJobObjects()
        self.submit = SubmitJob(self.store, self.queue, self.objects, lambda: NOW)

    def __call__(self, config: EndpointConfig = PLAIN, **changes: Any) -> Job:
        return self.submit(CALLER, replace(ASKED, **changes), config)


@pytest.fixture
def world() -> World:
    return World()


def test_a_job_is_stored_and_asked_for(world: World) -> None:
    job = world(version="prod")
    assert job == Job(
        *(job.job_id, "prediction", "acme", "k1", "pair", JobRequest("prod", {}, inline=b"{}")),
        *(NOW, NOW + START_WITHIN_S, int(NOW) + KEPT_S, "request", "00-1-2-01"),
        due_at=NOW + OVERDUE_S,
        rows_total=1,
    )
    assert world.store.get("acme", job.job_id) == job
    assert world.queue.sent == [("acme", job.job_id, 0.0)]
    assert world.objects.objects == {}
    assert new_job_id(NOW - 1) < job.job_id < new_job_id(NOW + 1)


@pytest.mark.parametrize(("size", "stored"), [(MAX_INLINE_BODY, False), (MAX_INLINE_BODY + 1, True), (0, False)])
def test_a_large_body_is_an_object(world: World, size: int, stored: bool) -> None:
    body = b"x" * size
    job = world(body=body)
    assert (job.request.inline is None, job.request.source is not None) == (stored, stored)
    if job.request.source is not None:
        assert job.request.source == ObjectRef("data", f"jobs/in/acme/{job.job_id}")
        assert world.objects.read(job.request.source, size) == body


def test_an_object_that_is_stored_already_stays_where_it_is(world: World) -> None:
    ref = ObjectRef("lake", "exports/acme/rows.csv", "v1")
    job = world(source=ref, body=b"", rows_total=None)
    assert (job.request.source, job.request.inline, job.rows_total) == (ref, None, None)
    assert world.objects.objects == {}


def test_only_headers_that_the_run_reads_are_kept(world: World) -> None:
    headers = {
        "content-type": "text/csv",
        "content-encoding": "gzip",
        "accept": "text/csv;q=0.5",
        "inference-header-content-length": "12",
        "cache-control": "no-store",
        "authorization": "Bearer secret",
        "cookie": "secret",
        "x-user": "u1",
        "x-sluice-sticky-key": "s1",
        "x-other": "no",
        "prefer": "respond-async",
        "idempotency-key": "k",
    }
    kept = {name: headers[name] for name in list(headers)[:5]}
    assert world(headers=headers).request.headers == {**kept, "x-sluice-sticky-key": "s1"}
    arms = (Variant("main"), Variant("next"))
    experiment = Experiment("colours", "header:x-user", {"main": 1, "next": 1})
    by_user = EndpointConfig("pair", arms, sticky="tenant", experiment=experiment)
    assert world(by_user, headers=headers).request.headers == {**kept, "x-user": "u1"}
    for secret in ("authorization", "cookie"):
        assert world(EndpointConfig("pair", sticky=f"header:{secret}"), headers=headers).request.headers == kept
    long = world(headers={"accept": "x" * 100_000, "content-type": ""}).request.headers
    assert {name: len(value) for name, value in long.items()} == {"accept": 4096}


def test_a_job_asks_for_the_scope_of_its_model(world: World) -> None:
    for scopes in ({"jobs"}, {"predict:other"}, set[str]()):
        with pytest.raises(InsufficientScope):
            world.submit(replace(CALLER, scopes=frozenset(scopes)), ASKED, PLAIN)
    assert (world.store.jobs, world.queue.sent) == ({}, [])
    world.submit(replace(CALLER, scopes=frozenset({"predict:pair"})), ASKED, PLAIN)


def test_without_the_object_there_is_no_job(world: World) -> None:
    world.objects.error = BackendUnavailable("S3 is away.")
    with pytest.raises(BackendUnavailable):
        world(body=b"x" * (MAX_INLINE_BODY + 1))
    assert (world.store.jobs, world.queue.sent) == ({}, [])


def test_without_the_item_there_is_no_message(world: World) -> None:
    world.store.error = BackendUnavailable("DynamoDB is away.")
    with pytest.raises(BackendUnavailable):
        world()
    assert world.queue.sent == []


def test_without_the_message_the_sweep_finds_the_job(world: World) -> None:
    world.queue.error = BackendUnavailable("SQS is away.")
    job = world()
    assert list(world.store.overdue(NOW + OVERDUE_S)) == [[job]]
