"""Write the head of a shard of the audit chain, now and then, to where nobody can change it."""

from collections.abc import Callable
from datetime import UTC, datetime
from time import time

from shared.domain.audit import Anchor, Segment, time_text
from shared.domain.errors import Conflict
from shared.domain.ports import AnchorStore

MAX_SEGMENTS = 1000


class AnchorHeads:
    """Anchors a segment if the shard's last anchor is `every_s` seconds old or `MAX_SEGMENTS` segments behind.

    When the last one was written is asked of the anchors themselves: the table, which they are there to watch, has no
    say in it. They are asked only once the anchor that this instance knows of is too old.
    """

    def __init__(self, anchors: AnchorStore, every_s: float, now: Callable[[], float] = time) -> None:
        self._anchors = anchors
        self._every_s = every_s
        self._now = now
        # By shard: the last anchored segment, and when that was.
        self._known: dict[str, tuple[int, float]] = {}

    def __call__(self, segment: Segment) -> bool:
        """Whether the segment was anchored. Raises Conflict if its number has an anchor already, BackendError."""
        now = self._now()
        if not self._is_due(segment, now):
            return False
        written = self._anchors.add(
            Anchor(segment.shard, segment.seq, segment.hash, time_text(datetime.fromtimestamp(now, UTC)))
        )
        self._known[segment.shard] = (segment.seq, now)
        if not written:
            raise Conflict(
                f"Segment {segment.seq} of the audit shard {segment.shard} has an anchor already: the table was set "
                "back to an older state."
            )
        return True

    def _is_due(self, segment: Segment, now: float) -> bool:
        seq, at = self._known.get(segment.shard, (0, float("-inf")))
        if segment.seq - seq < MAX_SEGMENTS and now - at < self._every_s:
            return False
        found = self._anchors.latest(segment.shard, after=segment.seq - MAX_SEGMENTS)
        if found is None or now - found[1] >= self._every_s:
            return True
        self._known[segment.shard] = found  # another environment did it
        return False
