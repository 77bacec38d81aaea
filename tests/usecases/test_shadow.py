"""Shadows run beside the primary, one at a time, and never raise."""

from threading import Event, current_thread
from typing import Any

import numpy as np
import pytest

from shared.domain.endpoint.config import EndpointConfig
from shared.domain.endpoint.target import Target
from shared.domain.errors import BackendTimeout
from shared.domain.model import ModelVersion
from shared.domain.ports import InferenceContext
from shared.domain.tensors import Tensors
from shared.usecases.shadow import Copy, Shadows
from tests.fakes import FakeBackend
from tests.functions.parts import FakeBackends
from tests.functions.support import published

CONTEXT = InferenceContext("r", "acme", 1000)
CONFIG = EndpointConfig("pair")
TARGET = Target("next", published(version=2), "beside")
ONES: Tensors = {"x": np.ones((2, 2), np.float32)}


def start(shadows: Shadows, target: Target = TARGET) -> Copy:
    return shadows.start(target, ONES, CONTEXT, CONFIG)


def wait_for(copy: Copy) -> None:
    pause = Event()
    for _ in range(2000):
        if copy.done:
            return
        pause.wait(0.01)
    raise AssertionError("the copy never ended")


def shadows_of(run: Any) -> Shadows:
    return Shadows(FakeBackends({"beside": FakeBackend(run)}))


def test_a_copy_that_is_done_is_compared() -> None:
    shadows = shadows_of(lambda _version, inputs: {"y": inputs["x"] + 1})
    copy = start(shadows)
    wait_for(copy)
    found = shadows.finish(copy, {"y": np.ones((2, 2), np.float32)}, 2)
    assert (found.state, found.target) == ("compared", TARGET)
    assert found.comparison is not None
    assert (found.comparison.rows, found.comparison.distance) == (2, 1.0)
    assert found.ms >= 0


def test_a_copy_that_is_not_done_is_dropped_and_the_next_one_runs_after_it() -> None:
    release = Event()
    calls: list[str] = []

    def run(_version: ModelVersion, inputs: Tensors) -> Tensors:
        calls.append(current_thread().name)
        release.wait(20)
        return {"y": inputs["x"]}

    shadows = shadows_of(run)
    first, second = start(shadows), start(shadows)
    assert shadows.finish(first, ONES, 2).state == "dropped"
    assert shadows.finish(second, ONES, 2).state == "dropped"
    release.set()
    wait_for(first)
    third = start(shadows)
    wait_for(third)
    assert calls == ["shadow", "shadow"]  # the second never ran


@pytest.mark.parametrize(
    ("error", "code"), [(BackendTimeout("It hangs."), "backend_timeout"), (ZeroDivisionError(), "internal")]
)
def test_what_a_copy_raises_is_told_and_no_more(error: Exception, code: str) -> None:
    def run(_version: ModelVersion, _inputs: Tensors) -> Tensors:
        raise error

    shadows = shadows_of(run)
    copy = start(shadows)
    wait_for(copy)
    found = shadows.finish(copy, ONES, 2)
    assert (found.state, found.code) == ("failed", code)
    again = start(shadows)
    wait_for(again)


def test_a_backend_that_there_is_not_is_a_failure_of_the_copy_alone() -> None:
    shadows = shadows_of(lambda _version, inputs: inputs)
    copy = start(shadows, Target("next", published(), "nowhere"))
    wait_for(copy)
    assert shadows.finish(copy, ONES, 2).code == "backend_unavailable"


def test_answers_without_anything_in_common_are_told_so() -> None:
    shadows = shadows_of(lambda _version, inputs: {"other": inputs["x"]})
    copy = start(shadows)
    wait_for(copy)
    assert shadows.finish(copy, {"y": ONES["x"]}, 2).state == "incomparable"
