"""API keys and bearer tokens: their text, and how a presented key is held against the stored one.

A key reads `sluice_<key id>_<secret>`: a fixed prefix that scanners for leaked secrets look for, 80 random bits that
name the key, and 256 random bits of secret, both in lower-case base32. Stored is HMAC-SHA256 (RFC 2104) of the secret
under a pepper that the table does not hold: who reads the table can neither use a key nor add one that works.
"""

import re
import secrets
from base64 import b32encode
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest, digest

from shared.domain.ports import ApiKey

# The secret that keys the hashes; fetched by the first call that needs it.
Pepper = Callable[[], bytes]

_KEY_ID_BYTES = 10
_SECRET_BYTES = 32
_KEY = re.compile(r"sluice_([a-z2-7]{16})_([a-z2-7]{52})")
# The compact form of a signed token (RFC 7515, 7.1). An unsigned one has the form too, and is refused by name later.
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_BEARER = re.compile(r"bearer {1,50}", re.IGNORECASE)
_MAX_TOKEN = 8 * 1024
# The scheme, some spaces and the longest token: what is longer is refused unread.
_MAX_HEADER = _MAX_TOKEN + 64
# What a key that does not exist is compared with. No secret has this hash: its digits are not hexadecimal.
_NO_HASH = "x" * sha256().digest_size * 2
# Source: "IAM identifiers" in the IAM user guide. A session names its role without the role's path, so paths are
# left out of role ARNs, too: within an account, the name alone is unique.
_SESSION = re.compile(r"arn:(aws[a-z-]{0,20}):sts::(\d{12}):assumed-role/([\w+=,.@-]{1,64})/[\w+=,.@-]{2,64}", re.ASCII)
_ROLE = re.compile(r"arn:(aws[a-z-]{0,20}):iam::(\d{12}):role/(?:[!-~]{1,510}/)?([\w+=,.@-]{1,64})", re.ASCII)
_USER = re.compile(r"arn:aws[a-z-]{0,20}:iam::\d{12}:user/(?:[!-~]{1,510}/)?[\w+=,.@-]{1,64}", re.ASCII)
_MAX_ARN = 251  # with `iam#` in front as long as a key id may be


@dataclass(frozen=True, slots=True)
class PresentedKey:
    """A well-formed key as a caller presents it; its `repr` keeps the secret to itself."""

    key_id: str
    secret: str

    def __repr__(self) -> str:
        return f"PresentedKey(key_id={self.key_id!r})"


@dataclass(frozen=True, slots=True)
class PresentedToken:
    """What has the form of a JWT of at most 8 KiB; nothing in it is verified. Its `repr` keeps it to itself."""

    text: str

    def __repr__(self) -> str:
        return f"PresentedToken({len(self.text)} characters)"


def parse_authorization(header: str) -> PresentedKey | PresentedToken | None:
    """The credential in the value of an `Authorization` header, or None.

    Told from its form, before any store is asked: a key has no dot, and a token has two.
    """
    if len(header) > _MAX_HEADER:
        return None
    scheme = _BEARER.match(header)
    if scheme is None:
        return None
    key = _KEY.fullmatch(header, scheme.end())
    if key is not None:
        return PresentedKey(key[1], key[2])
    text = header[scheme.end() :]
    return PresentedToken(text) if len(text) <= _MAX_TOKEN and _TOKEN.fullmatch(text) else None


def matches(presented: PresentedKey, stored: ApiKey | None, pepper: bytes) -> bool:
    """Whether the secrets agree; takes as long for a key that does not exist as for a wrong secret."""
    expected = stored.secret_hash if stored else _NO_HASH
    # As bytes: text outside ASCII, which only a damaged item can hold, must not agree either.
    return compare_digest(_hash(presented.secret, pepper).encode(), expected.encode(errors="replace"))


def new_key(
    tenant: str, scopes: frozenset[str], pepper: bytes, *, name: str = "", expires_at: int | None = None, now: float
) -> tuple[str, ApiKey]:
    """A fresh key: its text, to be shown once and never stored, and what is stored of it.

    `name` is a label for people. `now` and `expires_at` are in seconds since 1970, UTC; None never expires.
    """
    key_id, secret = _random(_KEY_ID_BYTES), _random(_SECRET_BYTES)
    key = ApiKey(
        key_id=key_id,
        secret_hash=_hash(secret, pepper),
        tenant=tenant,
        scopes=scopes,
        name=name,
        created_at=int(now),
        expires_at=expires_at,
    )
    return f"sluice_{key_id}_{secret}", key


def iam_key_id(arn: str) -> str | None:
    """The id under which the IAM role or user behind an ARN is bound to a tenant: `iam#` and its ARN.

    A session of a role (`arn:aws:sts::…:assumed-role/…`) stands for the role. None for the ARN of anything else.
    """
    role = _SESSION.fullmatch(arn) or _ROLE.fullmatch(arn)
    if role is not None:
        return f"iam#arn:{role[1]}:iam::{role[2]}:role/{role[3]}"
    return f"iam#{arn}" if len(arn) <= _MAX_ARN and _USER.fullmatch(arn) else None


def _hash(secret: str, pepper: bytes) -> str:
    return digest(pepper, secret.encode(), "sha256").hex()


def _random(size: int) -> str:
    return b32encode(secrets.token_bytes(size)).decode().rstrip("=").lower()
