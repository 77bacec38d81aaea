"""What a prediction is asked for, and what comes of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from shared.codecs.content.decoded import Decoded
from shared.domain.endpoint.config import EndpointConfig, EndpointLimits
from shared.domain.endpoint.target import Ran, Target
from shared.domain.endpoint.traffic import Exposure
from shared.domain.features import MAX_KEYS
from shared.domain.model import ModelVersion
from shared.domain.signature import Signature
from shared.domain.tensors import Tensors
from shared.domain.validation import Locate
from shared.usecases.enrich import Enriched
from shared.usecases.keep_answers import CacheStatus
from shared.usecases.shadow import Shadowed

# Of a request in parts, where the endpoint does not say how many instances it takes at once.
PART_ROWS: Final = 1024

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
class Part:
    """Instances of a request: `inputs` of `rows` instances, and where they stand in it."""

    inputs: Tensors
    rows: int
    locate: Locate


@dataclass(slots=True)  # not frozen: made for every request
class Checked:
    """A request that was routed and read: what is left is to run it.

    `open_until` are the circuits that are open, `inputs` conform to the caller's signature of the target's version, and
    have `rows` instances. The backend of `target` may be `auto` still.
    """

    wanted: Wanted
    open_until: Mapping[str, float]
    config: EndpointConfig
    target: Target
    tenant: str
    decoded: Decoded
    inputs: Tensors
    rows: int

    @property
    def part_rows(self) -> int:
        """The most instances that may run at once, for a model with an axis of instances."""
        version = self.target.version
        most = min(version.signature.max_batch, self.config.limits.max_rows or PART_ROWS)
        if version.features is not None:  # one read for all entities of a part
            most = min(most, MAX_KEYS // max(1, len(version.features.sets)))
        return max(1, most)

    def part(self, first: int, last: int | None) -> Part:
        """The instances from `first` to before `last`, None: to the end."""
        given = self.decoded.inputs.locate
        if first == 0 and (last is None or last >= self.rows):
            return Part(self.inputs, self.rows, given)
        signature = self.target.version.caller_signature
        of_rows = {spec.name for spec in signature.inputs if signature.has_rows(spec)}
        last = self.rows if last is None else min(last, self.rows)

        def locate(name: str, index: tuple[int, ...]) -> str:
            return given(name, (index[0] + first, *index[1:]) if index and name in of_rows else index)

        cut = {name: array[first:last] if name in of_rows else array for name, array in self.inputs.items()}
        return Part(cut, last - first, locate)


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
