"""Loads what a source holds, beside the serving of what is loaded already."""

import logging
from pathlib import Path
from threading import Event, Thread
from time import perf_counter
from typing import Protocol

from gpu_service.logs import fields
from gpu_service.repository import ModelKey, ModelRepository, ServedModel
from gpu_service.sources.source import Found, ModelSource, SourceError
from shared.domain.errors import InvalidPackage, SluiceError

_log = logging.getLogger(__name__)

# The start waits for the source, so it asks again soon.
_FIRST_RETRY_S = 1.0


class LoadModel(Protocol):
    """Loads a package from a folder and warms it up."""

    def __call__(self, folder: Path, key: ModelKey) -> ServedModel:
        """The model, ready for requests; InvalidPackage or BackendError."""


class ModelLoader:
    """One thread: every model of the first listing counts as given at start, what comes later is extra.

    A package that is broken is not tried again until its revision changes; any other failure is, at the next poll.
    """

    def __init__(self, source: ModelSource, repository: ModelRepository, load: LoadModel, poll_seconds: float) -> None:
        self._source = source
        self._repository = repository
        self._load = load
        self._poll_seconds = poll_seconds
        self._done: dict[ModelKey, str] = {}
        self._initial: frozenset[ModelKey] | None = None
        self._stop = Event()
        self._thread = Thread(target=self._run, name="model-loader", daemon=True)

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    def stop(self) -> None:
        """Load nothing further; a load under way is left to end with the process."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._pass()
            except Exception:  # noqa: BLE001 - logged; this thread must outlive whatever a source does to it
                _log.exception("loading models failed")
            if self._initial is not None and not self._source.polled:
                return
            self._stop.wait(
                self._poll_seconds if self._initial is not None else min(_FIRST_RETRY_S, self._poll_seconds)
            )

    def _pass(self) -> None:
        try:
            found = self._source.list()
        except (SourceError, InvalidPackage) as error:
            _log.warning("the models cannot be listed: %s", error)
            if self._initial is None:
                self._repository.pending(f"The models cannot be listed: {error}")
            return
        if self._initial is None:
            self._initial = frozenset(package.key for package in found)
            self._repository.pending("The models are being loaded.")
        for package in found:
            if not self._stop.is_set() and self._done.get(package.key) != package.revision:
                self._take(package)
        self._repository.pending(None)

    def _take(self, package: Found) -> None:
        start = perf_counter()
        names = {"model": package.key.name, "version": package.key.version}
        if self._repository.holds(package.key):
            # Versions are immutable: another content under a version that is served is not taken over.
            _log.error("a version that is served has changed in its source", extra=fields(**names))
            self._done[package.key] = package.revision
            return
        try:
            folder = self._source.fetch(package)
            if folder is not None:
                self._repository.add(package.key, self._load(folder, package.key))
                _log.info("model loaded", extra=fields(**names, ms=round((perf_counter() - start) * 1e3, 1)))
            self._done[package.key] = package.revision
        except (SluiceError, OSError) as error:
            self._failed(package, error)

    def _failed(self, package: Found, error: SluiceError | OSError) -> None:
        detail = error.detail if isinstance(error, SluiceError) else f"{type(error).__name__}: {error.strerror}"
        if isinstance(error, InvalidPackage):
            self._done[package.key] = package.revision
        if self._initial and package.key in self._initial:
            self._repository.fail(package.key, detail)
        _log.error(
            "model not loaded",
            extra=fields(model=package.key.name, version=package.key.version, error=detail),
            exc_info=error if error.__cause__ else None,
        )
