"""API keys: their text, and how a presented key is held against the stored one.

A key reads `sluice_<key id>_<secret>`: a fixed prefix that scanners for leaked secrets look for, 80 random bits that
name the key, and 256 random bits of secret, both in lower-case base32. Only a hash of the secret is stored. A plain
SHA-256 is enough: nothing guessable goes into it, so there is nothing for a slow hash to protect.
"""

import re
import secrets
from base64 import b32encode
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest

from shared.domain.ports import ApiKey

_KEY_ID_BYTES = 10
_SECRET_BYTES = 32
_KEY = re.compile(r"sluice_([a-z2-7]{16})_([a-z2-7]{52})")
_BEARER = re.compile(r"bearer +", re.IGNORECASE)
# 76 characters of key, the scheme and some spaces: what is longer is refused unread.
_MAX_HEADER = 128
# What a key that does not exist is compared with. No secret has this hash: its digits are not hexadecimal.
_NO_HASH = "x" * sha256().digest_size * 2


@dataclass(frozen=True, slots=True)
class PresentedKey:
    """A well-formed key as a caller presents it; its `repr` keeps the secret to itself."""

    key_id: str
    secret: str

    def __repr__(self) -> str:
        return f"PresentedKey(key_id={self.key_id!r})"


def parse_authorization(header: str) -> PresentedKey | None:
    """The API key in the value of an `Authorization` header, or None: told from its form, before any store is asked."""
    if len(header) > _MAX_HEADER:
        return None
    scheme = _BEARER.match(header)
    key = _KEY.fullmatch(header, scheme.end()) if scheme else None
    return PresentedKey(key[1], key[2]) if key else None


def matches(presented: PresentedKey, stored: ApiKey | None) -> bool:
    """Whether the secrets agree; takes as long for a key that does not exist as for a wrong secret."""
    expected = stored.secret_hash if stored else _NO_HASH
    return compare_digest(_hash(presented.secret), expected)


def new_key(tenant: str, scopes: frozenset[str], plan: str, expires_at: int | None = None) -> tuple[str, ApiKey]:
    """A fresh key: its text, to be shown once and never stored, and what is stored of it.

    `expires_at` is in seconds since 1970, UTC; None is never.
    """
    key_id, secret = _random(_KEY_ID_BYTES), _random(_SECRET_BYTES)
    key = ApiKey(
        key_id=key_id,
        secret_hash=_hash(secret),
        tenant=tenant,
        scopes=scopes,
        plan=plan,
        expires_at=expires_at,
    )
    return f"sluice_{key_id}_{secret}", key


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _random(size: int) -> str:
    return b32encode(secrets.token_bytes(size)).decode().rstrip("=").lower()
