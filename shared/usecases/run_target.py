"""Runs a target: circuit → place in the pool → attempts, retries and hedges, all inside the deadline."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from itertools import count
from random import SystemRandom
from time import monotonic, sleep, time
from typing import TYPE_CHECKING, Final, TypeVar

from shared.domain.dtypes import DType
from shared.domain.endpoint.circuit import Circuit, circuit_name
from shared.domain.endpoint.config import FUNCTION, EndpointConfig
from shared.domain.endpoint.latency import Latencies
from shared.domain.endpoint.retry_budget import RetryBudget
from shared.domain.endpoint.target import Ran, Target
from shared.domain.errors import BackendError, BackendTimeout, CircuitOpen, Overloaded
from shared.domain.model import ModelVersion
from shared.domain.ports import Backends, GuardStore, InferenceContext
from shared.usecases.attempt import Attempt, Run, Surroundings, Tally
from shared.usecases.deadline import DeadlineRunner
from shared.usecases.race import Race
from shared.usecases.shared_guards import Place, SharedGuards

if TYPE_CHECKING:
    from shared.domain.tensors import Tensors

_Value = TypeVar("_Value")

_MOST_KEPT: Final = 1024
# What runs in this process needs no thread of its own if it takes no more than a quarter of the time left and so many
# milliseconds: a step that takes longer than ever before cannot be given up there.
_MUCH_TIME: Final = 4.0
_QUICK_MS: Final = 50.0
# Calls are refused for what was seen to be hopeless in the last seconds only: else a backend that was slow for a while
# would not be asked again.
_RECENT_S: Final = 5.0
# Longest `Retry-After` that a request waits for where nothing else can answer.
_PATIENCE_S: Final = 1.0
_NEVER: Final = float("inf")


class RunTarget:
    """The resilient call of one backend; one for each environment, safe for threads.

    `ready` says whether the function has a version loaded (`FunctionBackend.ready`): then a run that is known to be
    short compared with the time left is made on the calling thread. Circuits of the backend `function` are this
    environment's own. `now` is in seconds since 1970, `pause` waits for seconds.
    """

    def __init__(
        self,
        backends: Backends,
        guards: GuardStore,
        latencies: Latencies,
        *,
        runner: DeadlineRunner | None = None,
        ready: Callable[[ModelVersion], bool] = lambda _: False,
        now: Callable[[], float] = time,
        pause: Callable[[float], None] = sleep,
        uniform: Callable[[float, float], float] | None = None,
    ) -> None:
        self.runner = runner or DeadlineRunner()
        self._surroundings = Surroundings(
            backends, SharedGuards(guards, self.runner, now=now), latencies, Latencies(), now
        )
        self._ready = ready
        self._pause = pause
        # The system's generator: copies of one snapshot would all wait for the same times with another.
        self._uniform = uniform or SystemRandom().uniform
        self._circuits: dict[str, Circuit] = {}
        self._budgets: dict[str, RetryBudget] = {}

    def __call__(
        self,
        target: Target,
        inputs: "Tensors",
        context: InferenceContext,
        config: EndpointConfig,
        open_until: Mapping[str, float],
        *,
        rows: int,
        shortened: bool,
        stand_in: bool = False,
        tally: Tally | None = None,
    ) -> Ran:
        """The outputs of the target, within `context.deadline_ms`; `inputs` must not change after that.

        `shortened`: the caller itself asked for so little time, which is no fault of the backend unless it had enough.
        `stand_in`: what is left of the time is what another target has left of it.
        `open_until` is `EndpointState.open_until`. `tally` counts the calls, also where none went well. Raises
        CircuitOpen, Overloaded, what the backend raises, and BackendTimeout at the deadline.
        """
        run = self._run(target, inputs, context, config, open_until, rows, shortened, stand_in, tally or Tally())
        permit = run.admit()
        with ExitStack() as places:
            try:
                place = _place(run, places)
            except BackendError:
                run.report(permit, None)
                raise
            return self._attempts(run, permit, place, places)

    def _run(
        self,
        target: Target,
        inputs: "Tensors",
        context: InferenceContext,
        config: EndpointConfig,
        open_until: Mapping[str, float],
        rows: int,
        shortened: bool,
        stand_in: bool,
        tally: Tally,
    ) -> Run:
        if context.deadline_ms <= 0:
            raise BackendTimeout("The deadline passed before the model could run.")
        name = circuit_name(target.backend, target.variant)
        loaded = target.backend != FUNCTION or self._ready(target.version)
        if shortened and loaded:
            self._refuse_hopeless(target, context, rows)
        return Run(
            surroundings=self._surroundings,
            target=target,
            inputs=inputs,
            context=context,
            config=config,
            rows=rows,
            shortened=shortened,
            stand_in=stand_in,
            ends=monotonic() + context.deadline_ms / 1e3,
            name=name,
            others=open_until.get(name),
            circuit=_kept(self._circuits, f"{config.endpoint}/{name}", Circuit) if config.breaker.enabled else None,
            budget=_kept(self._budgets, f"{config.endpoint}/{target.backend}", RetryBudget),
            loaded=loaded,
            expected_ms=self._surroundings.latencies.expected_ms(target.backend, target.version, rows),
            tally=tally,
        )

    def _refuse_hopeless(self, target: Target, context: InferenceContext, rows: int) -> None:
        """Raise BackendTimeout at once, in place of making a call that would have to be abandoned."""
        known = self._surroundings.latencies
        least_ms = known.least_ms(target.backend, target.version, rows, within_s=_RECENT_S)
        if least_ms is not None and context.deadline_ms < least_ms:
            raise BackendTimeout(f"The model takes at least some {least_ms:.0f} ms for this request.")

    def _attempts(self, run: Run, permit: int, place: Place, places: ExitStack) -> Ran:
        for number in count():
            try:
                outputs, ms = self._attempt(run, Attempt(run, permit, place, first=number == 0), places)
            except BackendError as error:
                pause_s = self._pause_before_retry(run, error, number)
                if pause_s is None:
                    raise
                self._pause(pause_s)
                try:
                    permit = run.admit()
                except CircuitOpen:
                    raise error from None
            else:
                run.budget.succeeded(run.config.retries.budget)
                return Ran(run.target, outputs, attempts=run.tally.calls, hedged=run.tally.hedged, ms=ms)
        raise AssertionError("unreachable")

    def _attempt(self, run: Run, first: Attempt, places: ExitStack) -> "tuple[Tensors, float]":
        in_function = run.target.backend == FUNCTION
        if in_function and run.loaded and _is_quick(run):
            return first.here()
        hedge = run.config.retries.hedge
        # A second run in the same process would only make both slower.
        hedge_at = _NEVER if hedge is None or in_function else monotonic() + hedge.after_ms / 1e3
        race = Race(self.runner, f"{run.config.endpoint}/{run.target.backend}", run.ends, brief=run.shortened)
        return race.run(first, hedge_at=hedge_at, second=lambda: _hedge(run, places))

    def _pause_before_retry(self, run: Run, error: BackendError, number: int) -> float | None:
        """Seconds to wait before the call is made again; None if it is not."""
        retries = run.config.retries
        if number >= retries.attempts or not error.retryable or isinstance(error, CircuitOpen | Overloaded):
            return None
        if not run.may_call():
            return None
        longest_ms = retries.backoff_ms * 2**number
        least_s = error.retry_after_s or 0.0
        # Whoever can stand in answers at once.
        if least_s > (longest_ms / 1e3 if run.config.fallback else max(longest_ms / 1e3, _PATIENCE_S)):
            return None
        # Full jitter: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog.
        pause_s = max(self._uniform(0.0, longest_ms) / 1e3, least_s)
        if run.left_s() - pause_s <= (run.expected_ms or 0.0) / 1e3 or not run.budget.take(retries.budget):
            return None
        return pause_s


def _is_quick(run: Run) -> bool:
    """Whether a run in this process will not need to be given up, as far as one can know."""
    expected_ms, target = run.expected_ms, run.target
    if expected_ms is None or expected_ms > min(_QUICK_MS, run.left_s() * 1e3 / _MUCH_TIME):
        return False
    # What was seen says little of inputs whose size is the caller's choice: an image, a text, a sequence.
    signature = target.version.signature
    if any(spec.dtype is DType.BYTES or None in spec.shape[signature.has_rows(spec) :] for spec in signature.inputs):
        return False
    return run.surroundings.latencies.is_settled(target.backend, target.version)


def _hedge(run: Run, places: ExitStack) -> Attempt | None:
    """The second call, if it may be made."""
    if not run.may_call() or not run.budget.take(run.config.retries.budget):
        return None
    try:
        permit = run.admit()
    except CircuitOpen:
        return None
    try:
        place = _place(run, places)
    except BackendError:
        run.report(permit, None)
        return None
    run.tally.hedged = True
    return Attempt(run, permit, place, first=False)


def _place(run: Run, places: ExitStack) -> Place:
    """A place until `places` is closed; raises Overloaded, BackendTimeout."""
    config = run.config
    guards = run.surroundings.guards
    return places.enter_context(
        guards.place(config.endpoint, run.target.backend, config.limits, run.context.tenant, run.left_s)
    )


def _kept(values: dict[str, _Value], key: str, make: Callable[[], _Value]) -> _Value:
    """The value of a key, made when it is needed first; the oldest goes when there are too many."""
    value = values.get(key)
    if value is None:
        if len(values) >= _MOST_KEPT:
            values.pop(next(iter(values)), None)
        value = values.setdefault(key, make())
    return value
