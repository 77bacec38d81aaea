"""How much of Lambda's answer a body takes.

A function returns at most 6 MB, and what it returns is a JSON document around the body: text in it is escaped, other
bytes are base64. Source: AWS Lambda Developer Guide, "Quotas".
"""

import json
from typing import Final

# The quota as Lambda's own error names it, less what status and headers may take.
MAX_EVENT_BYTES: Final = 6_291_556 - 64 * 1024
_MOST_FOR_A_BYTE = 6  # a control character becomes \u0000


def event_bytes(body: bytes, *, is_text: bool) -> int:
    """The bytes that a body takes in a function's answer; for a small text, the most that it could."""
    if not is_text:
        return -(-len(body) // 3) * 4
    most = len(body) * _MOST_FOR_A_BYTE
    return most if most <= MAX_EVENT_BYTES else len(json.dumps(body.decode()))


def is_text(media_type: str) -> bool:
    """Whether a body of this type goes as text; see `shared.web.lambda_handler`."""
    return media_type.startswith(("text/", "application/json"))
