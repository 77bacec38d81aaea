"""What callers send, completed with features from the store."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import numpy as np

from shared.domain.endpoint.config import FeatureSettings
from shared.domain.errors import (
    BackendError,
    BackendTimeout,
    BatchTooLarge,
    FeatureMissing,
    FeaturesUnavailable,
    FieldError,
)
from shared.domain.feature_tensors import Misfit, assemble, column_of
from shared.domain.features import (
    MAX_KEYS,
    EntityKey,
    Feature,
    FeaturePlan,
    FeatureRecord,
    FeatureSet,
    FeatureValue,
    Place,
)
from shared.domain.model import ModelVersion
from shared.domain.ports import FeatureReader
from shared.domain.tensors import Array, Tensors
from shared.domain.used_features import NO_VALUES, FeatureValues, UsedSet, summary_of
from shared.domain.validation import Locate, locate_by_name

_MAX_FIELDS: Final = 8
# Without a deadline from the request: far over what the store's client allows itself.
_LONGEST_S: Final = 29.0

T = TypeVar("T")


class Bounded(Protocol):
    """Runs a call, and raises BackendTimeout once it has taken the seconds that it may."""

    def __call__(self, call: Callable[[], T], seconds: float, /) -> T:
        """What the call gives; whatever it raises passes through."""


def unbounded(call: Callable[[], T], seconds: float, /) -> T:
    """The call itself; the store's client bounds it."""
    del seconds
    return call()


@dataclass(frozen=True, slots=True)
class Enriched:
    """Inputs of the model's own signature, and a summary of what they were made of.

    By set and input (`customer#customer_id`): how many `entities`, how many values were `found`, and for how many the
    default stood in since they were `missing` or `stale`; `oldest_s` is the age of the oldest that was found. `failed`
    is the code of the store's error if nothing could be read. None for a model without features. `values` are for a log
    that was asked for them.
    """

    inputs: Tensors
    used: Mapping[str, Any] | None = None
    values: FeatureValues = NO_VALUES


@dataclass(frozen=True, slots=True)
class Enrich:
    """Fetches the features that a version names, in one read; `within` bounds it by the deadline."""

    store: FeatureReader
    within: Bounded = unbounded

    def __call__(
        self,
        version: ModelVersion,
        inputs: Tensors,
        tenant: str,
        settings: FeatureSettings,
        now: float,
        *,
        locate: Locate = locate_by_name,
        deadline_s: float = _LONGEST_S,
    ) -> Enriched:
        """The model's own inputs, from those that conform to its caller's signature.

        `now` is in seconds since 1970; `locate` tells places in the request. Nothing is read if the caller sent
        everything. Raises BatchTooLarge for more entities than one read takes, FeatureMissing with the places of the
        entities that lack something, FeaturesUnavailable, BackendTimeout if the deadline comes first, BackendError for
        a stored value that does not fit the model.
        """
        plan = version.feature_plan
        if plan is None:
            return Enriched(inputs)
        parts = [_part(part, inputs) for part in plan.features.sets]
        parts = [part for part in parts if part.features]
        records, failed = self._records(parts, tenant, settings, deadline_s, locate)
        missing: list[FieldError] = []
        for part in parts:
            part.records = [_in_force(records.get(EntityKey(part.part.name, name)), now) for name in part.entities]
            missing += _fill(part, settings, now, locate)
        if missing:
            raise FeatureMissing(
                f"{missing[0].pointer}: {missing[0].detail}"
                + (f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""),
                fields=missing[:_MAX_FIELDS],
            )
        fetched = {place: array for part in parts for place, array in _columns(part, plan)}
        rows = len(inputs[plan.features.entities[0]])
        values = FeatureValues(parts, plan.names)
        return Enriched(assemble(plan, inputs, fetched, rows), summary_of(parts, failed, now), values)

    def _records(
        self, parts: Sequence[UsedSet], tenant: str, settings: FeatureSettings, deadline_s: float, locate: Locate
    ) -> tuple[Mapping[EntityKey, FeatureRecord], str | None]:
        """What is stored, and the code of the error because of which nothing was read."""
        keys = dict.fromkeys(EntityKey(part.part.name, name) for part in parts for name in part.entities)
        if len(keys) > MAX_KEYS:
            raise BatchTooLarge.at(
                locate(parts[0].part.entity, ()),
                f"names {len(keys)} different entities in all sets; the limit of a request is {MAX_KEYS}",
            )
        if not keys:
            return {}, None
        names = list(dict.fromkeys(feature.name for part in parts for feature in part.features))
        dispensable = settings.on_failure == "defaults" and all(
            feature.default is not None for part in parts for feature in part.features
        )
        # Where defaults can stand in, a store that hangs must leave time for the model.
        seconds = deadline_s / 2 if dispensable else deadline_s
        try:
            return self.within(lambda: self.store.read(tenant, list(keys), names, seconds), seconds), None
        except BackendError as error:
            if dispensable:
                return {}, error.code
            if isinstance(error, BackendTimeout | FeaturesUnavailable):
                raise
            raise FeaturesUnavailable(error.detail, retry_after_s=error.retry_after_s) from error


def _part(part: FeatureSet, inputs: Tensors) -> UsedSet:
    """What is to be fetched of a set: a caller who sends an overridable feature has it instead."""
    wanted = [feature for feature in part.features if not (feature.overridable and feature.target in inputs)]
    ids = [each.decode() if isinstance(each, bytes) else str(each) for each in inputs[part.entity].tolist()]
    position = {name: at for at, name in enumerate(dict.fromkeys(ids))}
    rows = np.array([position[name] for name in ids], dtype=np.intp)
    return UsedSet(part, list(position), rows, wanted, [])


def _in_force(record: FeatureRecord | None, now: float) -> FeatureRecord | None:
    """The record, unless it has ended: DynamoDB removes such ones days later."""
    ended = record is not None and record.expires_at is not None and record.expires_at <= now
    return None if ended else record


def _fill(part: UsedSet, settings: FeatureSettings, now: float, locate: Locate) -> Iterator[FieldError]:
    """Choose a value of each feature for each entity; yields the places of entities that have none."""
    for feature in part.features:
        limit = min((age for age in (feature.max_age_s, settings.max_age_s) if age is not None), default=None)
        values: list[FeatureValue] = []
        origin: list[str] = []
        part.values.append(values)
        part.origin.append(origin)
        for at, record in enumerate(part.records):
            stale = record is not None and limit is not None and now - record.at > limit
            value = None if record is None or stale else record.values.get(feature.name)
            origin.append("stale" if stale else "missing" if value is None else "stored")
            if value is None:
                value = feature.default
            if value is None:
                yield _missing(part, feature, at, locate, limit if stale else None)
            else:
                values.append(value)


def _missing(part: UsedSet, feature: Feature, at: int, locate: Locate, limit: int | None) -> FieldError:
    place = locate(part.part.entity, (int(np.argmax(part.rows == at)),))
    what = "no" if limit is None else f"no value younger than {limit} s for the"
    return FieldError(
        place, f"{what} feature {feature.name!r} is stored for this entity in {part.part.name!r}, and it has no default"
    )


def _columns(part: UsedSet, plan: FeaturePlan) -> Iterator[tuple[Place, Array]]:
    """Tensors of shape [rows] by what they fill, those of one input made at once."""
    count = len(part.entities)
    by_input: dict[str, list[int]] = {}
    for at, feature in enumerate(part.features):
        by_input.setdefault(feature.input, []).append(at)
    for name, positions in by_input.items():
        try:
            values = column_of([value for at in positions for value in part.values[at]], plan.elements[name])
        except Misfit as error:
            feature = part.features[positions[error.index // count]]
            row = int(np.argmax(part.rows == error.index % count))
            raise BackendError(
                f"The feature {feature.name!r} that {part.part.name!r} holds for instance {row} {error.reason}: "
                "it cannot be used with this model."
            ) from error
        columns = values.reshape(len(positions), count)[:, part.rows]
        yield from ((part.features[at].place, column) for at, column in zip(positions, columns, strict=True))
