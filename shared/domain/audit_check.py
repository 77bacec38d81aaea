"""Whether a chain of the audit trail is what was written: nothing changed, removed, put in between or cut off."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from shared.domain.audit import Anchor, Head, Segment, genesis, lines_of


class Damage(StrEnum):
    """What can be wrong with a chain."""

    CHANGED = "changed"
    MISSING = "missing"
    REORDERED = "reordered"
    UNLINKED = "unlinked"
    TRUNCATED = "truncated"
    HEAD = "head"
    ANCHOR = "anchor"


@dataclass(frozen=True, slots=True)
class Breach:
    """One place where a chain is broken: the segment `seq` of `shard`."""

    shard: str
    seq: int
    damage: Damage
    detail: str


class ChainCheck:
    """Holds the segments of a shard, as they come, against each other and then against its head and its anchors.

    It goes on after a breach, with the segment as it is stored, so that every place is found; `breaches` keeps the
    first hundred.
    """

    MAX_BREACHES = 100

    def __init__(self, shard: str, anchors: Iterable[Anchor]) -> None:
        self._shard = shard
        self._anchors = {anchor.seq: anchor for anchor in anchors}
        self._last = genesis(shard)
        self.breaches: list[Breach] = []
        self.segments = 0
        self.records = 0
        self.anchored = 0

    def add(self, segment: Segment) -> None:
        """The next segment as it is stored."""
        expected = self._last.seq + 1
        if segment.seq > expected:
            gone = f"segment {expected} is" if segment.seq == expected + 1 else f"{expected} to {segment.seq - 1} are"
            self._report(expected, Damage.MISSING, f"{gone} missing")
        elif segment.seq < expected:
            self._report(segment.seq, Damage.REORDERED, f"it comes after segment {self._last.seq}")
        elif segment.previous != self._last.hash:
            before = "the start of the chain" if expected == 1 else f"segment {self._last.seq}"
            self._report(segment.seq, Damage.UNLINKED, f"it was not written after {before} as that is now")
        if lines_of(segment) is None:
            self._report(segment.seq, Damage.CHANGED, "its records or its header are not what was written")
        self._hold_against_anchor(segment)
        self.segments += 1
        self.records += max(segment.count, 0)
        if segment.seq >= expected:
            self._last = segment.head

    def end(self, head: Head | None) -> None:
        """No segment is left, and `head` is what is stored as the shard's head."""
        last = self._last
        if head is None and last.seq:
            self._report(last.seq, Damage.HEAD, "the head of the shard is missing")
        elif head is not None and head.seq > last.seq:
            self._report(last.seq + 1, Damage.TRUNCATED, f"the head says that there are segments up to {head.seq}")
        elif head is not None and head.seq < last.seq:
            self._report(last.seq, Damage.HEAD, f"the head says that segment {head.seq} is the last")
        elif head is not None and head.hash != last.hash:
            self._report(last.seq, Damage.HEAD, "the head has another hash than the last segment")
        for seq, anchor in sorted(self._anchors.items()):
            if anchor.rewritten:
                self._report(seq, Damage.ANCHOR, "its anchor was written over or deleted")
            if seq > last.seq:
                self._report(last.seq + 1, Damage.TRUNCATED, f"segment {seq} is anchored, and is not there")

    def _hold_against_anchor(self, segment: Segment) -> None:
        anchor = self._anchors.get(segment.seq)
        if anchor is None:
            return
        self.anchored = max(self.anchored, segment.seq)
        if anchor.hash != segment.hash:
            self._report(segment.seq, Damage.ANCHOR, f"it is not the segment that was anchored at {anchor.time}")

    def _report(self, seq: int, damage: Damage, detail: str) -> None:
        if len(self.breaches) < self.MAX_BREACHES:
            self.breaches.append(Breach(self._shard, seq, damage, detail))


def verify(
    shard: str, segments: Iterable[Segment], head: Head | None, anchors: Iterable[Anchor] = ()
) -> Sequence[Breach]:
    """Every place where the chain of a shard is broken; none if it is whole."""
    check = ChainCheck(shard, anchors)
    for segment in segments:
        check.add(segment)
    check.end(head)
    return check.breaches
