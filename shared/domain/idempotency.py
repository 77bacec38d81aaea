"""`Idempotency-Key`: which requests share one answer, and how that answer is written down.

The header is that of the IETF draft "The Idempotency-Key HTTP Header Field". A key belongs to one tenant, route and
model; the same key elsewhere is another one.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import ceil
from typing import Any, Final

from shared.domain.errors import InvalidIdempotencyKey

MAX_KEY: Final = 255
_MIN_WAIT_S: Final = 1.0
_MAX_WAIT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class IdempotencyScope:
    """Where a key counts: `route` is the template (`POST /v1/models/{model}/predict`), `model` may be empty."""

    tenant: str
    route: str
    model: str


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer that can be given again: `headers` in their order, `body` as the caller got it."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def is_kept(self) -> bool:
        """Whether it is stored: after a refusal or a failure the same request may fare better."""
        return self.status < 400

    def to_document(self) -> dict[str, Any]:
        """What JSON can hold: a body in UTF-8 as `text`, any other as `base64`."""
        document: dict[str, Any] = {"status": self.status, "headers": [list(pair) for pair in self.headers]}
        try:
            document["text"] = self.body.decode()
        except UnicodeDecodeError:
            document["base64"] = b64encode(self.body).decode()
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "StoredAnswer":
        """Read back what `to_document` wrote; KeyError or ValueError for anything else."""
        text = document.get("text")
        return cls(
            status=int(document["status"]),
            headers=tuple((str(name), str(value)) for name, value in document["headers"]),
            body=b64decode(document["base64"], validate=True) if text is None else str(text).encode(),
        )


def check_key(text: str) -> str:
    """The key as it was sent, quotes included; InvalidIdempotencyKey unless it is 1 to 255 visible ASCII characters."""
    if not (0 < len(text) <= MAX_KEY and all("!" <= character <= "~" for character in text)):
        raise InvalidIdempotencyKey(
            f"Idempotency-Key has 1 to {MAX_KEY} visible ASCII characters, and no spaces: a UUID, for example."
        )
    return text


def record_id(scope: IdempotencyScope, key: str) -> str:
    """The name of the record, 64 hexadecimal digits: from it nobody learns the key.

    SHA-256 over a JSON array, so that no character in one part can be taken for the end of it.
    """
    return sha256(json.dumps([scope.tenant, scope.route, scope.model, key]).encode()).hexdigest()


def retry_after_s(started_ms: int, frees_ms: int, now_ms: int) -> float:
    """In how many whole seconds to ask again for an answer that is being made; all times are ms since 1970.

    As long as it has been in the making, 1 to 5 s: short work keeps nobody waiting, and long work is not asked for
    all the time. No longer than until `frees_ms`, when the key is free again whatever became of the work.
    """
    waited = min(max((now_ms - started_ms) / 1000, _MIN_WAIT_S), _MAX_WAIT_S)
    return float(ceil(max(min(waited, (frees_ms - now_ms) / 1000), _MIN_WAIT_S)))
