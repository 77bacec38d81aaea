"""A request's run of one target, and its single calls of the backend."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

from shared.domain.endpoint.circuit import Circuit
from shared.domain.endpoint.config import FUNCTION, EndpointConfig
from shared.domain.endpoint.latency import Latencies
from shared.domain.endpoint.retry_budget import RetryBudget
from shared.domain.endpoint.target import Target
from shared.domain.errors import BackendError, BackendRejected, BackendTimeout, CircuitOpen, Overloaded, SluiceError
from shared.domain.ports import Backends, InferenceContext
from shared.usecases.deadline import Call
from shared.usecases.shared_guards import Place, SharedGuards

if TYPE_CHECKING:
    from shared.domain.tensors import Tensors

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Tally:
    """Calls of backends that one request made, whatever came of them; `hedged`: one of them beside another."""

    calls: int = 0
    hedged: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all runs of an environment share; `now` is in seconds since 1970.

    `latencies` has what calls took, late ones too; `in_time` those alone that were not given up: a backend that has
    become slow must not pass for one that always was.
    """

    backends: Backends
    guards: SharedGuards
    latencies: Latencies
    in_time: Latencies
    now: Callable[[], float]


@dataclass(slots=True)  # not frozen: made for every request
class Run:
    """A request's run of one target.

    `ends` is a moment of `time.monotonic`. `name` is that of the circuit, `others` until when it is open by what the
    environments share, `circuit` None where there is none. `loaded` is False where the call has to load the model.
    `shortened` and `stand_in` as in `RunTarget`.
    """

    surroundings: Surroundings
    target: Target
    inputs: "Tensors"
    context: InferenceContext
    config: EndpointConfig
    rows: int
    shortened: bool
    stand_in: bool
    ends: float
    name: str
    others: float | None
    circuit: Circuit | None
    budget: RetryBudget
    loaded: bool
    expected_ms: float | None
    tally: Tally

    def left_s(self) -> float:
        """Seconds until the deadline."""
        return self.ends - monotonic()

    def admit(self) -> int:
        """The circuit's permit for one call; raises CircuitOpen."""
        if self.circuit is None:
            return 0
        return self.circuit.admit(self.config.breaker, self.surroundings.now(), self.others)

    def report(self, permit: int, succeeded: bool | None) -> None:
        """Tell the circuit how the call of a permit ended, and the other environments what that changed."""
        if self.circuit is None:
            return
        change = self.circuit.record(
            permit, succeeded, self.config.breaker, self.surroundings.now(), self.context.tenant
        )
        # What fails within the function is this process, and none of the others' business.
        if change is not None and self.target.backend != FUNCTION:
            self.surroundings.guards.tell(self.config.endpoint, self.name, change, self.left_s())

    def may_call(self) -> bool:
        """Whether the circuit lets everybody pass."""
        return self.circuit is None or self.circuit.is_closed()

    def had_enough(self, had_ms: float, *, first: bool) -> bool:
        """Whether it is the backend's fault that a call ran out of the time that it had."""
        if not self.loaded:
            return False
        target = self.target
        usual_ms = self.surroundings.in_time.usual_ms(target.backend, target.version, self.rows)
        if first and not self.shortened and not self.stand_in:
            return usual_ms is None or had_ms >= usual_ms
        # The time that a retry, a hedge or a stand-in was left with says little, and so does what the caller shortened.
        known_ms = max(self.expected_ms or 0.0, usual_ms or 0.0)
        if self.shortened and not known_ms:
            return False
        return had_ms >= max(float(self.config.breaker.counts_from_ms), 2 * known_ms)


class Attempt:
    """One call of the backend; implements `shared.usecases.race.Entrant`."""

    __slots__ = ("_first", "_had_ms", "_permit", "_place", "_run")

    def __init__(self, run: Run, permit: int, place: Place, *, first: bool) -> None:
        self._run = run
        self._permit = permit
        self._place = place
        self._first = first
        self._had_ms = run.left_s() * 1e3
        run.tally.calls += 1

    def __call__(self) -> "Tensors":
        """Call the backend with the time that is left; raises nothing but SluiceError."""
        run = self._run
        left_ms = ceil(run.left_s() * 1e3)
        if left_ms <= 0:
            raise BackendTimeout("The deadline passed before the model could run.")
        try:
            # Backends are made when they are first needed, which may take long, too.
            backend = run.surroundings.backends.get(run.target.backend, run.config)
            return backend.infer(run.target.version, run.inputs, run.context.within(left_ms))
        except SluiceError:
            raise
        except Exception as error:
            _log.exception(
                "the backend %s of %s raised what it should not",
                run.target.backend,
                run.config.endpoint,
                extra={"fields": {"request_id": run.context.request_id}},
            )
            failure = BackendError("The backend failed in an unexpected way.")
            # This process is as well as before: what was sent, or the model, is the cause.
            failure.blames_backend = run.target.backend != FUNCTION
            raise failure from error

    def here(self) -> "tuple[Tensors, float]":
        """Make the call on this thread: its outputs and milliseconds."""
        started = perf_counter()
        try:
            outputs = self()
        except SluiceError as error:
            self.ended(error, 0.0)
            raise
        ms = (perf_counter() - started) * 1e3
        self.ended(None, ms)
        return outputs, ms

    def ended(self, error: SluiceError | None, ms: float) -> None:
        """Learn from a call that ended."""
        if error is None:
            self._note(ms, late=False)
        self._run.report(self._permit, self._verdict(error))

    def given_up(self, error: SluiceError | None) -> None:
        """Learn from a call whose time is over (BackendTimeout), or that is needed no more (None)."""
        self._place.hold()
        self._run.report(self._permit, None if error is None else self._verdict(error))

    def not_made(self) -> None:
        """Give the permit back."""
        self._run.tally.calls -= 1
        self._run.report(self._permit, None)

    def late(self, call: "Call[Tensors]") -> None:
        """Give the place back, and learn how long the backend takes in truth."""
        if call.error is None:
            self._note(call.ms, late=True)
        self._place.let_go()

    def _note(self, ms: float, *, late: bool) -> None:
        run = self._run
        if not run.loaded:  # most of the time went into loading
            return
        target, around = run.target, run.surroundings
        around.latencies.note(target.backend, target.version, run.rows, ms)
        if not late:
            around.in_time.note(target.backend, target.version, run.rows, ms)

    def _verdict(self, error: SluiceError | None) -> bool | None:
        """Whether the backend did well; None where this call does not tell."""
        if error is None:
            return True
        if not isinstance(error, BackendError) or isinstance(error, BackendRejected | Overloaded | CircuitOpen):
            return None
        if not error.blames_backend:
            return None
        if isinstance(error, BackendTimeout) and not self._run.had_enough(self._had_ms, first=self._first):
            return None
        return False
