"""The outputs for one request whose inputs are there: a kept answer, or a run with its copy for the shadow."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import random
from time import perf_counter, time
from typing import Any

from shared.domain.answer_key import answer_key, is_repeatable
from shared.domain.endpoint.auto import Work
from shared.domain.endpoint.config import CacheSettings, EndpointConfig
from shared.domain.endpoint.target import KeptAnswer, Ran, Target
from shared.domain.errors import BackendError, BackendTimeout, DeadlineMissed, SluiceError
from shared.domain.ports import InferenceContext
from shared.domain.tensors import Tensors
from shared.usecases.fall_back import FallBack
from shared.usecases.keep_answers import CacheStatus, KeepAnswers, keep_seconds
from shared.usecases.prediction import Wanted
from shared.usecases.route import Route
from shared.usecases.shadow import Copy, Shadowed, Shadows

_log = logging.getLogger(__name__)


@dataclass(slots=True)  # not frozen: made for every request, and that takes three times as long
class Ready:
    """A request that can run.

    `inputs` conform to the signature of the target's version. `ends_at` is the deadline by `time.perf_counter`,
    `full_ms` what a request without a deadline of its own would have; `shortened` if it has one. `outputs` are those
    that it asked for (none: all), `parameters` the protocol's.
    """

    wanted: Wanted
    config: EndpointConfig
    open_until: Mapping[str, float]
    target: Target
    inputs: Tensors
    rows: int
    context: InferenceContext
    ends_at: float
    full_ms: float
    shortened: bool
    outputs: tuple[str, ...]
    parameters: Mapping[str, Any]

    def now(self) -> InferenceContext:
        """The context with the time that is left; BackendTimeout if none is."""
        left_ms = int((self.ends_at - perf_counter()) * 1e3)
        if left_ms <= 0:
            raise BackendTimeout("The deadline passed before the model could run.")
        return self.context.within(left_ms)


@dataclass(slots=True)
class Answered:
    """Raw outputs, before thresholds, labels and filter; `ran` is None if they were kept from an earlier request."""

    answer: KeptAnswer
    ran: Ran | None = None
    cache: CacheStatus | None = None
    shadow: Shadowed | None = None


class Answer:
    """Answers requests that are ready; `draw` gives random numbers from 0 to 1."""

    def __init__(
        self,
        route: Route,
        fall_back: FallBack,
        keep: KeepAnswers,
        shadows: Shadows,
        *,
        draw: Callable[[], float] = random,
    ) -> None:
        self._route = route
        self._fall_back = fall_back
        self._keep = keep
        self._shadows = shadows
        self._draw = draw

    def __call__(self, ready: Ready) -> Answered:
        """The outputs for a request.

        Raises DeadlineMissed for one that gave itself too little time, AsyncRequired for one that no answer has time
        for, InvalidRequest for content that the model refuses, and BackendError where nothing could stand in.
        """
        settings = ready.config.cache
        try:
            if settings is None or not is_repeatable(ready.parameters):
                return self._run(ready, lambda _: None)
            return self._kept_or_run(ready, settings)
        except BackendTimeout as error:
            if not ready.shortened:
                raise
            # No fault of the backend: alarms and quotas go by that.
            raise DeadlineMissed("The model did not answer within the time that the request gave itself.") from error

    def _kept_or_run(self, ready: Ready, settings: CacheSettings) -> Answered:
        key = _key(ready, settings)
        fresh: Answered | None = None

        def last(max_age_s: int) -> KeptAnswer | None:
            if ready.wanted.no_store:
                return None
            left_s = max(0.0, ready.ends_at - perf_counter())
            return self._keep.last(settings, key, max_age_s, deadline_s=left_s)

        def run() -> KeptAnswer:
            nonlocal fresh
            fresh = self._run(ready, last)
            return fresh.answer

        answer, status = self._keep(
            settings,
            key,
            run,
            deadline_s=max(0.0, ready.ends_at - perf_counter()),
            keep_s=keep_seconds(ready.config),
            no_cache=ready.wanted.no_cache,
            no_store=ready.wanted.no_store,
            # A stand-in's answer is not the model's.
            is_worth_keeping=lambda _: fresh is not None and fresh.ran is not None and fresh.ran.fallback is None,
        )
        if fresh is None or answer is not fresh.answer:
            return Answered(answer, cache=status)
        fresh.cache = status
        return fresh

    def _run(self, ready: Ready, last: Callable[[int], KeptAnswer | None]) -> Answered:
        config = ready.config
        context = ready.now()
        work = Work(ready.rows, sum(array.nbytes for array in ready.inputs.values()), context.deadline_ms)
        primary = self._route.backend(ready.target, config, work, full_deadline_ms=ready.full_ms)
        copy = self._copy(ready, primary, work, context)

        ran = self._fall_back(
            primary,
            lambda name: self._other(ready, name, work),
            ready.inputs,
            context,
            config,
            ready.open_until,
            rows=ready.rows,
            shortened=ready.shortened,
            last=last,
        )
        answered = Answered(KeptAnswer(ran.outputs, ran.target.variant, _backend_of(ran), time()), ran)
        if copy is not None and ran.fallback is None:
            batched = ran.target.version.signature.batched
            answered.shadow = self._shadows.finish(copy, ran.outputs, ready.rows if batched else None)
        return answered

    def _copy(self, ready: Ready, primary: Target, work: Work, context: InferenceContext) -> Copy | None:
        shadow = ready.config.shadow
        if shadow is None or shadow.variant == primary.variant or self._draw() >= shadow.share:
            return None
        try:
            target = self._other(ready, shadow.variant, work)
            if target.version.signature.inputs != primary.version.signature.inputs:
                raise BackendError(f"It takes other inputs than {primary.variant}.")
        except SluiceError as error:  # a shadow is never a reason to refuse a request
            _log.warning("no shadow", extra={"fields": {"variant": shadow.variant, "reason": error.detail}})
            return None
        return self._shadows.start(target, ready.inputs, context, ready.config)

    def _other(self, ready: Ready, name: str, work: Work) -> Target:
        """Another variant; BackendError if there is none of this name, or if it lacks an output that was asked for."""
        variant = ready.config.variant(name)
        if variant is None:
            raise BackendError(f"The configuration of {ready.config.endpoint} has no variant {name}.")
        target = self._route.target(ready.config.endpoint, variant, ready.config)
        asked = set(ready.outputs) & set(ready.target.version.signature.output_names)
        if missing := asked - set(target.version.signature.output_names):
            raise BackendError(f"The variant {name} does not give {', '.join(sorted(missing))}.")
        return self._route.backend(target, ready.config, work, full_deadline_ms=ready.full_ms)


def _key(ready: Ready, settings: CacheSettings) -> str:
    return answer_key(
        ready.target.version,
        ready.inputs,
        ready.outputs,
        ready.parameters,
        None if settings.public else ready.context.tenant,
        ready.config.endpoint,
    )


def _backend_of(ran: Ran) -> str:
    return ran.fallback if ran.fallback in {"cached", "static"} else ran.target.backend
