"""What answers when a target cannot: the endpoint's fallback chain."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, Final

from shared.domain.endpoint.config import EndpointConfig, Fallback
from shared.domain.endpoint.static_answer import static_outputs
from shared.domain.endpoint.target import KeptAnswer, Ran, Target
from shared.domain.errors import BackendTimeout, InvalidRequest, SluiceError
from shared.domain.ports import InferenceContext
from shared.domain.validation import Inputs, conform
from shared.usecases.attempt import Tally
from shared.usecases.run_target import RunTarget

if TYPE_CHECKING:
    from shared.domain.tensors import Tensors

_log = logging.getLogger(__name__)

_ANSWERS: Final = "#answers"
# A kept answer is looked for that long even if the time is over: it mostly is in memory.
_LEAST_S: Final = 0.02


@dataclass(slots=True)  # not frozen: made for every request with fallbacks
class _Request:
    primary: Target
    resolve: Callable[[str], Target]
    inputs: "Tensors"
    context: InferenceContext
    config: EndpointConfig
    open_until: Mapping[str, float]
    rows: int
    shortened: bool
    last: Callable[[int], KeptAnswer | None]
    ends: float
    tally: Tally


class FallBack:
    """Runs a target, and its stand-ins in order until one answers."""

    def __init__(self, run: RunTarget) -> None:
        self._run = run

    def __call__(
        self,
        primary: Target,
        resolve: Callable[[str], Target],
        inputs: "Tensors",
        context: InferenceContext,
        config: EndpointConfig,
        open_until: Mapping[str, float],
        *,
        rows: int,
        shortened: bool,
        last: Callable[[int], KeptAnswer | None],
        tally: Tally | None = None,
    ) -> Ran:
        """The answer of the target, or of what stands in for it, marked as such.

        `resolve` gives the target of a variant, `last` the answer kept for this very request if it is at most so many
        seconds old; `last` may be called on another thread. Raises what the target raised if nothing answers, and
        InvalidRequest at once: no other one could do better.
        """
        members = [member for member in config.fallback if _may_answer(member, primary)]
        tally = Tally() if tally is None else tally
        if not members:
            return self._run(primary, inputs, context, config, open_until, rows=rows, shortened=shortened, tally=tally)
        ends = monotonic() + context.deadline_ms / 1e3
        own = context.within(context.deadline_ms - _reserve_ms(config, context.deadline_ms))
        try:
            return self._run(primary, inputs, own, config, open_until, rows=rows, shortened=shortened, tally=tally)
        except InvalidRequest:
            raise
        except SluiceError as error:
            request = _Request(
                primary, resolve, inputs, context, config, open_until, rows, shortened, last, ends, tally
            )
            answer = self._first_answer(request, members, error.code)
            if answer is None:
                raise
            return answer

    def _first_answer(self, request: _Request, members: Sequence[Fallback], reason: str) -> Ran | None:
        for place, member in enumerate(members, start=1):
            try:
                ran = self._stand_in(request, member, is_last=place == len(members))
            except SluiceError as error:
                _log.warning("the fallback %s of %s failed: %s", _mark(member), request.config.endpoint, error.detail)
                continue
            if ran is not None:
                return replace(
                    ran,
                    fallback=_mark(member),
                    reason=reason,
                    attempts=request.tally.calls,
                    hedged=request.tally.hedged,
                )
        return None

    def _stand_in(self, request: _Request, member: Fallback, *, is_last: bool) -> Ran | None:
        """What one member answers, None if it has nothing; raises SluiceError."""
        match member.kind:
            case "variant":
                return self._variant(request, member.variant or "", is_last=is_last)
            case "cached":
                return self._cached(request, member.max_age_s)
            case "static":
                signature = request.primary.version.signature
                return Ran(request.primary, static_outputs(member.outputs, signature, request.rows))

    def _variant(self, request: _Request, variant: str, *, is_last: bool) -> Ran | None:
        primary, config = request.primary, request.config
        target = request.resolve(variant)
        if (target.version, target.backend) == (primary.version, primary.backend):
            return None
        left_ms = ceil((request.ends - monotonic()) * 1e3)
        if not is_last:
            left_ms -= _reserve_ms(config, left_ms)
        if left_ms <= 0:
            raise BackendTimeout("No time was left.")
        inputs = request.inputs
        if target.version.signature.inputs != primary.version.signature.inputs:
            inputs = conform(Inputs(inputs), target.version.signature)
        return self._run(
            target,
            inputs,
            request.context.within(left_ms),
            config,
            request.open_until,
            rows=request.rows,
            shortened=request.shortened,
            # What is left is little, and no fault of this one.
            stand_in=True,
            tally=request.tally,
        )

    def _cached(self, request: _Request, max_age_s: int) -> Ran | None:
        left_s = max(_LEAST_S, request.ends - monotonic())
        kept = self._run.runner.run(_ANSWERS, lambda: request.last(max_age_s), left_s)
        if kept is None:
            return None
        return Ran(replace(request.primary, variant=kept.variant, backend=kept.backend), kept.outputs)


def _may_answer(member: Fallback, primary: Target) -> bool:
    if member.kind == "variant":
        return not primary.pinned and member.variant != primary.variant
    return member.kind == "cached" or not primary.pinned


def _reserve_ms(config: EndpointConfig, deadline_ms: int) -> int:
    """What is kept for the stand-ins, never more than half of the time."""
    return min(config.fallback_reserve_ms, max(0, deadline_ms // 2))


def _mark(member: Fallback) -> str:
    """How `X-Sluice-Fallback` names a member."""
    return f"variant={member.variant}" if member.kind == "variant" else member.kind
