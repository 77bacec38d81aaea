import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from infra.local.message_shelf import (
    MAX_VISIBILITY_MS,
    HeldTooLong,
    InvalidReceipt,
    NoSuchReceipt,
    NotInFlight,
    Shelf,
)


@dataclass
class Message:
    id: str
    group_id: str | None = None
    delayed_until: float = 0.0
    receipt_handle: str | None = None
    approximate_receive_count: int = 0
    approximate_first_receive_timestamp: int | None = None


HOLD_MS = 60_000


def filled(*groups: str | None) -> Shelf[Message]:
    shelf: Shelf[Message] = Shelf()
    for number, group in enumerate(groups):
        shelf.put(Message(f"{group}-{number}", group))
    return shelf


def take(shelf: Shelf[Message], count: int = 1, hold_ms: float = HOLD_MS) -> list[Message]:
    return shelf.take(count, hold_ms, max_receives=None)[0]


def receipt(message: Message) -> str:
    assert message.receipt_handle is not None
    return message.receipt_handle


def test_one_message_of_another_tenant_does_not_wait_for_a_thousand() -> None:
    shelf = filled(*["a"] * 1000)
    take(shelf, 4)
    shelf.put(Message("b-0", "b"))
    assert [message.id for message in take(shelf)] == ["b-0"]


def test_groups_with_as_many_in_flight_take_turns() -> None:
    shelf = filled(*["a"] * 5, *["b"] * 5, *["c"] * 5)
    order = []
    for _ in range(9):
        (message,) = take(shelf)
        order.append(message.group_id)
        shelf.delete(receipt(message))
    assert order == ["a", "b", "c"] * 3
    shelf = filled(*["a"] * 5, *["b"] * 5, None, None)
    assert Counter(message.group_id for message in take(shelf, 6)) == {"a": 2, "b": 2, None: 2}


def test_the_group_with_the_fewest_in_flight_comes_first() -> None:
    shelf = filled("a", "a", "a", "b", "b", "b")
    a = [message for message in take(shelf, 4) if message.group_id == "a"]
    for message in a:
        shelf.delete(receipt(message))
    assert [message.group_id for message in take(shelf)] == ["a"]


def test_messages_of_one_group_keep_their_order_and_what_comes_back_is_behind_them() -> None:
    shelf = filled("a", "a", "a")
    (first,) = take(shelf)
    shelf.hold(receipt(first), 0)
    assert [message.id for message in take(shelf, 3)] == ["a-1", "a-2", "a-0"]


def test_a_message_is_held_for_its_time_and_then_comes_again_with_another_receipt() -> None:
    shelf = filled("a")
    (first,) = take(shelf, hold_ms=30)
    assert take(shelf) == []
    assert shelf.counts() == (0, 1, 0)
    while not (again := take(shelf)):
        shelf.wait(10)
    assert (again[0].id, again[0].approximate_receive_count) == ("a-0", 2)
    assert again[0].approximate_first_receive_timestamp == first.approximate_first_receive_timestamp
    # The first receiver's time is over: it changes nothing any more.
    shelf.delete(receipt(first))
    with pytest.raises(NoSuchReceipt):
        shelf.hold(receipt(first), 1)
    assert shelf.counts() == (0, 1, 0)
    shelf.delete(receipt(again[0]))
    shelf.delete(receipt(again[0]))
    assert shelf.counts() == (0, 0, 0)


def test_a_receipt_is_good_until_somebody_else_has_received_the_message() -> None:
    shelf = filled("a", "a")
    (first,) = take(shelf)
    shelf.hold(receipt(first), 0)
    with pytest.raises(NotInFlight):
        shelf.hold(receipt(first), 1000)
    shelf.delete(receipt(first))
    assert [message.id for message in take(shelf, 10)] == ["a-1"]


def test_what_no_queue_has_given_out_is_refused() -> None:
    shelf = filled("a")
    (message,) = take(shelf)
    for text in ("", "nonsense", "!!", "YQ=="):
        with pytest.raises(InvalidReceipt):
            shelf.delete(text)
    with pytest.raises(HeldTooLong):
        shelf.hold(receipt(message), MAX_VISIBILITY_MS + 1000)


def test_a_message_received_too_often_is_handed_out_as_dead_and_its_neighbours_are_not() -> None:
    shelf = filled("a", "b")
    for message in take(shelf, 2):
        if message.group_id == "a":
            shelf.hold(receipt(message), 0)
        else:
            shelf.delete(receipt(message))
    shelf.put(Message("c", "c"))
    messages, dead = shelf.take(10, HOLD_MS, max_receives=1)
    assert ([message.id for message in messages], [message.id for message in dead]) == (["c"], ["a-0"])
    assert shelf.counts() == (0, 1, 0)


def test_a_delayed_message_appears_when_its_time_has_come() -> None:
    shelf: Shelf[Message] = Shelf()
    shelf.put(Message("late", "a", delayed_until=time.time() * 1000 + 30))
    assert (take(shelf), shelf.counts()) == ([], (0, 0, 1))
    while not (messages := take(shelf)):
        shelf.wait(10)
    assert messages[0].id == "late"


def test_a_message_held_for_no_time_is_given_out_once_in_a_call() -> None:
    shelf = filled("a")
    assert len(take(shelf, 10, hold_ms=0)) == 1
    assert len(take(shelf, 10)) == 1


def test_many_receivers_get_each_message_once_and_nothing_is_left() -> None:
    shelf = filled(*(f"g{number % 7}" for number in range(3000)))

    def drain(_: int) -> list[str]:
        seen: list[str] = []
        while messages := take(shelf, 3):
            for message in messages:
                seen.append(message.id)
                shelf.delete(receipt(message))
        return seen

    with ThreadPoolExecutor(8) as pool:
        seen = Counter(name for names in pool.map(drain, range(8)) for name in names)
    assert len(seen) == 3000
    assert set(seen.values()) == {1}
    assert shelf.counts() == (0, 0, 0)


def test_a_receiver_that_waits_is_woken_by_a_message() -> None:
    shelf: Shelf[Message] = Shelf()

    def receive(_: int) -> list[Message]:
        while not (messages := take(shelf)):
            shelf.wait(30)
        return messages

    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(receive, number) for number in range(2)]
        shelf.put(Message("one"))
        shelf.put(Message("two"))
        assert {future.result(timeout=30)[0].id for future in waiting} == {"one", "two"}


def test_what_is_cleared_is_gone() -> None:
    shelf = filled("a", "a", "b")
    (held,) = take(shelf)
    shelf.clear()
    assert (take(shelf, 10), shelf.counts()) == ([], (0, 0, 0))
    with pytest.raises(NoSuchReceipt):
        shelf.hold(receipt(held), 1)


def test_what_is_out_of_date_does_not_pile_up() -> None:
    shelf = filled("a")
    (message,) = take(shelf)
    for _ in range(10_000):
        shelf.hold(receipt(message), HOLD_MS)
    assert len(shelf._due) < 2000
    for _ in range(10_000):
        shelf.hold(receipt(message), 0)
        (message,) = take(shelf)
    assert len(shelf._order) < 2000
