"""Predict in steps: what is checked first and runs later, in parts or elsewhere."""

from dataclasses import replace

import numpy as np
import pytest

from shared.codecs.content.decoded import Decoded, PlainDecoded
from shared.domain.endpoint.config import BackendChoice, EndpointConfig, EndpointLimits, Variant
from shared.domain.errors import AsyncRequired, BatchTooLarge, InsufficientScope, WrongDtype
from shared.domain.ports import InferenceContext
from shared.domain.signature import Signature
from shared.domain.validation import Inputs
from shared.usecases.prediction import Decode, Wanted
from tests.fakes import FakeBackend, InMemoryModels
from tests.functions.parts import predict_of, stored
from tests.functions.support import CALLER, published
from tests.usecases.job_runs import SIGNATURE, tenfold

CONTEXT = InferenceContext("r", "acme", 10_000)
LATER = EndpointConfig(
    "pair",
    (Variant("main", backend="later"),),
    backends={"later": BackendChoice("sagemaker-async", {"endpoint": "x"})},
)


def rows(number: int) -> PlainDecoded:
    return PlainDecoded(Inputs({"x": np.arange(number * 2, dtype=np.float32).reshape(number, 2)}))


def decode_as(decoded: Decoded) -> Decode:
    def decode(signature: Signature, limits: EndpointLimits) -> Decoded:
        return decoded

    return decode


def test_what_was_checked_runs_whole_or_in_parts_without_being_read_again() -> None:
    backend = FakeBackend(tenfold)
    predict = predict_of(InMemoryModels(published(signature=SIGNATURE)), {"function": backend})
    checked = predict.check(CALLER, Wanted("pair"), decode_as(rows(7)), 100)
    assert (checked.rows, checked.part_rows, checked.target.version.version) == (7, 4, 1)
    assert not backend.calls
    parts = [predict.run(checked, CONTEXT, first, first + 3) for first in (0, 3, 6)]
    assert [part.rows for part in parts] == [3, 3, 1]
    together = np.concatenate([part.outputs["y"] for part in parts])
    assert together.tolist() == (rows(7).inputs.tensors["x"] * 10 + 1).tolist()
    assert predict.check(CALLER, Wanted("pair"), decode_as(rows(2)), 100).part(0, None).rows == 2


def test_a_place_in_a_part_is_told_as_that_in_the_request() -> None:
    predict = predict_of(InMemoryModels(published(signature=SIGNATURE)), {})
    part = predict.check(CALLER, Wanted("pair"), decode_as(rows(7)), 100).part(4, 6)
    assert part.locate("x", (1, 0)) == "/inputs/x/5/0"
    assert part.locate("x", ()) == "/inputs/x"


def test_parts_are_as_large_as_the_endpoint_allows() -> None:
    models = InMemoryModels(published(signature=replace(SIGNATURE, max_batch=5000)))
    for limit, most in ((None, 1024), (10, 10), (6000, 5000)):
        config = EndpointConfig("pair", limits=EndpointLimits(max_rows=limit))
        predict = predict_of(models, {}, endpoints=stored(config))
        assert predict.check(CALLER, Wanted("pair"), decode_as(rows(1)), 10_000).part_rows == most


def test_more_than_a_job_may_have_and_what_a_prediction_refuses_is_refused() -> None:
    predict = predict_of(InMemoryModels(published(signature=SIGNATURE)), {})
    with pytest.raises(BatchTooLarge):
        predict.check(CALLER, Wanted("pair"), decode_as(rows(6)), 5)
    with pytest.raises(WrongDtype):
        predict.check(CALLER, Wanted("pair"), decode_as(Decoded(rows(1).inputs, parameters={"timeout": "soon"})), 5)
    with pytest.raises(InsufficientScope):
        predict.check(replace(CALLER, scopes=frozenset({"jobs"})), Wanted("pair"), decode_as(rows(1)), 5)


def test_what_runs_elsewhere_is_not_cut() -> None:
    predict = predict_of(InMemoryModels(published(signature=SIGNATURE)), {}, endpoints=stored(LATER))
    assert predict.check(CALLER, Wanted("pair"), decode_as(rows(4)), 100).target.backend == "later"
    with pytest.raises(BatchTooLarge):
        predict.check(CALLER, Wanted("pair"), decode_as(rows(5)), 100)


def test_who_prefers_a_job_to_waiting_for_such_a_backend_is_told_to_take_one() -> None:
    backend = FakeBackend(tenfold)
    predict = predict_of(InMemoryModels(published(signature=SIGNATURE)), {"later": backend}, endpoints=stored(LATER))
    assert predict(CALLER, Wanted("pair"), decode_as(rows(1)), CONTEXT).backend == "later"
    with pytest.raises(AsyncRequired):
        predict(CALLER, Wanted("pair", respond_async=True), decode_as(rows(1)), CONTEXT)
    assert len(backend.calls) == 1
