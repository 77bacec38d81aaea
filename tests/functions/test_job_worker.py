"""The job worker's batches: messages, the time that there is, and what is done every few seconds."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from time import time
from typing import Any

import pytest
from aws_lambda_powertools.utilities.parser.models import SqsModel

from functions.job_worker.worker import UNREADABLE, Worker, job_of, messages_of
from shared.adapters.sqs_messages import Message
from shared.domain import errors
from shared.domain.jobs import LEASE_S, Job, backoff_s
from shared.domain.model import ModelVersion
from shared.domain.stop_signal import stop_signal
from shared.domain.tensors import Tensors
from shared.usecases.run_job import Done, Later
from tests.functions.support import LambdaContextStub
from tests.usecases import job_runs
from tests.usecases.job_runs import JobEnv, function, tenfold
from tests.usecases.test_run_job import PLAIN, raises

CONTEXT = LambdaContextStub(left_ms=60_000)


@dataclass
class Queue:
    """What the worker did to its messages, in order."""

    hidden: list[tuple[list[str], float]] = field(default_factory=list)
    buried: list[tuple[str, str]] = field(default_factory=list)
    sent: list[tuple[str, str]] = field(default_factory=list)
    refused: frozenset[str] = frozenset()
    on_hide: Callable[[], None] = lambda: None
    error: Exception | None = None

    def hide(self, messages: Sequence[Message], seconds: float) -> int:
        if self.error is not None:
            raise self.error
        self.hidden.append(([message.message_id for message in messages], seconds))
        self.on_hide()
        return 0

    def send_again(self, messages: Sequence[Message]) -> Sequence[Message]:
        if self.error is not None:
            raise self.error
        self.sent += [(message.message_id, message.group) for message in messages]
        return [message for message in messages if message.message_id in self.refused]

    def bury(self, message: Message, code: str, detail: str) -> None:
        if self.error is not None:
            raise self.error
        self.buried.append((message.body, code))


def event(*bodies: str, received: Mapping[int, int] | None = None) -> dict[str, Any]:
    """An event as the queue's mapping sends it, message `m0` first."""
    counts = received or {}
    return {
        "Records": [
            {
                "messageId": f"m{at}",
                "receiptHandle": f"receipt-{at}",
                "body": body,
                "attributes": {
                    "ApproximateReceiveCount": str(counts.get(at, 1)),
                    "SentTimestamp": "1545082649183",
                    "SenderId": "AIDAIENQZJOLO23YVJ4VO",
                    "ApproximateFirstReceiveTimestamp": "1545082649185",
                    "MessageGroupId": "acme",
                },
                "messageAttributes": {},
                "md5OfBody": "098f6bcd4621d373cade4e832627b4f6",
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-east-2:123456789012:jobs",
                "awsRegion": "us-east-2",
            }
            for at, body in enumerate(bodies)
        ]
    }


def body_of(job: Job) -> str:
    return json.dumps({"job_id": job.job_id})


def left_in_queue(answer: Mapping[str, Any]) -> list[str]:
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


def worker_of(
    env: JobEnv, queue: Queue, *, beat_s: float = 20.0, least_ms: int = 10_000, short_s: float = 60.0
) -> Worker:
    bounds: dict[str, Any] = {"reserve_ms": 5_000, "least_ms": least_ms, "beat_s": beat_s, "short_s": short_s}
    return Worker(env.run, env.hold, queue, env.meter.begin, **bounds)


@pytest.fixture
def queue() -> Iterator[Queue]:
    made = Queue()
    yield made
    made.on_hide = lambda: None


# ------------------------------------------------------------------------------------ messages


def test_an_event_is_what_powertools_reads() -> None:
    made = event('{"job_id": "x"}', received={0: 3})
    record = SqsModel.model_validate(made).Records[0]
    (message,) = messages_of(made)
    assert (message.message_id, message.receipt, message.body) == (record.messageId, record.receiptHandle, record.body)
    assert str(message.received) == record.attributes.ApproximateReceiveCount


@pytest.mark.parametrize("other", [{}, {"Records": [{"eventSource": "aws:s3"}]}, {"Records": "x"}])
def test_events_of_others_are_refused(other: Any, queue: Queue) -> None:
    with pytest.raises(ValueError, match="only SQS"):
        worker_of(JobEnv(function()), queue)(other, CONTEXT)


@pytest.mark.parametrize(
    "body", ["", "no json", "[]", "null", "{}", '{"job_id": 1}', '{"job_id": "../x"}', '{"job_id": "AB"}', "[" * 99_999]
)
def test_what_names_no_job_is_no_job(body: str) -> None:
    assert job_of(body) is None


def test_the_whole_batch_comes_back_soon_before_anything_else_is_done(queue: Queue) -> None:
    env = JobEnv(function())
    jobs = [env.add(job_runs.job_of()) for _ in range(3)]
    states: list[str] = []
    queue.on_hide = lambda: states.extend(env.now(job).state for job in jobs)
    answer = worker_of(env, queue)(event(*map(body_of, jobs)), CONTEXT)
    assert queue.hidden == [(["m0", "m1", "m2"], LEASE_S)]  # and that was all: what is done is deleted
    assert states == ["queued"] * 3
    assert answer == {"batchItemFailures": []}
    assert {env.now(job).state for job in jobs} == {"succeeded"}


def test_a_poison_message_blocks_no_neighbour_and_ends_with_its_reason(queue: Queue) -> None:
    env = JobEnv(function())
    first, last = env.add(job_runs.job_of()), env.add(job_runs.job_of())
    answer = worker_of(env, queue)(event(body_of(first), "{poison", body_of(last)), CONTEXT)
    assert answer == {"batchItemFailures": []}
    assert queue.buried == [("{poison", UNREADABLE)]
    assert {env.now(job).state for job in (first, last)} == {"succeeded"}


def test_a_poison_message_that_cannot_be_put_away_stays(queue: Queue) -> None:
    env = JobEnv(function())
    job = env.add(job_runs.job_of())
    queue.error = errors.BackendUnavailable("SQS is away.")
    answer = worker_of(env, queue)(event("{poison", body_of(job)), CONTEXT)
    assert left_in_queue(answer) == ["m0"]
    assert env.now(job).state == "succeeded"


def test_a_job_that_nobody_knows_needs_no_message(queue: Queue) -> None:
    answer = worker_of(JobEnv(function()), queue)(event(json.dumps({"job_id": "0" * 32})), CONTEXT)
    assert answer == {"batchItemFailures": []}


def test_what_is_tried_again_stays_in_the_queue_for_that_long(queue: Queue) -> None:
    env = JobEnv(function(raises(errors.BackendUnavailable("It is away."))), PLAIN)
    job = env.add(job_runs.job_of())
    answer = worker_of(env, queue)(event(body_of(job)), CONTEXT)
    assert left_in_queue(answer) == ["m0"]
    assert queue.hidden == [(["m0"], LEASE_S), (["m0"], backoff_s(1))]
    assert env.now(job).state == "queued"


def test_an_error_that_nobody_foresaw_is_one_message_s_alone(queue: Queue) -> None:
    env = JobEnv(function())
    broken, sound = env.add(job_runs.job_of()), env.add(job_runs.job_of())
    run = env.run

    def failing(job_id: str, *rest: Any) -> Done | Later:
        if job_id == broken.job_id:
            raise KeyError(job_id)
        return run(job_id, *rest)

    env.run = failing  # type: ignore[assignment]
    answer = worker_of(env, queue)(event(body_of(broken), body_of(sound)), CONTEXT)
    assert left_in_queue(answer) == ["m0"]
    assert queue.hidden[-1] == (["m0"], LEASE_S)
    assert env.now(sound).state == "succeeded"


# ------------------------------------------------------------------------------------ time


def test_jobs_that_there_is_no_time_for_are_given_back_at_once(queue: Queue) -> None:
    context = LambdaContextStub(left_ms=5_500)  # half a second beside the reserve

    def slow(version: ModelVersion, inputs: Tensors) -> Tensors:
        Event().wait(0.3)
        return tenfold(version, inputs)

    env = JobEnv(function(slow), PLAIN)
    jobs = [env.add(job_runs.job_of()) for _ in range(3)]
    answer = worker_of(env, queue, least_ms=400)(event(*map(body_of, jobs)), context)
    assert left_in_queue(answer) == ["m1", "m2"]
    assert queue.hidden[-1] == (["m1", "m2"], 0.0)
    assert [env.now(job).state for job in jobs] == ["succeeded", "queued", "queued"]
    assert [env.now(job).attempts for job in jobs] == [1, 0, 0]


def test_a_worker_with_little_time_in_all_still_runs_a_job(queue: Queue) -> None:
    env = JobEnv(function())
    job = env.add(job_runs.job_of())
    worker_of(env, queue)(event(body_of(job)), LambdaContextStub(left_ms=9_000))
    assert env.now(job).state == "succeeded"


def test_what_was_tried_before_has_the_whole_time(queue: Queue) -> None:
    order: list[float] = []

    def run(version: ModelVersion, inputs: Tensors) -> Tensors:
        order.append(float(inputs["x"][0, 0]))
        return tenfold(version, inputs)

    env = JobEnv(function(run))
    jobs = [env.add(job_runs.job_of(body=json.dumps({"instances": [[at, 0]]}).encode())) for at in range(3)]
    worker_of(env, queue)(event(*map(body_of, jobs), received={2: 4}), CONTEXT)
    assert order == [2, 0, 1]


def long_first(queue: Queue) -> tuple[JobEnv, list[Job]]:
    """Three jobs, of which the first takes two beats longer than a short one may."""
    beats: list[None] = []
    twice = Event()

    def on_hide() -> None:
        beats.append(None)
        if len(beats) > 3:
            twice.set()

    def slow(version: ModelVersion, inputs: Tensors) -> Tensors:
        if inputs["x"][0, 0] == 0:
            assert twice.wait(20)
        return tenfold(version, inputs)

    queue.on_hide = on_hide
    env = JobEnv(function(slow), PLAIN)
    bodies = [json.dumps({"instances": [[at, 0]]}).encode() for at in range(3)]
    return env, [env.add(job_runs.job_of(body=body)) for body in bodies]


def test_what_waits_behind_a_long_job_goes_to_other_workers(queue: Queue) -> None:
    env, jobs = long_first(queue)
    answer = worker_of(env, queue, beat_s=0.02, short_s=0.01)(event(*map(body_of, jobs)), CONTEXT)
    assert answer == {"batchItemFailures": []}  # the messages of this worker are deleted: there are others
    assert queue.sent == [("m1", "acme"), ("m2", "acme")]
    assert [env.now(job).state for job in jobs] == ["succeeded", "queued", "queued"]
    assert queue.hidden[-1] == (["m0"], LEASE_S)


def test_what_the_queue_does_not_take_anew_goes_on_waiting(queue: Queue) -> None:
    queue.refused = frozenset({"m2"})
    env, jobs = long_first(queue)
    answer = worker_of(env, queue, beat_s=0.02, short_s=0.01)(event(*map(body_of, jobs)), CONTEXT)
    assert answer == {"batchItemFailures": []}
    assert [env.now(job).state for job in jobs] == ["succeeded", "queued", "succeeded"]


# ------------------------------------------------------------------------------------ heartbeat


def test_while_a_job_runs_it_is_renewed_and_the_messages_that_are_not_done_stay_hidden(queue: Queue) -> None:
    beaten = Event()

    def slow(version: ModelVersion, inputs: Tensors) -> Tensors:
        if inputs["x"][0, 0] == 1:  # the second job
            queue.on_hide = beaten.set
            assert beaten.wait(20)
        return tenfold(version, inputs)

    env = JobEnv(function(slow), PLAIN)
    jobs = [env.add(job_runs.job_of(body=json.dumps({"instances": [[at, 0]]}).encode())) for at in range(3)]
    worker_of(env, queue, beat_s=0.02)(event(*map(body_of, jobs)), CONTEXT)
    assert queue.hidden[0] == (["m0", "m1", "m2"], LEASE_S)
    assert (["m1", "m2"], LEASE_S) in queue.hidden
    assert {env.now(job).state for job in jobs} == {"succeeded"}


def test_a_job_that_is_cancelled_is_given_up_at_the_next_beat(queue: Queue) -> None:
    stopped = Event()

    def hanging(version: ModelVersion, inputs: Tensors) -> Tensors:
        env.jobs.jobs[job.job_id] = replace(env.now(job), state="cancelled", owner=None, finished_at=time())
        signal = stop_signal()
        assert signal is not None
        with signal.calling(stopped.set):
            assert stopped.wait(20)
        return tenfold(version, inputs)

    env = JobEnv(function(hanging), PLAIN)
    job, next_one = env.add(job_runs.job_of()), env.add(job_runs.job_of(model="other"))
    answer = worker_of(env, queue, beat_s=0.02)(event(body_of(job), body_of(next_one)), CONTEXT)
    assert answer == {"batchItemFailures": []}
    assert env.now(job).state == "cancelled"
    assert env.now(next_one).state == "failed"  # of a model that is not there: it was looked at


def test_a_queue_that_is_away_stops_no_job(queue: Queue) -> None:
    env = JobEnv(function())
    job = env.add(job_runs.job_of())
    queue.error = errors.BackendUnavailable("SQS is away.")
    assert worker_of(env, queue)(event(body_of(job)), CONTEXT) == {"batchItemFailures": []}
    assert env.now(job).state == "succeeded"
