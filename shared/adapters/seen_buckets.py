"""What this process last saw of the items of the rate limiter, for the first guess at what they hold now."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from random import SystemRandom
from threading import Lock
from typing import Final

from shared.domain.gcra import MICROSECONDS, Bucket, BucketState

_KEPT_ITEMS: Final = 1024
# Keys that call no more leave their attribute behind, and a write of an item is paid for by its KB.
_WHOLE_EVERY: Final = 8
_MANY_ATTRIBUTES: Final = 32
_SWEPT_AT_ONCE: Final = 48
_SWEPT_AFTER_US: Final = MICROSECONDS
_SURE: Final = 2
# Attempts that fail are writes, too: without a bound, those of many environments for a tenant far over its limit would
# throttle its item, and throttling lets requests pass. A caller who is refused comes back after a second at the least.
_MAX_LOST: Final = 12
_LONGEST_REST_US: Final = MICROSECONDS
_CROWDED_US: Final = 5 * MICROSECONDS

States = Mapping[str, BucketState]


@dataclass(slots=True)
class _Seen:
    """What was seen of one item, by attribute.

    `busy` counts, between 0 and 3, how often a bucket that had to be idle by its `tat` here was not, since other
    environments took from it: from 2 on, it is taken for active. `lost` counts how often others had taken the request
    that was due by its `tat` here: each time more, the bucket is left alone for longer, by a `tat` put off at random.
    """

    tats: dict[str, int] = field(default_factory=dict)
    busy: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    learned: int = 0
    crowded_until: int = 0


class SeenBuckets:
    """Remembers the `tat`s of 1,024 items, the most recently used; safe to use from many threads.

    A `tat` only grows, so what was seen is the least that it can be: who was over the limit by it still is. `draw(n)`
    is a random number below n.
    """

    def __init__(self, draw: Callable[[int], int] | None = None) -> None:
        # The system's generator: copies of one snapshot would all come back at the same moment from another.
        self._draw = draw or SystemRandom().randrange
        self._items: OrderedDict[str, _Seen] = OrderedDict()
        self._lock = Lock()

    def guess(self, item: str, buckets: Mapping[str, Bucket], now: int) -> tuple[dict[str, int | None], States]:
        """The `tat` that was seen of each bucket, and the state that it probably has."""
        with self._lock:
            seen = self._items.get(item) or _Seen()
            tats = {attribute: seen.tats.get(attribute) for attribute in buckets}
            states = {attribute: bucket.state(tats[attribute], now) for attribute, bucket in buckets.items()}
            for attribute, bucket in buckets.items():
                # With a burst of 1 there is no active state: what is not idle is empty.
                likely = bucket.burst > 1 and seen.busy.get(attribute, 0) >= _SURE
                if likely and states[attribute] is BucketState.IDLE:
                    states[attribute] = BucketState.ACTIVE
        return tats, states

    def wants_whole(self, item: str) -> bool:
        """Whether it is time to see all of an item: at the first update and at every eighth."""
        with self._lock:
            seen = self._items.get(item)
            return seen is None or seen.learned % _WHOLE_EVERY == 0

    def leftovers(self, item: str, used: Collection[str], now: int) -> Sequence[str]:
        """Attributes, not `used`, of buckets idle for a second, if the item was just seen whole and has too many."""
        with self._lock:
            seen = self._items.get(item)
            if seen is None or seen.learned % _WHOLE_EVERY != 1 or len(seen.tats) <= _MANY_ATTRIBUTES:
                return ()
            old = [name for name, tat in seen.tats.items() if name not in used and tat < now - _SWEPT_AFTER_US]
            return old[:_SWEPT_AT_ONCE]

    def learn(
        self, item: str, found: dict[str, int], buckets: Mapping[str, Bucket], states: States, now: int, *, whole: bool
    ) -> None:
        """Remember `found`, which is all of the item or a part of it; `states` are those that the buckets had."""
        with self._lock:
            seen = self._items.pop(item, None) or _Seen()
            for attribute, bucket in buckets.items():
                if bucket.state(seen.tats.get(attribute), now) is BucketState.IDLE:
                    step = -1 if states[attribute] is BucketState.IDLE else 1
                    seen.busy[attribute] = min(3, max(0, seen.busy.get(attribute, 0) + step))
            seen.tats = found if whole else seen.tats | found
            for attribute, bucket in buckets.items():
                self._count_lost(seen, attribute, bucket, states[attribute], now)
            seen.busy = {name: count for name, count in seen.busy.items() if count and name in seen.tats}
            seen.lost = {name: count for name, count in seen.lost.items() if count and name in seen.tats}
            seen.learned += 1
            self._items[item] = seen
            if len(self._items) > _KEPT_ITEMS:
                self._items.popitem(last=False)

    def is_crowded(self, item: str, now: int) -> bool:
        """Whether, in the last 5 s, others had taken what was due here: it is asked for faster than its limit."""
        with self._lock:
            seen = self._items.get(item)
            return seen is not None and 0 < seen.crowded_until - now <= _CROWDED_US

    def _count_lost(self, seen: _Seen, attribute: str, bucket: Bucket, state: BucketState, now: int) -> None:
        if state is not BucketState.EMPTY:
            seen.lost[attribute] = max(0, seen.lost.get(attribute, 0) - 1)
            return
        seen.lost[attribute] = lost = min(_MAX_LOST, seen.lost.get(attribute, 0) + 1)
        # The first time may be the first sight of the bucket, and tells of no rival.
        if longest := min(bucket.interval_us * (2**lost - 2), _LONGEST_REST_US):
            seen.tats[attribute] += self._draw(longest)
            seen.crowded_until = now + _CROWDED_US
