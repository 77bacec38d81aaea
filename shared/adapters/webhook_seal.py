"""Webhooks' secrets in the table, encrypted: who reads the table alone cannot sign as we do."""

import hmac
from collections.abc import Callable
from os import urandom
from typing import TYPE_CHECKING, Final

from shared.domain.errors import BackendError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_LABEL: Final = b"sluice webhook secret v1"
# Source: NIST SP 800-38D, 8.2.2: a random nonce has at least 96 bits.
_NONCE_BYTES: Final = 12


class WebhookSeal:
    """AES-256-GCM under HMAC-SHA256(key, label · webhook), one key a webhook; the tenant is authenticated with it.

    `key` gives the stack's key, from Secrets Manager; it is asked for by the first secret. A secret that is moved to
    another webhook or tenant does not open.
    """

    def __init__(self, key: Callable[[], bytes]) -> None:
        self._key = key

    def close(self, tenant: str, webhook_id: str, secret: bytes) -> bytes:
        """A fresh nonce and the ciphertext. Raises BackendError while the key cannot be had."""
        nonce = urandom(_NONCE_BYTES)
        return nonce + self._cipher(webhook_id).encrypt(nonce, secret, tenant.encode())

    def open(self, tenant: str, webhook_id: str, sealed: bytes) -> bytes:
        """What was closed; BackendError if it was not closed for this webhook with this key."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher(webhook_id).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], tenant.encode())
        except (InvalidTag, ValueError) as error:
            raise BackendError("A webhook's secret cannot be opened: it was sealed with another key.") from error

    def _cipher(self, webhook_id: str) -> "AESGCM":
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(hmac.digest(self._key(), b"\0".join([_LABEL, webhook_id.encode()]), "sha256"))
