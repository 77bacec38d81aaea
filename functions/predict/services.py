"""What the routes of the data plane work with."""

from dataclasses import dataclass

from functions.predict.readiness import Readiness
from shared.codecs.json_documents import JsonLimits
from shared.usecases.predict import Predict
from shared.web.admission import Door
from shared.web.payload_log import PayloadLog


@dataclass(frozen=True, slots=True)
class Services:
    """The use cases and the bounds of a request.

    A prediction may take what the invocation has left less `reserve_ms`, which is for the answer; `deadline_ms` where
    nothing tells what is left.
    """

    door: Door
    predict: Predict
    payloads: PayloadLog
    readiness: Readiness
    limits: JsonLimits
    deadline_ms: int
    reserve_ms: int
