"""Signatures of webhooks. Source: Standard Webhooks 1.0, https://www.standardwebhooks.com.

A request has three headers: `webhook-id`, the same for every attempt; `webhook-timestamp`, seconds since 1970; and
`webhook-signature`, HMAC-SHA256 over `id.timestamp.body` as `v1,<base64>`, one for each secret with spaces between.
"""

import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Final

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what every secret begins with
# The specification has secrets of 24 to 64 bytes.
SECRET_BYTES: Final = 32
# How far a receiver lets the timestamp be from its own clock.
TOLERANCE_S: Final = 300


def new_secret() -> bytes:
    """A secret that nobody guesses."""
    return secrets.token_bytes(SECRET_BYTES)


def secret_text(secret: bytes) -> str:
    """A secret as it is shown: `whsec_` and base64."""
    return SECRET_PREFIX + b64encode(secret).decode()


def secret_of(text: str) -> bytes:
    """The secret that a text shows, with or without its prefix; ValueError for any other text."""
    return b64decode(text.strip().removeprefix(SECRET_PREFIX), validate=True)


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """One signature: `v1,` and base64."""
    if not secret:
        raise ValueError("a webhook cannot be signed with an empty secret")
    content = b".".join((message_id.encode(), str(timestamp).encode(), body))
    return "v1," + b64encode(hmac.digest(secret, content, "sha256")).decode()


def headers(signing: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a request, signed with each of `signing`."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signature(secret, message_id, timestamp, body) for secret in signing),
    }


def verified(
    secret: bytes, given: Mapping[str, str], body: bytes, now: float, tolerance_s: float = TOLERANCE_S
) -> bool:
    """Whether a request is whose secret this is, and of now; `given` has its headers, names in lower case.

    Every signature is compared in constant time. Those of other schemes than `v1` do not count.
    """
    message_id, sent = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    if not message_id or not (sent.isascii() and sent.isdecimal() and len(sent) <= 12):
        return False
    if abs(now - int(sent)) > tolerance_s:
        return False
    expected = signature(secret, message_id, int(sent), body).encode()
    return any(hmac.compare_digest(expected, each.encode()) for each in given.get("webhook-signature", "").split())
