"""One prediction, whatever the transport: pick the model, decode, run, encode."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import Generic, TypeVar

from gpu_service.repository import ModelKey, ModelRepository, ServedModel
from gpu_service.workers import WorkerPool
from shared.domain.errors import BackendTimeout, UnknownField, pointer
from shared.domain.signature import Signature
from shared.domain.tensors import Tensors
from shared.domain.validation import Inputs, conform

ReplyT = TypeVar("ReplyT")


@dataclass(frozen=True, slots=True)
class Decoded:
    """A request's tensors, and the outputs that it wants (empty: all)."""

    inputs: Inputs
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """Outer outputs and who made them."""

    key: ModelKey
    signature: Signature
    outputs: Tensors


@dataclass(slots=True)
class Call:
    """One call; `deadline` is a time of `time.monotonic`. What is learned on the way is kept for the log."""

    model: str | None = None
    version: int | None = None
    deadline: float | None = None
    key: ModelKey | None = None
    rows: int | None = None
    steps_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Codec(Generic[ReplyT]):
    """How a transport reads a request by the model's signature, and writes the answer."""

    decode: Callable[[Signature], Decoded]
    encode: Callable[[Result], ReplyT]


class DataPlane:
    """Serves the models of a repository with the threads of a pool."""

    def __init__(self, repository: ModelRepository, pool: WorkerPool) -> None:
        self.repository = repository
        self._pool = pool

    async def infer(self, call: Call, codec: Codec[ReplyT]) -> ReplyT:
        """The encoded answer.

        Decoding and encoding happen in the worker's thread too: a large body must not hold up the event loop. Raises
        InvalidRequest, ModelNotFound, VersionNotFound, BackendUnavailable (queue full), BackendTimeout (deadline passed
        before the model was started), BackendError.
        """
        key, model = self.repository.get(call.model, call.version)
        call.key = key
        _check_deadline(call)
        accepted = perf_counter()
        return await self._pool.run(lambda: _serve(call, key, model, codec, accepted))


def _serve(call: Call, key: ModelKey, model: ServedModel, codec: Codec[ReplyT], accepted: float) -> ReplyT:
    clock = _Clock(call, accepted)
    clock.mark("queue")
    _check_deadline(call)
    decoded = codec.decode(model.signature)
    inputs = conform(decoded.inputs, model.signature)
    _check_outputs(decoded.outputs, model.signature)
    first = next(iter(inputs.values()))
    call.rows = len(first) if model.signature.batched else 1
    clock.mark("decode")
    _check_deadline(call)
    outputs = model.run(inputs, decoded.outputs)
    clock.mark("run")
    reply = codec.encode(Result(key, model.signature, outputs))
    clock.mark("encode")
    return reply


class _Clock:
    def __init__(self, call: Call, start: float) -> None:
        self._call = call
        self._last = start

    def mark(self, step: str) -> None:
        now = perf_counter()
        self._call.steps_ms[step] = round((now - self._last) * 1e3, 3)
        self._last = now


def _check_deadline(call: Call) -> None:
    if call.deadline is not None and monotonic() >= call.deadline:
        raise BackendTimeout("The caller's deadline passed before the model was started.")


def _check_outputs(wanted: tuple[str, ...], signature: Signature) -> None:
    for position, name in enumerate(wanted):
        if name not in signature.output_names:
            known = ", ".join(signature.output_names)
            raise UnknownField.at(
                pointer("/outputs", position), f"{name!r} is not an output of this model; it has {known}"
            )
