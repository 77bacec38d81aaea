"""The circuit breaker on a clock of its own: when it opens, whom it lets through, what environments share."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.endpoint.circuit import Change, Circuit, circuit_name
from shared.domain.endpoint.config import BreakerSettings
from shared.domain.errors import CircuitOpen

NOW = 1_800_000_000.0
SETTINGS = BreakerSettings(window_s=10, min_calls=4, failure_rate=0.5, open_s=2)


def run(circuit: Circuit, succeeded: bool | None, now: float, others: float | None = None) -> Change | None:
    return circuit.record(circuit.admit(SETTINGS, now, others), succeeded, SETTINGS, now)


def admitted(circuit: Circuit, now: float, others: float | None = None) -> int | CircuitOpen:
    try:
        return circuit.admit(SETTINGS, now, others)
    except CircuitOpen as error:
        return error


def passes(circuit: Circuit, now: float, others: float | None = None) -> bool:
    return not isinstance(admitted(circuit, now, others), CircuitOpen)


def opened(now: float = NOW) -> Circuit:
    circuit = Circuit()
    assert [run(circuit, False, now) for _ in range(4)] == [None, None, None, Change(now + 2)]
    return circuit


def test_it_opens_when_enough_calls_failed() -> None:
    circuit = Circuit()
    outcomes = [True, False, True, True, False, False]
    assert [run(circuit, outcome, NOW) for outcome in outcomes] == [None] * 5 + [Change(NOW + 2)]
    with pytest.raises(CircuitOpen, match=r"tried again in 1\.5 s") as caught:
        circuit.admit(SETTINGS, NOW + 0.5)
    assert caught.value.retry_after_s == 1.5
    assert not circuit.is_closed()


def test_too_few_calls_never_open_it() -> None:
    circuit = Circuit()
    assert [run(circuit, False, NOW) for _ in range(3)] == [None] * 3
    assert passes(circuit, NOW)


def test_failures_that_are_too_few_or_too_long_ago_do_not_count() -> None:
    circuit = Circuit()
    for n in range(40):
        assert run(circuit, n % 3 != 2, NOW + n / 10) is None
    circuit = Circuit()
    for n in range(20):
        assert run(circuit, False, NOW + 3.4 * n) is None


def test_calls_that_say_nothing_are_not_counted() -> None:
    circuit = Circuit()
    for _ in range(3):
        run(circuit, False, NOW)
    for _ in range(10):
        assert run(circuit, None, NOW) is None
    assert run(circuit, False, NOW) == Change(NOW + 2)


def test_one_probe_at_a_time_decides() -> None:
    circuit = opened()
    assert not passes(circuit, NOW + 1.999)
    permit = circuit.admit(SETTINGS, NOW + 2)
    assert not passes(circuit, NOW + 2)
    assert circuit.record(permit, True, SETTINGS, NOW + 2.5) == Change(None)
    assert circuit.is_closed()
    assert [passes(circuit, NOW + 2.5) for _ in range(3)] == [True] * 3
    # The failures from before are forgotten.
    assert [run(circuit, False, NOW + 2.5) for _ in range(4)][:3] == [None] * 3


def test_a_probe_that_fails_opens_it_for_longer_up_to_eight_times() -> None:
    circuit, now = opened(), NOW
    pauses: list[float] = []
    for _ in range(6):
        now += 2 if not pauses else pauses[-1]
        change = run(circuit, False, now)
        assert change is not None
        assert change.open_until is not None
        pauses.append(change.open_until - now)
        assert not passes(circuit, change.open_until - 0.01)
    assert pauses == [4, 8, 16, 16, 16, 16]
    now += 16
    assert run(circuit, True, now) == Change(None)
    assert [run(circuit, False, now) for _ in range(4)][-1] == Change(now + 2)


def test_a_probe_that_never_returns_makes_room_for_another() -> None:
    circuit = opened()
    lost = circuit.admit(SETTINGS, NOW + 2)
    assert not passes(circuit, NOW + 3.9)
    second = circuit.admit(SETTINGS, NOW + 4)
    assert circuit.record(lost, True, SETTINGS, NOW + 4.1) is None
    assert not circuit.is_closed()
    assert circuit.record(second, True, SETTINGS, NOW + 4.2) == Change(None)


def test_a_probe_that_says_nothing_makes_room_at_once() -> None:
    circuit = opened()
    assert run(circuit, None, NOW + 2) is None
    assert run(circuit, True, NOW + 2) == Change(None)


def test_calls_from_before_it_opened_decide_nothing() -> None:
    circuit = Circuit()
    early = circuit.admit(SETTINGS, NOW)
    for _ in range(4):
        run(circuit, False, NOW)
    probe = circuit.admit(SETTINGS, NOW + 2)
    assert circuit.record(early, True, SETTINGS, NOW + 2) is None
    assert not circuit.is_closed()
    assert circuit.record(probe, True, SETTINGS, NOW + 2) == Change(None)
    assert circuit.record(early, False, SETTINGS, NOW + 2) is None


def test_what_others_say_opens_it() -> None:
    circuit = Circuit()
    assert not passes(circuit, NOW, NOW + 5)
    assert not passes(circuit, NOW + 4.9, NOW + 5)
    assert run(circuit, True, NOW + 5, NOW + 5) == Change(None)
    assert passes(circuit, NOW + 5, NOW + 5)
    assert passes(Circuit(), NOW, NOW - 1)


def test_where_others_closed_it_a_probe_may_go_at_once() -> None:
    circuit = Circuit()
    assert not passes(circuit, NOW, NOW + 5)
    assert run(circuit, True, NOW + 1, None) == Change(None)
    # Its own opening, which is not known yet where it is shared, is not taken for closed by others.
    own = opened()
    assert not passes(own, NOW + 1, None)
    assert not passes(own, NOW + 1.1, NOW + 2)
    assert passes(own, NOW + 1.2, None)


def test_what_is_read_late_does_not_open_it_again() -> None:
    circuit = Circuit()
    assert not passes(circuit, NOW, NOW + 5)
    assert run(circuit, True, NOW + 1) == Change(None)
    assert passes(circuit, NOW + 2, NOW + 5)
    assert not passes(circuit, NOW + 2, NOW + 6)  # this is new


def test_others_prolong_it() -> None:
    circuit = opened()
    assert not passes(circuit, NOW + 1, NOW + 6)
    assert not passes(circuit, NOW + 5.9, NOW + 6)
    assert passes(circuit, NOW + 6, NOW + 6)


def test_a_probe_that_fails_tells_nobody_what_they_know() -> None:
    circuit = Circuit()
    assert not passes(circuit, NOW, NOW + 2)
    probe = circuit.admit(SETTINGS, NOW + 2, NOW + 2)
    assert not passes(circuit, NOW + 2.1, NOW + 10)  # meanwhile another environment's probe failed
    assert circuit.record(probe, False, SETTINGS, NOW + 2.2) is None
    assert not passes(circuit, NOW + 9.9, NOW + 10)


def test_a_clock_that_is_wrong_elsewhere_does_not_stop_calls_for_good() -> None:
    circuit = Circuit()
    assert not passes(circuit, NOW, NOW + 1e9)
    assert not passes(circuit, NOW + 15.9, NOW + 1e9)
    assert run(circuit, True, NOW + 16, NOW + 1e9) == Change(None)
    assert passes(circuit, NOW + 17, NOW + 1e9)


def test_another_window_counts_anew() -> None:
    circuit = Circuit()
    for _ in range(3):
        run(circuit, False, NOW)
    other = BreakerSettings(window_s=20, min_calls=4, failure_rate=0.5, open_s=2)
    assert circuit.record(circuit.admit(other, NOW), False, other, NOW) is None


def told(circuit: Circuit, now: float, *calls: tuple[str, bool]) -> bool:
    """Whether these calls of tenants opened it."""
    changes = [
        circuit.record(circuit.admit(SETTINGS, now), succeeded, SETTINGS, now, tenant) for tenant, succeeded in calls
    ]
    return any(changes)


def test_the_failures_of_one_tenant_open_nothing_while_another_is_served() -> None:
    circuit = Circuit()
    evil, victim = ("evil", False), ("victim", True)
    assert not told(circuit, NOW, victim, *[evil] * 50, victim, *[evil] * 50)
    assert not told(circuit, NOW + 8, *[evil] * 50)
    # The other one has not called for a whole window: it may fare no better.
    assert told(circuit, NOW + 11, evil)


def test_the_failures_of_two_tenants_open_it_whoever_else_is_served() -> None:
    circuit = Circuit()
    calls = [("a", False), ("c", True), ("a", False), ("d", True), ("a", False)]
    assert not told(circuit, NOW, *calls)
    assert told(circuit, NOW + 3, ("b", False))


def test_names_of_circuits() -> None:
    assert circuit_name("gpu", "main") != circuit_name("gpu", "other") != circuit_name("main", "gpu")


_EVENTS = st.lists(
    st.tuples(
        st.floats(0, 3),  # seconds since the event before
        st.sampled_from([True, False, None, "lost"]),
        st.one_of(st.none(), st.floats(-5, 30)),  # what others say, relative to now
    ),
    max_size=80,
)


@settings(max_examples=200, deadline=None)
@given(_EVENTS)
def test_whatever_happens_it_recovers_and_lets_one_probe_through(
    events: list[tuple[float, bool | str | None, float | None]],
) -> None:
    circuit, now = Circuit(), NOW
    for passed_s, outcome, others in events:
        now += passed_s
        before = circuit.is_closed()
        permit = admitted(circuit, now, None if others is None else now + others)
        if isinstance(permit, CircuitOpen):
            assert permit.retry_after_s is not None
            assert 0 < permit.retry_after_s <= 16
            continue
        if not circuit.is_closed():
            assert not before or others is None
            assert not passes(circuit, now)  # the one probe is under way
        if outcome != "lost":
            change = circuit.record(permit, outcome, SETTINGS, now)  # type: ignore[arg-type]
            assert change is None or (change.open_until is None) == circuit.is_closed()
    # The backend is well again: after the longest pause and a lost probe, a call closes it.
    assert run(circuit, True, now + 20) in (None, Change(None))
    assert circuit.is_closed()
