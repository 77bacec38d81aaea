"""One run for identical requests: the response cache, and joining of those that are in flight.

What runs is a `Flight`, a request of the container's own that stands for its members. It lives as long as any of them
waits: neither the deadline nor the departure of the one that began it ends it for the others, and none of them waits
longer than its own deadline. Only requests of one tenant share.
"""

import logging
from asyncio import AbstractEventLoop, TimerHandle, get_running_loop
from collections.abc import Callable
from math import inf
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Protocol

from gpu_service.inference.request import InferenceRequest
from gpu_service.inference.response_cache import RequestKeys, ResponseCache
from gpu_service.scheduling.errors import CallerGone, DeadlinePassed
from shared.domain.errors import BackendTimeout, InvalidRequest, SluiceError
from shared.domain.serving import ServingPolicy
from shared.domain.signature import Signature
from shared.domain.tensors import Tensors
from shared.domain.validation import check_values

if TYPE_CHECKING:
    from gpu_service.models.served_model import ModelKey
    from gpu_service.telemetry.stats import ModelStats

_log = logging.getLogger(__name__)

# Members hold their decoded tensors until they are answered. Beyond these bounds a request goes to the queue by itself.
_MAX_JOINED = 4096
_MAX_JOINED_BYTES = 128 * 1024 * 1024


class Queue(Protocol):
    """Where flights go; see `gpu_service.scheduling.model_queue.ModelQueue`."""

    def submit(self, request: InferenceRequest) -> None:
        """Queue a request, or raise a SluiceError."""


class Flight(InferenceRequest):
    """The run of its `members`. It is cancelled when all of them are, and its deadline is their latest."""

    __slots__ = ("key", "members", "second")

    def __init__(
        self, members: list[InferenceRequest], key: bytes, done: Callable[[InferenceRequest], None], *, second: bool
    ) -> None:
        first = members[0]
        self.members = members
        self.key = key
        self.second = second
        self.done = done
        for name in _TAKEN_OVER:
            setattr(self, name, getattr(first, name))
        self.priority = min(member.priority for member in members)
        self.started = self.finished = 0.0
        self.answered = False
        self.result: Tensors | None = None
        self.error: SluiceError | None = None

    @property
    def cancelled(self) -> bool:  # type: ignore[override]
        """Whether nobody waits any more."""
        return all(member.cancelled or member.answered for member in self.members)

    @property
    def deadline(self) -> float:  # type: ignore[override]
        """The latest of those who wait; in the past if nobody does."""
        return max((m.deadline for m in self.members if not (m.cancelled or m.answered)), default=-inf)


_TAKEN_OVER = tuple(
    name
    for name in InferenceRequest.__slots__
    if name not in {"cancelled", "deadline", "done", "priority", "started", "finished", "answered", "result", "error"}
)


class Sharing:
    """The door of a model's queue where it caches or joins; belongs to the event loop."""

    __slots__ = (
        "_cache",
        "_flights",
        "_join",
        "_joined",
        "_joined_bytes",
        "_keys",
        "_queue",
        "_signature",
        "_stats",
        "_timers",
    )

    def __init__(
        self, keys: RequestKeys, signature: Signature, policy: ServingPolicy, queue: Queue, stats: "ModelStats"
    ) -> None:
        self._keys = keys
        self._signature = signature
        self._queue = queue
        self._stats = stats
        self._cache = None if policy.cache is None else ResponseCache(policy.cache)
        self._join = policy.join
        self._flights: dict[bytes, Flight] = {}
        self._timers: dict[InferenceRequest, TimerHandle] = {}
        self._joined = 0
        self._joined_bytes = 0

    @property
    def cache_bytes(self) -> int:
        """What the response cache holds."""
        return 0 if self._cache is None else self._cache.nbytes

    def submit(self, request: InferenceRequest) -> None:
        """Answer `request` from the cache, let it join, or queue it; raises what the queue raises.

        Its `done` is not called before this has returned.
        """
        loop = get_running_loop()
        start = perf_counter()
        key = self._keys.key(request.tenant, request.inputs, request.outputs, request.decoded.parameters)
        if self._cache is not None:
            found = self._cache.get(key, monotonic())
            self._stats.cache(found is not None, perf_counter() - start)
            if found is not None:
                request.result = found
                request.started = monotonic()
                loop.call_soon(_answer, request)
                return
        flight = self._flights.get(key) if self._join else None
        if flight is not None and self._may_join(request, flight):
            self._joined += 1
            self._joined_bytes += request.nbytes
            flight.members.append(request)
            self._stats.joined()
            self._watch(request, loop)
            if len(flight.members) == 2:
                self._watch(flight.members[0], loop)
            return
        self._begin([request], key, second=False)

    def _may_join(self, request: InferenceRequest, flight: Flight) -> bool:
        return (
            request.priority >= flight.priority  # the more urgent one would wait in the other's place
            and self._joined < _MAX_JOINED
            and self._joined_bytes + request.nbytes <= _MAX_JOINED_BYTES
        )

    def _begin(self, members: list[InferenceRequest], key: bytes, *, second: bool) -> None:
        flight = Flight(members, key, self._landed, second=second)
        self._queue.submit(flight)
        if self._join:
            self._flights[key] = flight

    def _watch(self, request: InferenceRequest, loop: AbstractEventLoop) -> None:
        """Answer a member at its own deadline: the flight may go on for others."""
        if request.deadline != inf and request not in self._timers:
            self._timers[request] = loop.call_later(request.deadline - monotonic(), self._expired, request)

    def _expired(self, request: InferenceRequest) -> None:
        del self._timers[request]
        if not request.answered:
            request.error = DeadlinePassed("The caller's deadline passed before the model answered.")
            _answer(request)

    def _landed(self, request: InferenceRequest) -> None:
        if not isinstance(request, Flight):
            raise TypeError("only flights come back from the queue")
        flight = request
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        now = monotonic()
        for member in flight.members[1:]:
            self._joined -= 1
            self._joined_bytes -= member.nbytes
        waiting = [member for member in flight.members if not member.answered]
        if flight.error is None and flight.result is not None:
            self._keep(flight.key, flight.result, now)
        elif isinstance(flight.error, BackendTimeout) and not flight.second:
            # It may have been given up when nobody waited, and somebody joined before it came back.
            alive = [member for member in waiting if not member.cancelled and member.deadline > now]
            if alive and self._again(alive, flight):
                taken = set(alive)
                waiting = [member for member in waiting if member not in taken]
        for member in waiting:
            self._give(member, flight, now)

    def _keep(self, key: bytes, outputs: Tensors, now: float) -> None:
        for array in outputs.values():
            array.flags.writeable = False  # several callers get the same arrays
        if self._cache is not None:
            self._cache.put(key, outputs, now)

    def _again(self, members: list[InferenceRequest], flight: Flight) -> bool:
        """Whether another flight took the members over; if the queue refuses it, that is the error they share."""
        try:
            self._begin(members, flight.key, second=True)
        except SluiceError as error:
            flight.error = error
            return False
        for member in members[1:]:
            self._joined += 1
            self._joined_bytes += member.nbytes
        return True

    def _give(self, member: InferenceRequest, flight: Flight, now: float) -> None:
        timer = self._timers.pop(member, None)
        if timer is not None:
            timer.cancel()
        member.started = flight.started
        if member.cancelled:
            member.error = CallerGone("The caller has gone.")
        elif flight.error is None and flight.result is not None:
            member.result = dict(flight.result)
        elif member.deadline <= now:
            member.error = DeadlinePassed("The caller's deadline passed before the model answered.")
        else:
            member.error = self._error_of(member, flight)
        _answer(member)

    def _error_of(self, member: InferenceRequest, flight: Flight) -> SluiceError | None:
        """The flight's error. Where a value is wrong, the place is named as this member gave it."""
        if isinstance(flight.error, InvalidRequest):
            try:
                check_values(member.inputs, self._signature, member.locate)
            except SluiceError as error:
                return error
        return flight.error


def _answer(request: InferenceRequest) -> None:
    request.answered = True
    request.finished = monotonic()
    try:
        request.done(request)
    except Exception:  # noqa: BLE001 - logged; it must not spread
        # One caller's answer that cannot be given must not keep the others from theirs.
        _log.exception("an answer could not be given")


def sharing_for(
    key: "ModelKey",
    signature: Signature,
    policy: ServingPolicy,
    queue: Queue,
    stats: "ModelStats",
    digest: str = "",
) -> Sharing | None:
    """The sharing of one served model; None if its manifest asks for neither cache nor joining."""
    if policy.cache is None and not policy.join:
        return None
    return Sharing(RequestKeys(key.name, key.version, signature, digest), signature, policy, queue, stats)
