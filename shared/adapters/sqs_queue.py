"""What the queues in SQS have in common."""

import re
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

# Both: SQS API Reference, "SendMessage". UTF-8 has no surrogates either.
_REFUSED: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MOST_DETAIL: Final = 1024


class SqsQueue:
    """A queue; its client, which takes some 50 ms to make, is made for the first call."""

    def __init__(self, client: Callable[[], Any], queue_url: str) -> None:
        self._make = client
        self._url = queue_url

    @cached_property
    def _client(self) -> Any:
        return self._make()


def letter_attributes(reason: str, detail: str, attempts: int) -> dict[str, Any]:
    """The attributes of a dead letter: `Reason` (a code), `Detail` (1 KB at most, none if empty) and `Attempts`."""
    # SQS counts bytes.
    said = _REFUSED.sub("\ufffd", detail).encode()[:_MOST_DETAIL].decode(errors="ignore")
    return {
        **{
            name: {"DataType": "String", "StringValue": text}
            for name, text in (("Reason", reason), ("Detail", said))
            if text
        },
        "Attempts": {"DataType": "Number", "StringValue": str(attempts)},
    }
