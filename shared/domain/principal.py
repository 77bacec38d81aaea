"""Who is calling."""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.domain.errors import InsufficientScope


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller behind a credential: `key_id` names the credential, never the secret."""

    tenant: str
    key_id: str
    scopes: frozenset[str]
    plan: str

    def to_context(self) -> dict[str, str]:
        """The flat strings that the authorizer hands to the functions through API Gateway."""
        return {
            "tenant": self.tenant,
            "keyId": self.key_id,
            "scopes": " ".join(sorted(self.scopes)),
            "plan": self.plan,
        }

    @classmethod
    def from_context(cls, context: Mapping[str, object]) -> "Principal":
        """Read back what `to_context` wrote; KeyError if a part is missing."""
        return cls(
            tenant=str(context["tenant"]),
            key_id=str(context["keyId"]),
            scopes=frozenset(str(context["scopes"]).split()),
            plan=str(context["plan"]),
        )

    def require(self, *scopes: str) -> None:
        """Raise InsufficientScope unless the caller holds one of `scopes`."""
        if self.scopes.isdisjoint(scopes):
            raise InsufficientScope(f"This needs a credential with the scope {' or '.join(repr(s) for s in scopes)}.")
