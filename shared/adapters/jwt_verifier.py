"""JSON Web Tokens (RFC 7519) of one issuer, signed with RS256 or ES256, after RFC 8725 (best current practices)."""

from collections.abc import Callable
from typing import Any

from shared.adapters.jwk import ALGORITHMS, SigningKey
from shared.adapters.jwks import Jwks
from shared.domain.jwt_claims import TokenIdentity, check_times, identity_of
from shared.domain.refusals import Refusal, TokenRefused

_MAX_KID = 256
_REQUIRED = ["exp", "iat", "iss", "aud", "sub"]
# The times are held against the caller's clock afterwards, by `check_times`.
_OPTIONS: Any = {"require": _REQUIRED, "verify_exp": False, "verify_nbf": False, "verify_iat": False}


class JwtVerifier:
    """Implements `shared.domain.ports.TokenVerifier`; `now` gives seconds since 1970.

    The key alone says which algorithm verifies a token, never the token; keys and addresses of keys that a token brings
    along (`jwk`, `jku`, `x5c`, `x5u`) are not looked at. PyJWT and cryptography are imported by the first token.
    """

    def __init__(self, keys: Jwks, *, issuer: str, audience: str, tenant_claim: str, now: Callable[[], float]) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._tenant_claim = tenant_claim
        self._now = now

    def verify(self, token: str) -> TokenIdentity:
        """Who the token speaks for; TokenRefused with the reason, BackendUnavailable if the issuer gives no keys."""
        claims = self._claims(token, self._key(token))
        check_times(claims, self._now())
        return identity_of(claims, self._tenant_claim)

    def _key(self, token: str) -> SigningKey:
        from jwt import PyJWTError, get_unverified_header

        try:
            header = get_unverified_header(token)
        except PyJWTError:
            raise TokenRefused(Refusal.MALFORMED) from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise TokenRefused(Refusal.BAD_ALGORITHM)
        # No extension is understood here, so a token that insists on one is refused (RFC 7515, 4.1.11).
        if "crit" in header or not isinstance(kid, str) or not 0 < len(kid) <= _MAX_KID:
            raise TokenRefused(Refusal.MALFORMED)
        key = self._keys.find(kid)
        if key is None:
            raise TokenRefused(Refusal.UNKNOWN_SIGNING_KEY)
        if key.algorithm != algorithm:
            raise TokenRefused(Refusal.BAD_ALGORITHM)
        return key

    def _claims(self, token: str, key: SigningKey) -> dict[str, Any]:
        import jwt

        try:
            return jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                issuer=self._issuer,
                audience=self._audience,
                options=_OPTIONS,
            )
        except jwt.InvalidSignatureError:
            reason = Refusal.BAD_SIGNATURE
        except jwt.InvalidIssuerError:
            reason = Refusal.WRONG_ISSUER
        except jwt.InvalidAudienceError:
            reason = Refusal.WRONG_AUDIENCE
        except jwt.InvalidAlgorithmError:
            reason = Refusal.BAD_ALGORITHM
        except jwt.DecodeError:  # what was signed is no JSON object
            reason = Refusal.MALFORMED
        except jwt.PyJWTError:  # a claim that is missing or of the wrong type
            reason = Refusal.BAD_CLAIMS
        raise TokenRefused(reason)
