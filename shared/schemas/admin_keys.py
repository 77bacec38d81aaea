"""Documents of the admin API: API keys, and IAM roles and users that act for a tenant."""

from typing import Annotated, Any, Self

from pydantic import AwareDatetime, Field, StringConstraints

from shared.domain import admin_bounds as bounds
from shared.domain.ports import ApiKey
from shared.domain.principal import SCOPE_PATTERN
from shared.schemas.admin import AdminDocument, NextPage, TenantName, Timestamp, timestamp

Scope = Annotated[str, StringConstraints(pattern=f"^({SCOPE_PATTERN})$")]
Scopes = Annotated[
    list[Scope],
    Field(min_length=1, max_length=bounds.MAX_SCOPES, description="What the credential may do", examples=[["predict"]]),
]
KeyName = Annotated[str, StringConstraints(max_length=bounds.MAX_KEY_NAME)]


class KeyRequest(AdminDocument):
    """A new API key."""

    tenant: TenantName
    scopes: Scopes
    name: KeyName = ""
    expires_at: AwareDatetime | None = None


class RotationRequest(AdminDocument):
    """How to rotate a key: for how many seconds the old one still works, and when the new one ends.

    Without `expires_at` the new key lives as long as the old one did.
    """

    overlap_s: Annotated[int, Field(ge=0, le=bounds.MAX_OVERLAP_S)] = bounds.DEFAULT_OVERLAP_S
    expires_at: AwareDatetime | None = None


class RoleRequest(AdminDocument):
    """An IAM role or user whose signed requests are those of a tenant."""

    arn: Annotated[str, StringConstraints(max_length=2048)]
    tenant: TenantName
    scopes: Scopes


class KeyDocument(AdminDocument):
    """A credential without its secret. The `key_id` of an IAM role or user is `iam#` and its ARN."""

    key_id: str
    tenant: TenantName
    scopes: list[str]
    name: str
    status: Annotated[str, Field(description="`active`, `expired` or `revoked`")]
    created_at: Timestamp
    expires_at: Timestamp | None
    revoked_at: Timestamp | None
    replaced_by: Annotated[str | None, Field(description="The key that a rotation put in its place")]

    @classmethod
    def of(cls, key: ApiKey, now: float) -> Self:
        """The document of a domain value as it stands at a time."""
        return cls(**_facts(key, now))


class CreatedKey(KeyDocument):
    """A new key with its text, which is shown this once."""

    api_key: str

    @classmethod
    def of_text(cls, text: str, key: ApiKey, now: float) -> Self:
        """The document of a new key."""
        return cls(**_facts(key, now), api_key=text)


class KeyList(AdminDocument):
    """Keys of a tenant, by id."""

    keys: list[KeyDocument]
    next: NextPage


def _optional(seconds: float | None) -> str | None:
    return None if seconds is None else timestamp(seconds)


def _status(key: ApiKey, now: float) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "active"


def _facts(key: ApiKey, now: float) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "tenant": key.tenant,
        "scopes": sorted(key.scopes),
        "name": key.name,
        "status": _status(key, now),
        "created_at": timestamp(key.created_at),
        "expires_at": _optional(key.expires_at),
        "revoked_at": _optional(key.revoked_at),
        "replaced_by": key.replaced_by,
    }
