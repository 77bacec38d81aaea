"""The circuit breaker of one backend and variant, as a state machine on a given time.

    closed ── too many failures, or others say so ──▶ open ── its time is over ──▶ one probe at a time
       ▲                                                ▲                              │
       └──────────────── it went well ──────────────────┼──────────────────────────────┤
                                                        └── it failed: twice as long ──┘

Calls are counted in each environment; that a circuit opened or closed is shared. Times are seconds since 1970, since
environments tell each other about them. Source of the pattern: M. Nygard, "Release It!", chapter on stability patterns.
"""

from dataclasses import dataclass, field
from threading import Lock
from typing import Final

from shared.domain.endpoint.config import BreakerSettings
from shared.domain.errors import CircuitOpen

# The window moves on by a tenth of itself: it covers 90 to 100 % of the time that is set.
_BUCKETS: Final = 10
# A circuit that opens again and again stays open for that many times `open_s` at the most.
_LONGEST: Final = 8
_TWO: Final = 2


def circuit_name(backend: str, variant: str) -> str:
    """How environments call a circuit of an endpoint among themselves."""
    return f"{backend}/{variant}"


@dataclass(frozen=True, slots=True)
class Change:
    """What the other environments should know: the circuit is open until then, or closed (None)."""

    open_until: float | None


@dataclass(slots=True)
class _Bucket:
    """Calls of one part of the window; `number` counts such parts since 1970.

    `callers` and `failing` have the first two tenants that called and that failed: more change nothing.
    """

    number: int = -1
    calls: int = 0
    failures: int = 0
    callers: set[str] = field(default_factory=set)
    failing: set[str] = field(default_factory=set)

    def begin(self, number: int) -> None:
        self.number, self.calls, self.failures = number, 0, 0
        self.callers.clear()
        self.failing.clear()

    def add(self, tenant: str, *, succeeded: bool) -> None:
        self.calls += 1
        if len(self.callers) < _TWO:
            self.callers.add(tenant)
        if not succeeded:
            self.failures += 1
            if len(self.failing) < _TWO:
                self.failing.add(tenant)


class Circuit:
    """Says whether a call may be made, and learns from what became of it; safe for threads.

    A closed circuit that nobody says anything about costs no lock and no call.
    """

    __slots__ = (
        "_buckets",
        "_generation",
        "_heard",
        "_lock",
        "_open_until",
        "_openings",
        "_probe_since",
        "_reported",
        "_settled",
        "_width",
    )

    def __init__(self) -> None:
        self._lock = Lock()
        self._open_until: float | None = None  # None: closed
        self._openings = 0  # since it was closed last
        self._probe_since: float | None = None
        # Permits of an earlier state say nothing about this one.
        self._generation = 0
        # What others said last, whether that is about this opening, and what they said before it was closed.
        self._heard: float | None = None
        self._reported = False
        self._settled: float | None = None
        self._width = 0.0
        self._buckets: tuple[_Bucket, ...] = ()

    def admit(self, settings: BreakerSettings, now: float, others: float | None = None) -> int:
        """The permit for one call, to be given to `record`; raises CircuitOpen.

        `others` is until when the circuit is open by what the environments share, None if that says nothing of it.
        """
        if self._open_until is None and (others is None or others <= now or others == self._settled):
            return self._generation
        with self._lock:
            self._listen(settings, now, others)
            if self._open_until is None:
                return self._generation
            free_at = self._open_until
            if self._probe_since is not None:
                # A probe that never returns holds the place as long as an opening does.
                free_at = max(free_at, min(self._probe_since, now) + settings.open_s)
            if now < free_at:
                wait_s = free_at - now
                raise CircuitOpen(
                    f"The backend failed too often and is given a pause: it is tried again in {wait_s:.3g} s.",
                    retry_after_s=wait_s,
                )
            self._generation += 1
            self._probe_since = now
            return self._generation

    def record(
        self, permit: int, succeeded: bool | None, settings: BreakerSettings, now: float, tenant: str = ""
    ) -> Change | None:
        """Learn how the call of a permit ended (None: in a way that says nothing of the backend).

        The change that it made, if the others do not know it already. Failures of a single tenant open nothing while
        another one is served within the window: what that tenant sends may be the cause.
        """
        with self._lock:
            if permit != self._generation:
                return None
            if self._open_until is None:
                return self._count(succeeded, settings, now, tenant)
            self._probe_since = None
            self._generation += 1
            if succeeded is None:
                return None
            return self._close() if succeeded else self._open(settings, now)

    def is_closed(self) -> bool:
        """Whether calls pass, as far as this environment has seen."""
        return self._open_until is None

    def _listen(self, settings: BreakerSettings, now: float, others: float | None) -> None:
        """Open as long as others say; let a probe through at once where they say no more that it is open."""
        if others is not None and others > now and others != self._settled:
            if others != self._heard:
                self._heard = others
                # Somebody's clock may be wrong: that must not stop calls for good.
                until = min(others, now + _LONGEST * settings.open_s)
                if self._open_until is None:
                    self._openings = 1
                    self._generation += 1
                    self._open_until = until
                self._open_until = max(self._open_until, until)
            self._reported = True
        elif self._reported and self._open_until is not None:
            self._reported = False
            self._open_until = min(self._open_until, now)

    def _count(self, succeeded: bool | None, settings: BreakerSettings, now: float, tenant: str) -> Change | None:
        if succeeded is None:
            return None
        width = settings.window_s / _BUCKETS
        if width != self._width:
            self._width, self._buckets = width, tuple(_Bucket() for _ in range(_BUCKETS))
        number = int(now / width)
        bucket = self._buckets[number % _BUCKETS]
        if bucket.number != number:
            bucket.begin(number)
        bucket.add(tenant, succeeded=succeeded)
        if succeeded:
            return None
        recent = [one for one in self._buckets if number - _BUCKETS < one.number <= number]
        calls, failures = sum(one.calls for one in recent), sum(one.failures for one in recent)
        if calls < settings.min_calls or failures < settings.failure_rate * calls:
            return None
        if (
            len(set[str]().union(*(one.failing for one in recent)))
            < _TWO
            <= len(set[str]().union(*(one.callers for one in recent)))
        ):
            return None
        return self._open(settings, now)

    def _open(self, settings: BreakerSettings, now: float) -> Change | None:
        # Milliseconds, so that the time reads the same after it was stored.
        until = round(now + settings.open_s * min(2**self._openings, _LONGEST), 3)
        self._openings = min(self._openings + 1, _LONGEST)
        self._generation += 1
        self._width = 0.0  # counts begin anew when it closes
        known = self._heard is not None and self._heard >= until
        self._open_until = max(until, self._open_until or 0.0)
        self._reported = False
        return None if known else Change(until)

    def _close(self) -> Change:
        self._open_until = None
        self._openings = 0
        # What is read a moment late still says that it is open.
        self._settled = self._heard
        self._reported = False
        return Change(None)
