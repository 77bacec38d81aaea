"""The generic cell rate algorithm (GCRA): a token bucket in one number.

That number is the *theoretical arrival time* (`tat`): when the next request is due if all come exactly at the rate.
A request at `now` passes if `tat` is not more than `burst - 1` intervals ahead, and moves it to `max(tat, now)` plus
one interval. Source: ITU-T I.371, annex A ("virtual scheduling"), with `burst = 1 + tolerance / interval`.

All times are integers, microseconds since 1970 or of length. DynamoDB keeps numbers as exact decimals, so what is added
to a stored `tat` there is what this module says; a binary fraction would be another number in each place.
"""

from dataclasses import dataclass
from enum import Enum
from math import ceil

from shared.domain.plans import Rate

MICROSECONDS = 1_000_000

# A `tat` this far beyond an empty bucket was left by a slower plan or by a wrong clock: nobody is to wait for that.
# Clocks of functions differ by milliseconds, so the room is ample, and no longer than another plan takes to hold.
STALE_AFTER_US = 60 * MICROSECONDS


class BucketState(Enum):
    """How full a bucket is; `STALE` is a `tat` that this bucket cannot have written."""

    IDLE = "idle"  # full: no `tat`, or one that has passed
    ACTIVE = "active"  # a request passes
    EMPTY = "empty"  # a request must wait
    STALE = "stale"  # a request passes and leaves the bucket empty


@dataclass(frozen=True, slots=True)
class Bucket:
    """`burst` requests at once (at least 1), then one each `interval_us` (at least 1)."""

    interval_us: int
    burst: int

    @classmethod
    def of(cls, rate: Rate, shards: int = 1, shard: int = 0) -> "Bucket":
        """The bucket of a rate, or one of `shards` that have it together. ValueError for a rate that lets nothing pass.

        The interval is rounded up, so no more than the rate passes. The bursts of all shards add up to the whole one
        where that is not below the number of shards; else each has a burst of 1.
        """
        if not rate.per_second > 0:
            raise ValueError("a rate is above 0")
        burst = rate.burst // shards + (shard < rate.burst % shards)
        return cls(max(1, ceil(MICROSECONDS * shards / rate.per_second)), max(1, burst))

    def last_us(self, now: int) -> int:
        """The latest `tat` with which a request at `now` passes."""
        return now + self.interval_us * (self.burst - 1)

    def lag_us(self, now: int) -> int:
        """The `tat` down to which an idle bucket may be taken for active.

        What is then taken keeps the time that the bucket has been full: up to a tenth of the burst passes on top of it.
        """
        return now - self.interval_us * (self.burst // 10)

    def empty_us(self, now: int) -> int:
        """The `tat` of a bucket that is empty at `now`."""
        return now + self.interval_us * self.burst

    def stale_us(self, now: int) -> int:
        """The latest `tat` that is believed."""
        return self.empty_us(now) + STALE_AFTER_US

    def state(self, tat: int | None, now: int) -> BucketState:
        """What a request at `now` meets."""
        if tat is None or tat <= now:
            return BucketState.IDLE
        if tat <= self.last_us(now):
            return BucketState.ACTIVE
        return BucketState.EMPTY if tat <= self.stale_us(now) else BucketState.STALE

    def taken(self, tat: int | None, now: int) -> int:
        """The `tat` after a request has passed; ValueError if none passes.

        It is never below the one before, but for a stale one.
        """
        state = self.state(tat, now)
        if state is BucketState.EMPTY:
            raise ValueError("the bucket is empty")
        if state is BucketState.STALE:
            return self.empty_us(now)
        return (now if tat is None or state is BucketState.IDLE else tat) + self.interval_us

    def remaining(self, tat: int | None, now: int) -> int:
        """How many requests pass at `now`."""
        if tat is None:
            return self.burst
        return min(self.burst, max(0, (self.empty_us(now) - tat) // self.interval_us))

    def wait_us(self, tat: int | None, now: int) -> int:
        """In how many microseconds a request passes: 0 for now."""
        if tat is None or self.state(tat, now) is not BucketState.EMPTY:
            return 0
        return tat - self.last_us(now)

    def next_us(self, tat: int | None, now: int) -> int:
        """In how many microseconds one more request passes than at `now`: 0 for a full bucket."""
        if tat is None or tat <= now:
            return 0
        return (self.remaining(tat, now) + 1) * self.interval_us - (self.empty_us(now) - tat)
