"""`sluice batch run` against an HTTP server that answers like the API and the storage behind it."""

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from infra.cli import batch, job_progress
from shared.domain.batches import BatchState
from shared.domain.jobs import Job, JobProblem, JobResult, ObjectRef
from shared.schemas.batches import BatchRequest
from shared.schemas.jobs import job_json
from tests.cli.conftest import Cli, Server
from tests.usecases.test_redrive_jobs import job as new_job

UPLOAD_ID = "0" * 32
OUTPUT = b"1,2,\r\n3,4,\r\n"
STATE = BatchState(source="s3://data/uploads/u", name="rows.csv", format="csv")
JOB = replace(new_job("queued", attempts=0, problem=None), kind="batch", batch=STATE.encode())
ENDED = BatchState(
    source=STATE.source, name="rows.csv", format="csv", parts=1, rows_failed=1, manifest="m", errors="e"
).encode()
DONE = replace(
    JOB,
    state="succeeded",
    rows_total=2,
    rows_done=2,
    version=3,
    started_at=JOB.created_at,
    finished_at=JOB.created_at + 4,
    cost_nusd=1500,
    result=JobResult("text/csv", len(OUTPUT), stored=ObjectRef("data", "batch/out/rows.csv")),
    batch=ENDED,
)
ERROR = {"row": 1, "pointer": "/0", "detail": "must be a number", "code": "wrong_dtype"}


def manifest(output: bytes = OUTPUT) -> dict[str, Any]:
    return {
        "rows": {"total": 2, "done": 2, "succeeded": 1, "failed": 1},
        "errors": [ERROR],
        "errors_uri": "s3://data/batch/out/errors.jsonl",
        "output": {"size": len(output), "sha256": sha256(output).hexdigest()},
    }


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    follow: Callable[..., Any] = job_progress.follow
    monkeypatch.setattr("infra.cli.batch.follow", lambda api, job_id: follow(api, job_id, pause=lambda _: None))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("1,2\nx,4\n")
    return path


def serve(server: Server, end: Job, told: dict[str, Any] | None = None) -> None:
    upload = {"upload_id": UPLOAD_ID, "url": f"{server.url}/put", "method": "PUT", "headers": {}, "expires_at": ""}
    server.on("POST /v1/uploads", upload, 201)
    server.on("PUT /put", b"")
    server.on(f"GET /v1/uploads/{UPLOAD_ID}", {"upload_id": UPLOAD_ID})
    server.on("POST /v1/models/tumor/batches", json.loads(job_json(JOB)), 202)
    server.on(f"GET /v1/jobs/{JOB.job_id}", json.loads(job_json(end, f"{server.url}/output")))
    server.on("GET /output", OUTPUT)
    for which, content in (("manifest", told or manifest()), ("errors", json.dumps(ERROR).encode())):
        server.on(f"GET /v1/jobs/{JOB.job_id}/{which}", b"", 303, {"Location": f"{server.url}/{which}"})
        server.on(f"GET /{which}", content)


def test_a_file_is_uploaded_run_and_fetched(cli: Cli, server: Server, file: Path) -> None:
    serve(server, DONE)
    result = cli("batch", "run", "tumor", str(file), "--max-error-share", "0.5", "--version", "3")
    assert result.exit_code == 0, result.stderr
    (asked,) = (request for request in server.requests if request.path == "/v1/models/tumor/batches")
    assert BatchRequest.model_validate_json(asked.body) == BatchRequest(
        upload_id=UPLOAD_ID, format="csv", max_error_share=0.5, version=3
    )
    output = file.with_name("rows.predictions.csv")
    assert output.read_bytes() == OUTPUT
    assert json.loads(output.with_name(f"{output.name}.manifest.json").read_text()) == manifest()
    assert json.loads(output.with_name(f"{output.name}.errors.jsonl").read_text()) == ERROR
    assert "2 of 2" in result.stdout
    assert "4.0 s" in result.stdout
    assert "row 1: wrong_dtype" in result.stderr
    # The key is the API's alone.
    assert all("authorization" not in each.headers for each in server.requests if not each.path.startswith("/v1/"))


def test_without_waiting_the_id_is_printed(cli: Cli, server: Server, file: Path) -> None:
    serve(server, JOB)
    result = cli("batch", "run", "tumor", str(file), "--no-wait")
    assert (result.exit_code, result.stdout.strip()) == (0, JOB.job_id)


def test_an_output_with_other_bytes_is_no_result(cli: Cli, server: Server, file: Path) -> None:
    serve(server, DONE, manifest(b"other"))
    result = cli("batch", "run", "tumor", str(file))
    assert (result.exit_code, "other bytes" in result.stderr) == (1, True)


def test_a_failed_run_is_a_failure_with_its_manifest(cli: Cli, server: Server, file: Path) -> None:
    problem = JobProblem("too_many_errors", "Too many wrong rows", "2 of 2 rows are wrong")
    serve(server, replace(DONE, state="failed", result=None, problem=problem), {**manifest(), "output": None})
    file.with_name("rows.predictions.csv").write_text("of an earlier run")
    result = cli("batch", "run", "tumor", str(file))
    assert (result.exit_code, "Too many wrong rows" in result.stderr) == (1, True)
    assert "--max-error-share" in result.stderr
    assert file.with_name("rows.predictions.csv.manifest.json").exists()
    assert not file.with_name("rows.predictions.csv").exists()


def test_interrupted_the_run_goes_on(cli: Cli, server: Server, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(server, JOB)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "follow", interrupted)
    result = cli("batch", "run", "tumor", str(file))
    assert (result.exit_code, f"sluice jobs show {JOB.job_id} --follow" in result.stderr) == (130, True)
    assert not any(request.method == "DELETE" for request in server.requests)


def test_what_is_no_file_of_rows_is_told_before_anything_is_sent(cli: Cli, server: Server, tmp_path: Path) -> None:
    other = tmp_path / "rows.xlsx"
    other.write_text("1")
    rows = tmp_path / "rows.csv"
    rows.write_text("1,2\n")
    assert cli("batch", "run", "tumor", str(other)).exit_code == 2
    assert cli("batch", "run", "tumor", str(tmp_path / "absent.csv")).exit_code == 2
    assert cli("batch", "run", "tumor", str(rows), "--output", str(rows)).exit_code == 2
    assert server.requests == []
