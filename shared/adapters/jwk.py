"""One public key of a JSON Web Key Set (RFC 7517; its members in RFC 7518, 6).

Only keys that may verify RS256 or ES256 signatures are taken: RSA from 2048 bits and EC on P-256, not marked for
anything else. An issuer's other keys are passed over, since a set often serves many purposes. Private members of a key,
which nobody should publish, are not read.
"""

from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

ALGORITHMS = ("RS256", "ES256")

_MIN_RSA_BITS, _MAX_RSA_BITS = 2048, 8192


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key and the only algorithm that it verifies."""

    algorithm: str
    key: "RSAPublicKey | EllipticCurvePublicKey"


def signing_key(jwk: Mapping[str, Any]) -> SigningKey | None:
    """The key in a JWK, None if it is none that verifies RS256 or ES256 signatures."""
    algorithm = {"RSA": "RS256", "EC": "ES256"}.get(str(jwk.get("kty")))
    if algorithm is None or jwk.get("alg", algorithm) != algorithm or jwk.get("use", "sig") != "sig":
        return None
    try:
        if "verify" not in jwk.get("key_ops", ("verify",)):
            return None
        key = _rsa(jwk) if algorithm == "RS256" else _p256(jwk)
    except (ValueError, TypeError):  # members of the wrong type, and numbers that make no key
        return None
    return None if key is None else SigningKey(algorithm, key)


def _rsa(jwk: Mapping[str, Any]) -> "RSAPublicKey | None":
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

    modulus, exponent = _integer(jwk.get("n")), _integer(jwk.get("e"))
    if not _MIN_RSA_BITS <= modulus.bit_length() <= _MAX_RSA_BITS:
        return None
    return RSAPublicNumbers(exponent, modulus).public_key()


def _p256(jwk: Mapping[str, Any]) -> "EllipticCurvePublicKey | None":
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers

    if jwk.get("crv") != "P-256":
        return None
    # A point off the curve is a ValueError.
    return EllipticCurvePublicNumbers(_integer(jwk.get("x")), _integer(jwk.get("y")), SECP256R1()).public_key()


def _integer(text: object) -> int:
    """Base64urlUInt (RFC 7518, 2)."""
    if not isinstance(text, str):
        raise TypeError("not a string")
    return int.from_bytes(urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")
