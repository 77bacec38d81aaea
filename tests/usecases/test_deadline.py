"""Calls on threads of their own: given up at the deadline, whatever they do."""

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from threading import Event
from time import sleep
from typing import NoReturn

import pytest

from shared.domain.errors import BackendTimeout, BackendUnavailable, Overloaded
from shared.usecases.deadline import Call, DeadlineRunner

PATIENCE_S = 20.0


def wait_until_idle(runner: DeadlineRunner, backend: str) -> None:
    for _ in range(2000):
        if not runner.under_way(backend):
            return
        sleep(0.01)
    raise AssertionError("calls are still under way")


def test_values_and_errors_come_back() -> None:
    runner = DeadlineRunner()
    assert runner.run("b", lambda: 42, PATIENCE_S) == 42
    assert runner.run("b", lambda: None, PATIENCE_S) is None

    def fail() -> NoReturn:
        raise BackendUnavailable("Not there.")

    with pytest.raises(BackendUnavailable, match="Not there"):
        runner.run("b", fail, PATIENCE_S)
    assert runner.run("b", lambda: 43, PATIENCE_S) == 43
    wait_until_idle(runner, "b")


def test_a_call_that_hangs_is_given_up_and_its_late_result_told() -> None:
    runner, go, told = DeadlineRunner(), Event(), SimpleQueue[Call[str]]()

    def hang() -> str:
        go.wait(PATIENCE_S)
        return "late"

    with pytest.raises(BackendTimeout):
        runner.run("b", hang, 0.05, late=told.put)
    assert runner.under_way("b") == 1
    assert told.empty()
    go.set()
    call = told.get(timeout=PATIENCE_S)
    assert (call.value, call.error) == ("late", None)
    assert call.ms >= 50
    wait_until_idle(runner, "b")


def test_without_time_nothing_is_called() -> None:
    called: list[int] = []
    for deadline_s in (0.0, -1.0):
        with pytest.raises(BackendTimeout):
            DeadlineRunner().run("b", lambda: called.append(1), deadline_s)
    assert not called


def test_a_backend_whose_calls_do_not_end_takes_no_more_of_them_and_others_go_on() -> None:
    runner, go = DeadlineRunner(), Event()
    for _ in range(8):
        with pytest.raises(BackendTimeout):
            runner.run("dead", lambda: go.wait(PATIENCE_S), 0.01)
    with pytest.raises(Overloaded, match="8 calls of dead"):
        runner.run("dead", lambda: go.wait(PATIENCE_S), PATIENCE_S)
    assert runner.run("healthy", lambda: 1, PATIENCE_S) == 1
    go.set()
    wait_until_idle(runner, "dead")
    assert runner.run("dead", lambda: 2, PATIENCE_S) == 2


def test_all_threads_together_are_bounded() -> None:
    runner, go = DeadlineRunner(threads=3), Event()
    for n in range(3):
        with pytest.raises(BackendTimeout):
            runner.run(f"b{n}", lambda: go.wait(PATIENCE_S), 0.01)
    with pytest.raises(Overloaded):
        runner.run("another", lambda: 1, PATIENCE_S)
    go.set()
    for n in range(3):
        wait_until_idle(runner, f"b{n}")
    assert runner.run("another", lambda: 1, PATIENCE_S) == 1


def test_threads_are_used_again_and_named_after_what_they_call() -> None:
    runner = DeadlineRunner()
    seen = {runner.run("m/gpu", threading.current_thread, PATIENCE_S) for _ in range(50)}
    assert len(seen) == 1
    assert runner.run("m/gpu", lambda: threading.current_thread().name, PATIENCE_S) == "call m/gpu"
    assert runner.run("m/other", lambda: threading.current_thread().name, PATIENCE_S) == "call m/other"
    assert all(thread.daemon for thread in seen)


def test_few_idle_threads_are_kept() -> None:
    runner, go = DeadlineRunner(per_backend=6, idle=2), Event()
    threads: SimpleQueue[threading.Thread] = SimpleQueue()

    def note() -> None:
        threads.put(threading.current_thread())
        go.wait(PATIENCE_S)

    done: SimpleQueue[Call[None]] = SimpleQueue()
    for _ in range(6):
        runner.start("b", note, done)
    started = [threads.get(timeout=PATIENCE_S) for _ in range(6)]
    go.set()
    for _ in range(6):
        done.get(timeout=PATIENCE_S)
    for _ in range(1000):
        if sum(thread.is_alive() for thread in started) == 2:
            break
        sleep(0.01)
    assert sum(thread.is_alive() for thread in started) == 2


def test_everyone_gets_their_own_result() -> None:
    runner = DeadlineRunner(per_backend=16)

    def answer(n: int) -> int:
        sleep(n % 3 / 1000)
        return n

    def one(n: int) -> bool:
        return runner.run("b", lambda: answer(n), PATIENCE_S) == n

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(400)))
    wait_until_idle(runner, "b")


def test_a_call_that_ends_at_the_last_moment_is_either_given_or_given_up() -> None:
    runner = DeadlineRunner(per_backend=64)
    late: list[Call[None]] = []
    given = 0
    for _ in range(60):
        try:
            runner.run("b", lambda: sleep(0.002), 0.002, late=late.append)
            given += 1
        except BackendTimeout:
            continue
    wait_until_idle(runner, "b")
    assert given + len(late) == 60


class _Payload:
    """Something large that a call holds."""


def test_nothing_of_a_call_is_held_once_it_has_ended() -> None:
    runner = DeadlineRunner()

    def fail(payload: _Payload) -> NoReturn:
        raise BackendUnavailable(f"Not there: {payload}.")

    def call(*, fails: bool) -> "weakref.ref[_Payload]":
        payload = _Payload()
        with suppress(BackendUnavailable):
            runner.run("b", lambda: fail(payload) if fails else payload, PATIENCE_S)
        return weakref.ref(payload)

    gc.disable()
    try:
        held = [call(fails=fails) for fails in (True, False) * 3]
        wait_until_idle(runner, "b")
        runner.run("b", lambda: None, PATIENCE_S)
        alive = [one() is not None for one in held]
    finally:
        gc.enable()
    assert not any(alive)


def test_a_callback_that_fails_takes_no_thread_with_it(caplog: pytest.LogCaptureFixture) -> None:
    runner, go = DeadlineRunner(), Event()

    def fail(_call: Call[bool]) -> None:
        raise RuntimeError("the callback is broken")

    with pytest.raises(BackendTimeout):
        runner.run("b", lambda: go.wait(PATIENCE_S), 0.01, late=fail)
    go.set()
    wait_until_idle(runner, "b")
    assert runner.run("b", lambda: 1, PATIENCE_S) == 1
    assert "late result of b" in caplog.text


def test_brief_calls_have_half_of_the_places_and_of_the_threads() -> None:
    runner, go = DeadlineRunner(threads=12), Event()
    done: SimpleQueue[Call[bool]] = SimpleQueue()

    def start(backend: str, *, brief: bool) -> bool:
        try:
            runner.start(backend, lambda: go.wait(PATIENCE_S), done, brief=brief)
        except Overloaded:
            return False
        return True

    assert [start("a", brief=True) for _ in range(5)] == [True] * 4 + [False]
    assert [start("b", brief=True) for _ in range(3)] == [True] * 2 + [False]
    assert [start("a", brief=False) for _ in range(5)] == [True] * 4 + [False]
    go.set()
    for backend in ("a", "b"):
        wait_until_idle(runner, backend)
    assert runner.run("a", lambda: 1, PATIENCE_S, brief=True) == 1
