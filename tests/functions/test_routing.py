"""What an endpoint's configuration makes of predictions, through the whole function."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from threading import Event
from typing import Any

import numpy as np
import pytest

from functions.predict.bootstrap import application
from shared.domain import errors
from shared.domain.endpoint.config import (
    AutoRouting,
    BackendChoice,
    BreakerSettings,
    CacheSettings,
    EndpointConfig,
    EndpointLimits,
    Experiment,
    Fallback,
    ResponseFilter,
    Retries,
    Shadow,
    StoredEndpoint,
    Threshold,
    Variant,
)
from shared.domain.model import ModelVersion
from shared.domain.ports import Backend, InferenceContext
from shared.domain.tensors import Tensors
from shared.schemas.api import Problem
from shared.schemas.jobs import JobDocument, JobProgress
from tests.fakes import FakeBackend, InMemoryEndpoints, InMemoryModels
from tests.functions.conftest import LogLines, Serve
from tests.functions.parts import parts, stored
from tests.functions.support import Answer, Function, predict_settings, published

BODY = {"instances": [[1, 2]]}
SPLIT = (Variant("main", version=1, weight=50), Variant("next", version=2, weight=50))


def by_version(version: ModelVersion, inputs: Tensors) -> Tensors:
    """The version's number, and the inputs times it."""
    return {"y": np.asarray(inputs["x"] * version.version, dtype=np.float32)}


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend(by_version)


Configured = Callable[..., Function]


@pytest.fixture
def configured(serve: Serve, backend: FakeBackend, log: logging.Logger) -> Configured:
    """The function under a configuration of the model `pair`, which has three versions."""

    def make(
        config: EndpointConfig,
        backends: Mapping[str, Backend] | None = None,
        endpoints: InMemoryEndpoints | None = None,
    ) -> Function:
        registry = InMemoryModels(published(version=1), published(version=2), published(version=3))
        made = parts(registry, {"function": backend, **(backends or {})}, endpoints=endpoints or stored(config))
        return serve(application(predict_settings(), made, log))

    return make


def predict(function: Function, body: Any = None, version: str = "", **headers: str) -> Answer:
    path = f"/v1/models/pair{version and f'/versions/{version}'}/predict"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return function("POST", path, body=BODY if body is None else body, headers=named)


def problem(answer: Answer) -> Problem:
    return Problem.model_validate_json(answer.body)


def model(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json["model"]
    return found


def test_traffic_follows_the_weights_and_stays_with_a_sticky_key(configured: Configured) -> None:
    function = configured(EndpointConfig("pair", SPLIT))
    counted = Counter(model(predict(function))["version"] for _ in range(300))
    assert 100 < counted[1] < 200
    assert counted[1] + counted[2] == 300
    for user in ("u1", "u2", "u3"):
        assert len({model(predict(function, x_sluice_sticky_key=user))["variant"] for _ in range(10)}) == 1


def test_a_request_may_name_a_version_or_a_label(configured: Configured) -> None:
    function = configured(EndpointConfig("pair", SPLIT, labels={"prod": 2, "old": 3}))
    assert model(predict(function, version="2")) == {
        "name": "pair",
        "version": 2,
        "variant": "next",
        "backend": "function",
    }
    assert model(predict(function, version="prod"))["variant"] == "next"
    assert model(predict(function, version="old"))["variant"] == "v3"
    unknown = predict(function, version="nothing")
    assert (unknown.status, problem(unknown).code) == (404, "version_not_found")


@pytest.mark.parametrize(
    ("policy", "version", "status"), [("variants", "2", 200), ("variants", "3", 403), ("none", "2", 403)]
)
def test_which_versions_a_request_may_name_is_the_configuration_s(
    configured: Configured, policy: Any, version: str, status: int
) -> None:
    answer = predict(configured(EndpointConfig("pair", SPLIT, explicit_versions=policy)), version=version)
    assert answer.status == status
    if status == 403:
        assert problem(answer).code == "version_not_allowed"


def test_a_variant_that_is_not_published_is_no_fault_of_the_caller(configured: Configured) -> None:
    answer = predict(configured(EndpointConfig("pair", (Variant("main", version=9),))))
    assert (answer.status, problem(answer).code) == (503, "backend_unavailable")


def test_an_experiment_s_exposure_is_in_the_line_and_its_unit_is_not(
    configured: Configured, log_lines: LogLines
) -> None:
    experiment = Experiment("colour", "header:x-user", {"main": 1, "next": 1})
    function = configured(EndpointConfig("pair", SPLIT, experiment=experiment))
    made = model(predict(function, x_user="somebody@example.org"))
    (line,) = log_lines.requests()
    assert (line["experiment"]["name"], line["experiment"]["arm"]) == ("colour", made["variant"])
    assert "somebody" not in log_lines.text


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "soon", "", "9999999999"])
def test_a_deadline_that_is_none_is_refused(configured: Configured, text: str) -> None:
    answer = predict(configured(EndpointConfig("pair")), x_sluice_deadline_ms=text)
    assert (answer.status, problem(answer).code) == (400, "invalid_request")
    assert "X-Sluice-Deadline-Ms" in problem(answer).detail


def test_the_backend_gets_the_shortest_of_the_deadlines(configured: Configured, backend: FakeBackend) -> None:
    function = configured(EndpointConfig("pair", timeout_ms=800))
    predict(function)
    predict(function, x_sluice_deadline_ms="300")
    predict(function, x_sluice_deadline_ms="5000")
    for (_, _, context), most in zip(backend.calls, (800, 300, 800), strict=True):
        assert most - 200 < context.deadline_ms <= most


def test_a_hanging_backend_is_given_up_at_the_deadline(configured: Configured) -> None:
    release = Event()

    def hang(_version: ModelVersion, _inputs: Tensors) -> Tensors:
        release.wait(20)
        raise errors.BackendError("It was let go.")

    config = EndpointConfig("pair", (Variant("main", backend="slow"),), timeout_ms=300)
    function = configured(config, {"slow": FakeBackend(hang)})
    try:
        own = predict(function, x_sluice_deadline_ms="100")
        assert (own.status, problem(own).code) == (422, "deadline_missed")
        ours = predict(function)
        assert (ours.status, problem(ours).code) == (504, "backend_timeout")
    finally:
        release.set()


def failing(error: Exception) -> FakeBackend:
    def run(_version: ModelVersion, _inputs: Tensors) -> Tensors:
        raise error

    return FakeBackend(run)


FALLBACKS = (Fallback("variant", variant="small"), Fallback("static", outputs={"y": [7, 8]}))
PRIMARY = (Variant("main", version=3, backend="remote"), Variant("small", version=1, weight=0))


def test_a_fallback_answers_and_is_marked(configured: Configured, log_lines: LogLines) -> None:
    remote = failing(errors.BackendError("It broke."))
    function = configured(EndpointConfig("pair", PRIMARY, fallback=FALLBACKS), {"remote": remote})
    answer = predict(function)
    assert model(answer) == {"name": "pair", "version": 1, "variant": "small", "backend": "function"}
    assert answer.json["predictions"] == [{"left": 1, "right": 2}]
    assert answer.headers["x-sluice-fallback"] == "variant=small; reason=backend_error"
    (line,) = log_lines.requests()
    assert (line["fallback"], line["reason"], line["status"]) == ("variant=small", "backend_error", 200)


def test_a_static_answer_is_the_last_resort(configured: Configured, backend: FakeBackend) -> None:
    backend.run = failing(errors.BackendUnavailable("Away.")).run
    config = EndpointConfig("pair", PRIMARY, fallback=FALLBACKS, retries=Retries(attempts=0))
    function = configured(config, {"remote": failing(errors.BackendError("It broke."))})
    answer = predict(function, {"instances": [[1, 2], [3, 4]]})
    assert answer.json["predictions"] == [{"left": 7, "right": 8}] * 2
    assert model(answer)["backend"] == "static"
    assert answer.headers["x-sluice-fallback"] == "static; reason=backend_error"
    # Who asked for a version gets that one or none.
    pinned = predict(function, version="3")
    assert (pinned.status, problem(pinned).code) == (502, "backend_error")


def test_a_failing_backend_s_circuit_opens(configured: Configured, backend: FakeBackend) -> None:
    remote = failing(errors.BackendError("It broke."))
    function = configured(EndpointConfig("pair", PRIMARY, fallback=FALLBACKS[:1]), {"remote": remote})
    reasons = [predict(function).headers["x-sluice-fallback"] for _ in range(8)]
    assert reasons[0].endswith("backend_error")
    assert reasons[-1].endswith("circuit_open")
    assert len(remote.calls) < 8
    assert len(backend.calls) == 8


def test_answers_are_kept_by_tenant_and_made_anew_on_demand(configured: Configured, backend: FakeBackend) -> None:
    function = configured(EndpointConfig("pair", cache=CacheSettings(ttl_s=60)))
    first, second = predict(function), predict(function)
    assert "fwd=miss" in first.headers["cache-status"]
    assert "hit" in second.headers["cache-status"]
    assert second.headers["age"] == "0"
    assert len(backend.calls) == 1
    assert first.json["predictions"] == second.json["predictions"]
    assert first.json["prediction_id"] != second.json["prediction_id"]
    predict(function, {"instances": [[2, 1]]})
    assert len(backend.calls) == 2
    predict(function, cache_control="no-cache")
    assert len(backend.calls) == 3


def test_a_stand_in_is_not_kept_and_a_kept_answer_may_stand_in(configured: Configured, backend: FakeBackend) -> None:
    config = EndpointConfig("pair", cache=CacheSettings(ttl_s=60), fallback=(Fallback("cached"),))
    function = configured(config)
    predict(function)
    backend.run = failing(errors.BackendError("It broke.")).run
    answer = predict(function, cache_control="no-cache")
    assert answer.headers["x-sluice-fallback"] == "cached; reason=backend_error"
    other = predict(function, {"instances": [[5, 6]]})
    assert (other.status, problem(other).code) == (502, "backend_error")


SHADOWED = (Variant("main", version=1), Variant("next", version=2, weight=0, backend="beside"))


def test_a_shadow_s_difference_is_in_the_line(
    configured: Configured, backend: FakeBackend, log_lines: LogLines
) -> None:
    done = Event()

    def beside(version: ModelVersion, inputs: Tensors) -> Tensors:
        outputs = by_version(version, inputs)
        done.set()
        return outputs

    def primary(version: ModelVersion, inputs: Tensors) -> Tensors:
        done.wait(10)
        Event().wait(0.2)  # the worker has to write down what it got
        return by_version(version, inputs)

    backend.run = primary
    function = configured(EndpointConfig("pair", SHADOWED, shadow=Shadow("next")), {"beside": FakeBackend(beside)})
    answer = predict(function)
    assert answer.json["predictions"] == [{"left": 1, "right": 2}]
    (line,) = log_lines.requests()
    shadow = line["shadow"]
    assert (shadow["variant"], shadow["version"], shadow["state"]) == ("next", 2, "compared")
    assert (shadow["rows"], shadow["agreeing"], shadow["distance"], shadow["largest"]) == (1, 1, 1.5, 2.0)


@pytest.mark.parametrize("error", [errors.BackendError("It broke."), ZeroDivisionError("inside")])
def test_a_shadow_that_hangs_or_fails_changes_nothing(
    configured: Configured, log_lines: LogLines, error: Exception
) -> None:
    begun, release = Event(), Event()

    def hang(_version: ModelVersion, _inputs: Tensors) -> Tensors:
        begun.set()
        release.wait(20)
        raise error

    config = EndpointConfig("pair", SHADOWED, shadow=Shadow("next"))
    beside = FakeBackend(hang)
    function = configured(config, {"beside": beside})
    try:
        for _ in range(3):
            assert predict(function).json["predictions"] == [{"left": 1, "right": 2}]
        assert [line["shadow"]["state"] for line in log_lines.requests()] == ["dropped"] * 3
        assert begun.wait(20)
        assert len(beside.calls) == 1  # one at a time
    finally:
        release.set()


def test_thresholds_and_the_filter_shape_what_leaves(configured: Configured) -> None:
    config = EndpointConfig(
        "pair",
        thresholds={"decision": Threshold("y", at=1.5, below="low", above="high", class_name="left")},
        response=ResponseFilter(outputs=("decision",)),
    )
    function = configured(config)
    answer = predict(function, {"instances": [[0.1, 9], [9, 0.1]]}, version="1")
    assert answer.json["predictions"] == ["low", "high"]
    metadata = function("GET", "/v2/models/pair").json
    assert [output["name"] for output in metadata["outputs"]] == ["decision"]
    hidden = function(
        "POST",
        "/v2/models/pair/infer",
        body={
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}],
            "outputs": [{"name": "y"}],
        },
    )
    assert (hidden.status, hidden.json["code"]) == (422, "unknown_field")


def test_the_endpoint_s_limits_come_before_the_model_s(configured: Configured, backend: FakeBackend) -> None:
    function = configured(EndpointConfig("pair", limits=EndpointLimits(max_rows=1, max_bytes=40)))
    rows = predict(function, {"instances": [[1, 2], [3, 4]]})
    assert (rows.status, problem(rows).code) == (413, "batch_too_large")
    size = predict(function, {"instances": [[1.00000001, 2.00000001]], "parameters": {}})
    assert (size.status, problem(size).code) == (413, "payload_too_large")
    assert not backend.calls


def test_priorities_of_tenants_reach_the_backend(configured: Configured, backend: FakeBackend) -> None:
    predict(configured(EndpointConfig("pair", limits=EndpointLimits(priorities={"acme": "high"}))))
    predict(configured(EndpointConfig("pair", limits=EndpointLimits(priorities={"other": "high"}))))
    high, normal = (context.priority for _, _, context in backend.calls)
    assert 0 < high < 128
    assert normal == 0


def test_auto_sends_large_requests_to_another_backend(configured: Configured, backend: FakeBackend) -> None:
    remote = FakeBackend(by_version)
    auto = AutoRouting(candidates=("function", "remote"), function_max_rows=2)
    function = configured(EndpointConfig("pair", auto=auto), {"remote": remote})
    assert model(predict(function, {"instances": [[1, 2]] * 3}))["backend"] == "remote"
    assert len(remote.calls) == 1
    assert not backend.calls


def test_what_takes_too_long_for_any_answer_is_told_so(configured: Configured, backend: FakeBackend) -> None:
    def slow(version: ModelVersion, inputs: Tensors) -> Tensors:
        Event().wait(0.4)
        return by_version(version, inputs)

    backend.run = slow
    function = configured(EndpointConfig("pair"), {})
    for _ in range(4):
        assert predict(function).status == 200
    missed = predict(function, x_sluice_deadline_ms="50")
    assert (missed.status, problem(missed).code) == (422, "deadline_missed")
    calls = len(backend.calls)
    assert predict(function, x_sluice_deadline_ms="50").status == 422
    assert len(backend.calls) == calls  # nothing ran that could not be in time


class Later(FakeBackend):
    """An asynchronous backend that is done when `done` is set."""

    def __init__(self) -> None:
        super().__init__(by_version)
        self.done = Event()
        self.taken: dict[str, Tensors] = {}
        self.error: errors.SluiceError | None = None
        self.outcome: errors.SluiceError | None = None

    def hand_in(
        self, version: ModelVersion, inputs: Tensors, context: InferenceContext, reference: str
    ) -> Mapping[str, str]:
        ticket = f"ticket-{len(self.taken)}"
        self.taken[ticket] = inputs
        return {"ticket": ticket}

    def fetch(
        self, version: ModelVersion, ticket: Mapping[str, str], rows: int | None
    ) -> Tensors | errors.SluiceError | None:
        if self.outcome is not None:
            return self.outcome
        if self.error is not None:
            raise self.error
        return by_version(version, self.taken[ticket["ticket"]]) if self.done.is_set() else None


@pytest.fixture
def later() -> Later:
    return Later()


@pytest.fixture
def asynchronous(configured: Configured, later: Later) -> Function:
    """A function whose only variant runs on the asynchronous backend."""
    choice = BackendChoice("sagemaker-async", {"endpoint": "later"})
    config = EndpointConfig("pair", (Variant("main", version=3, backend="later"),), backends={"later": choice})
    return configured(config, {"later": later})


def test_a_job_is_taken_on_request(asynchronous: Function, later: Later) -> None:
    taken = predict(asynchronous, prefer="respond-async, wait=10")
    assert taken.status == 202
    assert taken.headers["preference-applied"] == "respond-async"
    assert taken.headers["location"] == f"/v1/jobs/{taken.json['job_id']}"
    queued = JobDocument.model_validate_json(taken.body)
    assert (queued.state, queued.model.name, queued.progress) == (
        "queued",
        "pair",
        JobProgress(rows_done=0, rows_total=1),
    )
    assert not later.taken  # that is the worker's


def test_without_a_preference_the_answer_is_waited_for(asynchronous: Function) -> None:
    assert predict(asynchronous).json["predictions"] == [{"left": 3, "right": 6}]


def test_a_preference_changes_nothing_for_what_fits_into_an_answer(configured: Configured) -> None:
    answer = predict(configured(EndpointConfig("pair")), prefer="respond-async")
    assert answer.status == 200


@pytest.mark.parametrize(("prefer", "status", "code"), [("", 422, "async_required"), ("respond-async", 202, None)])
def test_what_no_answer_has_time_for_is_refused_or_taken_as_a_job(
    configured: Configured, later: Later, prefer: str, status: int, code: str | None
) -> None:
    def slow(version: ModelVersion, inputs: Tensors) -> Tensors:
        Event().wait(0.4)
        return by_version(version, inputs)

    config = EndpointConfig(
        "pair",
        (Variant("main", version=1),),
        auto=AutoRouting(("remote", "later")),
        backends={"later": BackendChoice("sagemaker-async")},
        breaker=BreakerSettings(enabled=False),
    )
    store = stored(config)
    function = configured(config, {"remote": FakeBackend(slow), "later": later}, endpoints=store)
    for _ in range(4):
        assert predict(function).status == 200
    store.put(StoredEndpoint(replace(config, timeout_ms=60), 2, 1_700_000_000))
    answer = predict(function, **({"prefer": prefer} if prefer else {}))
    assert answer.status == status
    if code is not None:
        assert problem(answer).code == code
