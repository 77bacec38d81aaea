"""Decide whether a caller may make one more request now."""

import logging
from math import ceil

from shared.domain.errors import BackendError, LimiterUnavailable, QuotaExceeded
from shared.domain.plans import OnLimiterFailure
from shared.domain.ports import Allowance, RateLimiter
from shared.domain.principal import Principal

_log = logging.getLogger(__name__)


class Admit:
    """Quotas first, which cost no call; then the rate limits."""

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter

    def __call__(self, principal: Principal, now: float) -> Allowance:
        """How the caller stands once this request is counted; `now` is in seconds since 1970.

        Raises QuotaExceeded and LimitReached. While the limiter fails, the caller's plan decides: the request passes
        with a degraded allowance, or LimiterUnavailable is raised.
        """
        limits = principal.limits
        if limits.exhausted and limits.exhausted_until > now:
            raise QuotaExceeded(
                f"The tenant's {limits.exhausted} quota of requests is used up.",
                retry_after_s=ceil(limits.exhausted_until - now),
            )
        try:
            return self._limiter.take(principal)
        except BackendError as error:
            _log.warning(
                "limiter failed",
                extra={
                    "fields": {"tenant": principal.tenant, "plan_says": str(limits.on_failure), "reason": str(error)}
                },
            )
            if limits.on_failure is OnLimiterFailure.OPEN:
                return Allowance((), degraded=True)
            raise LimiterUnavailable(
                "Requests cannot be counted now, and the plan lets none pass uncounted."
            ) from error
