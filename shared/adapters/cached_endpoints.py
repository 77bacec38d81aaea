"""Settings of endpoints, kept in memory for some seconds: a change is in force that much later."""

import logging
from collections import OrderedDict
from collections.abc import Callable
from time import time

from shared.domain.endpoint_settings import EndpointSettings
from shared.domain.errors import BackendError
from shared.domain.ports import EndpointStore

_log = logging.getLogger(__name__)


class CachedEndpoints:
    """Gives the settings of an endpoint, at most `ttl_s` seconds old; `clock` gives seconds of wall time.

    Holds `max_entries`, the least recently used go first. While the store fails the last settings hold, or
    the defaults: what is set here is no reason to refuse a request.
    """

    def __init__(
        self,
        store: EndpointStore,
        *,
        ttl_s: float = 10.0,
        max_entries: int = 1000,
        clock: Callable[[], float] = time,
    ) -> None:
        self._store = store
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, EndpointSettings]] = OrderedDict()

    def __call__(self, endpoint: str) -> EndpointSettings:
        """The settings of one endpoint."""
        now = self._clock()
        kept = self._kept.get(endpoint)
        if kept is not None and kept[0] <= now < kept[0] + self._ttl_s:
            self._kept.move_to_end(endpoint)
            return kept[1]
        try:
            settings = self._store.get(endpoint) or EndpointSettings(endpoint)
        except BackendError as error:
            _log.warning("endpoint settings not read", extra={"fields": {"endpoint": endpoint, "reason": error.detail}})
            settings = kept[1] if kept is not None else EndpointSettings(endpoint)
        self._kept[endpoint] = (now, settings)
        self._kept.move_to_end(endpoint)
        if len(self._kept) > self._max_entries:
            self._kept.popitem(last=False)
        return settings
