"""Who is calling: a credential becomes a principal, or is refused with a reason that only the log tells."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from time import time

from shared.domain.credentials import matches, parse_authorization
from shared.domain.ports import KeyStore
from shared.domain.principal import Principal


class Refusal(StrEnum):
    """Why a credential was refused."""

    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown_key"
    WRONG_SECRET = "wrong_secret"  # noqa: S105 - a reason, not a secret
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Decision:
    """`principal` if the credential holds, else `refusal`; `key_id` is what was presented, None if malformed."""

    key_id: str | None
    principal: Principal | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Authorize:
    """Holds an `Authorization` header against the stored keys; `now` gives seconds since 1970."""

    keys: KeyStore
    now: Callable[[], float] = time

    def __call__(self, authorization: str) -> Decision:
        """The decision; whatever the key store raises passes through, since nobody may be let in on an error."""
        presented = parse_authorization(authorization)
        if presented is None:
            return Decision(None, refusal=Refusal.MALFORMED)
        stored = self.keys.get(presented.key_id)
        agrees = matches(presented, stored)
        if stored is None:
            return Decision(presented.key_id, refusal=Refusal.UNKNOWN_KEY)
        if not agrees:
            return Decision(presented.key_id, refusal=Refusal.WRONG_SECRET)
        if stored.expires_at is not None and stored.expires_at <= self.now():
            return Decision(presented.key_id, refusal=Refusal.EXPIRED)
        principal = Principal(tenant=stored.tenant, key_id=stored.key_id, scopes=stored.scopes, plan=stored.plan)
        return Decision(presented.key_id, principal=principal)
