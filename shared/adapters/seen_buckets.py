"""What this process last saw of the items of the rate limiter, for the first guess at what they hold now."""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

from shared.domain.gcra import MICROSECONDS, Bucket, BucketState

_KEPT_ITEMS: Final = 1024
# Keys that call no more leave their attribute behind, and a write of an item is paid for by its KB.
_WHOLE_EVERY: Final = 32
_MANY_ATTRIBUTES: Final = 32
_SWEPT_AT_ONCE: Final = 48
_SWEPT_AFTER_US: Final = 5 * MICROSECONDS
_SURE: Final = 2

States = Mapping[str, BucketState]


@dataclass(slots=True)
class _Seen:
    """What was seen of one item, by attribute.

    `busy` counts, between 0 and 3, how often a bucket that had to be idle by its `tat` here was not, since other
    environments took from it: from 2 on, it is taken for active.
    """

    tats: dict[str, int] = field(default_factory=dict)
    busy: dict[str, int] = field(default_factory=dict)
    learned: int = 0


class SeenBuckets:
    """Remembers the `tat`s of 1,024 items, the most recently used; safe to use from many threads.

    A `tat` only grows, so what was seen is the least that it can be: who was over the limit by it still is.
    """

    def __init__(self) -> None:
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
        """Whether it is time to see all of an item: at the first update and at every 32nd."""
        with self._lock:
            seen = self._items.get(item)
            return seen is None or seen.learned % _WHOLE_EVERY == 0

    def leftovers(self, item: str, used: Collection[str], now: int) -> Sequence[str]:
        """Attributes of buckets that are idle for 5 s, if the item was just seen whole and has too many; not `used`."""
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
            seen.busy = {name: count for name, count in seen.busy.items() if count and name in seen.tats}
            seen.learned += 1
            self._items[item] = seen
            if len(self._items) > _KEPT_ITEMS:
                self._items.popitem(last=False)
