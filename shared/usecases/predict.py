"""One prediction, whatever the door it came through."""

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter, time
from uuid import uuid4

from shared.codecs.content.decoded import check_outputs
from shared.domain.endpoint.config import EndpointConfig, EndpointState
from shared.domain.endpoint.outputs import OutputPlan
from shared.domain.endpoint.target import KeptAnswer, Target
from shared.domain.endpoint.traffic import Caller
from shared.domain.errors import AsyncRequired, BackendUnavailable
from shared.domain.model import ModelVersion
from shared.domain.ports import InferenceContext
from shared.domain.principal import Principal
from shared.domain.signature import Signature
from shared.domain.tensors import Tensors
from shared.domain.validation import Locate, conform
from shared.usecases.answer import Answer, Answered, Ready
from shared.usecases.enrich import Enrich, Enriched
from shared.usecases.prediction import Checked, Decode, Part, Prediction, Wanted, no_header
from shared.usecases.request_bounds import Steps, check_most_rows, own_ms, prioritised, rows_of
from shared.usecases.route import Route, is_async

_MOST_KEPT = 256


class Predict:
    """route → decode → validate → enrich → answer → what the endpoint makes of the outputs."""

    def __init__(self, endpoints: Callable[[str], EndpointState], route: Route, answer: Answer, enrich: Enrich) -> None:
        self._endpoints = endpoints
        self._route = route
        self._answer = answer
        self._enrich = enrich
        self._defaults: dict[str, EndpointConfig] = {}
        self._plans: dict[tuple[str, str], tuple[EndpointConfig, OutputPlan]] = {}
        self._signatures: dict[str, Signature] = {}

    def __call__(self, principal: Principal, wanted: Wanted, decode: Decode, context: InferenceContext) -> Prediction:
        """Predict; `decode` reads the request by its signature, `context` has the time that an answer has now.

        Raises InsufficientScope before the model's existence is told, ModelNotFound, VersionNotFound,
        VersionNotAllowed, InvalidRequest (DeadlineMissed for a request that gave itself too little time, AsyncRequired
        for one that no answer has time for, or that prefers a job and has an asynchronous backend), BackendError.
        """
        principal.require("predict", f"predict:{wanted.model}")
        steps = Steps()
        checked = self._check(principal, wanted, decode, steps, None)
        check_most_rows(checked.rows, checked.config)
        if wanted.respond_async and is_async(checked.target.backend, checked.config):
            raise AsyncRequired(f"{wanted.model} runs on a backend that answers later.")
        full_ms = min(wanted.full_ms, checked.config.timeout_ms)
        left_ms = min(context.deadline_ms, full_ms, own_ms(checked.decoded.parameters) or full_ms)
        part = Part(checked.inputs, checked.rows, checked.decoded.inputs.locate)
        return self._run(checked, part, context, full_ms, left_ms < full_ms, steps.began + left_ms / 1e3, steps)

    def check(self, principal: Principal, wanted: Wanted, decode: Decode, most_rows: int) -> Checked:
        """What a job asks for, routed, read and held against the signature of its target; nothing runs.

        It may have up to `most_rows` instances where the target answers in parts (see `Checked.part_rows`). Raises what
        a prediction does before it runs.
        """
        principal.require("predict", f"predict:{wanted.model}")
        checked = self._check(principal, wanted, decode, Steps(), most_rows)
        own_ms(checked.decoded.parameters)  # a wrong one is told, although a job has time
        return checked

    def run(self, checked: Checked, context: InferenceContext, first: int = 0, last: int | None = None) -> Prediction:
        """The outputs for the instances from `first` to before `last` (None: all of them) of what was checked.

        `context` has the time that this part has. Raises as a prediction does once it runs.
        """
        steps = Steps()
        ends_at = steps.began + context.deadline_ms / 1e3
        return self._run(checked, checked.part(first, last), context, context.deadline_ms, False, ends_at, steps)

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

    def signature_of(self, checked: Checked) -> Signature:
        """The signature of the target with the outputs as callers of the endpoint see them."""
        return self._plan(checked.config, checked.target.version).signature

    def again(self, wanted: Wanted, tenant: str, ran: tuple[int, str, str], decode: Decode) -> Checked:
        """A request that has run elsewhere: `ran` are the version, the variant and the backend.

        Raises ModelNotFound, VersionNotFound, BackendError, and what `decode` raises.
        """
        state, config = self._configuration(wanted.model)
        number, variant, backend = ran
        version = self._route.version(wanted.model, number)
        decoded = decode(version.caller_signature, config.limits)
        inputs = conform(decoded.inputs, version.caller_signature)
        rows = rows_of(inputs, version.caller_signature)
        target = Target(variant, version, backend, pinned=True)
        return Checked(wanted, state.open_until, config, target, tenant, decoded, inputs, rows)

    def whole(self, checked: Checked, context: InferenceContext) -> Tensors:
        """The model's own inputs for all that was checked, for a backend that answers later; raises as `run`."""
        ends_at = perf_counter() + context.deadline_ms / 1e3
        features = self._features(checked, checked.inputs, checked.decoded.inputs.locate, ends_at)
        return checked.inputs if features is None else features.inputs

    def fetched(self, checked: Checked, backend: str, outputs: Tensors) -> Prediction:
        """The prediction that such a backend's outputs are."""
        kept = KeptAnswer(outputs, checked.target.variant, backend, time())
        return self._made(checked, Answered(kept), checked.rows, Steps(), None)

    def _check(
        self, principal: Principal, wanted: Wanted, decode: Decode, steps: Steps, most_rows: int | None
    ) -> Checked:
        state, config = self._configuration(wanted.model)
        routed = self._route(
            wanted.model, wanted.version, config, Caller(principal.tenant, principal.key_id, wanted.header)
        )
        wanted.routed(routed.target, routed.exposure)
        version = routed.target.version
        steps.end("route")
        signature = version.caller_signature
        if most_rows is not None and signature.batched and not is_async(routed.target.backend, config):
            signature = self._with_rows(version, most_rows)
        decoded = decode(signature, config.limits)
        check_outputs(decoded.outputs, self._plan(config, version).signature.output_names)
        inputs = conform(decoded.inputs, signature)
        steps.end("decode")
        return Checked(
            wanted,
            state.open_until,
            config,
            routed.target,
            principal.tenant,
            decoded,
            inputs,
            rows_of(inputs, signature),
        )

    def _run(
        self,
        checked: Checked,
        part: Part,
        context: InferenceContext,
        full_ms: float,
        shortened: bool,
        ends_at: float,
        steps: Steps,
    ) -> Prediction:
        features = self._features(checked, part.inputs, part.locate, ends_at)
        if features is not None:
            steps.end("enrich")
        ready = Ready(
            wanted=checked.wanted,
            config=checked.config,
            open_until=checked.open_until,
            target=checked.target,
            inputs=part.inputs if features is None else features.inputs,
            rows=part.rows,
            context=prioritised(context, checked.config),
            ends_at=ends_at,
            full_ms=full_ms,
            shortened=shortened,
            outputs=checked.decoded.outputs,
            parameters=checked.decoded.parameters,
        )
        return self._made(checked, self._answer(ready), part.rows, steps, features)

    def _made(
        self, checked: Checked, answered: Answered, rows: int, steps: Steps, features: Enriched | None
    ) -> Prediction:
        config = checked.config
        served = checked.target.version if answered.ran is None else answered.ran.target.version
        plan = self._plan(config, served)
        outputs = plan.apply(answered.answer.outputs)
        steps.end("run")
        return Prediction(
            prediction_id=uuid4().hex,
            config=config,
            version=served,
            variant=answered.answer.variant,
            backend=answered.answer.backend,
            decoded=checked.decoded,
            signature=plan.signature,
            outputs=outputs,
            rows=rows,
            timings_ms=steps.ms,
            ran=answered.ran,
            cache=answered.cache,
            shadow=answered.shadow,
            features=features,
        )

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

    def _with_rows(self, version: ModelVersion, most_rows: int) -> Signature:
        kept = self._signatures.get(version.digest)
        if kept is None or kept.max_batch != most_rows:
            if len(self._signatures) >= _MOST_KEPT:
                self._signatures.clear()
            kept = self._signatures[version.digest] = replace(version.caller_signature, max_batch=most_rows)
        return kept

    def _features(self, checked: Checked, inputs: Tensors, locate: Locate, ends_at: float) -> Enriched | None:
        version = checked.target.version
        if version.features is None:
            return None
        return self._enrich(
            version,
            inputs,
            checked.tenant,
            checked.config.features,
            time(),
            locate=locate,
            deadline_s=max(0.0, ends_at - perf_counter()),
        )
