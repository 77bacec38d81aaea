"""Jobs on backends that answer later: handed in, and their answers fetched."""

from collections.abc import Callable, Mapping
from time import time
from typing import Final, Protocol, TypeVar, cast

from shared.domain.endpoint.auto import Work
from shared.domain.endpoint.config import AUTO, EndpointConfig
from shared.domain.errors import AsyncRequired, BackendUnavailable, BatchTooLarge, SluiceError
from shared.domain.model import ModelVersion
from shared.domain.ports import AsyncBackend, Backends, InferenceContext
from shared.domain.tensors import Tensors
from shared.usecases.predict import Predict
from shared.usecases.prediction import Checked
from shared.usecases.route import Route, is_async

T = TypeVar("T")

# As long as SageMaker lets an asynchronous invocation run; the time in its queue may be as long again.
JOB_S: Final = 3600
WAIT_S: Final = 2 * JOB_S + 600
# When a job was handed in, beside what the backend itself put into its ticket.
HANDED_IN: Final = "handed_in_at"
# What an answer that somebody waits for has: `auto` chooses an asynchronous backend for what takes longer.
_ANSWER_MS: Final = 29_000
# One call of a backend's that takes a job on, or tells of it.
_CALL_S: Final = 60.0


class Bounded(Protocol):
    """Runs a call, and raises BackendTimeout once it has taken the seconds that it may."""

    def __call__(self, call: Callable[[], T], seconds: float, /) -> T:
        """What the call gives; whatever it raises passes through."""


class AsyncJobs:
    """The asynchronous backends; `within` bounds their calls, `now` gives seconds since 1970."""

    def __init__(
        self,
        predict: Predict,
        route: Route,
        backends: Backends,
        within: Bounded,
        now: Callable[[], float] = time,
    ) -> None:
        self._predict = predict
        self._route = route
        self._backends = backends
        self._within = within
        self._now = now

    def backend_of(self, checked: Checked) -> str | None:
        """The asynchronous backend for a request, None if it is to be answered here.

        That of its target; for `auto` the first of the endpoint's, if no answer has time for the request and the model
        takes all its instances at once: nothing cuts what runs there. Raises BatchTooLarge where there is no choice.
        """
        target, signature = checked.target, checked.target.version.signature
        fits = not signature.batched or checked.rows <= signature.max_batch
        if target.backend == AUTO and fits:
            return self._for_long_ones(checked)
        if not is_async(target.backend, checked.config):
            return None
        if not fits:
            raise BatchTooLarge.at(
                "/instances",
                f"{checked.rows} instances; what runs on {target.backend} has {signature.max_batch} at the most: "
                "start a batch",
            )
        return target.backend

    def hand_in(self, checked: Checked, name: str, context: InferenceContext, reference: str) -> Mapping[str, str]:
        """Hand a request in; the ticket. Raises what the backend raises, and BackendTimeout."""
        seconds = min(_CALL_S, context.deadline_ms / 1e3)
        inputs = self._predict.whole(checked, context)
        backend = cast("AsyncBackend", self._backends.get(name, checked.config))
        patient = context.within(JOB_S * 1000)
        ticket = self._within(lambda: backend.hand_in(checked.target.version, inputs, patient, reference), seconds)
        return {**ticket, HANDED_IN: str(int(self._now()))}

    def fetch(
        self, version: ModelVersion, name: str, config: EndpointConfig, ticket: Mapping[str, str], rows: int | None
    ) -> Tensors | SluiceError | None:
        """As `AsyncBackend.fetch`; BackendUnavailable also if the backend is no longer configured as it was."""
        if not is_async(name, config):
            return BackendUnavailable(f"The backend {name} of this job is no longer configured as it was.")
        backend = cast("AsyncBackend", self._backends.get(name, config))
        return self._within(lambda: backend.fetch(version, ticket, rows), _CALL_S)

    def waited_s(self, ticket: Mapping[str, str]) -> float:
        """How long ago a job was handed in."""
        return self._now() - float(ticket.get(HANDED_IN, "0"))

    def _for_long_ones(self, checked: Checked) -> str | None:
        config = checked.config
        name = first_async(config)
        if name is None:
            return None
        work = Work(checked.rows, sum(array.nbytes for array in checked.inputs.values()), _ANSWER_MS)
        try:
            self._route.backend(checked.target, config, work, full_deadline_ms=_ANSWER_MS)
        except AsyncRequired:
            return name
        return None


def first_async(config: EndpointConfig) -> str | None:
    """The asynchronous backend that an endpoint's long requests go to: of the candidates, else of all."""
    named = [name for name in config.auto.candidates if is_async(name, config)]
    return next(iter(named or [name for name in config.backends if is_async(name, config)]), None)
