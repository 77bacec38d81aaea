"""Why a credential does not hold."""

from enum import StrEnum


class Refusal(StrEnum):
    """Why a credential was refused. The caller is never told; the log is."""

    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown_key"
    WRONG_SECRET = "wrong_secret"  # noqa: S105 - a reason, not a secret
    EXPIRED = "expired"
    REVOKED = "revoked"
    TENANT_UNKNOWN = "tenant_unknown"
    TENANT_SUSPENDED = "tenant_suspended"
    BAD_ALGORITHM = "bad_algorithm"
    BAD_SIGNATURE = "bad_signature"
    WRONG_ISSUER = "wrong_issuer"
    WRONG_AUDIENCE = "wrong_audience"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a reason, not a secret
    NOT_YET_VALID = "not_yet_valid"
    UNKNOWN_SIGNING_KEY = "unknown_signing_key"
    BAD_CLAIMS = "bad_claims"


class TokenRefused(Exception):
    """A bearer token that does not hold; `reason` is for the log."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason.value)
        self.reason = reason
