"""A signal reaches what belongs to its work, on other threads too, and nothing else."""

from contextvars import copy_context
from threading import Thread

from shared.domain.stop_signal import StopSignal, stop_signal, stoppable


def test_what_is_registered_is_told_and_what_comes_later_at_once() -> None:
    signal, told = StopSignal(), []
    with signal.calling(lambda: told.append("before")):
        assert not told
        signal.set()
        assert told == ["before"]
    with signal.calling(lambda: told.append("after")):
        assert told == ["before", "after"]
    signal.set()  # nothing is registered any more
    assert told == ["before", "after"]


def test_a_context_has_the_signal_of_its_work() -> None:
    signal, found = StopSignal(), []
    assert stop_signal() is None
    with stoppable(signal):
        context = copy_context()
        assert stop_signal() is signal
    assert stop_signal() is None
    worker = Thread(target=lambda: context.run(lambda: found.append(stop_signal())))
    worker.start()
    worker.join()
    assert found == [signal]
