"""The backends of an environment, made when they are first needed and kept."""

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, Final, Protocol

from shared.domain.endpoint.config import CONTAINER, FUNCTION, BackendChoice, EndpointConfig
from shared.domain.errors import BackendUnavailable
from shared.domain.ports import Backend

MAX_KEPT: Final = 32


class Builder(Protocol):
    """What makes backends: `shared.adapters.backends.registry.Registry`."""

    def build(self, choice: BackendChoice) -> Backend:
        """The backend of a choice; raises BackendError."""


class EndpointBackends:
    """Implements `shared.domain.ports.Backends`: the stack's own by name, and those of configurations by their options.

    Backends with equal kinds and options are one, whatever endpoints name them, so connections are shared; at most
    `max_kept` of them are kept, and the one that was used the longest time ago is closed for a new one.
    """

    def __init__(
        self, registry: Builder, own: Mapping[str, Callable[[], Backend | None]], *, max_kept: int = MAX_KEPT
    ) -> None:
        """`own` makes `function` and `container`, each at most once; None where this environment has no such one."""
        self._registry = registry
        self._factories = {name: make for name, make in own.items() if name in {FUNCTION, CONTAINER}}
        self._own: dict[str, Backend | None] = {}
        self._kept: OrderedDict[tuple[str, str], Backend] = OrderedDict()
        self._max_kept = max_kept
        self._lock = Lock()

    def get(self, name: str, config: EndpointConfig) -> Backend:
        """`function`, `container` or one of `config.backends`; BackendUnavailable where there is no such one."""
        if name in {FUNCTION, CONTAINER}:
            backend = self._of_stack(name)
        else:
            choice = config.backends.get(name)
            backend = None if choice is None else self._of_choice(choice)
        if backend is None:
            raise BackendUnavailable(f"There is no backend {name!r} here.", retryable=False)
        return backend

    def close(self) -> None:
        """Close what is kept: the next calls make backends anew. For a process before it is snapshotted."""
        with self._lock:
            kept = list(self._kept.values())
            self._kept.clear()
        for backend in kept:
            _close(backend)

    def _of_stack(self, name: str) -> Backend | None:
        with self._lock:
            if name not in self._own:
                make = self._factories.get(name)
                self._own[name] = None if make is None else make()
            return self._own[name]

    def _of_choice(self, choice: BackendChoice) -> Backend:
        key = choice.kind, json.dumps(choice.options, sort_keys=True, default=_plain)
        with self._lock:
            backend = self._kept.get(key)
            if backend is None:
                backend = self._kept[key] = self._registry.build(choice)
            self._kept.move_to_end(key)
            superfluous = self._kept.popitem(last=False)[1] if len(self._kept) > self._max_kept else None
        if superfluous is not None:
            _close(superfluous)
        return backend


def _plain(value: Any) -> Any:
    """JSON of what `json` does not know: mappings that are no dict."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _close(backend: Backend) -> None:
    close = getattr(backend, "close", None)
    if close is not None:
        close()
