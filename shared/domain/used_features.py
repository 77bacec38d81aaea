"""Which features went into a request, as its log line tells it."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from shared.domain.features import Feature, FeatureRecord, FeatureSet, FeatureValue
from shared.domain.tensors import Array

_REDACTED: Final = "[redacted]"
_MAX_ROWS: Final = 8
_MAX_TEXT: Final = 256


@dataclass(slots=True)
class UsedSet:
    """Which values went into a request, of one set; `rows` tells which of `entities` a row has.

    `values` and `origin` (`stored`, `missing` or `stale`) have a list for each feature, in it an element for each
    entity.
    """

    part: FeatureSet
    entities: Sequence[str]
    rows: Array
    features: Sequence[Feature]
    records: Sequence[FeatureRecord | None]
    values: list[list[FeatureValue]] = field(default_factory=list)
    origin: list[list[str]] = field(default_factory=list)

    @property
    def label(self) -> str:
        """How the log calls it: a model may ask for one set by the ids of two inputs."""
        return f"{self.part.name}#{self.part.entity}"


@dataclass(frozen=True, slots=True)
class FeatureValues:
    """What a request's features were, for a log that was asked for it; `names` are those that it may leave out.

    They are the features' own, and those of the columns and inputs that they fill.
    """

    parts: Sequence[UsedSet] = ()
    names: frozenset[str] = frozenset()

    def __call__(self, redact: Collection[str] = ()) -> dict[str, Any]:
        """By set and input: the values of the first entities, and a digest of those of all.

        The digest is the SHA-256 over their JSON. What `redact` names (features, columns, inputs, the ids) is in
        neither.
        """
        return {part.label: _values_of(part, frozenset(redact)) for part in self.parts}


NO_VALUES: Final = FeatureValues()


def summary_of(parts: Sequence[UsedSet], failed: str | None, now: float) -> dict[str, Any]:
    """Counts and ages, by set; `failed` is the code of the store's error where defaults stood in."""
    summary: dict[str, Any] = {} if failed is None else {"failed": failed}
    sets: dict[str, Any] = {}
    for part in parts:
        origins = [origin for each in part.origin for origin in each]
        used = {at for each in part.origin for at, origin in enumerate(each) if origin == "stored"}
        times = [record.at for at, record in enumerate(part.records) if record is not None and at in used]
        own = {"entities": len(part.entities), "found": origins.count("stored")}
        own |= {kind: count for kind in ("missing", "stale") if (count := origins.count(kind))}
        if times:
            own["oldest_s"] = max(0, int(now - min(times)))
        sets[part.label] = own
    return {"sets": sets, **summary}


def _values_of(part: UsedSet, redact: frozenset[str]) -> dict[str, Any]:
    digest = sha256()
    rows: list[dict[str, Any]] = []
    for at, name in enumerate(part.entities):
        row = _row(part, at, name, redact)
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n")
        if at < _MAX_ROWS:
            shown = {name: _short(value) for name, value in row["features"].items()}
            rows.append({**row, "features": shown})
    return {"rows": rows, "more": max(0, len(part.entities) - _MAX_ROWS), "sha256": digest.hexdigest()}


def _row(part: UsedSet, at: int, name: str, redact: frozenset[str]) -> dict[str, Any]:
    record = part.records[at]
    features = {
        feature.name: _REDACTED if redact & {feature.name, feature.target, feature.input} else own[at]
        for feature, own in zip(part.features, part.values, strict=True)
    }
    return {
        "entity": _REDACTED if part.part.entity in redact else name,
        "at": None if record is None else record.at,
        "features": features,
        "defaulted": [
            feature.name for feature, origin in zip(part.features, part.origin, strict=True) if origin[at] != "stored"
        ],
    }


def _short(value: FeatureValue) -> FeatureValue:
    return f"{value[:_MAX_TEXT]}…" if isinstance(value, str) and len(value) > _MAX_TEXT else value
