"""The routes of batches."""

import json
import logging
from dataclasses import dataclass, field, replace
from time import time
from typing import Any

import pytest

from functions.api.batches import Batches
from shared.domain.batches import BatchState
from shared.domain.endpoint.config import BackendChoice, EndpointConfig, Experiment, Variant
from shared.domain.errors import BackendError, BackendUnavailable, SourceNotFound
from shared.domain.jobs import Job, JobProblem, JobResult, ObjectRef, Outcome
from shared.domain.principal import Principal
from shared.domain.uploads import ObjectHead
from shared.usecases.manage_jobs import ManageJobs
from shared.usecases.sources import Sources
from shared.usecases.start_batch import CheckTarget, StartBatch
from shared.web.lambda_handler import lambda_handler
from tests.fakes import InMemoryModels, MemoryJobs
from tests.functions.api_parts import api_application
from tests.functions.support import CALLER, Function, published

UPLOAD = "a" * 32


class Objects:
    """An object store with what it is given, and addresses of objects."""

    def __init__(self) -> None:
        self.heads: dict[str, ObjectHead] = {}

    def head(self, ref: ObjectRef) -> ObjectHead:
        if ref.key not in self.heads:
            raise SourceNotFound("There is no such object.")
        return self.heads[ref.key]

    def url(self, ref: ObjectRef, seconds: int, *, media_type: str, file_name: str) -> str:
        return f"https://objects/{ref.key}?type={media_type}&seconds={seconds}"


@dataclass
class Queue:
    sent: list[tuple[str, str]] = field(default_factory=list)

    def send(self, job: Job, step: str, parts: Any = ()) -> None:
        self.sent.append((job.job_id, step))

    def quiet(self) -> bool:
        return not self.sent


@dataclass
class House:
    objects: Objects
    jobs: MemoryJobs
    queue: Queue
    function: Function
    configs: dict[str, EndpointConfig | BackendError]

    def start(self, model: str = "pair", principal: Principal = CALLER, **body: Any) -> Any:
        return self.function("POST", f"/v1/models/{model}/batches", body=body, principal=principal)


@pytest.fixture
def house() -> House:
    objects, jobs, queue = Objects(), MemoryJobs(), Queue()
    objects.heads[f"uploads/{CALLER.tenant}/{UPLOAD}"] = ObjectHead(7, "text/csv", 4e9, "e", "v7", name="rows.csv.gz")
    parts: Any = objects
    manage = ManageJobs(jobs, None, parts, lambda _: None)  # type: ignore[arg-type]
    models = InMemoryModels(published("pair", 1), published("pair", 2))
    configs: dict[str, EndpointConfig | BackendError] = {}

    def config_of(model: str) -> EndpointConfig:
        config = configs.get(model, EndpointConfig(model))
        if isinstance(config, BackendError):
            raise config
        return config

    check = CheckTarget(models, config_of)
    batches = Batches(Sources(objects, "data"), check, StartBatch(jobs, queue), manage, parts, "data")
    app = api_application(logging.getLogger("batches"), models, batches=batches, jobs=manage)
    return House(objects, jobs, queue, Function(lambda_handler(app)), configs)


def test_a_batch_is_taken_on(house: House) -> None:
    answer = house.start(upload_id=UPLOAD, max_error_share=0.25)
    assert answer.status == 202
    document = answer.json
    assert answer.headers["location"] == f"/v1/jobs/{document['job_id']}"
    assert (document["kind"], document["state"], document["model"]["name"]) == ("batch", "queued", "pair")
    assert document["batch"]["format"] == "csv"
    assert document["batch"]["packed"] is True
    assert document["batch"]["max_error_share"] == 0.25
    assert house.queue.sent == [(document["job_id"], "plan")]
    job = house.jobs.get(CALLER.tenant, document["job_id"])
    assert job.request.source == ObjectRef("data", f"uploads/{CALLER.tenant}/{UPLOAD}", "v7")
    assert BatchState.decode(job.batch).name == "rows.csv.gz"


def test_the_format_may_be_said_and_gives_the_output_its_name(house: House) -> None:
    answer = house.start(upload_id=UPLOAD, format="jsonl")
    job = house.jobs.get(CALLER.tenant, answer.json["job_id"])
    assert BatchState.decode(job.batch).name == "rows.jsonl"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "missing_field"),
        ({"upload_id": UPLOAD, "s3_uri": "s3://data/batch/in/x"}, 422, "missing_field"),
        ({"upload_id": "b" * 32}, 404, "upload_not_found"),
        ({"s3_uri": "s3://data/uploads/another/thing.csv"}, 404, "source_not_found"),
        ({"upload_id": UPLOAD, "max_error_share": 1.5}, 422, "out_of_range"),
        ({"upload_id": UPLOAD, "format": "xlsx"}, 422, None),
        ({"upload_id": UPLOAD, "version": 9}, 404, "version_not_found"),
        ({"upload_id": UPLOAD, "colour": "red"}, 422, "unknown_field"),
    ],
)
def test_what_cannot_be_a_batch_is_refused(house: House, body: dict[str, Any], status: int, code: str | None) -> None:
    answer = house.start(**body)
    assert answer.status == status
    assert code in (None, answer.json["code"])
    assert house.queue.sent == []


def test_a_batch_needs_the_scope_and_the_model(house: House) -> None:
    assert house.start(principal=replace(CALLER, scopes=frozenset({"ingest"})), upload_id=UPLOAD).status == 403
    assert house.start("absent", upload_id=UPLOAD).json["code"] == "model_not_found"
    other = replace(CALLER, tenant="another", scopes=frozenset({"predict"}))
    assert house.start(principal=other, upload_id=UPLOAD).json["code"] == "upload_not_found"


def test_manifest_and_errors_are_elsewhere_once_there_are_any(house: House) -> None:
    job_id = house.start(upload_id=UPLOAD).json["job_id"]
    job = house.jobs.get(CALLER.tenant, job_id)
    state = BatchState(source="s3://data/k", name="rows.csv", manifest="batch/out/m.json", errors="batch/out/e.jsonl")
    result = JobResult("text/csv", 3, stored=ObjectRef("data", "batch/out/rows.csv"))
    house.jobs.finish(job.job_id, Outcome("succeeded", result=result, batch=state.encode()), 5.0)
    found = house.function("GET", f"/v1/jobs/{job_id}/manifest")
    assert (found.status, found.headers["location"].partition("?")[0]) == (303, "https://objects/batch/out/m.json")
    assert house.function("GET", f"/v1/jobs/{job_id}/errors").status == 303
    other = replace(CALLER, tenant="another")
    assert house.function("GET", f"/v1/jobs/{job_id}/manifest", principal=other).status == 404
    shown = house.function("GET", f"/v1/jobs/{job_id}").json
    assert shown["batch"]["manifest"] is True
    assert json.dumps(shown).count("batch/out/m.json") == 0


ASYNC = BackendChoice("sagemaker-async")


def endpoint(*variants: Variant, **more: Any) -> EndpointConfig:
    return EndpointConfig("pair", variants, backends={"slow": ASYNC}, **more)


OLD, NEW = Variant("old", 1, "function", 1.0), Variant("new", 2, "slow", 1.0)
LATER = "pair runs on slow, which answers later: batches need a backend that answers at once."


@pytest.mark.parametrize(
    ("config", "version"),
    [
        (endpoint(Variant("main", backend="slow")), None),
        (endpoint(Variant("main", backend="slow")), 2),
        (endpoint(replace(OLD, weight=0.0), NEW), None),
        (endpoint(OLD, NEW), 2),
        (endpoint(OLD, NEW, labels={"next": 2}), "next"),
    ],
)
def test_a_batch_for_a_backend_that_answers_later_is_refused_at_once(
    house: House, config: EndpointConfig, version: Any
) -> None:
    house.configs["pair"] = config
    answer = house.start(upload_id=UPLOAD, version=version)
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    assert answer.json["detail"] == f"{LATER} Choose a version of another variant."
    assert house.queue.sent == []


@pytest.mark.parametrize(
    ("config", "version"),
    [
        (endpoint(OLD, NEW), None),  # which one it is, the plan draws
        (endpoint(OLD, NEW), 1),
        (endpoint(NEW, replace(OLD, weight=0.0), experiment=Experiment("e", "tenant", {"old": 1, "new": 1})), None),
        (endpoint(OLD, NEW, labels={"prod": 1}), "prod"),
        (EndpointConfig("pair"), 2),
        (BackendUnavailable("The store is away."), None),
        (BackendUnavailable("The store is away."), "prod"),
    ],
)
def test_a_batch_that_may_run_is_taken_on(house: House, config: Any, version: Any) -> None:
    house.configs["pair"] = config
    assert house.start(upload_id=UPLOAD, version=version).status == 202


def test_a_version_that_no_request_may_have_is_refused_at_once(house: House) -> None:
    assert house.start(upload_id=UPLOAD, version="prod").json["code"] == "version_not_found"
    house.configs["pair"] = endpoint(OLD, explicit_versions="none")
    answer = house.start(upload_id=UPLOAD, version=1)
    assert (answer.status, answer.json["code"]) == (403, "version_not_allowed")
    house.configs["pair"] = BackendUnavailable("The store is away.")
    assert house.start(upload_id=UPLOAD, version=3).json["code"] == "version_not_found"
    assert house.queue.sent == []


@pytest.mark.parametrize(("which", "it"), [("manifest", "manifest"), ("errors", "list of errors")])
def test_a_run_without_manifest_or_errors_says_why_and_what_to_do(house: House, which: str, it: str) -> None:
    job_id = house.start(upload_id=UPLOAD).json["job_id"]
    path = f"/v1/jobs/{job_id}"
    again = f"POST {path}/retry goes on from the parts that are done."

    def told() -> str:
        answer = house.function("GET", f"{path}/{which}")
        assert (answer.status, answer.json["code"]) == (409, "no_result")
        return str(answer.json["detail"])

    assert told() == f"The run is queued: it has a {it} once it has ended. GET {path} shows how far it is."
    assert house.function("DELETE", path).status == 200
    assert told() == f"The run was cancelled: there is no {it} of it. {again}"
    house.jobs.restart(CALLER.tenant, job_id, time())
    problem = JobProblem("job_expired", "Job expired", "It did not begin in time.")
    house.jobs.finish(job_id, Outcome("failed", problem=problem), 6.0)
    assert told() == f"The run failed (job_expired), and there is no {it} of it. GET {path} has its problem. {again}"


def test_a_run_without_wrong_rows_has_no_errors(house: House) -> None:
    job_id = house.start(upload_id=UPLOAD).json["job_id"]
    state = BatchState(source="s3://data/k", name="rows.csv", manifest="batch/out/m.json")
    result = JobResult("text/csv", 3, stored=ObjectRef("data", "batch/out/rows.csv"))
    house.jobs.finish(job_id, Outcome("succeeded", result=result, batch=state.encode()), 5.0)
    answer = house.function("GET", f"/v1/jobs/{job_id}/errors")
    assert answer.json["detail"].startswith("No row of the batch is wrong")


def test_a_job_that_is_no_batch_has_no_manifest(house: House) -> None:
    started = house.jobs.get(CALLER.tenant, house.start(upload_id=UPLOAD).json["job_id"])
    house.jobs.add(replace(started, job_id="c" * 32, kind="prediction", batch=None))
    answer = house.function("GET", f"/v1/jobs/{'c' * 32}/manifest")
    assert answer.json["detail"].startswith("The job is no batch, and only batches have a manifest")
