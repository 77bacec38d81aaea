"""`sluice jobs` against an HTTP server that answers like the API."""

import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from infra.cli import job_progress
from infra.cli.api_client import Api
from shared.domain.batches import BatchState
from shared.domain.errors import FieldError
from shared.domain.jobs import Job, JobPage, JobProblem, JobResult, JobState, JobSummary, ObjectRef
from shared.schemas.jobs import JobList, JobSource, job_json
from shared.web.problems import problem
from tests.cli.conftest import Cli, Server
from tests.usecases.test_redrive_jobs import job as new_job

UPLOAD_ID = "0" * 32
JOB = new_job("queued", attempts=0, problem=None)
ID = JOB.job_id
SUBMIT = "POST /v1/models/tumor/jobs"
GET = f"GET /v1/jobs/{ID}"
DONE = replace(
    JOB,
    state="succeeded",
    attempts=1,
    version=3,
    variant="main",
    backend="function",
    rows_total=2,
    rows_done=2,
    started_at=JOB.created_at + 1,
    finished_at=JOB.created_at + 2,
    cost_nusd=1500,
    result=JobResult("application/json", 19, inline=b'{"predictions":[1]}'),
)
FAILED = replace(
    JOB,
    state="failed",
    problem=JobProblem("wrong_shape", "Wrong shape", "A row is too short.", (FieldError("/0", "has 29"),)),
)


def document(job: Job, url: str | None = None) -> Any:
    return json.loads(job_json(job, url))


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody waits in a test; the pauses that would have been."""
    pauses: list[float] = []
    follow: Callable[..., Any] = job_progress.follow
    monkeypatch.setattr("infra.cli.jobs.follow", lambda api, job_id: follow(api, job_id, pause=pauses.append))
    return pauses


@pytest.fixture
def body(tmp_path: Path) -> Path:
    path = tmp_path / "body.json"
    path.write_text('{"instances": [[1]]}')
    return path


def test_a_small_file_is_sent_with_the_request(cli: Cli, server: Server, body: Path) -> None:
    server.on(SUBMIT, document(JOB), 202)
    result = cli("jobs", "submit", "tumor", str(body))
    assert (result.exit_code, result.stdout.strip()) == (0, ID)
    (sent,) = server.requests
    assert (sent.body, sent.headers["content-type"]) == (body.read_bytes(), "application/json")
    assert sent.headers["authorization"] == "Bearer sluice_local_key"
    assert cli.json("jobs", "submit", "tumor", str(body))["job_id"] == ID


def test_version_type_and_accept_are_the_request_s(cli: Cli, server: Server, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("1,2\n")
    server.on("POST /v1/models/tumor/versions/prod/jobs", document(JOB), 202)
    options = ("--version", "prod", "--accept", "application/x-npy")
    assert cli("jobs", "submit", "tumor", str(rows), *options).exit_code == 0
    assert cli("jobs", "submit", "tumor", str(rows), *options, "--media-type", "text/csv;header=absent").exit_code == 0
    assert [sent.headers["content-type"] for sent in server.requests] == ["text/csv", "text/csv;header=absent"]
    assert {sent.headers["accept"] for sent in server.requests} == {"application/x-npy"}


def test_a_large_file_is_uploaded_first(cli: Cli, server: Server, body: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded: list[tuple[Path, str | None]] = []

    def upload(_api: Any, path: Path, media_type: str | None) -> dict[str, str]:
        uploaded.append((path, media_type))
        return {"upload_id": UPLOAD_ID}

    monkeypatch.setattr("infra.cli.transfers.upload", upload)
    server.on(SUBMIT, document(JOB), 202)
    assert cli("jobs", "submit", "tumor", str(body), "--upload").exit_code == 0
    large = body.with_name("large.npy")
    large.write_bytes(bytes(4_000_001))
    assert cli("jobs", "submit", "tumor", str(large), "--media-type", "application/x-npy").exit_code == 0
    assert uploaded == [(body, None), (large, "application/x-npy")]
    for sent in server.requests:
        assert JobSource.model_validate_json(sent.body).upload_id == UPLOAD_ID


def test_a_job_is_followed_to_its_result(
    cli: Cli, server: Server, body: Path, tmp_path: Path, quickly: list[float]
) -> None:
    server.on(SUBMIT, document(JOB), 202)
    server.on(GET, document(JOB))
    server.then(GET, document(replace(JOB, state="running", rows_total=2, rows_done=1)))
    server.then(GET, {"message": "Service Unavailable"}, 503)
    server.then(GET, document(DONE))
    server.on(f"GET /v1/jobs/{ID}/result", b'{"predictions":[1]}')
    target = tmp_path / "deep" / "result.json"
    result = cli("jobs", "submit", "tumor", str(body), "--wait", "--result", str(target))
    assert result.exit_code == 0, result.stderr
    assert target.read_bytes() == b'{"predictions":[1]}'
    assert list(target.parent.iterdir()) == [target]
    assert quickly == [0.2, 0.3, 0.5]
    for part in ("succeeded", "tumor 3 main function", "2/2", "0.000001500 USD", "application/json, 19 B"):
        assert part in result.stdout
    assert cli.json("jobs", "submit", "tumor", str(body), "--wait")["result"]["document"] == {"predictions": [1]}


def test_a_large_result_comes_from_storage_without_the_key(cli: Cli, server: Server, tmp_path: Path) -> None:
    stored = JobResult("application/x-npy", 300_000, stored=ObjectRef("b", "k"))
    server.on(GET, document(replace(DONE, result=stored), url=f"{server.url}/storage?X-Amz-Signature=0"))
    content = bytes(300_000)
    server.on("GET /storage?X-Amz-Signature=0", content)
    target = tmp_path / "result.npy"
    assert cli("jobs", "show", ID, "--result", str(target)).exit_code == 0
    assert target.read_bytes() == content
    assert "authorization" not in server.requests[-1].headers


def test_a_result_that_cannot_be_fetched_leaves_the_file_as_it_was(cli: Cli, server: Server, tmp_path: Path) -> None:
    server.on(
        GET, document(replace(DONE, result=JobResult("a/b", 3, stored=ObjectRef("b", "k"))), f"{server.url}/gone")
    )
    refusal = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
    server.on("GET /gone", refusal, 403)
    target = tmp_path / "result"
    target.write_text("before")
    result = cli("jobs", "show", ID, "--result", str(target))
    assert result.exit_code == 1
    assert "AccessDenied: Request has expired" in result.stderr
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()} == {"result": "before"}


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (FAILED, f"The job {ID} failed: A row is too short.\n  /0: has 29\n"),
        (replace(JOB, state="cancelled"), "was cancelled"),
    ],
    ids=["failed", "cancelled"],
)
def test_a_job_that_did_not_succeed_is_a_failure_for_who_waits(
    cli: Cli, server: Server, tmp_path: Path, job: Job, said: str
) -> None:
    server.on(GET, document(job))
    assert cli("jobs", "show", ID).exit_code == 0  # who only looks is told
    target = tmp_path / "result"
    for options in (("--follow",), ("--result", str(target)), ("--follow", "--result", str(target))):
        result = cli("jobs", "show", ID, *options)
        assert (result.exit_code, said in result.stderr) == (1, True)
    quiet = cli("jobs", "show", ID, "--follow", "--json")
    assert (quiet.exit_code, json.loads(quiet.stdout)["state"], quiet.stderr) == (1, job.state, "")
    assert not target.exists()


def test_a_problem_is_told_by_who_only_looks_and_once_by_who_waits(cli: Cli, server: Server) -> None:
    server.on(GET, document(FAILED))
    looked = cli("jobs", "show", ID)
    assert "problem     wrong_shape: A row is too short. /0: has 29\n" in looked.stdout
    waited = cli("jobs", "show", ID, "--follow")
    assert "problem     wrong_shape\n" in waited.stdout
    assert (waited.stdout + waited.stderr).count("too short") == 1


def test_ctrl_c_ends_the_waiting_and_not_the_job(
    cli: Cli, server: Server, body: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("infra.cli.jobs.follow", interrupted)
    server.on(SUBMIT, document(JOB), 202)
    for arguments in (("submit", "tumor", str(body), "--wait"), ("show", ID, "--follow")):
        result = cli("jobs", *arguments)
        assert (result.exit_code, f"sluice jobs show {ID} --follow" in result.stderr) == (130, True)
    assert not any(request.method == "DELETE" for request in server.requests)


def test_a_terminal_shows_that_it_lives(cli: Cli, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    written = io.StringIO()
    monkeypatch.setattr(job_progress, "messages", Console(file=written, force_terminal=True, width=80))
    server.on(GET, document(replace(JOB, state="running", rows_total=2000)))

    def pause(_: float) -> None:
        deadline = time.monotonic() + 10
        while "0/2,000 rows" not in written.getvalue() and time.monotonic() < deadline:
            time.sleep(0.02)
        server.on(GET, document(DONE))

    api = Api(server.url, "key")
    assert job_progress.follow(api, ID, pause=pause)["state"] == "succeeded"
    seen = written.getvalue()
    assert any(frame in seen for frame in "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
    assert "running" in seen
    assert "0:00:00" in seen
    assert "0/2,000 rows" in seen


def test_a_batch_shows_its_wrong_rows_and_where_its_files_are(cli: Cli, server: Server, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "source": "s3://data/uploads/u",
        "name": "r.csv",
        "format": "csv",
        "max_error_share": 0.05,
        "size": 1200,
    }
    batch = replace(DONE, kind="batch", result=JobResult("text/csv", 12, stored=ObjectRef("data", "out.csv")))
    ended = BatchState(**given, parts=3, rows_failed=1, manifest="m", errors="e").encode()
    server.on(GET, document(replace(batch, batch=ended), f"{server.url}/output"))
    shown = cli("jobs", "show", ID).stdout
    address = f"{server.url}/v1/jobs/{ID}"
    for fact in (
        "wrong rows      1 (at most 5% of the rows may be)",
        "input           s3://data/uploads/u (csv, 1.2 kB)",
        "parts           3",
        f"output          {address}/result (text/csv, 12 B)",
        f"manifest        {address}/manifest",
        f"all wrong rows  {address}/errors",
    ):
        assert f"{fact}\n" in shown
    server.on("GET /output", b"1,2\r\n3,\r\n\r\n")
    manifest = {"errors_uri": "s3://x", "output": {"sha256": sha256(b"1,2\r\n3,\r\n\r\n").hexdigest()}}
    for name, content in (("manifest", json.dumps(manifest).encode()), ("errors", b"{}")):
        server.on(f"GET /v1/jobs/{ID}/{name}", b"", 303, {"Location": f"{server.url}/{name}"})
        server.on(f"GET /{name}", content)
    target = tmp_path / "out" / "p.csv"
    assert cli("jobs", "show", ID, "--result", str(target)).exit_code == 0
    assert {path.name for path in target.parent.iterdir()} == {"p.csv", "p.csv.manifest.json", "p.csv.errors.jsonl"}
    server.on(GET, document(replace(batch, state="running", result=None, batch=BatchState(**given).encode())))
    running = cli("jobs", "show", ID).stdout
    assert "at most 5% of the rows may be" in running
    assert "manifest" not in running


@pytest.mark.parametrize("columns", ["80", "60"])
def test_ids_and_times_stay_whole_in_a_narrow_terminal(cli: Cli, server: Server, columns: str) -> None:
    server.on("GET /v1/jobs?limit=20", page(None, *(summary(number, "failed") for number in range(3))))
    listed = cli("jobs", "list", env={"COLUMNS": columns})
    rows = listed.stdout.splitlines()[1:]
    assert [row.split()[0] for row in rows] == [f"{number:032x}" for number in range(3)]
    assert all(len(row) <= int(columns) and " failed" in row for row in rows)
    assert all(("2027-01-15 08:00:00Z" in row) is (columns == "80") for row in rows)
    assert listed.stderr.startswith("Too narrow for: kind, ended, problem")
    server.on(GET, document(DONE))
    assert ID in cli("jobs", "show", ID, env={"COLUMNS": columns}).stdout


def test_the_result_of_an_unfinished_job_is_waited_for(cli: Cli, server: Server, tmp_path: Path) -> None:
    server.on(GET, document(JOB))
    result = cli("jobs", "show", ID, "--result", str(tmp_path / "r"))
    assert (result.exit_code, "--follow" in result.stderr) == (1, True)


@pytest.mark.parametrize("status", [HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST])
def test_following_ends_with_a_failure_that_does_not_pass(
    cli: Cli, server: Server, status: HTTPStatus, quickly: list[float]
) -> None:
    answer = problem(status, code="job_not_found", title="Unknown job", detail="There is none.", request_id="r-1")
    server.on(GET, bytes(answer.body), status.value)
    result = cli("jobs", "show", ID, "--follow")
    assert (result.exit_code, quickly) == (1, [])
    assert result.stderr == f"Error: There is none.\n  job_not_found ({status.value}), request r-1\n"


def test_following_bears_failures_for_a_while_only(cli: Cli, server: Server, quickly: list[float]) -> None:
    server.on(GET, {"message": "Too Many Requests"}, 429)
    assert cli("jobs", "show", ID, "--follow").exit_code == 1
    assert len(quickly) == 15


def summary(number: int, state: JobState = "queued") -> JobSummary:
    return JobSummary(f"{number:032x}", "prediction", "tumor", state, JOB.created_at, rows_total=2, rows_done=number)


def page(cursor: str | None, *jobs: JobSummary) -> Any:
    return JobList.of(JobPage(jobs, cursor)).model_dump(mode="json")


def test_jobs_are_listed_with_filters(cli: Cli, server: Server) -> None:
    server.on(
        "GET /v1/jobs?state=failed%2Cqueued&model=tumor&kind=prediction&limit=2",
        page("2" * 32, summary(1, "failed"), summary(2)),
    )
    options = ("--state", "failed", "--state", "queued", "--model", "tumor", "--kind", "prediction", "--limit", "2")
    result = cli("jobs", "list", *options)
    assert result.exit_code == 0, result.stderr
    assert f"{1:032x}" in result.stdout
    assert "1/2" in result.stdout
    assert "There are more" in result.stderr
    assert [job["state"] for job in cli.json("jobs", "list", *options)["jobs"]] == ["failed", "queued"]


def test_all_jobs_are_listed_page_by_page(cli: Cli, server: Server) -> None:
    """Also past a page that is empty, which is not the end."""
    first, second = "1" * 32, "2" * 32
    server.on("GET /v1/jobs?limit=100", page(first, summary(1)))
    server.on(f"GET /v1/jobs?limit=100&cursor={first}", page(second))
    server.on(f"GET /v1/jobs?limit=100&cursor={second}", page(None, summary(2)))
    found = cli.json("jobs", "list", "--all")
    assert ([job["job_id"] for job in found["jobs"]], found["next"]) == ([f"{1:032x}", f"{2:032x}"], None)


def test_no_jobs_are_told(cli: Cli, server: Server) -> None:
    server.on("GET /v1/jobs?limit=20", page(None))
    result = cli("jobs", "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no such jobs" in result.stderr


def test_jobs_are_cancelled_and_retried(cli: Cli, server: Server) -> None:
    server.on(f"DELETE /v1/jobs/{ID}", document(replace(JOB, state="cancelled")))
    server.on(f"POST /v1/jobs/{ID}/retry", document(JOB))
    assert "is cancelled" in cli("jobs", "cancel", ID).stderr
    assert cli.json("jobs", "cancel", ID)["state"] == "cancelled"
    assert "is queued again" in cli("jobs", "retry", ID).stderr
    assert cli.json("jobs", "retry", ID)["state"] == "queued"


def test_a_refusal_is_told(cli: Cli, server: Server) -> None:
    answer = problem(
        HTTPStatus.CONFLICT, code="job_finished", title="Job has ended", detail="It did.", request_id="r-1"
    )
    server.on(f"DELETE /v1/jobs/{ID}", bytes(answer.body), 409)
    result = cli("jobs", "cancel", ID)
    assert (result.exit_code, result.stderr.startswith("Error: It did.\n  job_finished (409)")) == (1, True)


def test_wrong_usage(cli: Cli, body: Path) -> None:
    for arguments in (
        ("submit", "tumor", str(body), "--result", "x"),
        ("submit", "tumor", str(body.with_name("none"))),
        ("list", "--limit", "0"),
        ("list", "--state", "failed", "--state", "done"),
        ("list", "--kind", "other"),
    ):
        assert cli("jobs", *arguments).exit_code == 2
