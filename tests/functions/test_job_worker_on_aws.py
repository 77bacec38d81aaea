"""The job worker as its composition root makes it: real queues, a real table, and a process that is killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from time import monotonic, sleep, time

import pytest

from functions.job_worker import bootstrap
from shared.domain.jobs import JobRequest, Outcome
from tests.adapters.sagemaker_server import Answer, Call, SageMakerServer, container, sagemaker_error
from tests.adapters.samples import unique
from tests.conftest import ROOT
from tests.functions.job_stage import Stage
from tests.functions.support import LambdaContextStub, published
from tests.models import slow_model
from tests.usecases.job_runs import JSON, SIGNATURE, job_of, tenfold

pytestmark = pytest.mark.usefixtures("keep_loggers")

CONTEXT = LambdaContextStub(left_ms=60_000)


@pytest.fixture
def sagemaker(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[SageMakerServer]:
    server = SageMakerServer()
    stage.environment["AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"] = server.url
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", server.url)
    yield server
    server.close()


def test_jobs_come_from_the_queue_and_their_results_into_the_table(stage: Stage, tmp_path: Path) -> None:
    model = stage.publish(tmp_path)
    body = json.dumps({"instances": [[at, 0] for at in range(3000)]}).encode()
    small = stage.submit(job_of(2, model=model))
    ref = stage.objects.put_body("acme", unique("job"), body, "application/json")
    large = stage.submit(job_of(model=model, request=JobRequest(None, {**JSON, "accept": "text/csv"}, None, ref)))
    wrong = stage.submit(job_of(model=model, body=b'{"instances": [[1]]}'))
    stage.sqs.send_message(QueueUrl=stage.url, MessageBody="poison")
    worker = bootstrap.build(stage.environment)
    event = stage.receive()
    assert len(event["Records"]) == 4
    answer = worker(event, CONTEXT)
    assert answer == {"batchItemFailures": []}
    done = stage.now(small)
    assert done.state == "succeeded"
    assert done.result is not None
    assert json.loads(done.result.inline or b"")["predictions"] == [[1, 1], [2, 0]]
    assert done.cost_nusd
    assert done.cost_nusd > 0
    stored = stage.now(large).result
    assert stored is not None
    assert stored.media_type.startswith("text/csv")
    problem = stage.now(wrong).problem
    assert problem is not None
    assert problem.fields
    (letter,) = stage.letters()
    assert letter["Body"] == "poison"
    assert letter["MessageAttributes"]["Reason"]["StringValue"] == "unreadable_message"
    stage.delete(event, answer)
    assert stage.counts() == (0, 0)


def test_a_retry_waits_hidden_in_the_queue_and_the_last_one_leaves_a_letter(
    stage: Stage, sagemaker: SageMakerServer
) -> None:
    sagemaker.script = lambda _: sagemaker_error(503, "ServiceUnavailable")
    job = stage.submit(job_of(model=stage.elsewhere("sagemaker")))
    event = stage.receive()
    worker = bootstrap.build(stage.environment)
    answer = worker(event, CONTEXT)
    assert len(answer["batchItemFailures"]) == 1
    stage.delete(event, answer)
    assert stage.counts() == (0, 1)
    assert (stage.now(job).state, stage.now(job).attempts) == ("queued", 1)
    for _ in range(4):
        answer = worker(event, CONTEXT)
    assert answer == {"batchItemFailures": []}
    assert stage.now(job).state == "failed"
    (letter,) = stage.letters()
    assert json.loads(letter["Body"]) == {"job_id": job.job_id}
    assert letter["MessageAttributes"]["Reason"]["StringValue"] == stage.now(job).problem.code  # type: ignore[union-attr]
    assert letter["MessageAttributes"]["Attempts"]["StringValue"] == "5"


def test_a_worker_that_is_killed_in_the_middle_leaves_its_job_to_the_next_one(
    stage: Stage, sagemaker: SageMakerServer
) -> None:
    running, over = Event(), Event()
    model = stage.elsewhere("sagemaker")
    version = published(model, signature=SIGNATURE)

    def held(call: Call) -> Answer | None:
        running.set()
        over.wait(30)
        return None

    sagemaker.script = held
    job = stage.submit(job_of(3, model=model))
    event = stage.receive()
    environment = {**os.environ, **stage.environment}
    command = [sys.executable, "-m", "tests.functions.job_worker_process"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.stdin.write(json.dumps(event) + "\n")
            process.stdin.flush()
            assert running.wait(30)
            process.send_signal(signal.SIGKILL)
            assert process.wait(30) == -signal.SIGKILL
        finally:
            process.kill()
            over.set()
    left = stage.now(job)
    assert (left.state, left.attempts) == ("running", 1)
    assert left.lease_until is not None
    assert left.lease_until < time() + 20
    # Its message is hidden for half a minute, and its job held for less: by then both are free.
    assert stage.counts() == (0, 1)
    sagemaker.script = container(version, tenfold)
    worker = bootstrap.build(stage.environment)
    assert worker(event, CONTEXT) == {"batchItemFailures": []}  # a message that came twice, too early
    assert stage.now(job).state == "running"
    stage.lapse(job)
    assert worker(event, CONTEXT) == {"batchItemFailures": []}
    done = stage.now(job)
    assert (done.state, done.attempts) == ("succeeded", 2)
    assert done.result is not None
    assert json.loads(done.result.inline or b"")["predictions"] == [[1, 1], [11, -9], [21, -19]]
    before = done
    assert worker(event, CONTEXT) == {"batchItemFailures": []}
    assert stage.now(job) == before


def test_a_job_that_is_cancelled_while_it_runs_ends_its_run(
    stage: Stage, sagemaker: SageMakerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = Event()
    model = stage.elsewhere("sagemaker")
    job = stage.submit(job_of(model=model))

    def held(call: Call) -> Answer | None:
        assert stage.jobs.finish(job.job_id, Outcome("cancelled"), time())
        over.wait(30)
        return None

    sagemaker.script = held
    worker = bootstrap.build(stage.environment)
    monkeypatch.setattr(worker, "_beat_s", 0.05)
    try:
        assert worker(stage.receive(), CONTEXT) == {"batchItemFailures": []}
        assert (stage.now(job).state, stage.now(job).result) == ("cancelled", None)
    finally:
        over.set()


def test_a_run_in_the_function_is_stopped_between_two_operators(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = stage.publish(tmp_path, slow_model(), 1)
    hours = stage.submit(job_of(model=model, body=b'{"instances": [[1e9]]}'))
    short = stage.submit(job_of(model=model, body=b'{"instances": [[3]]}'))
    worker = bootstrap.build(stage.environment)
    monkeypatch.setattr(worker, "_beat_s", 0.05)
    event = stage.receive()
    event["Records"].sort(key=lambda record: hours.job_id not in record["body"])
    beat = worker._hold.beat

    def cancel_and_beat() -> None:
        if stage.now(hours).state == "running":
            assert stage.jobs.finish(hours.job_id, Outcome("cancelled"), time())
        beat()

    monkeypatch.setattr(worker._hold, "beat", cancel_and_beat)
    assert worker(event, CONTEXT) == {"batchItemFailures": []}
    assert (stage.now(hours).state, stage.now(short).state) == ("cancelled", "succeeded")
    runner = worker._run._with.runner
    give_up = monotonic() + 30
    while runner.under_way("jobs"):  # hours, if it ran to its end
        assert monotonic() < give_up
        sleep(0.01)
