"""Which AWS calls a request made: each costs money and milliseconds."""

from collections import Counter
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final

from botocore.session import Session

# Operations that DynamoDB charges for by their items, and how many a call has.
_ITEMS: Final[Mapping[str, Callable[[Mapping[str, Any]], int]]] = {
    "BatchGetItem": lambda params: sum(len(table["Keys"]) for table in params["RequestItems"].values()),
    "BatchWriteItem": lambda params: sum(len(requests) for requests in params["RequestItems"].values()),
    "TransactGetItems": lambda params: len(params["TransactItems"]),
    "TransactWriteItems": lambda params: len(params["TransactItems"]),
}


class _Tally:
    """What one request called."""

    __slots__ = ("calls", "items")

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.items: Counter[str] = Counter()


class AwsCalls:
    """Counts the calls of the clients of watched sessions, attempts after the first included.

    A call counts for the request in whose context it is made, also on another thread that has a copy of the context: a
    call that was given up, and goes on after its request has ended, counts for nobody. Where no request began in a
    context, as on threads that serve many requests, calls count for the request that began last.
    """

    def __init__(self) -> None:
        self._latest = _Tally()
        self._own: ContextVar[_Tally] = ContextVar("aws_calls")

    def watch(self, session: Session) -> None:
        """Count what clients do that this session makes from now on."""
        events = session.get_component("event_emitter")
        events.register("before-send", self._count)
        for operation in _ITEMS:
            events.register(f"provide-client-params.dynamodb.{operation}", self._count_items)

    def start(self) -> None:
        """Begin a request in this context: nothing was counted yet."""
        self._latest = _Tally()
        self._own.set(self._latest)

    def counts(self) -> dict[str, int]:
        """Calls by service and operation, such as `dynamodb.UpdateItem`."""
        return dict(self._tally().calls)

    def items(self) -> dict[str, int]:
        """Items of DynamoDB's operations for many at once, such as `dynamodb.BatchGetItem`; each call counts once."""
        return dict(self._tally().items)

    def _tally(self) -> _Tally:
        return self._own.get(self._latest)

    def _count(self, event_name: str, **_arguments: Any) -> None:
        _, service, operation = event_name.split(".", 2)
        self._tally().calls[f"{service}.{operation}"] += 1

    def _count_items(self, event_name: str, params: Mapping[str, Any], **_arguments: Any) -> None:
        operation = event_name.rpartition(".")[2]
        self._tally().items[f"dynamodb.{operation}"] += _ITEMS[operation](params)
