"""One prediction, whatever the door it came through."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from time import perf_counter, time
from uuid import uuid4

from shared.codecs.content.decoded import Decoded, check_outputs, whole_parameter
from shared.domain.endpoint.config import EndpointConfig, EndpointState, Priority
from shared.domain.endpoint.outputs import OutputPlan
from shared.domain.endpoint.target import Target
from shared.domain.endpoint.traffic import Caller
from shared.domain.errors import (
    AsyncRequired,
    BackendTimeout,
    BackendUnavailable,
    BatchTooLarge,
    DeadlineMissed,
    SluiceError,
)
from shared.domain.jobs import Job
from shared.domain.model import ModelVersion
from shared.domain.ports import InferenceContext
from shared.domain.principal import Principal
from shared.domain.signature import Signature
from shared.domain.tensors import Tensors
from shared.domain.validation import conform
from shared.usecases.answer import Answer, Answered, Ready
from shared.usecases.enrich import Enrich, Enriched
from shared.usecases.jobs import Jobs
from shared.usecases.prediction import Decode, JobAnswer, Prediction, Wanted, no_header
from shared.usecases.route import Route, is_async

_LEAST_PRIORITY = 255  # as the container has it
_PRIORITIES: Mapping[Priority, int] = {"high": 50, "normal": 0, "low": 200}
_MOST_KEPT = 256


class Predict:
    """route → decode → validate → enrich → answer → what the endpoint makes of the outputs."""

    def __init__(
        self, endpoints: Callable[[str], EndpointState], route: Route, answer: Answer, enrich: Enrich, jobs: Jobs
    ) -> None:
        self._endpoints = endpoints
        self._route = route
        self._answer = answer
        self._enrich = enrich
        self._jobs = jobs
        self._defaults: dict[str, EndpointConfig] = {}
        self._plans: dict[tuple[str, str], tuple[EndpointConfig, OutputPlan]] = {}

    def __call__(
        self, principal: Principal, wanted: Wanted, decode: Decode, context: InferenceContext
    ) -> Prediction | Job:
        """Predict; `decode` reads the request by its signature, `context` has the time that an answer has now.

        A job for a request that prefers one to the refusal that no answer has time for it.

        Raises InsufficientScope before the model's existence is told, ModelNotFound, VersionNotFound,
        VersionNotAllowed, InvalidRequest (DeadlineMissed for a request that gave itself too little time, AsyncRequired
        for one that no answer has time for), BackendError.
        """
        principal.require("predict", f"predict:{wanted.model}")
        steps = _Steps()
        state, config = self._configuration(wanted.model)
        caller = Caller(principal.tenant, principal.key_id, wanted.header)
        routed = self._route(wanted.model, wanted.version, config, caller)
        wanted.routed(routed.target, routed.exposure)
        version = routed.target.version
        steps.end("route")
        decoded = decode(version.caller_signature, config.limits)
        check_outputs(decoded.outputs, self._plan(config, version).signature.output_names)
        given = conform(decoded.inputs, version.caller_signature)
        rows = _rows(given, version.caller_signature)
        _check_rows(rows, config)
        steps.end("decode")
        full_ms = min(wanted.full_ms, config.timeout_ms)
        left_ms = min(context.deadline_ms, full_ms, _own_ms(decoded.parameters) or full_ms)
        ends_at = steps.began + left_ms / 1e3
        features = self._features(version, given, decoded, principal.tenant, config, ends_at)
        if features is not None:
            steps.end("enrich")
        ready = Ready(
            wanted=wanted,
            config=config,
            open_until=state.open_until,
            target=routed.target,
            inputs=given if features is None else features.inputs,
            rows=rows,
            context=_prioritised(context, config),
            ends_at=ends_at,
            full_ms=full_ms,
            shortened=left_ms < full_ms,
            outputs=decoded.outputs,
            parameters=decoded.parameters,
        )
        answered = self._answered(ready)
        if isinstance(answered, Job):
            return answered
        served = version if answered.ran is None else answered.ran.target.version
        plan = self._plan(config, served)
        outputs = plan.apply(answered.answer.outputs)
        steps.end("run")
        return Prediction(
            prediction_id=uuid4().hex,
            config=config,
            version=served,
            variant=answered.answer.variant,
            backend=answered.answer.backend,
            decoded=decoded,
            signature=plan.signature,
            outputs=outputs,
            rows=rows,
            timings_ms=steps.ms,
            ran=answered.ran,
            cache=answered.cache,
            shadow=answered.shadow,
            features=features,
        )

    def describe(self, model: str, wanted: int | str | None) -> tuple[Target, Signature]:
        """What a request would get (of several variants that with the most traffic), and its signature for callers.

        Raises ModelNotFound, VersionNotFound, VersionNotAllowed, BackendUnavailable.
        """
        _, config = self._configuration(model)
        if wanted is None:
            most = max(config.variants, key=lambda variant: variant.weight)
            target = self._route.target(model, most, config)
        else:
            target = self._route(model, wanted, config, Caller("", "", no_header)).target
        version = target.version
        outputs = self._plan(config, version).signature.outputs
        return target, replace(version.caller_signature, outputs=outputs)

    def answer_to(self, principal: Principal, job_id: str, deadline_ms: int) -> JobAnswer:
        """What has come of a job of the caller's tenant.

        Raises JobNotFound, InsufficientScope, and BackendError where it cannot be told now.
        """
        job = self._jobs.find(principal.tenant, job_id)
        principal.require("predict", f"predict:{job.model}", "jobs")
        _, config = self._configuration(job.model)
        version = self._route.version(job.model, job.version)
        plan = self._plan(config, version)
        answer = JobAnswer(job, version, plan.signature)
        outcome = self._jobs.outcome(job, version, config, deadline_ms / 1e3)
        if isinstance(outcome, SluiceError):
            return replace(answer, error=outcome)
        return answer if outcome is None else replace(answer, outputs=plan.apply(outcome))

    def _answered(self, ready: Ready) -> Answered | Job:
        """The outputs; a job where the request prefers one to what an answer has no time for."""
        wants_job = ready.wanted.respond_async
        if not (wants_job and is_async(ready.target.backend, ready.config)):
            try:
                return self._answer(ready)
            except AsyncRequired:
                if not wants_job:
                    raise
        try:
            return self._jobs.submit(ready)
        except BackendTimeout as error:
            if not ready.shortened:
                raise
            raise DeadlineMissed("No job could be taken within the time that the request gave itself.") from error

    def _configuration(self, model: str) -> tuple[EndpointState, EndpointConfig]:
        self._route.check(model)  # a made-up name gets no further
        state = self._endpoints(model)
        if state.stored is not None:
            return state, state.stored.config
        config = self._defaults.get(model)
        if config is None:
            if len(self._defaults) >= _MOST_KEPT:
                self._defaults.clear()
            config = self._defaults[model] = EndpointConfig(model)
        return state, config

    def _plan(self, config: EndpointConfig, version: ModelVersion) -> OutputPlan:
        key = config.endpoint, version.digest
        kept = self._plans.get(key)
        if kept is None or kept[0] is not config:  # a number may come again, from a backup
            if len(self._plans) >= _MOST_KEPT:
                self._plans.clear()
            kept = self._plans[key] = config, OutputPlan.of(config, version.signature)
        plan = kept[1]
        if not plan.signature.outputs:
            raise BackendUnavailable(
                f"The response filter of {config.endpoint} leaves no output of version {version.version}."
            )
        return plan

    def _features(
        self,
        version: ModelVersion,
        given: Tensors,
        decoded: Decoded,
        tenant: str,
        config: EndpointConfig,
        ends_at: float,
    ) -> Enriched | None:
        if version.features is None:
            return None
        return self._enrich(
            version,
            given,
            tenant,
            config.features,
            time(),
            locate=decoded.inputs.locate,
            deadline_s=max(0.0, ends_at - perf_counter()),
        )


class _Steps:
    """How long each step took in milliseconds; a step begins where the one before ended."""

    __slots__ = ("_last", "began", "ms")

    def __init__(self) -> None:
        self.began = self._last = perf_counter()
        self.ms: dict[str, float] = {}

    def end(self, name: str) -> None:
        now = perf_counter()
        self.ms[name] = (now - self._last) * 1e3
        self._last = now


def _own_ms(parameters: Mapping[str, object]) -> int:
    """The protocol's own `timeout` in milliseconds, 0 without one.

    `priority` is checked, and has no effect: in the container's queue it comes before the fairness between tenants,
    which no caller may set aside. Source: Triton Inference Server, "Schedule Policy Extension".
    """
    if not parameters:
        return 0
    whole_parameter(parameters, "priority", _LEAST_PRIORITY)
    timeout_us = whole_parameter(parameters, "timeout", 2**63)
    return max(1, timeout_us // 1000) if timeout_us else 0


def _prioritised(context: InferenceContext, config: EndpointConfig) -> InferenceContext:
    priority = config.limits.priorities.get(context.tenant)
    return context if priority is None else replace(context, priority=_PRIORITIES[priority])


def _rows(inputs: Tensors, signature: Signature) -> int:
    for spec in signature.inputs:
        if spec.name in inputs and signature.has_rows(spec):
            return int(inputs[spec.name].shape[0])
    return 1


def _check_rows(rows: int, config: EndpointConfig) -> None:
    most = config.limits.max_rows
    if most is not None and rows > most:
        raise BatchTooLarge.at("/instances", f"{rows} instances; the endpoint takes {most} at once")
