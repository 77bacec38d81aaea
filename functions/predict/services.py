"""What the routes of the data plane work with."""

from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import Scope

from functions.predict.readiness import Readiness
from shared.codecs.json_documents import JsonLimits
from shared.domain.call_prices import CallPrices
from shared.domain.endpoint.config import EndpointState
from shared.domain.errors import BackendTimeout
from shared.domain.ports import ModelRegistry
from shared.usecases.predict import Predict
from shared.usecases.sources import Sources
from shared.usecases.submit_job import SubmitJob
from shared.web.admission import Door
from shared.web.payload_log import PayloadLog


@dataclass(frozen=True, slots=True)
class Services:
    """The use cases and the bounds of a request.

    A prediction may take what the invocation has left less `reserve_ms`, which is for the answer; `deadline_ms` where
    nothing tells what is left.
    """

    door: Door
    registry: ModelRegistry
    endpoints: Callable[[str], EndpointState]
    predict: Predict
    submit: SubmitJob
    sources: Sources
    prices: CallPrices
    payloads: PayloadLog
    readiness: Readiness
    limits: JsonLimits
    deadline_ms: int
    reserve_ms: int

    def full_ms(self, scope: Scope) -> int:
        """What an answer may take from now on, in milliseconds; BackendTimeout if nothing is left."""
        context = scope.get("aws.context")
        if context is None:
            return self.deadline_ms
        left = int(context.get_remaining_time_in_millis()) - self.reserve_ms
        if left <= 0:
            raise BackendTimeout("The time of this request is over before the model could run.")
        return min(left, self.deadline_ms)
