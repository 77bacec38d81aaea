"""Copies of requests for a variant whose answers are compared and never given."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from time import perf_counter
from typing import Literal

from shared.domain.dtypes import DType
from shared.domain.endpoint.config import EndpointConfig
from shared.domain.endpoint.shadow import Comparison, compare
from shared.domain.endpoint.target import Target
from shared.domain.errors import SluiceError
from shared.domain.ports import Backends, InferenceContext
from shared.domain.tensors import Tensors, bf16_to_fp32

_LEAST_URGENT = 19  # the highest "nice" value

ShadowState = Literal["compared", "dropped", "failed", "incomparable"]


@dataclass(frozen=True, slots=True)
class Shadowed:
    """What became of a copy: `dropped` if it was not done when the answer was; `code` is the error's if it failed."""

    target: Target
    state: ShadowState
    ms: float = 0.0
    comparison: Comparison | None = None
    code: str | None = None


class Copy:
    """A copy under way; its fields are written by the worker, `done` last."""

    __slots__ = ("code", "done", "ms", "outputs", "run", "target")

    def __init__(self, target: Target, run: Callable[[], Tensors]) -> None:
        self.target = target
        self.run = run
        self.outputs: Tensors | None = None
        self.code: str | None = None
        self.ms = 0.0
        self.done = False


class Shadows:
    """Runs one copy at a time beside the primary, on a thread of the lowest urgency.

    The primary never waits: while an earlier copy is still running, the next one is dropped. A model that runs inside
    the function takes what its processors have left, which is little where there is only one.
    """

    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self._copies: SimpleQueue[Copy] = SimpleQueue()
        self._current: Copy | None = None
        self._worker: threading.Thread | None = None

    def start(self, target: Target, inputs: Tensors, context: InferenceContext, config: EndpointConfig) -> Copy:
        """Begin a copy, if the one before has ended; nothing is raised, and nothing waited for."""
        backends = self._backends
        copy = Copy(target, lambda: backends.get(target.backend, config).infer(target.version, inputs, context))
        if self._current is not None and not self._current.done:
            return copy
        self._current = copy
        if self._worker is None or not self._worker.is_alive():
            self._worker = threading.Thread(target=self._work, name="shadow", daemon=True)
            self._worker.start()
        self._copies.put(copy)
        return copy

    def finish(self, copy: Copy, primary: Tensors, rows: int | None) -> Shadowed:
        """What has become of a copy by now, compared with the primary's outputs (`rows` None: not batched)."""
        if not copy.done:
            return Shadowed(copy.target, "dropped")
        if copy.outputs is None:
            return Shadowed(copy.target, "failed", copy.ms, code=copy.code)
        specs = copy.target.version.signature.outputs
        bf16 = {spec.name for spec in specs if spec.dtype is DType.BF16}
        comparison = compare(_widened(primary, bf16), _widened(copy.outputs, bf16), rows)
        return Shadowed(copy.target, "compared" if comparison else "incomparable", copy.ms, comparison)

    def _work(self) -> None:
        with suppress(OSError):  # Linux knows the urgency of a thread, other systems that of a process only
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LEAST_URGENT)
        while True:
            copy = self._copies.get()
            start = perf_counter()
            try:
                copy.outputs = copy.run()
            except SluiceError as error:
                copy.code = error.code
            except Exception:  # noqa: BLE001 - a copy must never end the thread; its failure is counted
                copy.code = SluiceError.code
            copy.ms = (perf_counter() - start) * 1e3
            copy.done = True


def _widened(outputs: Tensors, bf16: set[str]) -> Tensors:
    if not bf16:
        return outputs
    return {name: bf16_to_fp32(array) if name in bf16 else array for name, array in outputs.items()}
