"""What the claims of a verified JWT (RFC 7519) say of the caller: its times, tenant, scopes and a name for the log.

The signature, the issuer and the audience are checked before (`shared.adapters.jwt_verifier`); nothing here trusts
that the claims have the right types.
"""

import math
import re
from base64 import b32encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from shared.domain.plans import TENANT_NAME
from shared.domain.principal import SCOPE_PATTERN
from shared.domain.refusals import Refusal, TokenRefused

LEEWAY_S = 60
"""By how much the issuer's clock and ours may differ."""

_MAX_SUBJECT = 255  # OpenID Connect Core 1.0, 2
_MAX_SECONDS = 2**53  # what every JSON parser keeps exactly
_KEY_ID_CHARACTERS = 16
_TENANT = re.compile(TENANT_NAME)
_SCOPE = re.compile(SCOPE_PATTERN)


@dataclass(frozen=True, slots=True)
class TokenIdentity:
    """Who a token speaks for.

    `key_id` names the issuer's subject, the same for all its tokens, and tells nobody who that is. `expires_at` is when
    the token stops being accepted: its `exp` and the leeway, in seconds since 1970.
    """

    tenant: str
    key_id: str
    scopes: frozenset[str]
    expires_at: int


def check_times(claims: Mapping[str, object], now: float) -> None:
    """Hold `exp`, `nbf` and `iat` against `now` (seconds since 1970), with a minute of leeway each way.

    TokenRefused with token_expired, not_yet_valid, or bad_claims for a time that is missing or no number. `nbf` alone
    may be missing.
    """
    if _time(claims, "exp") + LEEWAY_S <= now:
        raise TokenRefused(Refusal.TOKEN_EXPIRED)
    not_before = [_time(claims, "iat")] + ([_time(claims, "nbf")] if "nbf" in claims else [])
    if max(not_before) - LEEWAY_S > now:
        raise TokenRefused(Refusal.NOT_YET_VALID)


def identity_of(claims: Mapping[str, object], tenant_claim: str) -> TokenIdentity:
    """The identity that verified claims make; TokenRefused(bad_claims) if they make none.

    The tenant is the claim `tenant_claim`. Scopes are `scope` (RFC 8693, 4.2: one string with spaces) or `scp` (a list,
    or such a string); those that Sluice does not have are left out.
    """
    tenant, subject = claims.get(tenant_claim), claims.get("sub")
    if not (isinstance(tenant, str) and _TENANT.fullmatch(tenant)):
        raise TokenRefused(Refusal.BAD_CLAIMS)
    if not (isinstance(subject, str) and 0 < len(subject) <= _MAX_SUBJECT):
        raise TokenRefused(Refusal.BAD_CLAIMS)
    return TokenIdentity(
        tenant=tenant,
        key_id=_key_id(claims.get("iss"), subject),
        scopes=_scopes(claims),
        expires_at=math.ceil(_time(claims, "exp")) + LEEWAY_S,
    )


def _scopes(claims: Mapping[str, object]) -> frozenset[str]:
    granted = claims.get("scope", claims.get("scp", ""))
    if isinstance(granted, str):
        granted = granted.split(" ")  # no other white space: RFC 6749, 3.3
    if not isinstance(granted, list):
        raise TokenRefused(Refusal.BAD_CLAIMS)
    return frozenset(scope for scope in granted if isinstance(scope, str) and _SCOPE.fullmatch(scope))


def _time(claims: Mapping[str, object], name: str) -> float:
    value = claims.get(name)
    # A bool is an int to Python; NaN fails both comparisons.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_SECONDS:
        raise TokenRefused(Refusal.BAD_CLAIMS)
    return value


def _key_id(issuer: object, subject: str) -> str:
    # A lone surrogate, which JSON can spell, has no UTF-8: it is kept apart from every other character all the same.
    named = f"{issuer}\n{subject}".encode(errors="surrogatepass")
    return f"jwt:{b32encode(sha256(named).digest())[:_KEY_ID_CHARACTERS].decode().lower()}"
