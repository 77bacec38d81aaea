"""Keeps what is served in step with the source."""

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from gpu_service.logs import fields
from gpu_service.models.errors import ModelUnavailable
from gpu_service.models.lifecycle import Lifecycle, Room
from gpu_service.models.sources.source import Found, ModelSource, SourceError
from shared.domain.errors import (
    BackendTimeout,
    BackendUnavailable,
    InvalidPackage,
    ModelNotFound,
    SluiceError,
    VersionConflict,
    VersionNotFound,
)

if TYPE_CHECKING:
    from gpu_service.models.policy import VersionPolicies
    from gpu_service.models.repository import Entry, ModelRepository
    from gpu_service.models.served_model import ModelKey

_log = logging.getLogger(__name__)

# The start waits for the source, so it asks again soon.
_FIRST_RETRY_S = 1.0
# A listing may be a moment behind: what is gone from one of them may be there in the next.
_GONE_AFTER = 2
_LONGEST_NAME = 256


class SourceSync:
    """Belongs to the event loop.

    Every model of the first listing counts as given at start, what comes later is extra. A package that is broken is
    not tried again until its revision changes; any other failure is, at the next poll. A model that was unloaded on
    request stays so until it is loaded on request.
    """

    def __init__(
        self,
        repository: "ModelRepository",
        lifecycle: Lifecycle,
        source: ModelSource,
        policies: "VersionPolicies",
        poll_seconds: float,
    ) -> None:
        self._repository = repository
        self._lifecycle = lifecycle
        self._source = source
        self._policies = policies
        self._poll_seconds = poll_seconds
        self._listed = False
        self._held: set[str] = set()
        # Revisions of packages that are not for containers.
        self._not_ours: dict[ModelKey, str] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def watch(self) -> None:
        """Load what the source holds, and if it is polled, follow it until cancelled."""
        while True:
            try:
                await self._pass()
            except Exception:  # noqa: BLE001 - logged; this task must outlive whatever a source does to it
                _log.exception("loading models failed")
            if self._listed and not self._source.polled:
                return
            await asyncio.sleep(self._poll_seconds if self._listed else min(_FIRST_RETRY_S, self._poll_seconds))

    async def load(self, name: str) -> None:
        """List one model again and serve what is there now; errors as `ModelManager.load` has them."""
        async with self._lock(name):
            try:
                found = await self._lifecycle.in_thread(self._source.list, name)
            except (SourceError, OSError) as error:
                raise BackendUnavailable(f"The models cannot be listed: {error}") from error
            if not found:
                raise ModelNotFound(f"The source holds no model named {name[:_LONGEST_NAME]!r}.")
            self._held.discard(name)
            wanted, errors = await self._take(name, found, Room.EVICT, asked=True)
            if errors:
                raise errors[0]
            if not wanted:
                raise VersionNotFound(f"The policy {self._policies.of(name)} leaves no version of {name!r} to serve.")
            listed = {package.key for package in found}
            for entry in self._repository.entries(name):
                if entry.key.version not in wanted:
                    await self._drop(entry, gone=entry.key not in listed)

    async def unload(self, name: str) -> None:
        """Serve no version of a model until `load`; errors as `ModelManager.unload` has them."""
        async with self._lock(name):
            entries = self._repository.entries(name)
            if not entries:
                raise ModelNotFound(f"No model named {name[:_LONGEST_NAME]!r} is known here.")
            self._held.add(name)
            unloads = (self._lifecycle.unload(entry, "unloaded") for entry in entries)
            outcomes = await asyncio.gather(*unloads, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    def _lock(self, name: str) -> asyncio.Lock:
        """Changes to one model's set of versions happen one after another."""
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    async def _pass(self) -> None:
        try:
            found = await self._lifecycle.in_thread(self._source.list)
        except (SourceError, InvalidPackage, OSError) as error:
            _log.warning("the models cannot be listed: %s", error)
            if not self._listed:
                self._repository.pending(f"The models cannot be listed: {error}")
            return
        given = not self._listed
        if given:
            self._repository.pending("The models are being loaded.")
        self._listed = True
        names: dict[str, list[Found]] = {entry.key.name: [] for entry in self._repository.entries()}
        for package in found:
            names.setdefault(package.key.name, []).append(package)
        keys = {package.key for package in found}
        self._not_ours = {key: revision for key, revision in self._not_ours.items() if key in keys}
        follow = (self._follow(name, packages, given=given) for name, packages in names.items())
        for outcome in await asyncio.gather(*follow, return_exceptions=True):
            if isinstance(outcome, BaseException):
                _log.error("following the source failed", exc_info=outcome)
        self._repository.pending(None)

    async def _follow(self, name: str, found: list[Found], *, given: bool) -> None:
        """Bring one model in step with a listing."""
        async with self._lock(name):
            wanted, errors = frozenset[int](), list[SluiceError]()
            held = name in self._held
            if not held:
                # At start nothing is evicted: of what does not fit, the first requests decide what is needed.
                wanted, errors = await self._take(name, found, Room.DEFER if given else Room.EVICT, given=given)
            listed = {package.key for package in found}
            # A pipeline that is loaded is served once its steps are, which may be some passes later.
            served = all(self._repository.ready(name, version) for version in wanted)
            replaced = served and not held and not errors
            for entry in self._repository.entries(name):
                entry.missing = 0 if entry.key in listed else entry.missing + 1
                if entry.missing >= _GONE_AFTER:
                    await self._drop(entry, gone=True)
                # What the policy replaces goes once its successors are served.
                elif entry.key in listed and entry.key.version not in wanted and replaced:
                    await self._drop(entry, gone=False)
            if not found and not self._repository.entries(name):
                self._held.discard(name)

    async def _take(
        self, name: str, found: Sequence[Found], room: Room, *, asked: bool = False, given: bool = False
    ) -> tuple[frozenset[int], list[SluiceError]]:
        """Load what the policy selects of a model's packages, the highest first; the selection, and what failed."""
        candidates = {
            package.key.version: package for package in found if self._not_ours.get(package.key) != package.revision
        }
        errors: list[SluiceError] = []
        tried: set[int] = set()
        while (wanted := self._policies.of(name).select(candidates)) - tried:
            version = max(wanted - tried)
            tried.add(version)
            package = candidates[version]
            try:
                if not await self._is_served(package, room, asked=asked, given=given):
                    self._not_ours[package.key] = package.revision
                    del candidates[version]
            except SluiceError as error:
                errors.append(error)
        return wanted, errors

    async def _is_served(self, package: Found, room: Room, *, asked: bool, given: bool) -> bool:
        """Load a package if that is due; False if it is not for containers. Raises what the load raises."""
        if self._is_due(package, asked=asked):
            return await self._lifecycle.load(package, room, given=given)
        entry = self._repository.entry(package.key)
        if entry is None or not entry.loaded:
            raise ModelUnavailable("The package could not be loaded before.")
        return True

    def _is_due(self, package: Found, *, asked: bool) -> bool:
        """Whether a package is to be loaded; VersionConflict if one is `asked` for that must not replace another."""
        entry = self._repository.entry(package.key)
        if entry is None:
            return True
        if not entry.loaded:
            return asked or entry.refused != package.revision
        if entry.found.revision == package.revision:
            return asked and entry.evicted
        if asked and not self._source.immutable:
            return True
        detail = f"Version {package.key.version} of {package.key.name} is served, and has changed in its source."
        if asked:
            raise VersionConflict(f"{detail} Versions are immutable: publish the next one.")
        if entry.refused != package.revision:
            entry.refused = package.revision
            _log.error(detail, extra=fields(model=package.key.name, version=package.key.version))
        return False

    async def _drop(self, entry: "Entry", *, gone: bool) -> None:
        """Serve a version no more and know nothing of it; `gone` if the source has it no more either."""
        names = {"model": entry.key.name, "version": entry.key.version}
        try:
            await self._lifecycle.unload(entry, "gone from the source" if gone else "replaced by the version policy")
        except BackendTimeout as error:
            _log.warning("model still in use", extra=fields(**names, reason=error.detail))
        self._repository.forget(entry)
        _log.info("model unloaded", extra=fields(**names, reason=entry.reason))
        if gone:
            try:
                await self._lifecycle.in_thread(self._source.discard, entry.found)
            except OSError as error:
                _log.warning("a package cannot be deleted: %s", error.strerror, extra=fields(**names))
