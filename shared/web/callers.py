"""Who calls a function: as the gateway's authorizer says, or the AWS identity that signed the request."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache
from time import time
from typing import Any

from starlette.types import Scope

from shared.domain.errors import CredentialExpired, Refused, Unauthenticated
from shared.domain.principal import Principal
from shared.web.requests import record_of

# A signed caller's binding is good for as long as an authorization is at the gateway by default. That there is none is
# soon asked again: somebody may be about to bind it.
_TTL_S = 60.0
_ABSENT_TTL_S = 5.0
_MAX_KEPT = 1000

RoleLookup = Callable[[str], Principal | None]
"""The principal that an AWS identity (its ARN) is bound to, or None; raises BackendError."""


class Callers:
    """Names the caller of a request; what is looked up for signed requests is kept for a minute."""

    def __init__(self, by_role: RoleLookup | None = None, *, now: Callable[[], float] = time) -> None:
        self._by_role = by_role
        self._now = now
        self._kept: OrderedDict[str, tuple[float, Principal | None]] = OrderedDict()

    def of(self, scope: Scope) -> Principal:
        """The caller; its tenant and key go into the request's log line.

        Raises Unauthenticated if nobody vouches for the request, CredentialExpired for a credential that has ended
        since the gateway last asked, Refused for an AWS identity that no tenant has, and BackendError.
        """
        principal = self._principal(_authorizer(scope))
        record_of(scope).log.update(tenant=principal.tenant, key_id=principal.key_id)
        if principal.expires_at is not None and principal.expires_at <= self._now():
            raise CredentialExpired("The credential has expired.")
        return principal

    def _principal(self, authorizer: Mapping[str, Any]) -> Principal:
        match authorizer:
            case {"lambda": dict() as context}:
                try:
                    return _of_context(tuple(context.items()))
                except (KeyError, ValueError, TypeError):
                    raise Unauthenticated("The authorizer's answer is not one of ours.") from None
            case {"iam": {"userArn": str() as arn}} if self._by_role is not None:
                principal = self._of_role(arn, self._by_role)
                if principal is None:
                    raise Refused("No tenant is bound to this AWS identity: `sluice keys bind-role` does it.")
                return principal
            case _:
                raise Unauthenticated("The request reached the function without passing the authorizer.")

    def _of_role(self, arn: str, lookup: RoleLookup) -> Principal | None:
        now = self._now()
        kept = self._kept.get(arn)
        if kept is not None and kept[0] > now:
            return kept[1]
        principal = lookup(arn)
        self._kept[arn] = (now + (_ABSENT_TTL_S if principal is None else _TTL_S), principal)
        self._kept.move_to_end(arn)
        if len(self._kept) > _MAX_KEPT:
            self._kept.popitem(last=False)
        return principal


@lru_cache(maxsize=_MAX_KEPT)  # the gateway sends the same strings as long as it remembers the answer
def _of_context(context: tuple[tuple[str, object], ...]) -> Principal:
    return Principal.from_context(dict(context))


def _authorizer(scope: Scope) -> Mapping[str, Any]:
    try:
        authorizer = scope["aws.event"]["requestContext"]["authorizer"]
    except (KeyError, TypeError):
        return {}
    return authorizer if isinstance(authorizer, dict) else {}
