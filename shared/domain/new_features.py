"""Features as they are given to be stored, and what they may be."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Final

from shared.domain.errors import (
    MissingField,
    NotFinite,
    OutOfRange,
    PayloadTooLarge,
    SluiceError,
    TextTooLong,
    WrongDtype,
    pointer,
)
from shared.domain.features import (
    MAX_ENTITY,
    MAX_FEATURE_NAME,
    MAX_FEATURES,
    MAX_RECORD_BYTES,
    MAX_TEXT,
    EntityKey,
    FeatureRecord,
    FeatureValue,
)

MAX_WRITTEN: Final = 100
"""Entities that are written at once."""

# How far ahead a writer's clock may be. A time in milliseconds is far beyond that, and would never be too old.
_CLOCK_SKEW_S = 300
# A time in milliseconds would never come.
_MAX_LIFETIME_S = 10 * 365 * 86_400
_NUMBER_BYTES = 21  # as DynamoDB counts a number at its longest
# Source: Amazon DynamoDB, "Supported data types": what a number may be.
_SMALLEST, _LARGEST = 1e-130, 9.9e125
_INTEGERS = range(-(2**63), 2**64)


@dataclass(frozen=True, slots=True)
class NewFeatures:
    """Features to be stored in place of what an entity has; times in seconds since 1970.

    `at` is when they held, now if it is None. `values` are anything: what a feature cannot be, is refused.
    """

    entity: str
    values: Mapping[str, object]
    at: int | None = None
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class NotStored:
    """One of several that was not stored: its place in the request, and why."""

    index: int
    entity: str
    error: SluiceError


def record_of(set_: str, new: NewFeatures, now: float) -> FeatureRecord:
    """The record to be stored; raises InvalidRequest with the place that is wrong."""
    check_entity(new.entity)
    values = _checked(new.values)
    at = int(now) if new.at is None else new.at
    if not 0 <= at <= now + _CLOCK_SKEW_S:
        raise OutOfRange.at("/at", f"must be a time that has passed, in seconds since 1970; now it is {int(now)}")
    if new.expires_at is not None and not now < new.expires_at <= now + _MAX_LIFETIME_S:
        raise OutOfRange.at("/expires_at", "must be a time to come, at most ten years ahead")
    return FeatureRecord(EntityKey(set_, new.entity), values, at, new.expires_at)


def check_entity(entity: str) -> None:
    """Raise OutOfRange unless this can be the id of an entity."""
    if not 0 < len(entity) <= MAX_ENTITY:
        raise OutOfRange.at("/entity", f"must have 1 to {MAX_ENTITY} characters")
    if not _is_text(entity) or any(ord(character) < 32 or ord(character) == 127 for character in entity):
        raise OutOfRange.at("/entity", "must be text without control characters")


def _checked(values: Mapping[str, object]) -> Mapping[str, FeatureValue]:
    if not values:
        raise MissingField.at("/features", "must hold at least one feature")
    if len(values) > MAX_FEATURES:
        raise OutOfRange.at(
            "/features", f"holds {len(values)} features; the limit of an entity in a set is {MAX_FEATURES}"
        )
    checked: dict[str, FeatureValue] = {}
    size = 0
    for name, value in values.items():
        if not 0 < len(name) <= MAX_FEATURE_NAME or not _is_text(name):
            raise OutOfRange.at(pointer("/features", name), f"a name must have 1 to {MAX_FEATURE_NAME} characters")
        checked[name] = _value(value, pointer("/features", name))
        size += len(name.encode()) + (len(value.encode()) if isinstance(value, str) else _NUMBER_BYTES)
    if size > MAX_RECORD_BYTES:
        raise PayloadTooLarge.at(
            "/features", f"takes {size} bytes; the limit of an entity in a set is {MAX_RECORD_BYTES}"
        )
    return checked


def _value(value: object, place: str) -> FeatureValue:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise TextTooLong.at(place, f"has {len(value)} characters; the limit is {MAX_TEXT}")
        if not _is_text(value):
            raise WrongDtype.at(place, "is not text in UTF-8")
        return value
    if isinstance(value, int):
        if value not in _INTEGERS:
            raise OutOfRange.at(place, "must be an integer of 64 bits")
        return value
    if isinstance(value, float):
        if not isfinite(value):
            raise NotFinite.at(place, "must be a finite number")
        if value and not _SMALLEST <= abs(value) <= _LARGEST:
            raise OutOfRange.at(place, f"must be 0 or between {_SMALLEST:g} and {_LARGEST:g}, with either sign")
        return value
    raise WrongDtype.at(place, "must be a number, text, true or false")


def _is_text(text: str) -> bool:
    """Whether it can be written in UTF-8: half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
