"""What travels from a transport to the models and back.

These objects are made for every request: plain classes with slots, since frozen dataclasses take three times as long.
"""

from collections.abc import Callable, Hashable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from shared.codecs.content.decoded import Decoded
from shared.domain.errors import SluiceError
from shared.domain.tensors import Array, Tensors
from shared.domain.validation import Locate

if TYPE_CHECKING:
    from gpu_service.models.served_model import ServedModel

DEFAULT_PRIORITY = 128  # V2 writes 0 for it; 1 comes first
LEAST_PRIORITY = 255


class Call:
    """What a transport knows before the body is decoded; calls with the same headers may share one.

    `deadline_ms` is the time left when the call was sent. Of `priority`, a lower number is served first.
    """

    __slots__ = ("deadline_ms", "model", "priority", "request_id", "session", "tenant", "traceparent", "version")

    def __init__(
        self,
        model: str | None = None,
        version: int | None = None,
        *,
        deadline_ms: float | None = None,
        priority: int = DEFAULT_PRIORITY,
        tenant: str = "",
        request_id: str = "",
        traceparent: str = "",
        session: str = "",
    ) -> None:
        self.model = model
        self.version = version
        self.deadline_ms = deadline_ms
        self.priority = priority
        self.tenant = tenant
        self.request_id = request_id
        self.traceparent = traceparent
        self.session = session


class InferenceRequest:
    """One request on its way; belongs to the event loop, but for the batch that runs it.

    Times are those of `time.monotonic`, in seconds, 0 where a step was not reached. `inputs` have the signature's
    shapes and dtypes, their values are checked with the batch. Only requests with an equal `shape_key` share a batch.
    A run has to begin `lead` seconds before the deadline, and is expected to by `begins_by` where that is close to it.
    Exactly one of `result` and `error` is set when `done` is called, which happens once, on the event loop. `context`
    is the transport's own.
    """

    __slots__ = (
        "answered",
        "arrived",
        "begins_by",
        "cancelled",
        "context",
        "deadline",
        "decoded",
        "decoded_at",
        "done",
        "error",
        "finished",
        "inputs",
        "lead",
        "locate",
        "model",
        "nbytes",
        "outputs",
        "priority",
        "request_id",
        "result",
        "rows",
        "shape_key",
        "started",
        "tenant",
        "traceparent",
    )

    def __init__(
        self,
        call: Call,
        model: "ServedModel",
        decoded: Decoded,
        inputs: dict[str, Array],
        rows: int,
        nbytes: int,
        shape_key: Hashable,
        arrived: float,
        done: "Callable[[InferenceRequest], None]",
        context: Any = None,
    ) -> None:
        self.arrived = arrived
        self.decoded_at = monotonic()
        self.started = 0.0
        self.finished = 0.0
        self.deadline = inf if call.deadline_ms is None else arrived + call.deadline_ms / 1000
        self.priority = call.priority
        self.tenant = call.tenant
        self.request_id = call.request_id
        self.traceparent = call.traceparent
        self.done = done
        self.context = context
        self.model = model
        self.decoded = decoded
        self.inputs = inputs
        self.locate: Locate = decoded.inputs.locate
        self.outputs = decoded.outputs
        self.rows = rows
        self.nbytes = nbytes
        self.shape_key = shape_key
        self.lead = 0.0
        self.begins_by = 0.0
        self.cancelled = False
        self.answered = False
        self.result: Tensors | None = None
        self.error: SluiceError | None = None
