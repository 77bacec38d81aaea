"""Who is calling: a credential becomes a principal, or is refused with a reason that only the log tells."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import time

from shared.domain.credentials import Pepper, PresentedKey, iam_key_id, matches, parse_authorization
from shared.domain.errors import BackendError
from shared.domain.plans import DEFAULT_PLAN, Limits, Plan
from shared.domain.ports import ApiKey, KeyStore, TenantStore, TokenVerifier
from shared.domain.principal import Principal
from shared.domain.refusals import Refusal, TokenRefused
from shared.domain.tenants import Standing, day_of, end_of_day, end_of_month, month_of
from shared.domain.timed_cache import TimedCache

_KEPT_S = 60.0
_MAX_PLANS = 64


@dataclass(frozen=True, slots=True)
class Decision:
    """`principal` if the credential holds, else `refusal`; `key_id` is what was presented, None if unknown."""

    key_id: str | None
    principal: Principal | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Authorize:
    """Holds credentials against the stored keys, the token issuer's keys and the tenants.

    `pepper` keys the hashes of API keys; None where only IAM principals call. `tokens` is None without an issuer. A
    credential of a kind that is not taken is malformed. `now` gives seconds since 1970. Plans are kept for a minute,
    decisions are not. What the stores raise passes through: nobody gets in on an error.
    """

    keys: KeyStore
    tenants: TenantStore
    pepper: Pepper | None
    tokens: TokenVerifier | None = None
    now: Callable[[], float] = time
    _plans: TimedCache[str, Plan] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_plans", TimedCache(_MAX_PLANS, _KEPT_S, self.now))

    def __call__(self, authorization: str) -> Decision:
        """The decision about the value of an `Authorization` header. Raises BackendError."""
        presented = parse_authorization(authorization)
        if isinstance(presented, PresentedKey):
            return self._by_key(presented)
        if presented is None or self.tokens is None:
            return Decision(None, refusal=Refusal.MALFORMED)
        try:
            identity = self.tokens.verify(presented.text)
        except TokenRefused as refused:
            return Decision(None, refusal=refused.reason)
        return self._of_tenant(identity.key_id, identity.tenant, identity.scopes, identity.expires_at)

    def by_role(self, user_arn: str) -> Decision:
        """The decision about a caller that signed its request (SigV4), by the ARN that API Gateway gives for it.

        A session of a role counts as the role. Only roles and users that are bound to a tenant are known; a binding is
        a stored key whose id is `iam#` and the ARN. Raises BackendError.
        """
        key_id = iam_key_id(user_arn)
        if key_id is None:
            return Decision(None, refusal=Refusal.MALFORMED)
        stored = self.keys.get(key_id)
        return Decision(key_id, refusal=Refusal.UNKNOWN_KEY) if stored is None else self._of_key(stored)

    def _by_key(self, presented: PresentedKey) -> Decision:
        if self.pepper is None:
            return Decision(None, refusal=Refusal.MALFORMED)
        stored = self.keys.get(presented.key_id)
        agrees = matches(presented, stored, self.pepper())
        if stored is None:
            return Decision(presented.key_id, refusal=Refusal.UNKNOWN_KEY)
        if not agrees:
            return Decision(presented.key_id, refusal=Refusal.WRONG_SECRET)
        return self._of_key(stored)

    def _of_key(self, stored: ApiKey) -> Decision:
        if stored.revoked_at is not None:
            return Decision(stored.key_id, refusal=Refusal.REVOKED)
        if stored.expires_at is not None and stored.expires_at <= self.now():
            return Decision(stored.key_id, refusal=Refusal.EXPIRED)
        return self._of_tenant(stored.key_id, stored.tenant, stored.scopes, stored.expires_at)

    def _of_tenant(self, key_id: str, tenant: str, scopes: frozenset[str], expires_at: int | None) -> Decision:
        now = self.now()
        standing = self.tenants.standing(tenant, day_of(now), month_of(now))
        if standing.tenant is None:
            return Decision(key_id, refusal=Refusal.TENANT_UNKNOWN)
        if standing.tenant.suspended:
            return Decision(key_id, refusal=Refusal.TENANT_SUSPENDED)
        plan = self._plans.get(standing.tenant.plan, self._read_plan)
        limits = _limits(plan, standing, now)
        return Decision(key_id, Principal(tenant, key_id, scopes, plan.name, limits, expires_at))

    def _read_plan(self, name: str) -> Plan:
        plan = self.tenants.plan(name)
        if plan is not None:
            return plan
        if name == DEFAULT_PLAN.name:
            return DEFAULT_PLAN
        raise BackendError(f"The plan {name!r} of the tenant is not stored.")


def _limits(plan: Plan, standing: Standing, now: float) -> Limits:
    # The month first: where both are used up, its end is what the caller has to wait for.
    if plan.monthly_quota is not None and standing.used_this_month >= plan.monthly_quota:
        return plan.limits.used_up("month", end_of_month(now))
    if plan.daily_quota is not None and standing.used_today >= plan.daily_quota:
        return plan.limits.used_up("day", end_of_day(now))
    return plan.limits
