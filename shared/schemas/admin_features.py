"""Documents of the admin API: features of entities."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, Field, JsonValue, WithJsonSchema

from shared.domain.features import MAX_ENTITY, MAX_FEATURES, MAX_TEXT, FeatureRecord, FeatureValue
from shared.domain.new_features import MAX_WRITTEN, NewFeatures, NotStored
from shared.schemas.admin import AdminDocument, TenantName, Timestamp, timestamp
from shared.schemas.features import SetName

_VALUE: Mapping[str, Any] = {
    "anyOf": [{"type": "number"}, {"type": "string", "maxLength": MAX_TEXT}, {"type": "boolean"}]
}
# What a value may be is told by `shared.domain.new_features`: of several entities each has its own error.
_Values = Annotated[
    dict[str, JsonValue],
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": _VALUE,
            "minProperties": 1,
            "maxProperties": MAX_FEATURES,
            "examples": [{"age": 41, "segment": "gold", "returning": True}],
        }
    ),
]
_EntityText = Annotated[str, WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_ENTITY})]


class EntityFeaturesRequest(AdminDocument):
    """Features of an entity, in place of all that it has in the set.

    `at` is when they held (without it: now), `expires_at` when they end.
    """

    features: _Values
    at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None

    def to_new(self, entity: str) -> NewFeatures:
        """The domain's value."""
        return NewFeatures(entity, self.features, _seconds(self.at), _seconds(self.expires_at))


class EntityRequest(EntityFeaturesRequest):
    """One of several entities."""

    entity: _EntityText


class EntitiesRequest(AdminDocument):
    """Features of several entities."""

    entities: Annotated[list[EntityRequest], Field(min_length=1, max_length=MAX_WRITTEN)]

    def to_new(self) -> list[NewFeatures]:
        """The domain's values."""
        return [each.to_new(each.entity) for each in self.entities]


class EntityFeaturesDocument(AdminDocument):
    """The features of an entity in a set."""

    tenant: TenantName
    set: SetName
    entity: str
    features: dict[str, FeatureValue]
    at: Timestamp
    expires_at: Timestamp | None

    @classmethod
    def of(cls, tenant: str, record: FeatureRecord) -> Self:
        """The document of a domain value."""
        return cls(
            tenant=tenant,
            set=record.key.set,
            entity=record.key.entity,
            features=dict(record.values),
            at=timestamp(record.at),
            expires_at=None if record.expires_at is None else timestamp(record.expires_at),
        )


class EntityNotStored(AdminDocument):
    """An entity whose features were not stored: its place in the request, and why, as problem documents have it."""

    index: Annotated[int, Field(ge=0)]
    entity: str
    code: str
    detail: str


class EntitiesDocument(AdminDocument):
    """How many entities were stored, and which were not."""

    stored: Annotated[int, Field(ge=0)]
    failed: list[EntityNotStored]

    @classmethod
    def of(cls, given: int, failed: Sequence[NotStored]) -> Self:
        """The document for so many that were given."""
        return cls(
            stored=given - len(failed),
            failed=[
                EntityNotStored(index=each.index, entity=each.entity, code=each.error.code, detail=each.error.detail)
                for each in failed
            ],
        )


def _seconds(time: datetime | None) -> int | None:
    return None if time is None else int(time.timestamp())
