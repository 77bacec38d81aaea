"""Running jobs: every way out leaves the job to somebody, and its effect is one."""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from threading import Event, Thread
from time import time

import pytest

from shared.domain import errors
from shared.domain.dtypes import DType
from shared.domain.endpoint.config import (
    AutoRouting,
    BackendChoice,
    BreakerSettings,
    EndpointConfig,
    EndpointLimits,
    Fallback,
    Retries,
    Variant,
)
from shared.domain.jobs import MAX_ATTEMPTS, JobRequest, JobState, Outcome, backoff_s
from shared.domain.model import ModelVersion
from shared.domain.ports import InferenceContext
from shared.domain.request_line import RequestLine, parse_line
from shared.domain.signature import Signature, TensorSpec
from shared.domain.stop_signal import stop_signal
from shared.domain.tensors import Tensors
from shared.usecases.run_job import Done, Later
from shared.web.logs import JsonFormatter
from tests.fakes import FakeBackend
from tests.functions.support import published
from tests.usecases.job_runs import JSON, SIGNATURE, JobEnv, function, job_of, tenfold

PLAIN = EndpointConfig("pair", breaker=BreakerSettings(enabled=False), retries=Retries(attempts=0))


def raises(error: Exception) -> Callable[[ModelVersion, Tensors], Tensors]:
    def run(version: ModelVersion, inputs: Tensors) -> Tensors:
        raise error

    return run


# ------------------------------------------------------------------------------------ answers


def test_a_job_gets_the_answer_that_a_synchronous_request_would_have_got() -> None:
    env = JobEnv(function())
    job = env.add(job_of(2))
    assert env(job) == Done()
    done = env.now(job)
    assert (done.state, done.version, done.variant, done.backend) == ("succeeded", 1, "main", "function")
    assert (done.rows_total, done.rows_done, done.attempts, done.problem) == (2, 2, 1, None)
    assert done.result is not None
    assert done.result.media_type == "application/json"
    assert done.result.size == len(done.result.inline or b"")
    document = json.loads(done.result.inline or b"")
    assert document["predictions"] == [[1, 1], [11, -9]]
    assert document["model"] == {"name": "pair", "version": 1, "variant": "main", "backend": "function"}
    assert dict(done.result.headers)["X-Prediction-Id"] == document["prediction_id"]
    assert done.cost_nusd
    assert (done.owner, done.lease_until, done.due_at) == (None, None, None)


def test_accept_and_content_type_of_the_request_hold() -> None:
    env = JobEnv(function())
    headers = {"content-type": "text/csv", "accept": "application/jsonl"}
    job = env.add(job_of(request=JobRequest(None, headers, b"1,2\n3,4\n")))
    env(job)
    result = env.now(job).result
    assert result is not None
    assert result.media_type.startswith("application/jsonl")
    assert len((result.inline or b"").splitlines()) == 2


def test_a_large_result_is_an_object_under_the_owner_s_name_and_a_large_body_comes_from_one() -> None:
    env = JobEnv(function(), versions=(published(signature=replace(SIGNATURE, max_batch=1024)),))
    rows = 30_000
    body = json.dumps({"instances": [[at, 0] for at in range(rows)]}).encode()
    job = env.add(job_of(request=JobRequest(None, JSON, None, env.put("jobs/in/acme/x", body))))
    env(job)
    done = env.now(job)
    assert done.result is not None
    assert done.result.inline is None
    assert done.result.stored is not None
    assert done.result.stored.key.startswith(f"jobs/out/acme/{job.job_id}/")
    assert env.predictions(job)[rows - 1] == [(rows - 1) * 10 + 1, 1]
    (line,) = env.lines.requests()
    assert (line["bytes_in"], line["rows"]) == (len(body), rows)


def test_one_log_line_a_job_counts_as_a_request_does() -> None:
    env = JobEnv(function())
    job = env.add(job_of(3))
    env(job)
    (record,) = [record for record in env.lines.records if record.getMessage() == "request"]
    line = parse_line(JsonFormatter("job-worker").format(record))
    assert isinstance(line, RequestLine)
    assert (line.route, line.status, line.code, line.tenant, line.key_id) == ("job", 200, "ok", "acme", "k1")
    assert (line.model, line.version, line.variant, line.backend) == ("pair", 1, "main", "function")
    assert (line.rows, line.request_id, line.target) == (3, "request-1", f"job:{job.job_id}")
    assert line.cost_nusd == env.now(job).cost_nusd
    assert line.steps_ms["run"] > 0


# ------------------------------------------------------------------------------------ parts


@pytest.mark.parametrize(("rows", "parts"), [(4, [4]), (10, [4, 4, 2])])
def test_a_job_has_more_instances_than_run_at_once(rows: int, parts: list[int]) -> None:
    backend = FakeBackend(tenfold)
    env = JobEnv({"function": backend})
    job = env.add(job_of(rows))
    env(job)
    assert [len(inputs["x"]) for _, inputs, _ in backend.calls] == parts
    assert env.predictions(job) == [[at * 10 + 1, -at * 10 + 1] for at in range(rows)]
    assert env.now(job).rows_total == rows


def test_parts_have_as_many_instances_as_the_endpoint_takes() -> None:
    backend = FakeBackend(tenfold)
    env = JobEnv({"function": backend}, EndpointConfig("pair", limits=EndpointLimits(max_rows=3)))
    env(env.add(job_of(7)))
    assert [len(inputs["x"]) for _, inputs, _ in backend.calls] == [3, 3, 1]


def test_progress_is_told_with_the_next_renewal() -> None:
    env = JobEnv(function())
    seen: list[int] = []

    def run(version: ModelVersion, inputs: Tensors) -> Tensors:
        env.hold.beat()
        seen.append(env.now(job).rows_done)
        return tenfold(version, inputs)

    env.backends["function"].run = run  # type: ignore[attr-defined]
    job = env.add(job_of(10))
    env(job)
    assert seen == [0, 4, 8]
    assert env.now(job).rows_done == 10


def test_a_wrong_row_far_behind_is_named_by_its_place_in_the_whole_request() -> None:
    bounded = replace(SIGNATURE, inputs=(replace(SIGNATURE.inputs[0], maximum=8),))
    env = JobEnv(function(), versions=(published(signature=bounded),))
    job = env.add(job_of(10))
    assert env(job) == Done()
    problem = env.now(job).problem
    assert problem is not None
    assert [field.pointer for field in problem.fields] == ["/instances/9/0"]
    assert not env.dead.sent


def test_outputs_that_fit_no_others_are_not_put_together_of_parts() -> None:
    ragged = Signature(inputs=SIGNATURE.inputs, outputs=(TensorSpec("y", DType.FP32, (None, None)),), max_batch=2000)
    env = JobEnv(function(), versions=(published(signature=ragged),))
    job = env.add(job_of(1500))
    env(job)
    assert len(env.backends["function"].calls) == 1  # type: ignore[attr-defined]
    too_many = env.add(job_of(2500))
    env(too_many)
    problem = env.now(too_many).problem
    assert problem is not None
    assert problem.code == "batch_too_large"


def test_parts_that_another_version_answered_must_have_its_outputs() -> None:
    other = replace(SIGNATURE, outputs=(TensorSpec("y", DType.FP32, (None, 1)),))
    config = replace(
        PLAIN,
        variants=(Variant("main", version=1), Variant("small", version=2, weight=0)),
        fallback=(Fallback("variant", variant="small"),),
    )

    def failing(version: ModelVersion, inputs: Tensors) -> Tensors:
        if version.version == 1 and inputs["x"][0, 0] >= 4:
            raise errors.BackendError("It broke.")
        return {"y": inputs["x"][:, : version.signature.outputs[0].shape[1]]}

    for signature, state in ((SIGNATURE, "succeeded"), (other, "failed")):
        versions = published(signature=SIGNATURE), published(version=2, signature=signature)
        env = JobEnv(function(failing), config, versions)
        job = env.add(job_of(6))
        env(job)
        done = env.now(job)
        assert done.state == state
        if done.result is not None:
            assert dict(done.result.headers)["X-Sluice-Fallback"] == "variant=small; reason=backend_error"
        else:
            assert done.problem is not None
            assert "other outputs" in done.problem.detail
            assert len(env.dead.sent) == 1


# ------------------------------------------------------------------------------------ failures


def test_what_may_pass_is_tried_five_times_with_a_growing_delay_and_then_left_with_its_reason() -> None:
    env = JobEnv(function(raises(errors.BackendUnavailable("It is away."))), PLAIN)
    job = env.add(job_of())
    for attempt in range(1, MAX_ATTEMPTS):
        assert env(job) == Later(backoff_s(attempt))
        queued = env.now(job)
        assert (queued.state, queued.attempts, queued.owner) == ("queued", attempt, None)
        assert queued.problem is not None
        assert queued.problem.code == "backend_unavailable"
        assert queued.due_at is not None
        assert queued.due_at > time() + backoff_s(attempt) + 50
    assert env(job) == Done()
    failed = env.now(job)
    assert (failed.state, failed.attempts) == ("failed", MAX_ATTEMPTS)
    ((sent, problem),) = env.dead.sent
    assert (sent.job_id, sent.attempts, problem.code) == (job.job_id, MAX_ATTEMPTS, "backend_unavailable")
    (line,) = env.lines.requests()
    assert (line["status"], line["code"], line["variant"]) == (503, "backend_unavailable", "main")


def test_a_backend_that_says_when_is_asked_then() -> None:
    env = JobEnv(function(raises(errors.Overloaded("Full.", retry_after_s=77))), PLAIN)
    assert env(env.add(job_of())) == Later(77)


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [(b'{"instances": [[1]]}', "wrong_shape", 422), (b"{", "not_json", 400)],
)
def test_a_caller_s_fault_fails_at_once_and_leaves_no_letter(body: bytes, code: str, status: int) -> None:
    env = JobEnv(function())
    job = env.add(job_of(body=body))
    assert env(job) == Done()
    failed = env.now(job)
    assert failed.state == "failed"
    assert failed.problem is not None
    assert failed.problem.code == code
    assert not env.dead.sent
    assert env.lines.requests()[0]["status"] == status


def test_a_body_that_is_gone_and_a_model_that_is_gone_are_told() -> None:
    env = JobEnv(function())
    gone = env.add(job_of(request=JobRequest(None, JSON, None, replace(env.put("k", b""), key="other"))))
    unknown = env.add(job_of(model="nothing"))
    for job, code in ((gone, "source_not_found"), (unknown, "model_not_found")):
        env(job)
        problem = env.now(job).problem
        assert problem is not None
        assert problem.code == code
    assert not env.dead.sent


def test_what_fails_for_good_on_our_side_leaves_a_letter_at_once() -> None:
    env = JobEnv(function(raises(errors.BackendError("It broke."))), PLAIN)
    job = env.add(job_of())
    assert env(job) == Done()
    assert (env.now(job).state, env.now(job).attempts) == ("failed", 1)
    assert [problem.code for _, problem in env.dead.sent] == ["backend_error"]


def test_time_that_was_all_there_is_fails_for_good_and_less_is_tried_again() -> None:
    block = Event()

    def hanging(version: ModelVersion, inputs: Tensors) -> Tensors:
        block.wait(20)
        return tenfold(version, inputs)

    env = JobEnv(function(hanging), PLAIN)
    try:
        short, full = env.add(job_of()), env.add(job_of())
        assert isinstance(env(short, seconds=0.2, whole=False), Later)
        assert env.now(short).state == "queued"
        assert env(full, seconds=0.2, whole=True) == Done()
        problem = env.now(full).problem
        assert problem is not None
        assert (env.now(full).state, problem.code) == ("failed", "backend_timeout")
    finally:
        block.set()


@pytest.mark.parametrize(("whole", "state"), [(False, "queued"), (True, "failed")])
def test_what_is_known_to_take_longer_than_is_left_waits_for_a_worker_with_all_its_time(
    whole: bool, state: JobState
) -> None:
    env = JobEnv(function(raises(errors.AsyncRequired("It takes some 60000 ms."))), PLAIN)
    job = env.add(job_of())
    env(job, whole=whole)
    assert env.now(job).state == state
    assert not env.dead.sent


def test_a_model_without_an_axis_of_instances_has_no_rows() -> None:
    single = Signature(
        inputs=(TensorSpec("x", DType.FP32, (2,)),), outputs=(TensorSpec("y", DType.FP32, (2,)),), batched=False
    )
    env = JobEnv(function(), versions=(published(signature=single),))
    job = env.add(job_of(body=b'{"inputs": {"x": [1, 2]}}'))
    env(job)
    assert (env.now(job).state, env.now(job).rows_total, env.now(job).rows_done) == ("succeeded", None, 0)


def test_a_timeout_before_the_end_may_pass() -> None:
    env = JobEnv(function(raises(errors.BackendTimeout("S3 did not answer."))), PLAIN)
    assert isinstance(env(env.add(job_of())), Later)


def test_an_error_that_nobody_foresaw_is_tried_again_and_ends_with_a_letter() -> None:
    env = JobEnv(function())
    job = env.add(job_of())
    for _ in range(MAX_ATTEMPTS):
        env.jobs.jobs[job.job_id] = replace(env.now(job), request=replace(job.request, headers=None))  # type: ignore[arg-type]
        env(job)
    assert env.now(job).state == "failed"
    assert len(env.dead.sent) == 1


def test_a_job_that_kills_its_worker_each_time_ends() -> None:
    env = JobEnv(function())
    job = env.add(job_of(state="running", owner="killed", lease_until=time() - 1, attempts=MAX_ATTEMPTS))
    assert env(job) == Done()
    problem = env.now(job).problem
    assert problem is not None
    assert (env.now(job).state, problem.code) == ("failed", "job_crashed")
    assert len(env.dead.sent) == 1


def test_a_job_that_nobody_began_in_time_fails_and_one_that_was_begun_goes_on() -> None:
    env = JobEnv(function())
    late = env.add(job_of(start_by=time() - 1))
    begun = env.add(job_of(start_by=time() - 1, attempts=1))
    for job in (late, begun):
        assert env(job) == Done()
    problem = env.now(late).problem
    assert problem is not None
    assert problem.code == "job_expired"
    assert env.now(begun).state == "succeeded"


def test_without_the_queue_of_failed_jobs_a_job_does_not_fail() -> None:
    env = JobEnv(function(raises(errors.BackendError("It broke."))), PLAIN)
    job = env.add(job_of())
    env.dead.error = errors.BackendUnavailable("SQS is away.")
    assert isinstance(env(job), Later)
    assert env.now(job).state == "running"  # until its lease is over
    env.dead.error = None
    env.lapse(job)
    assert env(job) == Done()
    assert (env.now(job).state, len(env.dead.sent)) == ("failed", 1)


def test_a_store_that_is_away_leaves_the_message_until_the_lease_is_over() -> None:
    env = JobEnv(function())
    job = env.add(job_of())
    env.jobs.error = errors.BackendUnavailable("DynamoDB is away.")
    later = env(job)
    assert isinstance(later, Later)
    assert later.visibility_s > env.hold.lease_s
    env.jobs.error = None
    assert env(job) == Done()
    assert env.now(job).state == "succeeded"


# ------------------------------------------------------------------------------------ once


def test_a_message_that_comes_again_finds_the_job_finished() -> None:
    backend = FakeBackend(tenfold)
    env = JobEnv({"function": backend})
    job = env.add(job_of())
    assert [env(job), env(job)] == [Done(), Done()]
    assert len(backend.calls) == 1
    assert len(env.lines.requests()) == 1


def test_of_two_workers_one_runs_a_job() -> None:
    began, go_on = Event(), Event()

    def slow(version: ModelVersion, inputs: Tensors) -> Tensors:
        began.set()
        assert go_on.wait(20)
        return tenfold(version, inputs)

    env = JobEnv(function(slow))
    other = JobEnv(function(raises(AssertionError("It ran twice."))), jobs=env.jobs)
    job = env.add(job_of())
    first = Thread(target=env, args=(job,))
    first.start()
    assert began.wait(20)
    assert other(job) == Done()
    assert env.now(job).state == "running"
    go_on.set()
    first.join()
    assert (env.now(job).state, env.now(job).attempts) == ("succeeded", 1)


def test_a_worker_whose_lease_was_over_does_not_write_over_the_next_one_s_result() -> None:
    began, go_on = Event(), Event()

    def slow(version: ModelVersion, inputs: Tensors) -> Tensors:
        began.set()
        assert go_on.wait(20)
        return {"y": inputs["x"] * 0}

    env = JobEnv(function(slow))
    other = JobEnv(function(), jobs=env.jobs, objects=env.objects)
    job = env.add(job_of())
    frozen = Thread(target=env, args=(job,))
    frozen.start()
    assert began.wait(20)
    env.lapse(job)
    assert other(job) == Done()
    won = env.now(job)
    go_on.set()
    frozen.join()
    assert env.now(job) == won
    assert env.predictions(job) == [[1, 1], [11, -9]]
    assert (len(env.lines.requests()), len(other.lines.requests())) == (0, 1)


# ------------------------------------------------------------------------------------ cancelled


def test_a_cancelled_job_is_given_up_and_its_result_not_written() -> None:
    began, stopped = Event(), Event()

    def hanging(version: ModelVersion, inputs: Tensors) -> Tensors:
        signal = stop_signal()
        assert signal is not None
        began.set()
        with signal.calling(stopped.set):
            stopped.wait(20)
        return tenfold(version, inputs)

    env = JobEnv(function(hanging))
    job = env.add(job_of())
    outcome: list[object] = []
    worker = Thread(target=lambda: outcome.append(env(job)))
    worker.start()
    assert began.wait(20)
    assert env.jobs.finish(job.job_id, Outcome("cancelled"), time())
    env.hold.beat()
    worker.join(20)
    assert outcome == [Done()]
    assert stopped.is_set()
    assert (env.now(job).state, env.now(job).result) == ("cancelled", None)
    assert not env.lines.requests()


def test_between_two_parts_a_cancelled_job_stops() -> None:
    calls: list[int] = []

    def run(version: ModelVersion, inputs: Tensors) -> Tensors:
        calls.append(len(inputs["x"]))
        env.jobs.finish(job.job_id, Outcome("cancelled"), time())
        env.hold.beat()
        return tenfold(version, inputs)

    env = JobEnv(function(run))
    job = env.add(job_of(10))
    assert env(job) == Done()
    assert calls == [4]


def test_a_renewal_that_is_refused_since_the_job_has_ended_stops_nothing() -> None:
    env = JobEnv(function())
    job = env.add(job_of())
    with ExitStack() as running:
        held = running.enter_context(env.hold.of(job.job_id, "me"))
        env.jobs.before = running.close  # the run ends while its renewal is under way
        env.hold.beat()
    assert not held.lost


def test_a_store_that_is_away_takes_no_job_from_its_worker() -> None:
    env = JobEnv(function())
    job = env.add(job_of())
    with env.hold.of(job.job_id, "me") as held:
        env.jobs.error = errors.BackendUnavailable("DynamoDB is away.")
        env.hold.beat()
    assert not held.lost


# ------------------------------------------------------------------------------------ asynchronous backends


class Elsewhere(FakeBackend):
    """An asynchronous backend; `found` is what `fetch` gives."""

    def __init__(self) -> None:
        super().__init__(tenfold)
        self.taken: list[tuple[str, InferenceContext]] = []
        self.found: Tensors | errors.SluiceError | None = None
        self.inputs: Tensors = {}

    def hand_in(
        self, version: ModelVersion, inputs: Tensors, context: InferenceContext, reference: str
    ) -> Mapping[str, str]:
        self.taken.append((reference, context))
        self.inputs = inputs
        return {"inference_id": reference, "output_location": f"s3://out/{reference}"}

    def fetch(
        self, version: ModelVersion, ticket: Mapping[str, str], rows: int | None
    ) -> Tensors | errors.SluiceError | None:
        return self.found


def elsewhere(**more: object) -> tuple[JobEnv, Elsewhere]:
    backend = Elsewhere()
    choice = BackendChoice("sagemaker-async", {"endpoint": "later"})
    config = EndpointConfig("pair", (Variant("main", version=1, backend="later"),), backends={"later": choice})
    return JobEnv({"later": backend}, replace(config, **more)), backend  # type: ignore[arg-type]


def test_a_job_for_an_asynchronous_backend_is_handed_in_and_left() -> None:
    env, backend = elsewhere()
    job = env.add(job_of(3))
    assert env(job) == Done()
    left = env.now(job)
    assert (left.state, left.owner, left.backend, left.version) == ("running", None, "later", 1)
    assert left.ticket is not None
    ((reference, context),) = backend.taken
    assert left.ticket["inference_id"] == reference
    assert re.fullmatch(rf"{job.job_id}-1-[0-9a-f]{{12}}", reference)  # 64 characters at most
    assert (context.deadline_ms, context.tenant) == (3_600_000, "acme")
    assert not env.lines.requests()
    assert env(job) == Done()  # the sweep's message, too early
    again = env.now(job)
    assert (again.state, again.attempts) == ("running", 1)
    assert again.due_at is not None
    backend.found = tenfold(published(), backend.inputs)
    assert env(job) == Done()
    done = env.now(job)
    assert (done.state, done.rows_total, done.backend) == ("succeeded", 3, "later")
    assert env.predictions(job) == [[1, 1], [11, -9], [21, -19]]
    (line,) = env.lines.requests()
    assert (line["backend"], line["rows"], line["code"]) == ("later", 3, "ok")
    assert done.cost_nusd == line["cost_nusd"]
    assert left.cost_nusd is not None
    assert done.cost_nusd is not None
    assert done.cost_nusd > left.cost_nusd


def test_more_instances_than_the_model_takes_are_no_single_asynchronous_invocation() -> None:
    env, backend = elsewhere()
    job = env.add(job_of(5))
    env(job)
    problem = env.now(job).problem
    assert problem is not None
    assert problem.code == "batch_too_large"
    assert not backend.taken


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (errors.InvalidRequest("Bad values."), "failed"),
        (errors.BackendError("It broke."), "failed"),
        (errors.BackendUnavailable("Its container was away."), "queued"),
    ],
)
def test_what_a_backend_says_of_a_failure_counts_as_if_it_had_been_called(
    found: errors.SluiceError, state: JobState
) -> None:
    env, backend = elsewhere()
    job = env.add(job_of())
    env(job)
    backend.found = found
    env(job)
    assert env.now(job).state == state
    assert len(env.dead.sent) == (type(found) is errors.BackendError)
    if state == "queued":
        assert env.queue.sent == [("acme", job.job_id, backoff_s(1))]
        env(job)
        assert (env.now(job).ticket or {})["inference_id"].startswith(f"{job.job_id}-2-")


def test_an_answer_that_never_comes_fails_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    env, _ = elsewhere()
    job = env.add(job_of())
    env(job)
    ticket = {**(env.now(job).ticket or {}), "handed_in_at": str(int(time() - 3 * 3600))}
    env.jobs.jobs[job.job_id] = replace(env.now(job), ticket=ticket)
    env(job)
    problem = env.now(job).problem
    assert problem is not None
    assert (env.now(job).state, problem.code) == ("failed", "backend_timeout")


def test_what_no_answer_has_time_for_goes_to_the_asynchronous_backend_of_an_automatic_endpoint() -> None:
    backend = Elsewhere()
    config = EndpointConfig(
        "pair",
        (Variant("main", version=1),),
        auto=AutoRouting(("function", "later")),
        backends={"later": BackendChoice("sagemaker-async", {"endpoint": "later"})},
    )
    env = JobEnv({"later": backend, **function()}, config)
    job = env.add(job_of(2))
    env(job)
    assert (env.now(job).state, env.now(job).backend) == ("succeeded", "function")
    assert not backend.taken


def test_an_automatic_endpoint_chooses_by_what_it_knows() -> None:
    # The function was seen to be slow: what fits goes elsewhere, and what has to be cut is run here.
    backend, slow = Elsewhere(), function()
    config = EndpointConfig(
        "pair",
        (Variant("main", version=1),),
        auto=AutoRouting(("function", "later")),
        backends={"later": BackendChoice("sagemaker-async", {"endpoint": "later"})},
    )
    env = JobEnv({"later": backend, **slow}, config)
    for _ in range(8):
        env.run._with.asynchronous._route._latencies.note("function", published(signature=SIGNATURE), 2, 60_000)
    small, large = env.add(job_of(2)), env.add(job_of(9))
    env(small)
    assert env.now(small).backend == "later"
    env(large, seconds=600)
    assert (env.now(large).state, env.now(large).backend) == ("succeeded", "function")


def test_a_job_that_was_cancelled_while_it_was_handed_in_stays_cancelled() -> None:
    env, backend = elsewhere()
    job = env.add(job_of())
    handed_in = backend.hand_in

    def hand_in(*arguments: object) -> Mapping[str, str]:
        env.jobs.finish(job.job_id, Outcome("cancelled"), time())
        return handed_in(*arguments)  # type: ignore[arg-type]

    backend.hand_in = hand_in  # type: ignore[assignment]
    assert env(job) == Done()
    assert (env.now(job).state, env.now(job).ticket) == ("cancelled", None)
