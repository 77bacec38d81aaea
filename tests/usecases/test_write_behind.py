"""Calls on a thread of their own: in order, one at a time, and what they raise is not lost."""

from threading import Event, get_ident

import pytest

from shared.usecases.write_behind import WriteBehind


def test_calls_are_made_in_order_on_another_thread_and_all_of_them_before_the_end() -> None:
    made: list[tuple[int, int]] = []
    with WriteBehind(lambda number: made.append((number, get_ident()))) as behind:
        for number in range(100):
            behind(number)
    assert [number for number, _ in made] == list(range(100))
    assert {thread for _, thread in made} - {get_ident()} == {made[0][1]}


def test_one_call_runs_beside_the_caller_and_no_more() -> None:
    going, begun = Event(), []

    def write(number: int) -> None:
        begun.append(number)
        assert going.wait(10)

    with WriteBehind(write) as behind:
        behind(0)  # does not wait
        assert begun in ([], [0])
        going.set()
        behind(1)
        assert begun[0] == 0
    assert begun == [0, 1]


def test_what_a_call_raises_comes_with_the_next_one_or_at_the_end() -> None:
    def write(number: int) -> None:
        if number == 1:
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"), WriteBehind(write) as behind:  # noqa: PT012  # the third call raises
        behind(0)
        behind(1)
        behind(2)
    with pytest.raises(OSError, match="no room"), WriteBehind(write) as behind:
        behind(1)


def test_an_error_of_the_caller_is_not_hidden_by_one_of_the_last_call() -> None:
    def write() -> None:
        raise OSError("no room")

    with pytest.raises(KeyError, match="mine"), WriteBehind(write) as behind:  # noqa: PT012  # it is raised inside
        behind()
        raise KeyError("mine")
