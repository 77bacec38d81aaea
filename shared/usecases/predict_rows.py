"""Rows of a batch through the data plane: pinned, enriched, run at the best size, a poisoned one alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from time import perf_counter, time
from typing import Final

import numpy as np

from shared.codecs.batch.rows import Rows
from shared.domain.batch_plan import Pin
from shared.domain.batch_ports import Held
from shared.domain.batches import answers_later
from shared.domain.dtypes import DType
from shared.domain.endpoint.auto import Work
from shared.domain.endpoint.config import EndpointConfig, EndpointState, StoredEndpoint
from shared.domain.endpoint.outputs import OutputPlan
from shared.domain.endpoint.target import Target
from shared.domain.endpoint.traffic import Caller
from shared.domain.errors import BackendError, BackendRejected, BackendTimeout, InvalidRequest, SluiceError
from shared.domain.features import MAX_KEYS
from shared.domain.jobs import Job
from shared.domain.model import ModelVersion
from shared.domain.pace import Pace
from shared.domain.ports import InferenceContext
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Tensors
from shared.usecases.enrich import Enrich
from shared.usecases.route import Route, is_async
from shared.usecases.run_target import RunTarget

# Inputs of one batch, in bytes: what is read ahead, runs and is written are three of them.
_MOST_BYTES: Final = 8 * 1024 * 1024
# What a value of a size that the signature does not tell is taken for.
_GUESS_BYTES: Final = 1024
# What surrounds the reading and the writing of rows is worth so many of them at once.
_MOST_READ: Final = 8192
_BATCHES_READ: Final = 8
_MOST_KEPT: Final = 64
_LONG_MS: Final = 86_400_000.0

Predicted = tuple[Rows, Tensors]


@dataclass(frozen=True, slots=True)
class Pinned:
    """What runs all rows of a batch; `signature` is what callers send and get."""

    target: Target
    config: EndpointConfig
    revision: int
    open_until: Mapping[str, float]
    plan: OutputPlan
    signature: Signature

    @property
    def read_rows(self) -> int:
        """Rows that are read and written at once."""
        return max(1, min(_MOST_READ, _BATCHES_READ * self.most_rows, _MOST_BYTES // self._row_bytes))

    @property
    def _row_bytes(self) -> int:
        return max(1, sum(_row_bytes(spec) for spec in self.signature.inputs))

    @property
    def most_rows(self) -> int:
        """Rows that run at once at most: the model's and the endpoint's bounds, and what fits into memory."""
        version = self.target.version
        if not version.signature.batched:
            return 1
        most = min(version.signature.max_batch, self.config.limits.max_rows or version.signature.max_batch)
        if version.features is not None:
            most = min(most, MAX_KEYS // max(1, len(version.features.sets)))
        return max(1, min(most, _MOST_BYTES // self._row_bytes))


@dataclass(slots=True)
class Running:
    """The step that predicts: what it may still take, and what it has used.

    `backend_ms` is what the calls of the backend took, which is what its instances' share is reckoned by.
    """

    held: Held
    job: Job
    backend_ms: float = 0.0

    def context(self, timeout_ms: int) -> InferenceContext:
        """Of the next call; raises `Stopped` where there is to be none."""
        self.held.check()
        job = self.job
        deadline_ms = max(1, min(int(self.held.left_s() * 1e3), timeout_ms))
        return InferenceContext(job.request_id, job.tenant, deadline_ms, job.traceparent)


@dataclass(slots=True)
class PredictRows:
    """Predicts rows on a pinned version; one for each environment.

    `revision` reads a configuration of an endpoint that was in force once.
    """

    endpoints: Callable[[str], EndpointState]
    revision: Callable[[str, int], StoredEndpoint]
    route: Route
    run_target: RunTarget
    enrich: Enrich
    _paces: dict[tuple[str, str], Pace] = field(default_factory=dict)
    _plans: dict[tuple[str, str, int], OutputPlan] = field(default_factory=dict)

    def pin(self, model: str, wanted: int | str | None, tenant: str, key_id: str) -> Pinned:
        """The version, variant and backend that a run has from its beginning to its end.

        Raises ModelNotFound, VersionNotFound, VersionNotAllowed, InvalidRequest for an asynchronous backend,
        BackendUnavailable.
        """
        self.route.check(model)
        state = self.endpoints(model)
        config = _config(state, model)
        routed = self.route(model, wanted, config, Caller(tenant, key_id, lambda _name: None))
        work = Work(1, 0, _LONG_MS)
        target = self.route.backend(routed.target, config, work, full_deadline_ms=_LONG_MS)
        if is_async(target.backend, config):
            raise answers_later(model, target.backend)
        return self._pinned(target, state, config, 0 if state.stored is None else state.stored.revision)

    def again(self, model: str, pin: Pin) -> Pinned:
        """What `pin` chose, within the bounds that the endpoint has now.

        Raises ModelNotFound, VersionNotFound, RevisionNotFound, BackendError.
        """
        state = self.endpoints(model)
        target = Target(pin.variant, self.route.version(model, pin.version), pin.backend, pinned=True)
        return self._pinned(target, state, _config(state, model), pin.revision)

    def rate(self, pinned: Pinned) -> float:
        """Rows a second as they were measured last; 0 before."""
        return self._pace(pinned).rate

    def __call__(self, pinned: Pinned, rows: Rows, running: Running) -> Sequence[Predicted]:
        """The rows in their order, those that the model refuses among the wrong ones, each with its outputs.

        Raises `Stopped`, BackendError where it is not the rows' fault, InvalidPackage.
        """
        if not rows.good:
            return [(rows, {})]
        try:
            return [(rows, self._run(pinned, rows.tensors, rows.good, running))]
        except SluiceError as error:
            if isinstance(error, BackendTimeout):
                if rows.good == 1:
                    raise
                self._pace(pinned).too_much(rows.good)
            elif not _blames_rows(error):
                raise
            elif rows.good == 1:
                return [(rows.failed(error.code, error.detail), {})]
        first, second = rows.halves()
        return [*self(pinned, first, running), *self(pinned, second, running)]

    def _run(self, pinned: Pinned, tensors: Tensors, count: int, running: Running) -> Tensors:
        """Outputs of rows that are all good, run in batches of the best size."""
        pace = self._pace(pinned)
        most = min(pinned.most_rows, max(1, _MOST_BYTES * count // max(1, sum(a.nbytes for a in tensors.values()))))
        done: list[Tensors] = []
        start = 0
        while start < count:
            rows = min(pace.rows(most), count - start)
            part = tensors if rows == count else _slice(pinned, tensors, start, start + rows)
            began = perf_counter()
            done.append(self._batch(pinned, part, rows, running))
            pace.note(rows, (perf_counter() - began) * 1e3, most)
            start += rows
        if len(done) == 1:
            return done[0]
        return {name: np.concatenate([outputs[name] for outputs in done]) for name in done[0]}

    def _batch(self, pinned: Pinned, tensors: Tensors, rows: int, running: Running) -> Tensors:
        version, config = pinned.target.version, pinned.config
        context = running.context(config.timeout_ms)
        if version.features is not None:
            seconds = context.deadline_ms / 1e3
            enriched = self.enrich(version, tensors, context.tenant, config.features, time(), deadline_s=seconds)
            tensors = enriched.inputs
        ran = self.run_target(pinned.target, tensors, context, config, pinned.open_until, rows=rows, shortened=False)
        running.backend_ms += ran.ms
        return pinned.plan.apply(ran.outputs)

    def _pinned(self, target: Target, state: EndpointState, config: EndpointConfig, revision: int) -> Pinned:
        """With the outputs of the revision, whatever is in force by now."""
        version: ModelVersion = target.version
        key = version.model, version.digest, revision
        plan = self._plans.get(key)
        if plan is None:
            in_force = 0 if state.stored is None else state.stored.revision
            then = config if revision == in_force else self._then(version.model, revision)
            if len(self._plans) >= _MOST_KEPT:
                self._plans.clear()
            plan = self._plans[key] = OutputPlan.of(then, version.signature)
        if not plan.signature.outputs:
            raise InvalidRequest(
                f"The response filter of {version.model} leaves no output of version {version.version}."
            )
        signature = replace(version.caller_signature, outputs=plan.signature.outputs)
        return Pinned(target, config, revision, state.open_until, plan, signature)

    def _then(self, model: str, revision: int) -> EndpointConfig:
        return EndpointConfig(model) if revision == 0 else self.revision(model, revision).config

    def _pace(self, pinned: Pinned) -> Pace:
        key = pinned.target.version.digest, pinned.target.backend
        pace = self._paces.get(key)
        if pace is None:
            if len(self._paces) >= _MOST_KEPT:
                self._paces.clear()
            pace = self._paces[key] = Pace()
        return pace


def _config(state: EndpointState, model: str) -> EndpointConfig:
    return EndpointConfig(model) if state.stored is None else state.stored.config


def _blames_rows(error: SluiceError) -> bool:
    """Whether other rows may fare better: what was sent is the cause, or may be, and not the backend's state."""
    if isinstance(error, InvalidRequest | BackendRejected):
        return True
    return isinstance(error, BackendError) and not error.retryable and not error.blames_backend


def _slice(pinned: Pinned, tensors: Tensors, start: int, stop: int) -> Tensors:
    """Some of the rows; what holds for all of them stays."""
    signature = pinned.signature
    specs = {spec.name: spec for spec in signature.inputs}
    return {name: array[start:stop] if signature.has_rows(specs[name]) else array for name, array in tensors.items()}


def _row_bytes(spec: TensorSpec) -> int:
    shape = spec.shape[1:]
    if spec.dtype is DType.BYTES:
        return prod(dim or 1 for dim in shape) * _GUESS_BYTES
    size = NUMPY_DTYPES[spec.dtype].itemsize * prod(dim or 1 for dim in shape)
    return size * (64 if None in shape else 1)
