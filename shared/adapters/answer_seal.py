"""Answers that show a secret, encrypted so that only who knows the `Idempotency-Key` has them opened."""

import hmac
from os import urandom
from typing import Final

from shared.adapters.s3_answers import AnswerLost

_LABEL: Final = b"sluice idempotency answer v1"
# Source: NIST SP 800-38D, 8.2.2: a random nonce has at least 96 bits.
_NONCE_BYTES: Final = 12


class Seal:
    """AES-256-GCM under HMAC-SHA256(secret, label · record · key), one key a record.

    `secret` is the stack's (the pepper), `key` the caller's `Idempotency-Key`, which is not stored: neither the table
    alone nor the table with the secret opens an answer. The record's id is authenticated with it, so that an answer
    moved to another record does not open.
    """

    def __init__(self, secret: bytes, key: str, record_id: str) -> None:
        if not secret:
            raise ValueError("an answer cannot be sealed with an empty secret")
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._record = record_id.encode()
        # The id has a fixed length and the key comes last: no two pairs make one message.
        self._cipher = AESGCM(hmac.digest(secret, b"\0".join([_LABEL, self._record, key.encode()]), "sha256"))

    def close(self, content: bytes) -> bytes:
        """A fresh nonce and the ciphertext."""
        nonce = urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, content, self._record)

    def open(self, sealed: bytes) -> bytes:
        """What was closed; AnswerLost if it was not closed by the same secret, key and record."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], self._record)
        except (InvalidTag, ValueError) as error:
            raise AnswerLost("it was sealed with another secret") from error
