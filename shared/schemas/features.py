"""The manifest's block `features`: which inputs the feature store fills, by the ids of which entities."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from shared.domain.features import (
    MAX_FEATURE_NAME,
    MAX_FEATURES,
    MAX_TEXT,
    SET_NAME,
    Feature,
    FeatureSet,
    ModelFeatures,
)
from shared.domain.signature import Signature

_MAX_SETS = 8
_MAX_AGE_S = 31_536_000  # a year

FeatureName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_FEATURE_NAME)]
SetName = Annotated[str, StringConstraints(pattern=f"^{SET_NAME}$")]
MaxAge = Annotated[int, Field(ge=1, le=_MAX_AGE_S)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FeatureDocument(_Document):
    """A value from the store, by the name that it has there; see `shared.domain.features.Feature`.

    It fills the `column` (without one, that of its own name) of an `input` whose columns have names, and else the whole
    input. Without `input` it is that of the set, and without that one the input of the feature's own name.
    """

    feature: FeatureName
    input: FeatureName | None = None
    column: FeatureName | None = None
    default: bool | int | float | Annotated[str, Field(max_length=MAX_TEXT)] | None = None
    max_age_s: MaxAge | None = None
    overridable: bool = False


class FeatureSetDocument(_Document):
    """Features that are kept together; `entity`, `input` and `max_age_s` hold for fields that do not say otherwise."""

    name: SetName
    entity: FeatureName | None = None
    input: FeatureName | None = None
    max_age_s: MaxAge | None = None
    fields: Annotated[tuple[FeatureDocument, ...], Field(min_length=1, max_length=MAX_FEATURES)]


class FeaturesDocument(_Document):
    """The block: `entity` is the input with ids for sets that name no other, `example` an instance as callers send it.

    The manifest's own `example` is in the model's terms: an instance of its signature, with every input.
    """

    entity: FeatureName | None = None
    sets: Annotated[tuple[FeatureSetDocument, ...], Field(min_length=1, max_length=_MAX_SETS)]
    example: Any = None

    def to_features(self, signature: Signature) -> ModelFeatures:
        """The domain's value for a model's own signature; ValueError for a set without an entity."""
        sets = tuple(self._to_set(part, signature) for part in self.sets)
        return ModelFeatures(sets, self.example)

    def _to_set(self, part: FeatureSetDocument, signature: Signature) -> FeatureSet:
        entity = part.entity or self.entity
        if entity is None:
            raise ValueError(f"features: the set {part.name!r} has no entity, and there is none for all sets")
        return FeatureSet(part.name, entity, tuple(_to_feature(own, part, signature) for own in part.fields))

    @classmethod
    def from_features(cls, features: ModelFeatures) -> Self:
        """The document of a domain value, with nothing left to be inferred."""
        return cls(
            sets=tuple(
                FeatureSetDocument(
                    name=part.name, entity=part.entity, fields=tuple(_from_feature(own) for own in part.features)
                )
                for part in features.sets
            ),
            example=features.example,
        )


def _to_feature(document: FeatureDocument, part: FeatureSetDocument, signature: Signature) -> Feature:
    name = document.input or part.input or document.feature
    spec = signature.input(name)
    named = spec is not None and bool(spec.features)
    return Feature(
        name=document.feature,
        input=name,
        column=(document.column or document.feature) if named else document.column,
        default=document.default,
        max_age_s=document.max_age_s if document.max_age_s is not None else part.max_age_s,
        overridable=document.overridable,
    )


def _from_feature(feature: Feature) -> FeatureDocument:
    return FeatureDocument(
        feature=feature.name,
        input=feature.input,
        column=feature.column,
        default=feature.default,
        max_age_s=feature.max_age_s,
        overridable=feature.overridable,
    )
