"""The throttle of an HTTP API's stage: token buckets in front of everything that a request would cost.

Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-throttling.html. The default settings are
one bucket for all routes of the stage (unverified), a route with settings of its own has its own bucket.
"""

import time
from collections.abc import Callable, Mapping

from infra.local.stack import ThrottleSpec


class TokenBucket:
    """`spec.burst` tokens at most, `spec.rate` new ones a second; `clock` counts seconds."""

    def __init__(self, spec: ThrottleSpec, clock: Callable[[], float] = time.monotonic) -> None:
        self._spec = spec
        self._clock = clock
        self._tokens = float(spec.burst)
        self._at = clock()

    def take(self) -> bool:
        """Take a token; False if there is none."""
        now = self._clock()
        self._tokens = min(self._spec.burst, self._tokens + (now - self._at) * self._spec.rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Throttle:
    """The buckets of one stage; `routes` are keyed by route key."""

    def __init__(self, default: ThrottleSpec, routes: Mapping[str, ThrottleSpec]) -> None:
        self._default = TokenBucket(default)
        self._routes = {key: TokenBucket(spec) for key, spec in routes.items()}

    def admits(self, route_key: str) -> bool:
        """Whether a request for this route may pass."""
        return self._routes.get(route_key, self._default).take()
