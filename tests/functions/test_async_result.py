"""Notices of asynchronous endpoints: each job ends once, whatever is late, lost, forged or too early."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from time import time
from typing import Any

import pytest
from aws_lambda_powertools.utilities.parser.models import SnsModel

from functions.async_result import bootstrap
from functions.async_result.notices import notices
from functions.job_worker import bootstrap as job_worker
from infra.local.aws_client import isolated_session, local_client
from infra.local.sagemaker_front.app import create_app
from infra.local.sagemaker_front.endpoints import AsyncConfig, Endpoint, Endpoints
from shared.domain import errors
from shared.domain.jobs import Job, Outcome
from shared.domain.model import ModelVersion
from shared.domain.tensors import Tensors
from shared.usecases import job_endings
from shared.usecases.async_results import AsyncNotice, TooEarly
from tests.adapters.sagemaker_server import Answer, SageMakerServer, container, problem
from tests.adapters.samples import unique
from tests.functions.job_stage import Stage
from tests.functions.support import LambdaContextStub, published
from tests.local.fronts import listening
from tests.usecases.job_runs import SIGNATURE, JobEnv, job_of, tenfold
from tests.usecases.test_run_job import Elsewhere, elsewhere

pytestmark = pytest.mark.usefixtures("keep_loggers")

CONTEXT = LambdaContextStub(left_ms=60_000)


def sns_event(*messages: str) -> dict[str, Any]:
    """An event as SNS sends it."""
    return {
        "Records": [
            {
                "EventVersion": "1.0",
                "EventSubscriptionArn": "arn:aws:sns:us-east-1:123456789012:topic:c9135db0",
                "EventSource": "aws:sns",
                "Sns": {
                    "SignatureVersion": "1",
                    "Timestamp": "2026-11-21T12:00:00.000Z",
                    "Signature": "c2lnbmF0dXJl",
                    "SigningCertUrl": "https://sns.us-east-1.amazonaws.com/SimpleNotificationService.pem",
                    "MessageId": "95df01b4-ee98-5cb9-9903-4c221d41eb5e",
                    "Message": message,
                    "MessageAttributes": {},
                    "Type": "Notification",
                    "UnsubscribeUrl": "https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe",
                    "TopicArn": "arn:aws:sns:us-east-1:123456789012:topic",
                    "Subject": None,
                },
            }
            for message in messages
        ]
    }


def notice(reference: str, location: str | None = None, failure: str | None = None) -> AsyncNotice:
    return AsyncNotice(reference, location, failure)


def waiting() -> tuple[JobEnv, Elsewhere, Job]:
    """A job that was handed in, and whose answer is there."""
    env, backend = elsewhere()
    job = env.add(job_of())
    env(job)
    backend.found = tenfold(published(), backend.inputs)
    env.meter.begin()
    return env, backend, job


def named(env: JobEnv, job: Job) -> str:
    """What the backend calls the attempt whose answer is waited for."""
    return dict(env.now(job).ticket or {})["inference_id"]


# ------------------------------------------------------------------------------------ notices


def test_a_notice_ends_its_job_once() -> None:
    env, _, job = waiting()
    reference = named(env, job)
    assert env.results(notice(reference, f"s3://out/{reference}")) == "ended"
    done = env.now(job)
    assert done.state == "succeeded"
    assert env.predictions(job) == [[1, 1], [11, -9]]
    assert env.results(notice(reference, f"s3://out/{reference}")) is None  # late
    assert env.now(job) == done
    assert len(env.lines.requests()) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"reference": "not-ours"},
        {"reference": f"{'0' * 32}-1"},
        {"reference": "{job}-2"},
        {"reference": "{job}-1"},
        {"reference": "{handed_in}", "location": "s3://out/another"},
    ],
)
def test_what_is_unknown_of_another_attempt_or_names_another_object_changes_nothing(change: Mapping[str, str]) -> None:
    env, _, job = waiting()
    before = env.now(job)
    reference = change["reference"].format(job=job.job_id, handed_in=named(env, job))
    assert env.results(notice(reference, change.get("location"))) is None
    assert env.now(job) == before


def test_a_notice_of_a_cancelled_job_changes_nothing() -> None:
    env, _, job = waiting()
    told = notice(named(env, job))
    env.jobs.finish(job.job_id, Outcome("cancelled"), time())
    assert env.results(told) is None
    assert env.now(job).state == "cancelled"


def test_a_notice_of_a_run_before_does_not_fail_the_one_after_it() -> None:
    env, backend, job = waiting()
    told = notice(named(env, job), failure="The request expired in the queue.")
    env.jobs.finish(job.job_id, Outcome("cancelled"), time())
    env.jobs.restart(job.tenant, job.job_id, time())
    backend.found = None
    env(job)
    again = env.now(job)
    assert (again.state, again.attempts) == ("running", 1)  # as of the first run
    assert again.ticket is not None
    assert env.results(told) is None
    assert env.now(job) == again


def test_a_failure_without_an_object_is_told_by_its_notice() -> None:
    env, backend, job = waiting()
    backend.found = None
    assert env.results(notice(named(env, job), failure="The request expired in the queue.")) == "ended"
    told = env.now(job).problem
    assert told is not None
    assert (told.code, told.detail) == ("backend_error", "The backend says: The request expired in the queue.")
    assert len(env.dead.sent) == 1


def test_an_answer_that_a_notice_is_ahead_of_is_waited_for() -> None:
    env, backend, job = waiting()
    backend.found = None
    assert env.results(notice(named(env, job))) == "waiting"
    assert env.now(job).state == "running"


def test_a_notice_before_the_worker_has_handed_the_job_over_is_kept_until_it_has() -> None:
    env, _, job = waiting()
    handed_over, reference = env.now(job), named(env, job)
    env.jobs.jobs[job.job_id] = replace(handed_over, ticket=None, owner="worker", lease_until=time() + 20)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            env.jobs.jobs[job.job_id] = handed_over

    env.results._pause = pause
    assert env.results(notice(reference)) == "ended"
    assert len(pauses) == 2


def test_a_notice_that_stays_too_early_is_to_come_again() -> None:
    env, _, job = waiting()
    reference = named(env, job)
    held = replace(env.now(job), ticket=None, owner="worker", lease_until=time() + 20)
    env.jobs.jobs[job.job_id] = held
    env.results._pause = lambda _: None
    with pytest.raises(TooEarly):
        env.results(notice(reference))
    assert env.now(job) == held
    env.jobs.jobs[job.job_id] = replace(held, attempts=2)  # its worker was killed, and another has it
    assert env.results(notice(reference)) is None


def test_while_the_store_is_away_the_notice_is_to_come_again() -> None:
    env, _, job = waiting()
    told = notice(named(env, job))
    env.jobs.error = errors.BackendUnavailable("DynamoDB is away.")
    with pytest.raises(errors.BackendUnavailable):
        env.results(told)


def test_a_request_that_cannot_be_read_any_more_ends_the_job() -> None:
    env, _, job = waiting()
    env.jobs.jobs[job.job_id] = replace(env.now(job), request=replace(job.request, inline=b"{"))
    assert env.results(notice(named(env, job))) == "ended"
    assert env.now(job).state == "failed"


# ------------------------------------------------------------------------------------ two at once


class Between(Elsewhere):
    """Does something once its answer was read, and before that is acted on."""

    def __init__(self, backend: Elsewhere) -> None:
        super().__init__()
        self.found = backend.found
        self.then: Callable[[], object] | None = None

    def fetch(
        self, version: ModelVersion, ticket: Mapping[str, str], rows: int | None
    ) -> Tensors | errors.SluiceError | None:
        found = self.found
        then, self.then = self.then, None
        if then is not None:
            then()
        return found


def another(env: JobEnv, backend: Elsewhere) -> tuple[JobEnv, Between]:
    """A second environment on the same stores."""
    between = Between(backend)
    stores = {"jobs": env.jobs, "queue": env.queue, "dead": env.dead, "objects": env.objects}
    made = JobEnv({"later": between}, env.config, **stores)  # type: ignore[arg-type]
    made.meter.begin()
    return made, between


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer is an object."""
    monkeypatch.setattr(job_endings, "MAX_INLINE_RESULT", 10)


@pytest.mark.usefixtures("large")
def test_of_two_looks_that_have_both_read_the_answer_one_ends_the_job() -> None:
    env, backend, job = waiting()
    told = notice(named(env, job))
    slow, between = another(env, backend)
    between.then = lambda: ends.append(env.results(told))
    ends: list[str | None] = []
    ends.append(slow.results(told))
    assert ends == ["ended", "overtaken"]
    assert env.now(job).state == "succeeded"
    assert env.predictions(job) == [[1, 1], [11, -9]]
    assert (len(env.lines.requests()), len(slow.lines.requests())) == (1, 0)
    assert (env.queue.sent, env.dead.sent) == ([], [])


@pytest.mark.usefixtures("large")
def test_of_two_looks_that_have_both_stored_the_result_one_counts_and_its_object_stays() -> None:
    env, backend, job = waiting()
    told, answer = notice(named(env, job)), job.job_id
    slow, _ = another(env, backend)
    ends: list[str | None] = []

    def quicker() -> None:  # the first change of the job: the slow one has stored its object
        assert len([key for key in env.objects.objects if answer in key]) == 1
        ends.append(env.results(told))

    env.jobs.before = quicker
    ends.append(slow.results(told))
    assert ends == ["ended", "overtaken"]
    assert len([key for key in env.objects.objects if answer in key]) == 2  # of different names; the rule removes both
    assert env.predictions(job) == [[1, 1], [11, -9]]
    assert (len(env.lines.requests()), len(slow.lines.requests())) == (1, 0)


def test_of_two_looks_at_what_may_pass_one_puts_the_job_back() -> None:
    env, backend, job = waiting()
    backend.found = errors.BackendUnavailable("The endpoint scales in.")
    told = notice(named(env, job))
    slow, between = another(env, backend)
    ends: list[str | None] = []
    between.then = lambda: ends.append(env.results(told))
    ends.append(slow.results(told))
    assert ends == ["queued", "overtaken"]
    assert [job_id for _, job_id, _ in env.queue.sent] == [job.job_id]
    assert (env.now(job).state, env.now(job).attempts) == ("queued", 1)


@pytest.mark.parametrize(
    "found", [None, errors.BackendUnavailable("The endpoint scales in."), errors.BackendError("No memory.")]
)
def test_a_look_that_takes_long_does_not_touch_the_run_after_it(found: errors.SluiceError | None) -> None:
    """Cancelled and queued anew meanwhile, the job waits for another answer."""
    env, backend, job = waiting()
    told = notice(named(env, job))
    slow, between = another(env, backend)
    between.found = found or backend.found

    def anew() -> None:
        env.jobs.finish(job.job_id, Outcome("cancelled"), time())
        env.jobs.restart(job.tenant, job.job_id, time())
        env(job)

    between.then = anew
    assert slow.results(told) == "overtaken"
    again = env.now(job)
    assert (again.state, again.result, again.problem) == ("running", None, None)
    assert again.ticket is not None
    assert again.ticket["inference_id"] != told.reference
    assert env.queue.sent == []
    assert env.results(notice(named(env, job))) == "ended"
    assert env.now(job).state == "succeeded"


# ------------------------------------------------------------------------------------ events


def test_events_are_what_powertools_reads_and_what_cannot_be_read_stops_no_other() -> None:
    env, _, job = waiting()
    good = {"inferenceId": named(env, job), "invocationStatus": "Completed"}
    event = sns_event("no json", "[" * 99_999, "{}", json.dumps(good))
    assert len(SnsModel.model_validate(event).Records) == 4
    notices(env.results, env.meter.begin, env.meter._log)(event, CONTEXT)
    assert env.now(job).state == "succeeded"


def test_events_of_others_are_refused() -> None:
    env, _, _ = waiting()
    with pytest.raises(ValueError, match="only SNS"):
        notices(env.results, env.meter.begin, env.meter._log)({"Records": [{"eventSource": "aws:sqs"}]}, CONTEXT)


# ------------------------------------------------------------------------------------ the whole way


@dataclass
class Behind:
    """A SageMaker front with an asynchronous endpoint, the container behind it, and the topic's messages."""

    container: SageMakerServer
    topic: str
    sqs: Any

    def notices(self) -> list[str]:
        """What the topic was told, once it was told something."""
        found = self.sqs.receive_message(QueueUrl=self.topic, WaitTimeSeconds=9)["Messages"]
        return [json.loads(message["Body"])["Message"] for message in found]


@pytest.fixture
def behind(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Behind]:
    session, url = isolated_session(), stage.environment["AWS_ENDPOINT_URL"]
    sns = local_client(session, "sns", url)
    name = unique("notices")
    queue = stage.sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = stage.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    topic = sns.create_topic(Name=name)["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    bucket = stage.environment["SLUICE_DATA_BUCKET"]
    config = AsyncConfig(
        f"s3://{bucket}/async/out/", f"s3://{bucket}/async/failed", success_topic=topic, error_topic=topic
    )
    server = SageMakerServer()
    endpoints = Endpoints([Endpoint("queue", server.url, asynchronous=config)])
    with listening(create_app(endpoints, url)) as front:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", front)
        yield Behind(server, queue, stage.sqs)
    server.close()


def handed_in(stage: Stage, behind: Behind, answer: Answer | None = None) -> Job:
    """A job that the worker has handed in."""
    model = stage.elsewhere("sagemaker-async")
    run = container(published(model, signature=SIGNATURE), tenfold)
    behind.container.script = lambda call: run(call) if answer is None else answer
    job = stage.submit(job_of(3, model=model))
    assert job_worker.build(stage.environment)(stage.receive(), CONTEXT) == {"batchItemFailures": []}
    return job


def test_a_job_goes_to_the_endpoint_and_its_notice_brings_the_answer(stage: Stage, behind: Behind) -> None:
    job = handed_in(stage, behind)
    left = stage.now(job)
    assert (left.state, left.owner, left.backend) == ("running", None, "elsewhere")
    event = sns_event(*behind.notices())
    handler = bootstrap.build({**stage.environment, "POWERTOOLS_SERVICE_NAME": "async-result"})
    handler(event, CONTEXT)
    done = stage.now(job)
    assert done.state == "succeeded"
    assert done.result is not None
    document = json.loads(done.result.inline or b"")
    assert document["predictions"] == [[1, 1], [11, -9], [21, -19]]
    assert document["model"]["backend"] == "elsewhere"
    handler(event, CONTEXT)  # SNS delivers at least once
    assert stage.now(job) == done


def test_what_the_container_refuses_is_the_job_s_problem(stage: Stage, behind: Behind) -> None:
    refused = Answer(
        422, problem("wrong_shape", "It has the shape [3].").encode(), {"Content-Type": "application/json"}
    )
    job = handed_in(stage, behind, refused)
    bootstrap.build(stage.environment)(sns_event(*behind.notices()), CONTEXT)
    told = stage.now(job).problem
    assert told is not None
    assert (stage.now(job).state, told.code) == ("failed", "wrong_shape")


def test_without_its_notice_the_sweep_s_message_brings_the_answer(stage: Stage, behind: Behind) -> None:
    job = handed_in(stage, behind)
    behind.notices()  # the answer is there, and its notice lost
    stage.queue.send(job.tenant, job.job_id)
    worker = job_worker.build(stage.environment)
    event = stage.receive()
    assert event["Records"]
    worker(event, CONTEXT)
    assert stage.now(job).state == "succeeded"
