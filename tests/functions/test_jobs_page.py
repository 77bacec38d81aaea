"""The page of jobs and uploads: its blocks run as they stand, against the functions and the local S3."""

import asyncio
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session
from pydantic import BaseModel, TypeAdapter

from functions.predict.bootstrap import application
from shared.adapters.aws import client
from shared.adapters.function_backend import FunctionBackend
from shared.adapters.onnx.package import OnnxPackage
from shared.adapters.s3_objects import S3Objects
from shared.adapters.s3_uploads import S3Uploads
from shared.domain.endpoint.config import FUNCTION
from shared.domain.jobs import Job, JobResult, Outcome
from shared.domain.ports import JobQueue
from shared.schemas.jobs import JobDocument, JobList, JobSource
from shared.schemas.uploads import UploadDocument
from shared.usecases.manage_jobs import ManageJobs
from shared.usecases.sources import Sources
from shared.usecases.submit_job import SubmitJob
from shared.usecases.uploads import Uploads
from tests.conftest import ROOT, LocalAws
from tests.fakes import InMemoryModels, MemoryJobObjects, MemoryJobs
from tests.functions.api_parts import api_application
from tests.functions.conftest import Serve
from tests.functions.parts import parts
from tests.functions.served import Folders
from tests.functions.support import CALLER, Answer, Function, event, predict_settings, published

PAGE = (ROOT / "docs" / "jobs.md").read_text("utf-8")
KEY = "sluice_page_key"
RESULT = b'{"predictions": [1]}'


class Done(JobQueue):
    """A queue whose worker is done at once; what came as an object waits."""

    def __init__(self, jobs: MemoryJobs) -> None:
        self._jobs = jobs

    def send(self, tenant: str, job_id: str, *, delay_s: float = 0.0) -> None:
        job = self._jobs.get(tenant, job_id)
        if job.request.inline is not None:
            result = JobResult("application/json", len(RESULT), inline=RESULT)
            self._jobs.finish(job_id, Outcome("succeeded", result=result), time.time())

    def waiting(self) -> int:
        return 0


class Api:
    """Both functions behind one address, which has what was answered."""

    def __init__(self, predict: Function, api: Function) -> None:
        self._predict = predict
        self._api = api
        self.answered: list[tuple[str, str, Answer]] = []
        front = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                front.answer(self)

            do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - names that http.server calls

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Keep the test's output clean."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def run(self) -> None:
        """Serve, on the one thread that the functions run on."""
        asyncio.set_event_loop(asyncio.new_event_loop())
        self.server.serve_forever(poll_interval=0.01)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path, _, query = request.path.partition("?")
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        headers = {name.lower(): value for name, value in request.headers.items()}
        made = event(request.command, path, None, body or None, headers, CALLER)
        made["rawQueryString"] = query
        function = self._predict if path.startswith("/v1/models/") else self._api
        answer = Answer.of(function.handler(made, function.context))
        self.answered.append((request.command, re.sub(r"[0-9a-f]{32}", "ID", path), answer))
        request.send_response(answer.status)
        for name, value in {**answer.headers, "content-length": str(len(answer.body))}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(answer.body)


@pytest.fixture
def uploads(local_aws: LocalAws, aws_session: Session) -> Uploads:
    s3 = client("s3", session=aws_session, endpoint_url=local_aws.url)
    bucket = local_aws.stack.resources["DataBucket"].name
    return Uploads(S3Uploads(lambda: s3), Sources(S3Objects(lambda: s3), bucket), bucket, url_s=900)


@pytest.fixture
def api(serve: Serve, log: logging.Logger, uploads: Uploads) -> Iterator[Api]:
    package = OnnxPackage.load(ROOT / "build" / "models" / "tumor" / "1", threads=1)
    registry = InMemoryModels(published("tumor", 1, signature=package.signature))
    jobs, objects = MemoryJobs(), MemoryJobObjects()
    submit = SubmitJob(jobs, Done(jobs), objects)
    made = parts(registry, {FUNCTION: FunctionBackend(Folders(package))}, submit=submit, sources=uploads.sources)
    manage = ManageJobs(jobs, Done(jobs), objects, _no_batches)
    front = Api(
        serve(application(predict_settings(), made, log)),
        serve(api_application(log, registry, jobs=manage, uploads=uploads)),
    )
    thread = threading.Thread(target=front.run)
    thread.start()
    yield front
    front.server.shutdown()
    front.server.server_close()
    thread.join()


def _no_batches(_: Job) -> None:
    raise AssertionError("there is no batch")


def blocks(language: str, text: str = PAGE) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def environment(api: Api) -> dict[str, str]:
    return {**os.environ, "URL": api.url, "KEY": KEY, "SLUICE_API_URL": api.url, "SLUICE_API_KEY": KEY}


def test_the_commands_do_what_the_page_says(api: Api, tmp_path: Path) -> None:
    local = tmp_path / "local.json"
    local.write_text(json.dumps({"api_key": KEY, "api_url": api.url, "pid": 1}, indent=2))
    result = tmp_path / "predictions.json"
    script = "".join(blocks("bash", PAGE.partition("## Dead letters")[0]))
    script = script.replace(".sluice/local.json", str(local)).replace("build/predictions.json", str(result))
    sluice = Path(sys.executable).with_name("sluice")
    script = script.replace(".venv/bin/sluice", str(sluice))
    done = subprocess.run(
        [shutil.which("bash") or "bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env=environment(api),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert result.read_bytes() == RESULT
    asked = [(method, path, answer.status) for method, path, answer in api.answered]
    assert asked[:4] == [
        ("POST", "/v1/models/tumor/jobs", 202),
        ("GET", "/v1/jobs/ID", 200),
        ("GET", "/v1/jobs/ID/result", 200),
        ("GET", "/v1/jobs", 200),
    ]
    assert asked[-4:] == [
        ("GET", "/v1/uploads/ID", 200),
        ("POST", "/v1/models/tumor/jobs", 202),
        ("DELETE", "/v1/jobs/ID", 200),
        ("POST", "/v1/jobs/ID/retry", 200),
    ]
    states = [answer.json["state"] for method, path, answer in api.answered if path != "/v1/jobs/ID/result"
              if path.startswith(("/v1/jobs/ID", "/v1/models"))]  # fmt: skip
    assert states[:2] == ["queued", "succeeded"]
    assert states[-3:] == ["queued", "cancelled", "queued"]
    for method, path, answer in api.answered:
        models: dict[str, type[BaseModel]] = {
            "/v1/jobs": JobList,
            "/v1/jobs/ID": JobDocument,
            "/v1/uploads/ID": UploadDocument,
        }
        if path in models and method == "GET":
            models[path].model_validate_json(answer.body)


def test_an_upload_needs_no_library(api: Api) -> None:
    (script,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment(api), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [(method, path, answer.status) for method, path, answer in api.answered] == [("POST", "/v1/uploads", 201)]
    upload_id = done.stdout.strip()
    assert api.answered[0][2].json["upload_id"] == upload_id


def test_the_sources_are_documents() -> None:
    sources = [TypeAdapter(JobSource).validate_json(text) for text in blocks("json")]
    assert [(bool(each.upload_id), bool(each.s3_uri)) for each in sources] == [(True, False), (False, True)]
