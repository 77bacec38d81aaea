"""What predictions leave in their lines is what telemetry counts."""

import json
import logging
from collections.abc import Callable

import numpy as np
import pytest

from functions.predict.bootstrap import application
from shared.domain.audit import record_of
from shared.domain.endpoint.config import (
    CacheSettings,
    EndpointConfig,
    Experiment,
    Fallback,
    Retries,
    Shadow,
    Variant,
)
from shared.domain.endpoint.traffic_counts import Traffic, traffic_in, traffic_of
from shared.domain.errors import BackendUnavailable
from shared.domain.model import ModelVersion
from shared.domain.request_line import RequestLine, parse_line
from shared.domain.tensors import Tensors
from tests.fakes import FakeBackend, InMemoryModels
from tests.functions.conftest import LogLines, Serve
from tests.functions.parts import parts, stored
from tests.functions.support import Function, predict_settings, published
from tests.log_lines import NOON, entry

SPLIT = (Variant("main", version=1), Variant("next", version=2, weight=0))


def by_version(version: ModelVersion, inputs: Tensors) -> Tensors:
    return {"y": np.asarray(inputs["x"] * version.version, dtype=np.float32)}


def down(version: ModelVersion, inputs: Tensors) -> Tensors:
    raise BackendUnavailable("It is down.")


Configured = Callable[..., Function]


@pytest.fixture
def configured(serve: Serve, log: logging.Logger) -> Configured:
    def make(config: EndpointConfig, run: Callable[[ModelVersion, Tensors], Tensors] = by_version) -> Function:
        registry = InMemoryModels(published(version=1), published(version=2))
        made = parts(registry, {"function": FakeBackend(run)}, endpoints=stored(config))
        return serve(application(predict_settings(), made, log))

    return make


def predict(function: Function, times: int = 1) -> None:
    for number in range(times):
        function("POST", "/v1/models/pair/predict", body={"instances": [[1, 2]]}, headers={"x-user": f"u{number}"})


def counted(lines: LogLines) -> Traffic:
    parts_ = []
    for written in lines.requests():
        line = parse_line(json.dumps(written))
        assert isinstance(line, RequestLine)
        found = traffic_of(line, NOON, "0")
        assert found is not None
        parts_.append(found[1])
    return traffic_in(parts_)


def test_exposures_and_kept_answers(configured: Configured, log_lines: LogLines) -> None:
    experiment = Experiment("colour", "header:x-user", {"main": 1, "next": 1})
    config = EndpointConfig("pair", SPLIT, experiment=experiment, cache=CacheSettings(ttl_s=60))
    predict(configured(config), times=20)
    found = counted(log_lines)
    assert {experiment for experiment, _ in found.arms} == {"colour"}
    assert sum(arm.exposures for arm in found.arms.values()) == 20
    assert sum(variant.cache_hits for variant in found.variants.values()) == 18
    (line,) = [parse_line(json.dumps(line)) for line in log_lines.requests()[:1]]
    assert isinstance(line, RequestLine)
    recorded = record_of(line, entry(""))
    assert recorded is not None
    assert (recorded.experiment, recorded.arm, len(recorded.unit)) == ("colour", recorded.variant, 16)
    assert recorded.cache in {"miss", "hit"}


def test_copies(configured: Configured, log_lines: LogLines) -> None:
    predict(configured(EndpointConfig("pair", SPLIT, shadow=Shadow("next"))), times=10)
    (shadow,) = counted(log_lines).shadows.values()
    assert shadow.copied == 10
    assert shadow.compared + shadow.dropped == 10
    assert shadow.rows == shadow.compared
    if shadow.compared:  # as many as the machine had time for
        assert shadow.timed == shadow.compared
        assert shadow.mean_distance is not None
        assert shadow.mean_distance > 0


def test_stand_ins(configured: Configured, log_lines: LogLines) -> None:
    fallback = (Fallback("static", outputs={"y": [0.0, 0.0]}),)
    config = EndpointConfig("pair", SPLIT, fallback=fallback, retries=Retries(attempts=0))
    predict(configured(config, down), times=2)
    found = counted(log_lines)
    assert sum(found.fallbacks.values()) == 2
    assert {stand_in for stand_in, _ in found.fallbacks} == {"static"}
    assert {why for _, why in found.fallbacks} <= {"backend_unavailable", "circuit_open"}
    assert found.variants["main"].fallbacks == 2


def test_failures_count_for_the_variant_and_the_arm(configured: Configured, log_lines: LogLines) -> None:
    experiment = Experiment("colour", "header:x-user", {"main": 1, "next": 1})
    predict(configured(EndpointConfig("pair", SPLIT, experiment=experiment), down), times=6)
    found = counted(log_lines)
    assert sum(arm.exposures for arm in found.arms.values()) == 6
    assert {arm.error_rate for arm in found.arms.values()} == {1.0}
    assert {variant.error_rate for variant in found.variants.values()} == {1.0}
