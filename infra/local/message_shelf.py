"""The messages of one standard queue: one receiver for each, turns between groups, every step in logarithmic time.

Sources: "Amazon SQS fair queues", "Amazon SQS visibility timeout" and the API's reference, of the SQS developer guide.
Times are milliseconds since the epoch, as in SQS's own attributes.
"""

import base64
import binascii
import copy
import heapq
import itertools
import secrets
import time
from collections import Counter, deque
from enum import Enum
from threading import Condition
from typing import Final, Generic, Protocol, TypeVar

MAX_VISIBILITY_MS: Final = 12 * 3600 * 1000
# The heaps keep what is out of date until it comes up; they are made anew when that is most of them.
_HEAP_SLACK: Final = 1024


class ShelfMessage(Protocol):
    """What a message must have; the receipt and the two counters are set here."""

    id: str
    group_id: str | None
    delayed_until: float
    receipt_handle: str | None
    approximate_receive_count: int
    approximate_first_receive_timestamp: int | None


_Message = TypeVar("_Message", bound=ShelfMessage)


class NoSuchReceipt(Exception):
    """The message of this receipt is gone, or somebody else has received it since."""


class NotInFlight(Exception):
    """The message can be received already."""


class HeldTooLong(Exception):
    """The message would be held for more than twelve hours after its receipt."""


class InvalidReceipt(Exception):
    """No queue has given out this receipt."""


class _State(Enum):
    WAITING = "waiting"
    HELD = "held"
    DELAYED = "delayed"
    GONE = "gone"


class _Entry(Generic[_Message]):
    """A message; `due_ms` is when it comes back (held) or appears (delayed)."""

    __slots__ = ("due_ms", "group", "message", "received_ms", "state")

    def __init__(self, message: _Message, group: "_Group[_Message]") -> None:
        self.message = message
        self.group = group
        self.state = _State.GONE
        self.due_ms = 0.0
        self.received_ms = 0.0


class _Group(Generic[_Message]):
    """The messages of one `MessageGroupId`; those without one are a group, too."""

    __slots__ = ("held", "name", "rank", "size", "turn", "waiting", "waiting_count")

    def __init__(self, name: str, turn: int) -> None:
        self.name = name
        self.turn = turn
        self.size = 0
        self.held = 0
        # What is deleted while it waits stays in line until it is its turn; the count is without it.
        self.waiting: deque[_Entry[_Message]] = deque()
        self.waiting_count = 0
        self.rank: tuple[int, int, int] | None = None


class Shelf(Generic[_Message]):
    """Gives a message to one receiver at a time; safe to use from many threads.

    The next message is one of the group with the fewest in flight; groups with equally many take turns.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._entries: dict[str, _Entry[_Message]] = {}
        self._groups: dict[str, _Group[_Message]] = {}
        self._counts: Counter[_State] = Counter()
        self._serial = itertools.count(1)
        # (messages in flight, last turn, serial, group): the next group to serve is on top.
        self._order: list[tuple[int, int, int, _Group[_Message]]] = []
        self._due: list[tuple[float, int, _Entry[_Message]]] = []

    def put(self, message: _Message) -> None:
        """Take a message in."""
        with self._changed:
            entry = _Entry(message, self._group(message.group_id or ""))
            entry.group.size += 1
            self._entries[message.id] = entry
            if message.delayed_until > _now_ms():
                self._suspend(entry, _State.DELAYED, message.delayed_until)
            else:
                self._offer(entry)
            self._changed.notify_all()

    def take(self, count: int, hold_ms: float, *, max_receives: int | None) -> tuple[list[_Message], list[_Message]]:
        """Up to `count` messages, held for `hold_ms`, as copies; and those received too often already, removed."""
        now = _now_ms()
        taken: list[_Entry[_Message]] = []
        dead: list[_Message] = []
        with self._changed:
            self._settle(now)
            while len(taken) < count and (entry := self._next()) is not None:
                if max_receives is not None and entry.message.approximate_receive_count >= max_receives:
                    self._remove(entry)
                    dead.append(entry.message)
                else:
                    self._hold(entry, now, hold_ms)
                    taken.append(entry)
            copies = [copy.copy(entry.message) for entry in taken]
            if hold_ms <= 0:
                for entry in taken:
                    self._offer(entry)
        return copies, dead

    def wait(self, limit_s: float) -> None:
        """Until there may be something to take, but no longer than `limit_s`."""
        with self._changed:
            now = _now_ms()
            self._settle(now)
            if not self._counts[_State.WAITING]:
                due_s = (self._due[0][0] - now) / 1000 if self._due else limit_s
                self._changed.wait(max(0.0, min(limit_s, due_s)))

    def delete(self, receipt: str) -> None:
        """Remove the message of a receipt; one that is gone, or was received again since, stays as it is.

        Raises:
            InvalidReceipt: as named.

        """
        with self._changed:
            entry = self._entries.get(_message_id(receipt))
            if entry is not None and entry.message.receipt_handle == receipt:
                self._remove(entry)

    def hold(self, receipt: str, hold_ms: float) -> None:
        """Keep the message of a receipt for so long from now; 0 gives it back.

        Raises:
            InvalidReceipt, NoSuchReceipt, NotInFlight, HeldTooLong: as named.

        """
        with self._changed:
            now = _now_ms()
            self._settle(now)
            entry = self._entries.get(_message_id(receipt))
            if entry is None or entry.message.receipt_handle != receipt:
                raise NoSuchReceipt
            if entry.state is not _State.HELD:
                raise NotInFlight
            if now + hold_ms > entry.received_ms + MAX_VISIBILITY_MS:
                raise HeldTooLong
            if hold_ms > 0:
                self._schedule(entry, now + hold_ms)
            else:
                self._offer(entry)
            self._changed.notify_all()

    def clear(self) -> None:
        """Remove everything."""
        with self._changed:
            for entry in tuple(self._entries.values()):
                self._remove(entry)

    def counts(self) -> tuple[int, int, int]:
        """How many messages can be received, are in flight, and are delayed."""
        with self._changed:
            self._settle(_now_ms())
            return self._counts[_State.WAITING], self._counts[_State.HELD], self._counts[_State.DELAYED]

    # ------------------------------------------------------------ with the lock held
    def _group(self, name: str) -> _Group[_Message]:
        group = self._groups.get(name)
        if group is None:
            # Behind those that wait already and have as few in flight.
            group = self._groups[name] = _Group(name, next(self._serial))
        return group

    def _next(self) -> _Entry[_Message] | None:
        """The message whose turn it is, out of line."""
        while self._order:
            held, turn, serial, group = self._order[0]
            if group.rank == (held, turn, serial):
                while group.waiting:
                    entry = group.waiting.popleft()
                    if entry.state is _State.WAITING:
                        return entry
                group.rank = None
            heapq.heappop(self._order)
        return None

    def _settle(self, now: float) -> None:
        """Offer what is due."""
        while self._due and self._due[0][0] <= now:
            due_ms, _, entry = heapq.heappop(self._due)
            if entry.state in {_State.HELD, _State.DELAYED} and entry.due_ms == due_ms:
                self._offer(entry)

    def _offer(self, entry: _Entry[_Message]) -> None:
        """Behind the other messages of its group: one that fails again and again is in nobody's way."""
        self._leave(entry)
        self._enter(entry, _State.WAITING)
        entry.group.waiting.append(entry)
        entry.group.waiting_count += 1
        self._rank(entry.group)

    def _hold(self, entry: _Entry[_Message], now: float, hold_ms: float) -> None:
        message = entry.message
        message.approximate_first_receive_timestamp = message.approximate_first_receive_timestamp or int(now)
        message.approximate_receive_count += 1
        message.receipt_handle = _new_receipt(message.id)
        entry.received_ms = now
        entry.group.turn = next(self._serial)
        self._suspend(entry, _State.HELD, now + hold_ms)

    def _suspend(self, entry: _Entry[_Message], state: _State, due_ms: float) -> None:
        self._leave(entry)
        self._enter(entry, state)
        if state is _State.HELD:
            entry.group.held += 1
        self._schedule(entry, due_ms)
        self._rank(entry.group)

    def _schedule(self, entry: _Entry[_Message], due_ms: float) -> None:
        entry.due_ms = due_ms
        heapq.heappush(self._due, (due_ms, next(self._serial), entry))
        if len(self._due) > 2 * len(self._entries) + _HEAP_SLACK:
            away = [each for each in self._entries.values() if each.state in {_State.HELD, _State.DELAYED}]
            self._due = [(each.due_ms, next(self._serial), each) for each in away]
            heapq.heapify(self._due)

    def _rank(self, group: _Group[_Message]) -> None:
        if not group.waiting_count:
            group.rank = None
            return
        if group.rank is not None and group.rank[:2] == (group.held, group.turn):
            return
        group.rank = (group.held, group.turn, next(self._serial))
        heapq.heappush(self._order, (*group.rank, group))
        if len(self._order) > 2 * len(self._groups) + _HEAP_SLACK:
            self._order = [(*each.rank, each) for each in self._groups.values() if each.rank is not None]
            heapq.heapify(self._order)

    def _remove(self, entry: _Entry[_Message]) -> None:
        self._leave(entry)
        del self._entries[entry.message.id]
        group = entry.group
        group.size -= 1
        self._rank(group)
        if not group.size:
            del self._groups[group.name]

    def _enter(self, entry: _Entry[_Message], state: _State) -> None:
        entry.state = state
        self._counts[state] += 1

    def _leave(self, entry: _Entry[_Message]) -> None:
        if entry.state is _State.GONE:
            return
        self._counts[entry.state] -= 1
        if entry.state is _State.HELD:
            entry.group.held -= 1
        elif entry.state is _State.WAITING:
            entry.group.waiting_count -= 1
        entry.state = _State.GONE


def _now_ms() -> float:
    return time.time() * 1000


def _new_receipt(message_id: str) -> str:
    return base64.b64encode(f"{message_id} {secrets.token_hex(48)}".encode()).decode()


def _message_id(receipt: str) -> str:
    try:
        message_id, _, secret = base64.b64decode(receipt, validate=True).decode().partition(" ")
    except (binascii.Error, ValueError):
        raise InvalidReceipt from None
    if not secret:
        raise InvalidReceipt
    return message_id
