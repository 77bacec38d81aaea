"""Whether a request is a webhook of Sluice. Nothing but Python's standard library; copy it into your receiver."""

import hmac
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping

TOLERANCE_S = 300


def verify(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether `secret` (`whsec_…`) signed this request within the last five minutes.

    `headers` has names in lower case; `body` is what was received, byte for byte, before anything parses it.
    """
    message_id, sent = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not message_id or not (sent.isascii() and sent.isdecimal()) or abs(time.time() - int(sent)) > TOLERANCE_S:
        return False
    key = b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{message_id}.{sent}.".encode() + body, "sha256")
    expected = b"v1," + b64encode(digest)
    # While the secret is rotated there are two signatures, with a space between.
    return any(hmac.compare_digest(expected, each.encode()) for each in headers.get("webhook-signature", "").split())
