"""Features that a model's manifest names: fetched by the id of an entity, in place of inputs that callers would send.

No NumPy here, which what only describes models does not need: `shared.domain.feature_tensors` makes tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from shared.domain.dtypes import DType
from shared.domain.signature import Content, Signature, TensorSpec

FeatureValue = bool | int | float | str
"""What the feature store holds; numbers are finite."""

Place = tuple[str, str | None]
"""What a feature fills: an input, and the column of it or None."""

# Without `#`, which parts the three names of a stored key.
SET_NAME: Final = r"[a-z0-9][a-z0-9._-]{0,63}"
MAX_ENTITY: Final = 256  # characters
MAX_FEATURE_NAME: Final = 256  # characters
MAX_FEATURES: Final = 256  # of an entity in one set
MAX_TEXT: Final = 4096  # characters of a value
# Names and values of an entity in one set. A hundred such items stay far below the 16 MB of a BatchGetItem's answer.
MAX_RECORD_BYTES: Final = 32_768
# What one BatchGetItem takes. Source: Amazon DynamoDB API Reference, BatchGetItem.
MAX_KEYS: Final = 100


class EntityKey(NamedTuple):
    """Where features are kept, within a tenant."""

    set: str
    entity: str


@dataclass(frozen=True, slots=True)
class FeatureRecord:
    """The features of an entity in one set; times are in seconds since 1970.

    `at` is when the values held. From `expires_at` on, if there is such a time, they count as not stored.
    """

    key: EntityKey
    values: Mapping[str, FeatureValue]
    at: int
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class Feature:
    """A value that the model takes from the store, by the name that it has there.

    It fills a `column` of an input whose columns have names, or the whole `input`, one element a row. `default` stands
    in where nothing is stored, or nothing younger than `max_age_s`; without one such a request is refused. An
    `overridable` feature may be sent by the caller instead: as an optional input named after the column or the input.
    """

    name: str
    input: str
    column: str | None = None
    default: FeatureValue | None = None
    max_age_s: int | None = None
    overridable: bool = False

    @property
    def place(self) -> "Place":
        """What it fills: no other feature of a model does."""
        return self.input, self.column

    @property
    def target(self) -> str:
        """The name of what it fills: of the column, or of the input."""
        return self.input if self.column is None else self.column


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """Features that are kept together, under the id that callers send as the input `entity`."""

    name: str
    entity: str
    features: tuple[Feature, ...]


@dataclass(frozen=True, slots=True)
class ModelFeatures:
    """The manifest's block `features`; `example` is an instance as callers send it."""

    sets: tuple[FeatureSet, ...]
    example: Any = None

    @property
    def entities(self) -> tuple[str, ...]:
        """The names of the inputs with ids, each once."""
        return tuple(dict.fromkeys(part.entity for part in self.sets))

    @property
    def all(self) -> tuple[Feature, ...]:
        """The features of all sets."""
        return tuple(feature for part in self.sets for feature in part.features)


@dataclass(frozen=True, slots=True)
class FeaturePlan:
    """A model's own signature and its features, made ready for requests.

    `caller_signature` is what callers see. By the name of an input, `fed` has the features that fill it or columns of
    it, and `elements` describes what one of them gives: a tensor of shape [rows]. `names` are all that a feature is
    known by.
    """

    features: ModelFeatures
    signature: Signature
    caller_signature: Signature = field(init=False)
    fed: Mapping[str, tuple[Feature, ...]] = field(init=False)
    elements: Mapping[str, TensorSpec] = field(init=False)
    names: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        every = self.features.all
        inputs = dict.fromkeys(feature.input for feature in every)
        fed = {name: tuple(feature for feature in every if feature.input == name) for name in inputs}
        names = {name for feature in every for name in (feature.name, feature.target, feature.input)}
        object.__setattr__(self, "caller_signature", caller_signature(self.signature, self.features))
        object.__setattr__(self, "fed", fed)
        object.__setattr__(self, "elements", {name: value_spec(own[0], self.signature) for name, own in fed.items()})
        object.__setattr__(self, "names", frozenset(names))


def caller_signature(signature: Signature, features: ModelFeatures) -> Signature:
    """The signature as callers see it: without what the store feeds, with the entities' ids.

    An input all of whose columns are fed is gone, one of which some are has the others in their order. An overridable
    feature is an optional input of its own. The ids are text of shape [rows], unless the model takes them itself.
    """
    inputs = [kept for spec in signature.inputs if (kept := kept_input(spec, features)) is not None]
    own = {spec.name for spec in inputs}
    inputs += [
        TensorSpec(name, DType.BYTES, (None,), content=Content.TEXT, max_length=MAX_ENTITY)
        for name in features.entities
        if name not in own
    ]
    inputs += [
        replace(value_spec(feature, signature), optional=True)
        for feature in features.all
        if feature.overridable and feature.column is not None
    ]
    return replace(signature, inputs=tuple(inputs))


def kept_input(spec: TensorSpec, features: ModelFeatures) -> TensorSpec | None:
    """What is left of an input to callers, if anything is."""
    fed = [feature for feature in features.all if feature.input == spec.name]
    if any(feature.column is None for feature in fed):
        return replace(spec, optional=True) if fed[0].overridable else None
    if fed:
        columns = {feature.column for feature in fed}
        rest = tuple(name for name in spec.features if name not in columns)
        # Layouts are of whole instances.
        return replace(spec, shape=(None, len(rest)), features=rest, layouts=()) if rest else None
    if spec.name in features.entities and spec.dtype is DType.BYTES:
        longest = MAX_ENTITY if spec.max_length is None else min(MAX_ENTITY, spec.max_length)
        return replace(spec, content=Content.TEXT, max_length=longest)
    return spec


def value_spec(feature: Feature, signature: Signature) -> TensorSpec:
    """A feature as a tensor of shape [rows]; ValueError if the model has no such input."""
    spec = signature.input(feature.input)
    if spec is None:
        raise ValueError(f"the model has no input {feature.input!r} for the feature {feature.name!r}")
    return replace(spec, name=feature.target, shape=(None,), features=(), layouts=(), optional=False)
