"""A store of answers that costs no more than it is worth."""

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from shared.domain.endpoint.target import KeptAnswer
from shared.domain.errors import BackendError, BackendTimeout
from shared.domain.ports import AnswerStore
from shared.usecases.enrich import Bounded

_log = logging.getLogger(__name__)

T = TypeVar("T")

_LONGEST_S: Final = 0.5
# A store that did not answer within less may still work: a request that gave itself no time tells nothing of it.
_TELLING_S: Final = 0.1
# A lease that is given back frees others at once: it is sent even when there is no time to hear that it arrived.
_LEAST_RELEASE_S: Final = 0.005


class PatientAnswers:
    """A store that is left alone for a while after it failed; then nothing is found, and nobody has to be asked.

    `within` bounds its calls; without it they are made as they are, as those of a store in memory can be. `ticks` is a
    clock in seconds that only goes forward.
    """

    def __init__(
        self, store: AnswerStore, ticks: Callable[[], float], pause_s: float, within: Bounded | None = None
    ) -> None:
        self._store = store
        self._ticks = ticks
        self._pause_s = pause_s
        self._within = within
        self._paused_until = float("-inf")

    @property
    def is_paused(self) -> bool:
        """Whether it failed a moment ago."""
        return self._ticks() < self._paused_until

    def until(self, give_up: float) -> "RequestAnswers":
        """The store for one request, whose deadline is at `give_up` in ticks."""
        return RequestAnswers(self, give_up)

    def left(self, give_up: float) -> float:
        """The seconds to that moment, below 0 after it."""
        return give_up - self._ticks()

    def call(self, call: Callable[[AnswerStore], T], seconds: float) -> T:
        """What the call gives within `seconds`; raises BackendError, after which the store may be left alone."""
        try:
            if self._within is None:
                return call(self._store)
            return self._within(lambda: call(self._store), seconds)
        except BackendError as error:
            if seconds >= _TELLING_S or not isinstance(error, BackendTimeout):
                self._pause(error)
            raise

    def _pause(self, error: BackendError) -> None:
        self._paused_until = self._ticks() + self._pause_s
        fields = {"answer_store_paused": 1, "pause_s": self._pause_s, "cause": f"{error.code}: {error}"}
        _log.warning("the store of answers fails, and is left alone for a while", extra={"fields": fields})


class RequestAnswers:
    """The store for one request, which never fails: once a call did, or took too long, no other one is made.

    A call takes at most half a second, and at most half of the time that is left: the model needs the rest.
    """

    __slots__ = ("_give_up", "_has_failed", "_store")

    _LEAST_S: Final = 0.05  # with less time left than this nothing is kept: the answer would be late

    def __init__(self, store: PatientAnswers, give_up: float) -> None:
        self._store = store
        self._give_up = give_up
        self._has_failed = False

    @property
    def is_paused(self) -> bool:
        """Whether it failed a moment ago, or this request."""
        return self._has_failed or self._store.is_paused

    @property
    def has_time(self) -> bool:
        """Whether an answer can be kept before the deadline."""
        return self.left_s >= self._LEAST_S

    @property
    def left_s(self) -> float:
        """The seconds to the deadline, 0 after it."""
        return max(0.0, self._store.left(self._give_up))

    def get(self, key: str) -> KeptAnswer | None:
        """What is kept."""
        return self._call(lambda store: store.get(key), None)

    def put(self, key: str, answer: KeptAnswer, keep_s: float) -> bool:
        """Whether the answer is kept."""
        return self._call(lambda store: store.put(key, answer, keep_s), False)

    def lease(self, key: str, seconds: float) -> bool:
        """Whether the caller is the one to make the answer; not if the store cannot tell."""
        return self._call(lambda store: store.lease(key, seconds), False)

    def release(self, key: str) -> None:
        """Give a lease back; if that fails it ends by itself."""
        self._call(lambda store: store.release(key), None, _LEAST_RELEASE_S)

    def _call(self, call: Callable[[AnswerStore], T], otherwise: T, least_s: float = 0.0) -> T:
        if self.is_paused:
            return otherwise
        try:
            return self._store.call(call, max(least_s, min(_LONGEST_S, self.left_s / 2)))
        except BackendError:  # noted where it is decided whether the store is left alone
            self._has_failed = True
            return otherwise
