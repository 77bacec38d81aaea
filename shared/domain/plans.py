"""What a tenant may do how often: plans, and the part of one that travels with every request."""

from dataclasses import dataclass, replace
from enum import StrEnum

_NAME_PATTERN = r"[a-z0-9][a-z0-9-]{0,62}"
PLAN_NAME = _NAME_PATTERN
TENANT_NAME = _NAME_PATTERN


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket: `per_second` requests a second in the long run, `burst` of them at once."""

    per_second: float
    burst: int


class OnLimiterFailure(StrEnum):
    """What happens while the limiter's store does not answer: requests pass unlimited, or none passes."""

    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a caller's requests are held against.

    `shards` is over how many items the tenant's bucket is spread. `exhausted_until` is set once a quota is used up: in
    seconds since 1970 the end of the day or month (UTC), and `exhausted` names which.
    """

    key: Rate
    tenant: Rate
    shards: int = 1
    on_failure: OnLimiterFailure = OnLimiterFailure.OPEN
    exhausted: str = ""
    exhausted_until: int = 0

    def to_text(self) -> str:
        """One string without white space around it, for the authorizer's context."""
        # As `repr` writes it, the number comes back exactly.
        rates = f"{self.key.per_second!r}/{self.key.burst} {self.tenant.per_second!r}/{self.tenant.burst}"
        return f"{rates} {self.shards} {self.on_failure} {self.exhausted or '-'} {self.exhausted_until}"

    @classmethod
    def from_text(cls, text: str) -> "Limits":
        """Read back what `to_text` wrote; ValueError for anything else."""
        key, tenant, shards, on_failure, exhausted, until = text.split(" ")
        return cls(
            _rate(key),
            _rate(tenant),
            int(shards),
            OnLimiterFailure(on_failure),
            "" if exhausted == "-" else exhausted,
            int(until),
        )

    def used_up(self, quota: str, until: int) -> "Limits":
        """The same, with a quota that is used up until a time."""
        return replace(self, exhausted=quota, exhausted_until=until)


def _rate(text: str) -> Rate:
    per_second, burst = text.split("/")
    return Rate(float(per_second), int(burst))


@dataclass(frozen=True, slots=True)
class Plan:
    """What tenants of a plan may do. Quotas count requests in a UTC day or month; None is no bound."""

    name: str
    key: Rate
    tenant: Rate
    daily_quota: int | None = None
    monthly_quota: int | None = None
    shards: int = 1
    on_limiter_failure: OnLimiterFailure = OnLimiterFailure.OPEN
    max_keys: int = 100

    @property
    def limits(self) -> Limits:
        """What travels with requests, as long as no quota is used up."""
        return Limits(self.key, self.tenant, self.shards, self.on_limiter_failure)


# The plan of this name holds for tenants that name no other, until one of this name is stored.
DEFAULT_PLAN = Plan("default", key=Rate(50, 100), tenant=Rate(100, 200))
