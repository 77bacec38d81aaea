"""What a prediction is asked for, and what comes of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from shared.codecs.content.decoded import Decoded
from shared.domain.endpoint.config import EndpointConfig, EndpointLimits
from shared.domain.endpoint.target import Ran, Target
from shared.domain.endpoint.traffic import Exposure
from shared.domain.errors import SluiceError
from shared.domain.jobs import Job
from shared.domain.model import ModelVersion
from shared.domain.signature import Signature
from shared.domain.tensors import Tensors
from shared.usecases.enrich import Enriched
from shared.usecases.keep_answers import CacheStatus
from shared.usecases.shadow import Shadowed

Decode = Callable[[Signature, EndpointLimits], Decoded]
"""Reads a request's body by a signature, within the endpoint's limits."""


def no_header(name: str) -> None:
    """Headers where there are none."""
    del name


def told_nobody(target: Target, exposure: Exposure | None) -> None:
    """Where a request was routed to, if nobody has to know."""
    del target, exposure


@dataclass(slots=True)  # not frozen: made for every request
class Wanted:
    """What a request asks for beside its tensors.

    `version` is a version, a label, or None for what the endpoint's configuration says. `header` gives a header by its
    name in lower case. `full_ms` is the time that an answer has where the request asks for no deadline of its own.
    `no_cache` has the answer made anew, `no_store` not kept either. `respond_async` takes a job where no answer has
    time enough. `routed` is told the target, and the exposure of an experiment, before anything can go wrong there: an
    arm that fails was shown all the same.
    """

    model: str
    version: int | str | None = None
    header: Callable[[str], str | None] = no_header
    full_ms: int = 29_000
    no_cache: bool = False
    no_store: bool = False
    respond_async: bool = False
    routed: Callable[[Target, Exposure | None], None] = told_nobody


@dataclass(slots=True)  # not frozen: made for every request
class Prediction:
    """The outer outputs, who made them, of how many instances, and how long each step took in milliseconds.

    `decoded` is the request: its inputs as they were given, and the outputs that it asked for (none: all). `signature`
    has the outputs as callers see them. `ran` is None for an answer that was kept; `cache` None where none is.
    """

    prediction_id: str
    config: EndpointConfig
    version: ModelVersion
    variant: str
    backend: str
    decoded: Decoded
    signature: Signature
    outputs: Tensors
    rows: int
    timings_ms: Mapping[str, float]
    ran: Ran | None = None
    cache: CacheStatus | None = None
    shadow: Shadowed | None = None
    features: Enriched | None = None


@dataclass(frozen=True, slots=True)
class JobAnswer:
    """What has come of a job: `outputs`, `error`, or neither yet; `signature` has the outputs as callers see them."""

    job: Job
    version: ModelVersion
    signature: Signature
    outputs: Tensors | None = None
    error: SluiceError | None = None
