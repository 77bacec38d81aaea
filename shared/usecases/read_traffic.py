"""See what the traffic of an endpoint showed."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from time import time

from shared.domain.admin_bounds import MAX_TRAFFIC_DAYS
from shared.domain.endpoint.traffic_counts import Traffic, traffic_in
from shared.domain.errors import FieldError, OutOfRange
from shared.domain.ports import TrafficStore
from shared.usecases.manage_endpoints import check_name

DEFAULT_DAYS = 30


@dataclass(frozen=True, slots=True)
class EndpointTraffic:
    """What was counted for an endpoint from day `since` to day `until` (UTC, both included)."""

    endpoint: str
    since: date
    until: date
    traffic: Traffic


@dataclass(frozen=True, slots=True)
class ReadTraffic:
    """Adds up what was counted; `now` gives seconds since 1970."""

    store: TrafficStore
    now: Callable[[], float] = time

    def __call__(self, endpoint: str, since: date | None = None, until: date | None = None) -> EndpointTraffic:
        """Without `since`, `DEFAULT_DAYS` days; without `until`, to today. Empty where nothing was counted.

        Raises NotFound for what no endpoint can be called, OutOfRange for more than a year or an end before its start,
        BackendError.
        """
        check_name(endpoint)
        until = until or datetime.fromtimestamp(self.now(), UTC).date()
        if since is None:
            since = date.fromordinal(max(until.toordinal() - DEFAULT_DAYS + 1, date.min.toordinal()))
        if not timedelta(0) <= until - since < timedelta(days=MAX_TRAFFIC_DAYS):
            fields = [FieldError("/query/since", "must not be after `until`, and at most a year before it")]
            raise OutOfRange(
                f"From {since} to {until} are not 1 to {MAX_TRAFFIC_DAYS} days: ask for less at once.", fields=fields
            )
        return EndpointTraffic(endpoint, since, until, traffic_in(self.store.of_endpoint(endpoint, since, until)))
