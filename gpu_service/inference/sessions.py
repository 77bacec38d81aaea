"""Stateful sessions: what a recurrent model carries from one request of a caller to the next.

A request with the session id NEW_SESSION opens one; the answer names it and says when it ends. Every further request
with that id continues from the state that the last one left, and SageMaker routes it to the same container. How one
asks for the end is left to containers: here, as in AWS's own ones, by the body `{"requestType": "CLOSE"}`.
Sources: Amazon SageMaker Developer Guide, "Stateful sessions with Amazon SageMaker AI models"; the header patterns are
those of the SageMaker Runtime API (`InvokeEndpoint`: SessionId, NewSessionId, ClosedSessionId).
"""

from collections import Counter, OrderedDict
from collections.abc import Hashable
from datetime import UTC, datetime, timedelta
from secrets import token_hex

from shared.domain.errors import BackendError, BackendUnavailable, NotFound, SluiceError, WrongShape
from shared.domain.serving import StateTensor
from shared.domain.tensors import Array, Tensors

NEW_SESSION = "NEW_SESSION"
SESSION_HEADER = "X-Amzn-SageMaker-Session-Id"
NEW_SESSION_HEADER = "X-Amzn-SageMaker-New-Session-Id"
CLOSED_SESSION_HEADER = "X-Amzn-SageMaker-Closed-Session-Id"
# 256 bits that nobody guesses; hexadecimal since the API's pattern has no place for the `_` of other alphabets.
_ID_BYTES = 32


class SessionNotFound(NotFound):
    """There is no such session of this tenant and model: it was never opened, was closed, or has ended."""

    code = "session_not_found"
    title = "Unknown session"


class SessionBusy(SluiceError):
    """The session's last request is still running: its state is not known yet."""

    code = "session_busy"
    title = "Session busy"


class SessionsFull(BackendUnavailable):
    """Every session that there is room for is at work."""

    code = "sessions_full"
    title = "No room for a session"


class StateTooLarge(BackendError):
    """The model's state for one session has more bytes than all sessions may have."""

    code = "state_too_large"
    title = "Session state too large"


class Session:
    """One session; `busy` from `open` or `acquire` until it is released. Times are those of the caller's clock."""

    __slots__ = ("_rows", "_state", "_states", "busy", "ends", "expires", "id", "model", "nbytes", "tenant")

    def __init__(
        self, tenant: str, model: Hashable, states: tuple[StateTensor, ...], expires: float, ends: datetime
    ) -> None:
        self.id = token_hex(_ID_BYTES)
        self.tenant = tenant
        self.model = model
        self.expires = expires
        self.ends = ends
        self.busy = True
        self.nbytes = 0
        self._states = states
        self._state: dict[str, Array] = {}
        self._rows = 0

    @property
    def header(self) -> str:
        """The value of the answer's header that names a new session."""
        return f"{self.id}; Expires={self.ends:%Y-%m-%dT%H:%M:%SZ}"

    def with_state(self, inputs: dict[str, Array], rows: int) -> dict[str, Array]:
        """The inputs of a request of `rows`, and the state that the last one left; WrongShape if that had other rows.

        The first request has none: the package then starts with zeros.
        """
        if self._state and rows != self._rows and any(None in state.shape for state in self._states):
            raise WrongShape.at("", f"this session has {self._rows} rows; the request has {rows}")
        return {**inputs, **self._state}

    def outputs_with_state(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """What to ask of the model: the outputs that the caller wants (all of them, named) and the new state."""
        return (*wanted, *(state.output for state in self._states))

    def _take_state(self, outputs: Tensors, rows: int) -> dict[str, Array]:
        taken = {state.output: state.input for state in self._states}
        self._state = {taken[name]: _own(array) for name, array in outputs.items() if name in taken}
        self._rows = rows
        self.nbytes = sum(map(_bytes_of, self._state.values()))
        return {name: array for name, array in outputs.items() if name not in taken}


class SessionStore:
    """The sessions of a container; belongs to one thread. `now` is in seconds of any one clock.

    At most `max_sessions` and `max_bytes` of state. A session ends `ttl_s` after it was opened, as its caller was told.
    Where room is needed, the tenant with the most sessions loses the one that it used least recently.
    """

    __slots__ = ("_max_bytes", "_max_sessions", "_sessions", "_ttl", "nbytes")

    def __init__(self, *, max_sessions: int = 1024, max_bytes: int = 256 * 1024 * 1024, ttl_s: float = 1200.0) -> None:
        self._max_sessions = max_sessions
        self._max_bytes = max_bytes
        self._ttl = ttl_s
        self._sessions: OrderedDict[str, Session] = OrderedDict()  # the least recently used first
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, tenant: str, model: Hashable, states: tuple[StateTensor, ...], now: float) -> Session:
        """A new session, busy; SessionsFull if all others are so that none may go."""
        self.sweep(now)
        if len(self._sessions) >= self._max_sessions and not self._evict():
            raise SessionsFull("As many sessions as this container holds are at work.")
        session = Session(tenant, model, states, now + self._ttl, datetime.now(UTC) + timedelta(seconds=self._ttl))
        self._sessions[session.id] = session
        return session

    def acquire(self, session_id: str, tenant: str, model: Hashable, now: float) -> Session:
        """The session, busy from now on; SessionNotFound, SessionBusy."""
        session = self._find(session_id, tenant, model, now)
        session.busy = True
        self._sessions.move_to_end(session_id)
        return session

    def finish(self, session: Session, outputs: Tensors, rows: int) -> dict[str, Array]:
        """Keep the state that a run of `rows` gave and release the session; returns the caller's outputs.

        StateTooLarge if there could never be room for it: the session is then gone.
        """
        before = session.nbytes
        visible = session._take_state(outputs, rows)
        if session.id not in self._sessions:  # its model was unloaded meanwhile
            return visible
        self.nbytes += session.nbytes - before
        if session.nbytes > self._max_bytes:
            self.discard(session)
            raise StateTooLarge(f"The state of a session has {session.nbytes} bytes; the limit is {self._max_bytes}.")
        while self.nbytes > self._max_bytes and self._evict():
            pass
        if self.nbytes > self._max_bytes:
            self.discard(session)
            raise SessionsFull("The sessions at work leave no room for this one's state.")
        session.busy = False
        return visible

    def release(self, session: Session) -> None:
        """Give a session back as it was: its request failed, or only opened it."""
        session.busy = False

    def discard(self, session: Session) -> None:
        """Forget a session whatever it does: as when its first request failed, so that nobody learns of it."""
        if self._sessions.pop(session.id, None) is not None:
            self.nbytes -= session.nbytes

    def close(self, session_id: str, tenant: str, model: Hashable, now: float) -> None:
        """End a session; SessionNotFound, SessionBusy."""
        self.discard(self._find(session_id, tenant, model, now))

    def drop_model(self, model: Hashable) -> None:
        """Forget the sessions of a model that is unloaded."""
        for session in [session for session in self._sessions.values() if session.model == model]:
            self.discard(session)

    def sweep(self, now: float) -> None:
        """Forget what has ended, except for what is at work."""
        for session in [s for s in self._sessions.values() if s.expires <= now and not s.busy]:
            self.discard(session)

    def _find(self, session_id: str, tenant: str, model: Hashable, now: float) -> Session:
        session = self._sessions.get(session_id)
        if session is None or session.tenant != tenant or session.model != model or session.expires <= now:
            raise SessionNotFound("There is no such session: it was never opened, was closed, or has ended.")
        if session.busy:
            raise SessionBusy("The session's last request is still running; send one at a time.")
        return session

    def _evict(self) -> bool:
        """Whether a session could be dropped to make room."""
        idle = [session for session in self._sessions.values() if not session.busy]
        if not idle:
            return False
        held = Counter(session.tenant for session in self._sessions.values())
        self.discard(
            max(idle, key=lambda session: held[session.tenant])
        )  # of equals the first, the least recently used
        return True


def _own(array: Array) -> Array:
    """The array without whatever larger one it is a view of, and for nobody to change."""
    own = array if array.base is None else array.copy()
    own.flags.writeable = False
    return own


def _bytes_of(array: Array) -> int:
    return array.nbytes if array.dtype.kind != "O" else sum(len(value) + 48 for value in array.reshape(-1).tolist())
