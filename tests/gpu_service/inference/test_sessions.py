"""Stateful sessions: whose they are, what they carry, and what bounds them."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_service.inference.sessions import (
    Session,
    SessionBusy,
    SessionNotFound,
    SessionsFull,
    SessionStore,
    StateTooLarge,
)
from shared.domain.dtypes import DType
from shared.domain.errors import WrongShape
from shared.domain.serving import StateTensor
from shared.domain.tensors import Array, bytes_tensor

STATES = (StateTensor("h", "h_out", DType.FP32, (None, 4)), StateTensor("c", "c_out", DType.FP32, (2, None)))


def numbers(*shape: int, value: float = 0.0) -> Array:
    return np.full(shape, value, dtype=np.float32)


def opened(store: SessionStore, tenant: str = "t", now: float = 0.0) -> Session:
    session = store.open(tenant, "m", STATES, now)
    store.release(session)
    return session


def run(store: SessionStore, session: Session, value: float = 1.0, rows: int = 1, size: int = 4) -> dict[str, Array]:
    outputs = {"y": numbers(rows, 1), "h_out": numbers(rows, size, value=value), "c_out": numbers(2, rows)}
    return store.finish(session, outputs, rows)


def test_the_state_goes_from_one_request_to_the_next() -> None:
    store = SessionStore()
    session = store.open("t", "m", STATES, 0.0)
    assert session.with_state({"x": numbers(1)}, 1).keys() == {"x"}
    assert session.outputs_with_state(("y",)) == ("y", "h_out", "c_out")
    assert run(store, session, 7.0).keys() == {"y"}
    again = store.acquire(session.id, "t", "m", 1.0)
    inputs = again.with_state({"x": numbers(1)}, 1)
    assert set(inputs) == {"x", "h", "c"}
    assert inputs["h"].tolist() == [[7.0] * 4]
    run(store, again, 8.0)
    assert store.acquire(session.id, "t", "m", 1.0).with_state({}, 1)["h"].tolist() == [[8.0] * 4]


def test_a_failed_request_leaves_the_state_as_it_was() -> None:
    store = SessionStore()
    session = opened(store)
    run(store, store.acquire(session.id, "t", "m", 0.0), 7.0)
    store.release(store.acquire(session.id, "t", "m", 0.0))
    assert store.acquire(session.id, "t", "m", 0.0).with_state({}, 1)["h"].tolist() == [[7.0] * 4]


def test_the_rows_of_a_session_stay() -> None:
    store = SessionStore()
    session = opened(store)
    run(store, store.acquire(session.id, "t", "m", 0.0), rows=2)
    again = store.acquire(session.id, "t", "m", 0.0)
    with pytest.raises(WrongShape, match="2 rows; the request has 3"):
        again.with_state({"x": numbers(3)}, 3)


def test_ids_and_header_are_as_the_api_says() -> None:
    """Patterns of SessionIdHeader and NewSessionResponseHeader, Amazon SageMaker Runtime API reference."""
    session = opened(SessionStore())
    assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*", session.id)
    assert re.fullmatch(
        r"[a-zA-Z0-9](-*[a-zA-Z0-9])*;\sExpires=[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", session.header
    )
    assert len(session.header) <= 256
    assert len({opened(SessionStore()).id for _ in range(100)}) == 100


@pytest.mark.parametrize(("tenant", "model"), [("u", "m"), ("", "m"), ("t", "n")])
def test_a_session_is_its_tenants_and_its_models(tenant: str, model: str) -> None:
    store = SessionStore()
    session = opened(store)
    for call in (store.acquire, store.close):
        with pytest.raises(SessionNotFound):
            call(session.id, tenant, model, 0.0)
    assert len(store) == 1


@pytest.mark.parametrize("session_id", ["", "NEW_SESSION", "0" * 64, "\0"])
def test_unknown_ids_are_refused(session_id: str) -> None:
    store = SessionStore()
    opened(store)
    with pytest.raises(SessionNotFound):
        store.acquire(session_id, "t", "m", 0.0)


def test_one_request_at_a_time() -> None:
    store = SessionStore()
    session = opened(store)
    store.acquire(session.id, "t", "m", 0.0)
    for call in (store.acquire, store.close):
        with pytest.raises(SessionBusy):
            call(session.id, "t", "m", 0.0)
    store.release(session)
    store.close(session.id, "t", "m", 0.0)
    with pytest.raises(SessionNotFound):
        store.acquire(session.id, "t", "m", 0.0)
    assert (len(store), store.nbytes) == (0, 0)


def test_sessions_end() -> None:
    store = SessionStore(ttl_s=10.0)
    session = opened(store, now=100.0)
    store.release(store.acquire(session.id, "t", "m", 109.9))
    with pytest.raises(SessionNotFound):
        store.acquire(session.id, "t", "m", 110.0)
    opened(store, now=111.0)
    assert len(store) == 1


def test_a_session_at_work_ends_once_it_is_done() -> None:
    store = SessionStore(ttl_s=10.0)
    session = store.open("t", "m", STATES, 0.0)
    store.sweep(20.0)
    run(store, session)
    store.sweep(20.0)
    assert (len(store), store.nbytes) == (0, 0)


def test_the_tenant_with_the_most_sessions_loses_its_oldest() -> None:
    store = SessionStore(max_sessions=4)
    first = opened(store, "small")
    many = [opened(store, "large") for _ in range(3)]
    store.release(store.acquire(many[0].id, "large", "m", 0.0))
    opened(store, "small")
    store.acquire(first.id, "small", "m", 0.0)
    store.acquire(many[0].id, "large", "m", 0.0)
    store.acquire(many[2].id, "large", "m", 0.0)
    with pytest.raises(SessionNotFound):
        store.acquire(many[1].id, "large", "m", 0.0)


def test_no_room_while_all_are_at_work() -> None:
    store = SessionStore(max_sessions=2)
    for _ in range(2):
        store.open("t", "m", STATES, 0.0)
    with pytest.raises(SessionsFull):
        store.open("t", "m", STATES, 0.0)


def test_a_state_that_never_fits_ends_its_session() -> None:
    store = SessionStore(max_bytes=1000)
    session = store.open("t", "m", STATES, 0.0)
    with pytest.raises(StateTooLarge):
        run(store, session, size=1000)
    assert (len(store), store.nbytes) == (0, 0)


def test_bytes_are_bounded() -> None:
    store = SessionStore(max_bytes=1000)
    sessions = []
    for _ in range(5):
        session = store.open("t", "m", STATES, 0.0)
        run(store, session, size=100)
        sessions.append(session)
    assert len(store) == 2
    assert store.nbytes == sum(session.nbytes for session in sessions[-2:])
    for session in sessions[-2:]:
        store.acquire(session.id, "t", "m", 0.0)
    another = store.open("t", "m", STATES, 0.0)
    with pytest.raises(SessionsFull):
        run(store, another, size=100)
    assert len(store) == 2


def test_a_session_keeps_no_more_than_its_own_bytes_and_nobody_changes_them() -> None:
    store = SessionStore()
    session = opened(store)
    whole = numbers(100, 4)
    state = (StateTensor("h", "h_out", DType.FP32, (None, 4)), StateTensor("s", "s_out", DType.BYTES, (None,)))
    session = store.open("t", "m", state, 0.0)
    store.finish(session, {"h_out": whole[:1], "s_out": bytes_tensor([b"abc"])}, 1)
    kept = session.with_state({}, 1)["h"]
    whole[:] = 9
    assert kept.base is None
    assert kept.tolist() == [[0.0] * 4]
    with pytest.raises(ValueError, match="read-only"):
        kept[0, 0] = 1
    assert store.nbytes == 16 + 51


def test_an_unloaded_model_takes_its_sessions_along() -> None:
    store = SessionStore()
    working = store.open("t", "m", STATES, 0.0)
    other = store.open("t", "n", STATES, 0.0)
    store.drop_model("m")
    assert run(store, working).keys() == {"y"}
    assert (len(store), store.nbytes) == (1, 0)
    run(store, other)
    assert store.nbytes == other.nbytes > 0


STEPS = st.lists(
    st.tuples(st.sampled_from(["open", "run", "fail", "close", "discard"]), st.integers(0, 5)), max_size=40
)


@given(STEPS)
def test_the_count_of_bytes_is_right_whatever_happens(steps: list[tuple[str, int]]) -> None:
    store = SessionStore(max_sessions=4, max_bytes=600, ttl_s=30.0)
    known: list[Session] = []
    for now, (step, number) in enumerate(steps):
        if step == "open" or not known:
            known.append(opened(store, f"t{number % 2}", float(now)))
            continue
        session = known[number % len(known)]
        try:
            if step == "close":
                store.close(session.id, session.tenant, "m", now)
            elif step == "discard":
                store.discard(session)
            else:
                store.acquire(session.id, session.tenant, "m", now)
                if step == "run":
                    run(store, session, size=number * 10)
                store.release(session)
        except SessionNotFound:
            known.remove(session)
        assert store.nbytes == sum(session.nbytes for session in store._sessions.values()) <= 600
        assert len(store) <= 4
