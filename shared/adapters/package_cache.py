"""Packages that this process has loaded: fetched once, bounded by bytes, the least recently used go first."""

import logging
import shutil
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition
from time import time
from typing import Generic, TypeVar

from shared.adapters.package_files import PARTIAL_PREFIX, holds, size_of
from shared.domain.errors import InvalidPackage
from shared.domain.model import ModelVersion
from shared.domain.ports import PackageStore

_log = logging.getLogger(__name__)

T = TypeVar("T")

# A Lambda function runs 15 minutes at most: a partial download that is older belongs to a process that is gone.
_PARTIAL_AGE_S = 15 * 60


@dataclass(slots=True)
class _Slot(Generic[T]):
    """One package: `loaded` is empty while it is being loaded and for what an earlier process left on the disk."""

    size: int
    loading: bool = False
    loaded: list[T] = field(default_factory=list)


class PackageCache(Generic[T]):
    """Fetches packages from `store` below `folder` and turns them into values of `T` with `load(folder, version)`.

    `max_bytes` bounds the files of all packages on the disk, those of running downloads included, and thereby what is
    loaded from them. An evicted value is only forgotten: whoever runs it may go on, so `load` must leave no need for
    the files' names (open and mapped files stay valid). Safe for threads; a version is loaded once, other callers wait.

    Folders of an earlier process (a function's /tmp outlives it) count as used space; they are held against their
    digests before they are loaded, and fetched anew if they differ. Processes may share `folder`, each with its own
    count of bytes.
    """

    def __init__(
        self, store: PackageStore, folder: Path, max_bytes: int, load: Callable[[Path, ModelVersion], T]
    ) -> None:
        self._store = store
        self._folder = folder
        self._max_bytes = max_bytes
        self._load = load
        self._changed = Condition()
        self._slots: OrderedDict[str, _Slot[T]] = OrderedDict()
        folder.mkdir(parents=True, exist_ok=True)
        for left in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime):
            self._adopt(left)

    def get(self, version: ModelVersion) -> T:
        """The loaded package; raises what the store and `load` raise, and InvalidPackage for one over `max_bytes`."""
        key = _key(version)
        with self._changed:
            slot = self._slots.get(key)
            while slot is not None and slot.loading:
                self._changed.wait()
                slot = self._slots.get(key)
            if slot is not None and slot.loaded:
                self._slots.move_to_end(key)
                return slot.loaded[0]
            slot = self._reserve(key, version)
        try:
            value = self._fetch(key, version)
        except BaseException:
            with self._changed:
                self._drop(key)
                self._changed.notify_all()
            raise
        with self._changed:
            slot.loaded.append(value)
            slot.loading = False
            self._changed.notify_all()
        return value

    def ready(self, version: ModelVersion) -> bool:
        """Whether `get` would return at once."""
        with self._changed:
            slot = self._slots.get(_key(version))
            return slot is not None and bool(slot.loaded)

    @property
    def used_bytes(self) -> int:
        """Bytes of all packages that are on the disk or on the way to it."""
        with self._changed:
            return self._used()

    def _reserve(self, key: str, version: ModelVersion) -> _Slot[T]:
        """Make room before the first byte is fetched; the caller holds the lock."""
        if version.size > self._max_bytes:
            raise InvalidPackage(
                f"{version.model} version {version.version} has {version.size} bytes, and packages in a function may "
                f"have {self._max_bytes}: place it in the container."
            )
        slot: _Slot[T] = _Slot(version.size, loading=True)
        self._slots[key] = slot
        self._slots.move_to_end(key)
        while self._used() > self._max_bytes:
            victim = next((name for name, other in self._slots.items() if not other.loading), None)
            if victim is not None:
                _log.info("evicting package %s", victim)
                self._drop(victim)
            elif self._waits_for_older(key):
                self._changed.wait()
            else:
                break
        return slot

    def _waits_for_older(self, key: str) -> bool:
        """Whether a load that began earlier is running: the oldest never waits, so loads cannot wait for each other."""
        return next(name for name, slot in self._slots.items() if slot.loading) != key

    def _fetch(self, key: str, version: ModelVersion) -> T:
        folder = self._folder / key
        if folder.exists() and not holds(version.files, folder):
            _log.warning("wiping the damaged package folder %s", key)
            shutil.rmtree(folder)
        if not folder.exists():
            try:
                self._store.download(version, folder)
            except OSError:
                # Another process with the same folder may have been faster.
                if not (folder.exists() and holds(version.files, folder)):
                    raise
        return self._load(folder, version)

    def _drop(self, key: str) -> None:
        self._slots.pop(key, None)
        shutil.rmtree(self._folder / key, ignore_errors=True)

    def _used(self) -> int:
        return sum(slot.size for slot in self._slots.values())

    def _adopt(self, left: Path) -> None:
        if not left.name.startswith(PARTIAL_PREFIX):
            self._slots[left.name] = _Slot(size_of(left))
        elif time() - left.stat().st_mtime > _PARTIAL_AGE_S:
            shutil.rmtree(left, ignore_errors=True)


def _key(version: ModelVersion) -> str:
    """The name of a package's folder: one path segment, another for every other content."""
    name = f"{version.model}-{version.version}-{version.digest[:16]}"
    if "/" in name or "\0" in name or name.startswith("."):
        raise InvalidPackage(f"{version.model!r} cannot be the name of a model.")
    return name
