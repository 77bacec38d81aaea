"""Clients with one read timeout each, of which a call takes the shortest that covers its deadline."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from threading import Lock
from typing import Annotated, Generic, Protocol, TypeVar

from msgspec import Meta


class Closable(Protocol):
    """What every client of botocore can do."""

    def close(self) -> None:
        """Close the connections."""


_Client = TypeVar("_Client", bound=Closable)

# Rising steps, the last of them below the 29 s that the template gives the function. A call that was given up holds its
# thread until its step is over, so there are short ones for short deadlines.
DEFAULT_TIMEOUTS_S = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 16.0, 27.0)
Timeouts = Annotated[tuple[Annotated[float, Meta(gt=0, le=900)], ...], Meta(min_length=1, max_length=8)]

MIB = 1024 * 1024
# SageMaker's service model says 6 MiB for requests and answers; a newer FAQ speaks of 25 MB.
DEFAULT_MAX_BYTES = 6 * MIB
MaxBytes = Annotated[int, Meta(ge=1, le=25_000_000)]

# As the service model has them.
EndpointName = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9](-?[a-zA-Z0-9-])*$", max_length=63)]
PartName = Annotated[str, Meta(pattern=r"^([a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)?$", max_length=63)]


def check_rising(timeouts_s: Sequence[float]) -> None:
    """Raise ValueError unless the steps are positive and rise."""
    if not timeouts_s or any(after <= before for before, after in pairwise([0.0, *timeouts_s])):
        raise ValueError("timeouts_s must be positive and rise")


class SteppedClients(Generic[_Client]):
    """botocore has one read timeout for each client, so there is one for each of `timeouts_s` (seconds, rising).

    `client_for(seconds)` makes it when it is first needed.
    """

    def __init__(self, client_for: Callable[[float], _Client], timeouts_s: Sequence[float]) -> None:
        check_rising(timeouts_s)
        self._client_for = client_for
        self._timeouts_s = tuple(timeouts_s)
        self._lock = Lock()
        self._clients: dict[float, _Client] = {}

    def get(self, seconds: float) -> _Client:
        """The client of the shortest step of at least `seconds`, else of the longest."""
        timeout = next((step for step in self._timeouts_s if step >= seconds), self._timeouts_s[-1])
        with self._lock:
            if timeout not in self._clients:
                self._clients[timeout] = self._client_for(timeout)
            return self._clients[timeout]

    def close(self) -> None:
        """Close the connections of all clients."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()
