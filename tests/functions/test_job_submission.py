"""Predictions that are taken on as jobs, through the whole function."""

import gzip
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from functions.predict.bootstrap import application
from shared.domain.endpoint.config import FUNCTION, BackendChoice, EndpointConfig, Variant
from shared.domain.errors import BackendUnavailable
from shared.domain.jobs import MAX_BODY, MAX_INLINE_BODY, Job, ObjectRef
from shared.domain.model import ModelVersion
from shared.domain.tensors import Tensors
from shared.domain.uploads import InputPrefix, ObjectHead, upload_key
from shared.schemas.api import Problem
from shared.schemas.jobs import JobDocument
from shared.usecases.sources import Sources
from shared.usecases.submit_job import SubmitJob
from tests.fakes import FakeBackend, InMemoryModels, MemoryJobObjects, MemoryJobQueue, MemoryJobs
from tests.functions.conftest import LogLines, Serve
from tests.functions.parts import parts, stored
from tests.functions.support import CALLER, Answer, Function, predict_settings, published
from tests.memory_objects import MemoryObjects

PATH = "/v1/models/pair/jobs"
BODY = {"instances": [[1, 2], [3, 4]]}
UPLOAD = "0" * 32
NOW = 1_800_000_000.0


ASYNC = EndpointConfig(
    "heavy", (Variant("main", backend="later"),), backends={"later": BackendChoice("sagemaker-async")}
)


def never(version: ModelVersion, inputs: Tensors) -> Tensors:
    raise AssertionError("a job is run by its worker")


class World:
    """The function, and the stores behind it."""

    def __init__(self, serve: Serve, log: logging.Logger) -> None:
        self.store, self.queue, self.objects = MemoryJobs(), MemoryJobQueue(), MemoryJobObjects()
        self.sources = MemoryObjects()
        config = EndpointConfig("pair", (Variant("main", version=2),), labels={"prod": 1}, sticky="header:x-user")
        made = parts(
            InMemoryModels(published("pair", 1), published("pair", 2), published("heavy")),
            {FUNCTION: FakeBackend(never), "later": FakeBackend(never)},
            endpoints=stored(config, ASYNC),
            submit=SubmitJob(self.store, self.queue, self.objects),
            sources=Sources(self.sources, "data", (InputPrefix("lake", "exports/"),), lambda: NOW),
        )
        self.function: Function = serve(application(predict_settings(max_body_bytes=1_000_000), made, log))

    def __call__(self, body: Any = None, path: str = PATH, headers: Mapping[str, str] = {}, **more: Any) -> Answer:
        return self.function("POST", path, body=BODY if body is None else body, headers=headers, **more)

    def taken(self, answer: Answer) -> Job:
        """The one job that was taken on, which the answer shows."""
        assert answer.status == 202, answer.body
        (job,) = self.store.jobs.values()
        assert answer.headers["location"] == f"/v1/jobs/{job.job_id}"
        assert answer.headers["retry-after"] == "2"
        document = JobDocument.model_validate_json(answer.body)
        assert (document.job_id, document.state, document.model.name) == (job.job_id, "queued", job.model)
        assert self.queue.sent == [("acme", job.job_id, 0.0)]
        return job


@pytest.fixture
def world(serve: Serve, log: logging.Logger) -> World:
    return World(serve, log)


def problem(answer: Answer) -> Problem:
    assert answer.headers["content-type"] == "application/problem+json"
    return Problem.model_validate_json(answer.body)


def test_a_prediction_is_taken_on(world: World, log_lines: LogLines) -> None:
    headers = {"accept": "text/csv", "x-user": "u1", "x-request-id": "r-1", "cookie": "c", "x-other": "o"}
    answer = world(headers=headers)
    job = world.taken(answer)
    assert (job.tenant, job.key_id, job.request_id, job.rows_total) == (CALLER.tenant, CALLER.key_id, "r-1", 2)
    assert (job.request.version, job.request.inline) == (None, json.dumps(BODY).encode())
    assert job.request.headers == {"content-type": "application/json", "accept": "text/csv", "x-user": "u1"}
    assert "preference-applied" not in answer.headers
    (line,) = log_lines.requests()
    assert (line["model"], line["target"]) == ("pair", f"job:{job.job_id}")


@pytest.mark.parametrize(("version", "kept"), [("1", 1), ("prod", "prod")])
def test_a_version_or_a_label_is_kept(world: World, version: str, kept: Any) -> None:
    job = world.taken(world(path=f"/v1/models/pair/versions/{version}/jobs"))
    assert job.request.version == kept


def test_more_instances_than_one_call_of_the_model_takes(world: World) -> None:
    assert problem(world({"instances": [[1, 2]] * 5}, "/v1/models/pair/predict")).code == "batch_too_large"
    assert world.taken(world({"instances": [[1, 2]] * 5})).rows_total == 5


def test_a_large_body_is_an_object(world: World) -> None:
    body = b'{"instances": [[1, 2]' + b" " * MAX_INLINE_BODY + b"]}"
    job = world.taken(world(body))
    assert job.request.source is not None
    assert world.objects.read(job.request.source, MAX_BODY) == body


def test_a_compressed_body_is_kept_as_it_is(world: World) -> None:
    body = gzip.compress(json.dumps(BODY).encode())
    job = world.taken(world(body, headers={"content-encoding": "gzip"}))
    assert (job.request.inline, job.request.headers["content-encoding"]) == (body, "gzip")


def test_a_job_on_a_binary_body(world: World) -> None:
    array = np.ones((3, 2), np.float32)
    header = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [3, 2], "parameters": {"binary_data_size": 24}}]}
    head = json.dumps(header).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    job = world.taken(world(head + array.tobytes(), headers=headers))
    assert (job.request.headers, job.rows_total) == ({**headers, "accept": "*/*"}, 3)


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        ({"instances": [[1]]}, {}, "wrong_shape"),
        ({"instances": [[1, 5000]]}, {}, "out_of_range"),
        ({"instances": []}, {}, "empty_batch"),
        ({"rows": [[1, 2]]}, {}, None),
        ("{", {}, "not_json"),
        (b"\xff\xfe", {}, "not_json"),
        (BODY, {"content-type": "application/x-pickle"}, "unsupported_media_type"),
        (BODY, {"accept": "image/png"}, "not_acceptable"),
        ({"instances": [[1, 2]] * 200_000}, {}, "payload_too_large"),
    ],
)
def test_what_a_prediction_would_refuse_is_no_job(world: World, body: Any, headers: Any, code: str | None) -> None:
    answer = world(body, headers=headers)
    assert 400 <= answer.status < 500
    assert code in (None, problem(answer).code)
    assert problem(world(body, "/v1/models/pair/predict", headers)).code == problem(answer).code
    assert (world.store.jobs, world.queue.sent, world.objects.objects) == ({}, [], {})


@pytest.mark.parametrize(
    ("path", "scopes", "status", "code"),
    [
        (PATH, {"jobs"}, 403, "insufficient_scope"),
        (PATH, {"predict:heavy"}, 403, "insufficient_scope"),
        ("/v1/models/unknown/jobs", {"predict:pair"}, 403, "insufficient_scope"),
        ("/v1/models/unknown/jobs", {"predict"}, 404, "model_not_found"),
        ("/v1/models/pair/versions/9/jobs", {"predict"}, 404, "version_not_found"),
        ("/v1/models/pair/versions/none/jobs", {"predict"}, 404, "version_not_found"),
    ],
)
@pytest.mark.parametrize("body", [BODY, {"upload_id": UPLOAD}])
def test_who_may_not_and_what_is_not_there(
    world: World, path: str, scopes: set[str], status: int, code: str, body: Any
) -> None:
    world.sources.put(ObjectRef("data", upload_key("acme", UPLOAD)), HEAD)
    answer = world(body, path, principal=replace(CALLER, scopes=frozenset(scopes)))
    assert (answer.status, problem(answer).code) == (status, code)
    assert world.store.jobs == {}


HEAD = ObjectHead(1234, "text/csv", NOW - 60, '"e"', version_id="v1", sha256="0" * 64)


def test_an_upload_is_a_body(world: World) -> None:
    ref = ObjectRef("data", upload_key("acme", UPLOAD))
    world.sources.put(ref, HEAD)
    job = world.taken(world({"upload_id": UPLOAD}, headers={"accept": "application/json", "x-user": "u"}))
    assert job.request.source == replace(ref, version_id="v1")
    assert job.request.headers == {"content-type": "text/csv", "accept": "application/json", "x-user": "u"}
    assert (job.request.inline, job.rows_total) == (None, None)


@pytest.mark.parametrize(
    ("name", "media_type", "given", "expected"),
    [
        ("rows.csv", "binary/octet-stream", None, "text/csv"),
        ("rows.JSONL", "application/octet-stream", None, "application/jsonlines"),
        ("rows.csv", "text/plain", "text/csv; header=absent", "text/csv; header=absent"),
        ("rows.csv", "application/json", None, "application/json"),
    ],
)
def test_the_type_of_an_object(world: World, name: str, media_type: str, given: str | None, expected: str) -> None:
    world.sources.put(ObjectRef("lake", f"exports/acme/{name}"), replace(HEAD, media_type=media_type))
    named = {"s3_uri": f"s3://lake/exports/acme/{name}"} | ({} if given is None else {"content_type": given})
    job = world.taken(world(named))
    assert job.request.headers["content-type"] == expected


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"upload_id": "1" * 32}, 404, "upload_not_found"),
        ({"upload_id": "../" * 10}, 422, "out_of_range"),
        ({"upload_id": UPLOAD, "s3_uri": "s3://data/x"}, 422, "missing_field"),
        ({"upload_id": UPLOAD, "instances": [[1, 2]]}, 422, "unknown_field"),
        ({"upload_id": 5}, 422, "wrong_dtype"),
        ({"upload_id": None, "s3_uri": None}, 422, "missing_field"),
        ({"s3_uri": f"s3://data/uploads/rival/{UPLOAD}"}, 404, "source_not_found"),
        ({"s3_uri": "s3://lake/exports/rival/rows.csv"}, 404, "source_not_found"),
        ({"s3_uri": "s3://lake/exports/acme/nothing"}, 404, "source_not_found"),
        ({"s3_uri": "https://example.com"}, 422, "out_of_range"),
        ({"s3_uri": "s3://" + "x" * 3000}, 422, "text_too_long"),
        ({"s3_uri": "s3://lake/exports/acme/large"}, 413, "payload_too_large"),
        ({"s3_uri": "s3://lake/exports/acme/odd"}, 415, "unsupported_media_type"),
        ({"s3_uri": "s3://lake/exports/acme/odd", "content_type": "application/x-pickle"}, 415, None),
        ({"s3_uri": "s3://lake/exports/acme/odd", "content_type": ""}, 422, "out_of_range"),
    ],
)
def test_an_object_that_cannot_be_a_body(world: World, body: Any, status: int, code: str | None) -> None:
    world.sources.put(ObjectRef("data", upload_key("acme", UPLOAD)), HEAD)
    world.sources.put(ObjectRef("data", upload_key("rival", UPLOAD)), HEAD)
    world.sources.put(ObjectRef("lake", "exports/rival/rows.csv"), HEAD)
    world.sources.put(ObjectRef("lake", "exports/acme/large"), replace(HEAD, size=MAX_BODY + 1))
    world.sources.put(ObjectRef("lake", "exports/acme/odd"), replace(HEAD, media_type="image/png"))
    answer = world(body)
    assert (answer.status, code in (None, problem(answer).code)) == (status, True), answer.body
    assert (world.store.jobs, world.queue.sent) == ({}, [])


def test_a_job_whose_message_cannot_be_sent_is_taken_on_all_the_same(world: World, log_lines: LogLines) -> None:
    world.queue.error = BackendUnavailable("SQS is away.")
    answer = world()
    assert (answer.status, list(world.store.jobs)) == (202, [answer.json["job_id"]])


def test_a_store_that_is_away_is_told_so(world: World) -> None:
    world.store.error = BackendUnavailable("The store of jobs cannot be reached.")
    assert world().status == 503
    assert world.queue.sent == []


V2 = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}


def test_a_v2_body_is_one_for_a_job_too(world: World) -> None:
    assert world.taken(world(V2)).rows_total == 1


@pytest.mark.parametrize(
    ("path", "headers", "kept"),
    [
        ("/v1/models/heavy/predict", {"content-type": "application/json"}, "application/json"),
        ("/v2/models/heavy/infer", {"content-type": "application/x-www-form-urlencoded"}, "application/json"),
        ("/v2/models/heavy/versions/1/infer", {"content-type": "application/json"}, "application/json"),
    ],
)
def test_what_prefers_a_job_is_one_on_a_backend_that_answers_later(
    world: World, path: str, headers: dict[str, str], kept: str
) -> None:
    answer = world(V2, path, {**headers, "prefer": "wait=5, respond-async"})
    job = world.taken(answer)
    assert answer.headers["preference-applied"] == "respond-async"
    assert (job.model, job.request.headers["content-type"], job.rows_total) == ("heavy", kept, 1)


def test_binary_tensors_of_v2_keep_their_meaning(world: World) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
    head = json.dumps({"inputs": [tensor]}).encode()
    body = head + np.ones((1, 2), np.float32).tobytes()
    headers = {"content-type": "text/plain", "inference-header-content-length": str(len(head))}
    job = world.taken(world(body, "/v2/models/heavy/infer", {**headers, "prefer": "respond-async"}))
    assert job.request.headers["content-type"] == "application/octet-stream"
    assert job.request.headers["inference-header-content-length"] == str(len(head))
