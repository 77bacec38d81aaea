"""Which AWS calls a request made: each costs money and milliseconds."""

from collections import Counter
from typing import Any

from botocore.session import Session


class AwsCalls:
    """Counts the calls of the clients of watched sessions, attempts after the first included.

    One environment answers one request at a time, so what was counted since `start` is that request's.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def watch(self, session: Session) -> None:
        """Count what clients do that this session makes from now on."""
        session.get_component("event_emitter").register("before-send", self._count)

    def start(self) -> None:
        """Forget what was counted."""
        self._counts.clear()

    def counts(self) -> dict[str, int]:
        """Calls by service and operation, such as `dynamodb.UpdateItem`."""
        return dict(self._counts)

    def _count(self, event_name: str, **_arguments: Any) -> None:
        _, service, operation = event_name.split(".", 2)
        self._counts[f"{service}.{operation}"] += 1
