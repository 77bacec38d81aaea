"""Predict: who may, in which order, and what is told to whom."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from shared.codecs.content.decoded import Decoded
from shared.domain.dtypes import DType
from shared.domain.endpoint.config import FUNCTION, EndpointLimits
from shared.domain.errors import (
    BackendTimeout,
    DeadlineMissed,
    InsufficientScope,
    InvalidRequest,
    ModelNotFound,
    UnknownField,
    VersionNotFound,
    WrongDtype,
    WrongShape,
)
from shared.domain.jobs import Job
from shared.domain.model import ModelVersion, Placement
from shared.domain.ports import InferenceContext
from shared.domain.principal import Principal
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import Array, Tensors
from shared.domain.validation import Inputs
from shared.usecases.prediction import Prediction, Wanted
from tests.fakes import FakeBackend, InMemoryModels
from tests.functions.parts import predict_of

SIGNATURE = Signature(
    inputs=(TensorSpec("x", DType.FP32, (None, 4), layouts=((2, 2),)),),
    outputs=(TensorSpec("y", DType.FP32, (None, 4)),),
    max_batch=2,
)
CONTEXT = InferenceContext(request_id="r", tenant="acme", deadline_ms=1000)


def version(number: int, placement: Placement = Placement.FUNCTION, model: str = "double") -> ModelVersion:
    return ModelVersion(model, number, f"digest-{number}", (), SIGNATURE, placement, "2026-01-01T00:00:00+00:00")


def double(_version: ModelVersion, inputs: Tensors) -> Mapping[str, Array]:
    return {"y": inputs["x"] * 2}


def caller(*scopes: str) -> Principal:
    return Principal("acme", "k1", frozenset(scopes), "demo")


def predicted(answer: Prediction | Job) -> Prediction:
    assert isinstance(answer, Prediction)
    return answer


def given(*shape: int, **more: Any) -> Decoded:
    return Decoded(Inputs({"x": np.ones(shape, np.float32)}), **more)


def test_the_highest_version_runs_where_it_is_placed() -> None:
    function, container = FakeBackend(double), FakeBackend(double)
    models = InMemoryModels(version(2, Placement.CONTAINER), version(10, Placement.FUNCTION), version(9))
    predict = predict_of(models, {FUNCTION: function, Placement.CONTAINER: container})
    made = predicted(predict(caller("predict"), Wanted("double"), lambda *_: given(1, 4), CONTEXT))
    assert (made.version.version, made.backend) == (10, "function")
    assert made.outputs["y"].tolist() == [[2.0] * 4]
    assert not container.calls
    (context,) = (call[2] for call in function.calls)
    assert replace(context, deadline_ms=1000) == CONTEXT
    assert 900 < context.deadline_ms <= 1000
    assert made.timings_ms.keys() == {"route", "decode", "run"}
    again = predicted(predict(caller("predict"), Wanted("double"), lambda *_: given(1, 4), CONTEXT))
    assert again.prediction_id != made.prediction_id


def test_decode_gets_the_signature_and_the_backend_conformed_tensors() -> None:
    backend = FakeBackend(double)
    seen: list[Signature] = []

    def decode(signature: Signature, limits: EndpointLimits) -> Decoded:
        seen.append(signature)
        return given(2, 2, 2)

    predict_of(InMemoryModels(version(1)), {FUNCTION: backend})(caller("predict"), Wanted("double"), decode, CONTEXT)
    assert seen == [SIGNATURE]
    assert backend.calls[0][1]["x"].shape == (2, 4)


@pytest.mark.parametrize("shape", [(0, 4), (3, 4), (1, 5), (4,), (1, 4, 1)])
def test_what_does_not_conform_reaches_no_backend(shape: tuple[int, ...]) -> None:
    backend = FakeBackend(double)
    predict = predict_of(InMemoryModels(version(1)), {FUNCTION: backend})
    with pytest.raises(InvalidRequest):
        predict(caller("predict"), Wanted("double"), lambda *_: given(*shape), CONTEXT)
    assert not backend.calls


def test_a_body_that_cannot_be_decoded_reaches_no_backend() -> None:
    backend = FakeBackend(double)

    def decode(_signature: Signature, _limits: EndpointLimits) -> Decoded:
        raise WrongShape.at("/instances", "is bent")

    with pytest.raises(WrongShape):
        predict_of(InMemoryModels(version(1)), {FUNCTION: backend})(
            caller("predict"), Wanted("double"), decode, CONTEXT
        )
    assert not backend.calls


def unreadable(_signature: Signature, _limits: EndpointLimits) -> Decoded:
    raise AssertionError("the body was read")


@pytest.mark.parametrize("scopes", [(), ("predict:other",), ("admin",), ("predict:doubl",)])
@pytest.mark.parametrize("model", ["double", "absent"])
def test_a_caller_without_scope_learns_nothing_of_what_exists(scopes: tuple[str, ...], model: str) -> None:
    models = InMemoryModels(version(1))
    with pytest.raises(InsufficientScope) as caught:
        predict_of(models, {FUNCTION: FakeBackend(double)})(caller(*scopes), Wanted(model), unreadable, CONTEXT)
    assert models.calls == 0
    assert caught.value.detail == f"This needs a credential with the scope 'predict' or 'predict:{model}'."


def test_the_scope_of_one_model_is_enough_for_it() -> None:
    predict = predict_of(InMemoryModels(version(1)), {FUNCTION: FakeBackend(double)})
    made = predicted(predict(caller("predict:double"), Wanted("double"), lambda *_: given(1, 4), CONTEXT))
    assert made.version.model == "double"


def test_an_unknown_model_is_told_before_the_body_is_read() -> None:
    with pytest.raises(ModelNotFound):
        predict_of(InMemoryModels(version(1)), {})(caller("predict"), Wanted("absent"), unreadable, CONTEXT)


def test_a_backend_error_is_the_caller_s_to_see() -> None:
    late = InferenceContext(request_id="r", tenant="acme", deadline_ms=0)
    predict = predict_of(InMemoryModels(version(1)), {FUNCTION: FakeBackend(double)})
    with pytest.raises(BackendTimeout):
        predict(caller("predict"), Wanted("double", full_ms=0), lambda *_: given(1, 4), late)


def test_an_older_version_runs_if_it_is_named() -> None:
    backend = FakeBackend(double)
    predict = predict_of(InMemoryModels(version(1), version(2)), {FUNCTION: backend})
    made = predicted(predict(caller("predict"), Wanted("double", 1), lambda *_: given(2, 4), CONTEXT))
    assert (made.version.version, made.variant, made.rows) == (1, "v1", 2)
    with pytest.raises(VersionNotFound):
        predict(caller("predict"), Wanted("double", 3), unreadable, CONTEXT)


def test_outputs_that_the_model_has_not_reach_no_backend() -> None:
    backend = FakeBackend(double)
    predict = predict_of(InMemoryModels(version(1)), {FUNCTION: backend})
    with pytest.raises(UnknownField) as caught:
        predict(caller("predict"), Wanted("double"), lambda *_: given(1, 4, outputs=("y", "z")), CONTEXT)
    assert caught.value.fields[0].pointer == "/outputs/1"
    made = predicted(predict(caller("predict"), Wanted("double"), lambda *_: given(1, 4, outputs=("y",)), CONTEXT))
    assert made.decoded.outputs == ("y",)
    assert len(backend.calls) == 1


@pytest.mark.parametrize(("timeout", "deadline"), [(0, 1000), (250_000, 250), (10**9, 1000), ("500000", 500)])
def test_the_protocol_s_timeout_shortens_the_deadline(timeout: Any, deadline: int) -> None:
    backend = FakeBackend(double)
    predict = predict_of(InMemoryModels(version(1)), {FUNCTION: backend})
    predict(caller("predict"), Wanted("double"), lambda *_: given(1, 4, parameters={"timeout": timeout}), CONTEXT)
    assert deadline - 100 < backend.calls[0][2].deadline_ms <= deadline


@pytest.mark.parametrize(("parameters", "error"), [({"timeout": 1000}, DeadlineMissed), ({}, BackendTimeout)])
def test_a_timeout_of_the_request_itself_is_no_fault_of_the_backend(parameters: Any, error: type[Exception]) -> None:
    def slow(_version: ModelVersion, _inputs: Tensors) -> Tensors:
        raise BackendTimeout("The container did not answer in time.")

    predict = predict_of(InMemoryModels(version(1)), {FUNCTION: FakeBackend(slow)})
    wanted = Wanted("double", full_ms=CONTEXT.deadline_ms)
    with pytest.raises(error):
        predict(caller("predict"), wanted, lambda *_: given(1, 4, parameters=parameters), CONTEXT)


@pytest.mark.parametrize("timeout", [-1, 1.5, True, "soon", None])
def test_a_timeout_that_is_none_is_refused(timeout: Any) -> None:
    predict = predict_of(InMemoryModels(version(1)), {FUNCTION: FakeBackend(double)})
    with pytest.raises(WrongDtype) as caught:
        predict(caller("predict"), Wanted("double"), lambda *_: given(1, 4, parameters={"timeout": timeout}), CONTEXT)
    assert caught.value.fields[0].pointer == "/parameters/timeout"


@pytest.mark.parametrize("priority", [0, 1, 255, "7"])
def test_a_priority_changes_nothing(priority: Any) -> None:
    backend = FakeBackend(double)
    predict = predict_of(InMemoryModels(version(1)), {FUNCTION: backend})
    predict(caller("predict"), Wanted("double"), lambda *_: given(1, 4, parameters={"priority": priority}), CONTEXT)
    assert [context.priority for _, _, context in backend.calls] == [0]


@pytest.mark.parametrize("priority", [-1, 256, 1.5, "first", None])
def test_a_priority_that_is_none_is_refused(priority: Any) -> None:
    predict = predict_of(InMemoryModels(version(1)), {FUNCTION: FakeBackend(double)})
    with pytest.raises(WrongDtype) as caught:
        predict(caller("predict"), Wanted("double"), lambda *_: given(1, 4, parameters={"priority": priority}), CONTEXT)
    assert caught.value.fields[0].pointer == "/parameters/priority"
