"""The models that are known here, the table that requests look them up in, and whether the container is ready."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic
from typing import TYPE_CHECKING

from gpu_service.models.errors import ModelEvicted, ModelUnavailable
from gpu_service.models.joining import evicted, join
from shared.domain.errors import InvalidRequest, ModelNotFound, SluiceError, VersionNotFound

if TYPE_CHECKING:
    from gpu_service.models.served_model import ModelKey, ServedModel
    from gpu_service.models.sources.source import Found

_LONGEST_NAME = 256


class State(StrEnum):
    """Of a version. Source: Triton Inference Server, "Model Repository Extension" and its `TRITONSERVER_ModelState`."""

    READY = "READY"
    LOADING = "LOADING"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


class Entry:
    """A version that is known here; only the repository writes to it.

    `evicted`: it is offered to callers, and loaded again for the first of them. `reason` says why it is not READY, or
    why the last attempt to replace it failed. `cost` is what it takes in bytes, as it was found when the revision
    `measured` was loaded. `given`: at start, so that the container is not ready without it. `epoch` counts the times
    that it was withdrawn for good: a load that began before is of no use any more. `missing` counts the listings
    without it, `refused` is a revision that cannot be served. `lacks` says which step keeps a pipeline that is loaded
    from answering.
    """

    __slots__ = (
        "cost",
        "epoch",
        "evicted",
        "found",
        "given",
        "key",
        "lacks",
        "measured",
        "missing",
        "reason",
        "refused",
        "served",
        "state",
    )

    def __init__(self, found: "Found") -> None:
        self.key: ModelKey = found.key
        self.found = found
        self.state = State.UNAVAILABLE
        self.reason = ""
        self.served: ServedModel | None = None
        self.evicted = False
        self.cost = 0
        self.measured: str | None = None
        self.given = False
        self.epoch = 0
        self.missing = 0
        self.refused: str | None = None
        self.lacks = ""

    @property
    def loaded(self) -> bool:
        """Whether it was loaded and not withdrawn since, be it in memory or evicted."""
        return self.served is not None or self.evicted

    @property
    def offered(self) -> bool:
        """Whether requests for it are answered."""
        return self.loaded and not self.lacks

    @property
    def answers(self) -> "ServedModel | None":
        """What requests for it are given to, if it is in memory."""
        return None if self.served is None or self.lacks else self.served.answers


@dataclass(frozen=True, slots=True)
class Readiness:
    """`reason` says why not; `failed` holds the models given at start that did not load, with their errors."""

    ready: bool
    reason: str
    models: "tuple[ModelKey, ...]"
    failed: Mapping[str, str]


class ModelRepository:
    """Belongs to the event loop: nobody takes a lock, and a change is made between two requests."""

    def __init__(self) -> None:
        # By name and version; None stands for the only model and for the highest version.
        self._table: dict[str | None, dict[int | None, ServedModel]] = {}
        self._entries: dict[str, dict[int, Entry]] = {}
        self._pending: str | None = "The models are being loaded."

    def get(self, name: str | None, version: int | None) -> "ServedModel":
        """The model; without a name the only one there is, without a version the highest that is served.

        Raises InvalidRequest if the name is needed, ModelNotFound, VersionNotFound, ModelUnavailable, and ModelEvicted
        if it is to be loaded again first.
        """
        try:
            return self._table[name][version]
        except KeyError:
            raise self._absent(name, version) from None

    def ready(self, name: str, version: int | None = None) -> bool:
        """Whether a request would be answered, if need be after the model is loaded again."""
        versions = self._entries.get(name, {})
        if version is None:
            return any(entry.offered for entry in versions.values())
        return version in versions and versions[version].offered

    def entry(self, key: "ModelKey") -> Entry | None:
        """What is known of a version."""
        return self._entries.get(key.name, {}).get(key.version)

    def entries(self, name: str | None = None) -> list[Entry]:
        """All versions known, or those of one model, the lowest first."""
        rows: Iterable[dict[int, Entry]] = self._entries.values() if name is None else [self._entries.get(name, {})]
        return [row[version] for row in rows for version in sorted(row)]

    def steps_of(self, name: str) -> tuple[str, ...]:
        """The models that are steps of a pipeline."""
        keys = [key for entry in self.entries(name) if entry.served for key in entry.served.needs]
        return tuple(dict.fromkeys(key.name for key in keys))

    def is_step(self, name: str) -> bool:
        """Whether a pipeline that is loaded has a step on a version of this model."""
        return bool(self._pipelines(name))

    def begin(self, found: "Found", *, given: bool = False) -> Entry:
        """A load begins; what is served goes on being served."""
        entry = self._entries.setdefault(found.key.name, {}).setdefault(found.key.version, Entry(found))
        entry.given |= given
        if entry.served is None:
            entry.state, entry.reason = State.LOADING, "being loaded"
        return entry

    def serve(self, entry: Entry, served: "ServedModel", found: "Found") -> "ServedModel | None":
        """Answer requests with `served` from now on; what answered them until now."""
        before, entry.served = entry.served, served
        entry.state, entry.reason, entry.evicted, entry.refused = State.READY, "", False, None
        entry.found, entry.missing = found, 0
        # The youngest is not the first to go.
        served.last_used = monotonic()
        self._publish(entry.key.name)
        return before

    def fail(self, entry: Entry, error: SluiceError, *, refused: str | None = None) -> None:
        """A load failed, for good if a `refused` revision is given; what is served stays."""
        entry.reason, entry.refused = error.detail, refused
        if entry.served is None:
            entry.state = State.UNAVAILABLE
            entry.evicted = entry.evicted and refused is None
            self._publish(entry.key.name)

    def defer(self, entry: Entry, found: "Found", reason: str) -> None:
        """Offer a version that is not in memory: the first request for it loads it."""
        if entry.served is None:
            entry.state, entry.reason, entry.evicted, entry.found = State.UNAVAILABLE, reason, True, found
            self._publish(entry.key.name)

    def withdraw(self, entry: Entry, reason: str, *, evicted: bool = False) -> "ServedModel | None":
        """Give this version no further request; what served it, to be drained and closed, then `settle`."""
        served, entry.served, entry.lacks = entry.served, None, ""
        entry.evicted, entry.given, entry.reason = evicted, entry.given and evicted, reason
        entry.epoch += not evicted
        entry.state = State.UNAVAILABLE if served is None else State.UNLOADING
        self._publish(entry.key.name)
        return served

    def settle(self, entry: Entry) -> None:
        """What was withdrawn has given its memory back."""
        if entry.state is State.UNLOADING:
            entry.state = State.UNAVAILABLE

    def forget(self, entry: Entry) -> None:
        """Know nothing of a version any more; it must not be served."""
        row = self._entries.get(entry.key.name, {})
        if row.get(entry.key.version) is entry:
            del row[entry.key.version]
            if not row:
                del self._entries[entry.key.name]
            self._publish(entry.key.name)

    def pending(self, reason: str | None) -> None:
        """Say what the start still waits for; None once every model given has been tried."""
        if reason != self._pending:
            self._pending = reason
            for entry in self._pipelines():
                self._publish_one(entry.key.name)

    def readiness(self) -> Readiness:
        """Whether all that was given at start is served."""
        entries = self.entries()
        missing = {
            f"{entry.key.name}/{entry.key.version}": entry for entry in entries if entry.given and not entry.offered
        }
        failed = {label: entry.reason for label, entry in missing.items() if entry.state is State.UNAVAILABLE}
        reason = self._pending or ""
        if failed and not reason:
            reason = f"These models could not be loaded: {', '.join(failed)}."
        elif missing and not reason:
            reason = f"These models are being loaded: {', '.join(missing)}."
        ready = tuple(entry.key for entry in entries if entry.served and entry.offered)
        return Readiness(not reason, reason, ready, failed)

    def _publish(self, name: str) -> None:
        """Bring the table in step with the versions of a model, and with the pipelines that it is a step of."""
        self._publish_one(name)
        for pipeline in dict.fromkeys(entry.key.name for entry in self._pipelines(name)):
            self._publish_one(pipeline)

    def _pipelines(self, step: str | None = None) -> list[Entry]:
        """The pipelines that are loaded, or those with this model as a step."""
        return [
            entry
            for entry in self.entries()
            if entry.served and any(step in (None, key.name) for key in entry.served.needs)
        ]

    def _state_of(self, pipeline: Entry) -> State:
        if not pipeline.lacks:
            return State.READY
        steps = [self.entry(key) for key in pipeline.served.needs] if pipeline.served else []
        waits = self._pending or any(step is not None and step.state is State.LOADING for step in steps)
        return State.LOADING if waits else State.UNAVAILABLE

    def _publish_one(self, name: str) -> None:
        for entry in self.entries(name):
            if entry.served is not None and entry.served.needs:
                join(entry, self.entry)
                entry.state = self._state_of(entry)
        offered = [entry for entry in self.entries(name) if entry.offered]
        row: dict[int | None, ServedModel] = {entry.key.version: entry.answers for entry in offered if entry.answers}
        # An evicted version stays the highest: the answer must not depend on what is in memory.
        if offered and offered[-1].answers:
            row[None] = offered[-1].answers
        if row:
            self._table[name] = row
        else:
            self._table.pop(name, None)
        names = self._offered_names()
        if len(names) == 1 and names[0] in self._table:
            self._table[None] = self._table[names[0]]
        else:
            self._table.pop(None, None)

    def _offered_names(self) -> list[str]:
        return [name for name, row in self._entries.items() if any(entry.offered for entry in row.values())]

    def _absent(self, name: str | None, version: int | None) -> SluiceError:
        if name is None:
            names = self._offered_names()
            if not names:
                return ModelUnavailable("No model is served here now.")
            if len(names) != 1:
                return InvalidRequest(
                    f"{len(names)} models are served: name one with the custom attribute model or with Target-Model."
                )
            name = names[0]
        versions = self._entries.get(name)
        if not versions:
            return ModelNotFound(f"No model named {name[:_LONGEST_NAME]!r} is served here.")
        if version is None:
            offered = [number for number, entry in versions.items() if entry.offered]
            version = max(offered or versions)
        entry = versions.get(version)
        if entry is None:
            return VersionNotFound(f"Model {name!r} is not served in version {version}.")
        missing = evicted(entry, self.entry)
        if missing is not None:
            what = "Model" if missing is entry else "A step of model"
            return ModelEvicted(f"{what} {name!r} version {version} is not in memory.", missing.key)
        return ModelUnavailable(f"Model {name!r} version {version} is not ready: {entry.reason or 'unloaded'}.")
