"""What every backend must do: one suite for all adapters, each of which subclasses it with fixtures of its own.

`BackendContract` needs the fixture `backend`, which runs the versions of `MODELS` (the session's `container` serves
them). `FaultContract` needs `troubled`, the same behind the session's `faulty` server, and `unreachable`, where nobody
listens; its `outcomes` say what becomes of each fault, its `forms` which other forms of an answer it must understand. A
new kind of backend copies neither: it changes what differs.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic, sleep
from typing import ClassVar, Final

import numpy as np
import pytest

from shared.domain.dtypes import DType
from shared.domain.errors import (
    BackendError,
    BackendRejected,
    BackendTimeout,
    BackendUnavailable,
    BadImage,
    FieldError,
    SluiceError,
)
from shared.domain.model import ModelVersion
from shared.domain.ports import Backend, InferenceContext
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Array, Tensors, bytes_tensor, fp32_to_bf16
from tests.adapters.backends.faults import Fault
from tests.adapters.backends.faulty import Faulty
from tests.adapters.backends.faulty_http import problem
from tests.adapters.samples import version_of
from tests.models import add_model, identity_model, sum_model, write_package

DTYPES: Final = (DType.FP32, DType.FP64, DType.INT64, DType.BYTES, DType.BF16, DType.FP16, DType.BOOL)
CONTEXT: Final = InferenceContext("request-1", "tenant-1", 25_000)
HURRIED: Final = InferenceContext("request-2", "tenant-1", 400)
THREADS, CALLS = 8, 12
PATIENCE_S = 20.0


def spec(name: str, dtype: DType = DType.FP32, *shape: int | None) -> TensorSpec:
    return TensorSpec(name, dtype, shape or (None, 2))


def _same(dtype: DType) -> Signature:
    return Signature((spec("x", dtype),), (spec("y", dtype),))


def _sums() -> Signature:
    inputs = tuple(spec(name, DType.FP32, None, None) for name in ("a", "b"))
    return Signature(inputs, tuple(spec(name, DType.FP32, None, None) for name in ("total", "difference")))


# Graphs and signatures by model; version n of `add` adds n.
MODELS: Final[Mapping[str, Signature]] = {
    **{f"same-{dtype.lower()}": _same(dtype) for dtype in DTYPES},
    "add": _same(DType.FP32),
    "sum": _sums(),
    "whole": Signature((spec("x", DType.FP32, 3, 2),), (spec("y", DType.FP32, 3, 2),), batched=False),
}


def write_models(folder: Path) -> Path:
    """The models as a container's folder holds them."""
    for dtype in DTYPES:
        write_package(folder / f"same-{dtype.lower()}" / "1", identity_model(dtype))
    write_package(folder / "add" / "1", add_model(1.0))
    write_package(folder / "add" / "2", add_model(2.0))
    write_package(folder / "sum" / "1", sum_model())
    write_package(folder / "whole" / "1", identity_model(DType.FP32, (3, 2)))
    return folder


def published(model: str, number: int = 1) -> ModelVersion:
    """A version of one of `MODELS`."""
    return version_of(model, number, signature=MODELS[model])


def values(dtype: DType, rows: int) -> Array:
    """[rows, 2] of different values, the awkward ones among them."""
    numbers = np.arange(2 * rows).reshape(rows, 2)
    if dtype is DType.BYTES:
        texts = [f"ü {number}\n".encode() for number in numbers.reshape(-1)]
        texts[0] = b""
        return bytes_tensor(texts).reshape(rows, 2)
    if dtype is DType.BF16:
        return fp32_to_bf16((numbers / 3).astype(np.float32))
    if dtype is DType.INT64:
        return np.asarray(numbers - 2**62, dtype=np.int64)
    return np.asarray(numbers if dtype is DType.BOOL else numbers / 3).astype(NUMPY_DTYPES[dtype])


def answer_of(model: str, inputs: Tensors, number: int = 1) -> dict[str, Array]:
    """What the model answers, by NumPy."""
    if model == "sum":
        return {"total": inputs["a"] + inputs["b"], "difference": inputs["a"] - inputs["b"]}
    return {"y": inputs["x"] + np.float32(number) if model == "add" else inputs["x"]}


def check(outputs: Tensors, wanted: Mapping[str, Array]) -> None:
    """These outputs, in this order, with these dtypes and shapes."""
    assert list(outputs) == list(wanted)
    for name, array in wanted.items():
        assert outputs[name].dtype == array.dtype
        np.testing.assert_array_equal(outputs[name], array)


SUMMANDS: Final[Tensors] = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.full((2, 3), 0.5, dtype=np.float32),
}


class BackendContract:
    """Right answers."""

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("rows", [1, 5])
    def test_every_dtype_comes_back_as_it_went(self, backend: Backend, dtype: DType, rows: int) -> None:
        inputs = {"x": values(dtype, rows)}
        outputs = backend.infer(published(f"same-{dtype.lower()}"), inputs, CONTEXT)
        check(outputs, {"y": inputs["x"]})

    def test_outputs_have_the_order_of_the_signature(self, backend: Backend) -> None:
        version = published("sum")
        check(backend.infer(version, SUMMANDS, CONTEXT), answer_of("sum", SUMMANDS))

    def test_without_a_batch_axis_the_shapes_are_the_models(self, backend: Backend) -> None:
        inputs = {"x": np.arange(6, dtype=np.float32).reshape(3, 2)}
        check(backend.infer(published("whole"), inputs, CONTEXT), {"y": inputs["x"]})

    @pytest.mark.parametrize("number", [1, 2])
    def test_the_version_that_was_asked_for_answers(self, backend: Backend, number: int) -> None:
        inputs = {"x": values(DType.FP32, 3)}
        check(backend.infer(published("add", number), inputs, CONTEXT), answer_of("add", inputs, number))

    def test_callers_at_the_same_time_get_their_own_answers(self, backend: Backend) -> None:
        def call(caller: int) -> None:
            for turn in range(CALLS):
                number = 1 + (caller + turn) % 2
                inputs = {"x": np.full((1 + turn % 3, 2), caller * 1000 + turn, dtype=np.float32)}
                context = replace(CONTEXT, request_id=f"request-{caller}-{turn}", tenant=f"tenant-{caller}")
                check(backend.infer(published("add", number), inputs, context), answer_of("add", inputs, number))

        with ThreadPoolExecutor(THREADS) as pool:
            for future in [pool.submit(call, caller) for caller in range(THREADS)]:
                future.result()

    @pytest.mark.parametrize("deadline_ms", [0, -5])
    def test_nothing_runs_after_the_deadline(self, backend: Backend, deadline_ms: int) -> None:
        with pytest.raises(BackendTimeout):
            backend.infer(published("add"), {"x": values(DType.FP32, 1)}, replace(CONTEXT, deadline_ms=deadline_ms))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a fault: the very class of the error, and what it says of another attempt."""

    fault: Fault
    kind: type[SluiceError]
    retryable: bool = False
    retry_after_s: float | None = None
    fields: tuple[FieldError, ...] = ()
    context: InferenceContext = field(default_factory=lambda: CONTEXT)


_TEXT = {"content-type": "application/json"}
_PLACE = FieldError("/inputs/0/data/1", "is not an image")


def status(code: int, body: str = "", **headers: str) -> Fault:
    """An answer with this status."""
    return Fault(
        "status", status=code, body=body, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )


HTTP_OUTCOMES: Final[Mapping[str, Outcome]] = {
    "reset before the request was read": Outcome(Fault("reset-unread"), BackendUnavailable, retryable=True),
    "reset after the request was read": Outcome(Fault("reset"), BackendUnavailable, retryable=True),
    "closed without an answer": Outcome(Fault("closed"), BackendUnavailable, retryable=True),
    "no answer": Outcome(Fault("hang"), BackendTimeout, context=HURRIED),
    "an answer byte by byte": Outcome(Fault("drip", seconds=0.02), BackendTimeout, context=HURRIED),
    "an answer too late": Outcome(Fault("slow", seconds=5), BackendTimeout, context=HURRIED),
    "half an answer": Outcome(Fault("truncated"), BackendError),
    "500": Outcome(status(500, "secret traceback"), BackendError),
    "502": Outcome(status(502, "<html>"), BackendError),
    "503 with Retry-After": Outcome(
        status(503, "{}", retry_after="7"), BackendUnavailable, retryable=True, retry_after_s=7
    ),
    "504": Outcome(status(504), BackendTimeout),
    "429 with Retry-After": Outcome(
        status(429, '{"error": "slow down"}', retry_after="2"), BackendUnavailable, retryable=True, retry_after_s=2
    ),
    "400": Outcome(status(400, '{"error": "unexpected shape for input"}'), BackendRejected),
    "404": Outcome(status(404, '{"error": "unknown model"}'), BackendRejected),
    "a version that is not loaded": Outcome(
        status(404, problem("version_not_found")), BackendUnavailable, retryable=True
    ),
    "a full queue": Outcome(
        status(503, problem("backend_unavailable"), retry_after="1"),
        BackendUnavailable,
        retryable=True,
        retry_after_s=1,
    ),
    "content that is at fault": Outcome(
        status(422, problem("bad_image", errors=[{"pointer": _PLACE.pointer, "detail": _PLACE.detail}])),
        BadImage,
        fields=(_PLACE,),
    ),
    "a deadline that passed in the queue": Outcome(status(504, problem("backend_timeout")), BackendTimeout),
    "garbage": Outcome(Fault("garbage"), BackendError),
    "a body that is none of the protocol": Outcome(Fault("nonsense"), BackendError),
    "a redirect": Outcome(Fault("redirect"), BackendError),
    "a compressed bomb": Outcome(Fault("bomb"), BackendError),
    "too many bytes": Outcome(Fault("endless"), BackendError),
    "too many bytes in chunks": Outcome(Fault("endless", body="chunked"), BackendError),
    **{
        f"another {kind}": Outcome(Fault(kind), BackendError)
        for kind in ("model", "version", "id", "dtype", "shape", "rows")
    },
    "an output that is missing": Outcome(Fault("missing"), BackendError),
    "an output too many": Outcome(Fault("further"), BackendError),
}


class FaultContract:
    """What goes wrong is told apart, ends in time, and is over when it is over."""

    outcomes: ClassVar[Mapping[str, Outcome]] = HTTP_OUTCOMES
    forms: ClassVar[tuple[str, ...]] = ("reordered", "parameters", "nameless", "json", "mixed")

    def test_a_fault_is_what_it_is(self, troubled: Backend, faulty: Faulty, outcome: Outcome) -> None:
        faulty.switch.set(outcome.fault)
        error = fails(troubled, outcome.kind, outcome.context)
        assert getattr(error, "retryable", False) is outcome.retryable
        assert error.retry_after_s == outcome.retry_after_s
        assert error.fields == outcome.fields
        assert "traceback" not in error.detail
        faulty.switch.heal()
        works_again(troubled)

    def test_a_connection_that_broke_while_it_was_kept_is_no_fault(self, troubled: Backend, faulty: Faulty) -> None:
        works_again(troubled)
        faulty.switch.set(Fault("closed"), times=1)
        works_again(troubled)
        assert faulty.switch.calls["closed"] == 1

    def test_answers_may_have_another_form(self, troubled: Backend, faulty: Faulty, form: str) -> None:
        faulty.switch.set(Fault(form))
        check(troubled.infer(published("sum"), SUMMANDS, CONTEXT), answer_of("sum", SUMMANDS))
        assert faulty.switch.calls[form] == 1

    def test_a_slow_answer_within_the_deadline_is_one(self, troubled: Backend, faulty: Faulty) -> None:
        faulty.switch.set(Fault("slow", seconds=0.2))
        check(troubled.infer(published("sum"), SUMMANDS, CONTEXT), answer_of("sum", SUMMANDS))

    def test_callers_at_the_same_time_have_their_own_faults(self, troubled: Backend, faulty: Faulty) -> None:
        """Every third answer is for another request: nobody gets it, and nobody gets somebody else's either."""
        faulty.switch.set(Fault("id"), every=3)

        def call(caller: int) -> list[str]:
            refused = []
            for turn in range(CALLS):
                inputs = {"x": np.full((1, 2), caller * 1000 + turn, dtype=np.float32)}
                context = replace(CONTEXT, request_id=f"request-{caller}-{turn}")
                try:
                    check(troubled.infer(published("add"), inputs, context), answer_of("add", inputs))
                except BackendError as error:
                    refused.append(error.detail)
            return refused

        with ThreadPoolExecutor(THREADS) as pool:
            refused = [detail for details in pool.map(call, range(THREADS)) for detail in details]
        assert len(refused) == faulty.switch.calls["id"] == THREADS * CALLS // 3
        assert all("another request" in detail for detail in refused)

    def test_nobody_listens(self, unreachable: Backend) -> None:
        error = fails(unreachable, BackendUnavailable, CONTEXT)
        assert isinstance(error, BackendUnavailable)
        assert error.retryable


def fails(backend: Backend, kind: type[SluiceError], context: InferenceContext) -> SluiceError:
    """The error of a call, which is of this very class."""
    with pytest.raises(kind) as caught:
        backend.infer(published("sum"), SUMMANDS, context)
    assert type(caught.value) is kind, caught.value
    return caught.value


def works_again(backend: Backend) -> None:
    """The backend answers; a client that was refused a connection may make a pause before it asks for another."""
    end = monotonic() + PATIENCE_S
    while True:
        try:
            outputs = backend.infer(published("sum"), SUMMANDS, CONTEXT)
        except BackendUnavailable:
            if monotonic() > end:
                raise
            sleep(0.02)
            continue
        check(outputs, answer_of("sum", SUMMANDS))
        return
