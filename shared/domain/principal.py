"""Who is calling."""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.domain.errors import InsufficientScope
from shared.domain.plans import DEFAULT_PLAN, Limits

SCOPES = frozenset({"predict", "ingest", "jobs", "webhooks", "models:write", "admin"})
SCOPE_PATTERN = r"predict|predict:[a-z0-9][a-z0-9._-]{0,63}|ingest|jobs|webhooks|models:write|admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller behind a credential.

    `key_id` names the credential, never the secret. `expires_at` is when the credential ends, in seconds since 1970;
    None is never. The gateway may reuse an authorization for longer than that, so functions look at it, too.
    """

    tenant: str
    key_id: str
    scopes: frozenset[str]
    plan: str
    limits: Limits = DEFAULT_PLAN.limits
    expires_at: int | None = None

    def to_context(self) -> dict[str, str]:
        """The flat strings that the authorizer hands to the functions through API Gateway."""
        return {
            "tenant": self.tenant,
            "keyId": self.key_id,
            "scopes": " ".join(sorted(self.scopes)),
            "plan": self.plan,
            "limits": self.limits.to_text(),
            "expiresAt": "" if self.expires_at is None else str(self.expires_at),
        }

    @classmethod
    def from_context(cls, context: Mapping[str, object]) -> "Principal":
        """Read back what `to_context` wrote; KeyError or ValueError if a part is missing or malformed."""
        expires_at = str(context["expiresAt"])
        return cls(
            tenant=str(context["tenant"]),
            key_id=str(context["keyId"]),
            scopes=frozenset(str(context["scopes"]).split()),
            plan=str(context["plan"]),
            limits=Limits.from_text(str(context["limits"])),
            expires_at=int(expires_at) if expires_at else None,
        )

    def require(self, *scopes: str) -> None:
        """Raise InsufficientScope unless the caller holds one of `scopes`."""
        if self.scopes.isdisjoint(scopes):
            raise InsufficientScope(f"This needs a credential with the scope {' or '.join(repr(s) for s in scopes)}.")
