"""The response cache: an answer that is kept is given again to equal requests, and one request makes it anew.

A function is frozen once it has answered, so nothing is made anew behind an answer's back: of the requests that meet a
stale answer, one takes the lease and waits for the new one, and the others get the stale one at once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic, sleep, time
from typing import Final, Literal

from shared.domain.endpoint.config import CacheSettings, EndpointConfig
from shared.domain.endpoint.target import KeptAnswer
from shared.domain.errors import BackendError, DeadlineMissed
from shared.domain.ports import AnswerStore
from shared.usecases.enrich import Bounded, unbounded
from shared.usecases.patient_answers import PatientAnswers, RequestAnswers

Hit = Literal["hit", "stale", "miss", "bypass", "joined"]
Forwarded = Literal["", "miss", "stale", "request", "bypass"]

STORE_PAUSED: Final = "store-unavailable"
_LEAST_LEASE_S: Final = 1.0
_MAX_LEASE_S: Final = 30.0
_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 0.1
_LOOKS_PER_LEASE: Final = 4  # a look is a read, trying to take the lease over is a write
# For looking for an answer without saying how much time is left.
_LAST_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """How an answer came about, for metrics (`hit`) and for the headers `Cache-Status` and `Age`.

    `age_s` is how long ago it was made, `ttl_s` for how long it counts as fresh, negative once it is stale. `forwarded`
    says why the model ran, in the terms of RFC 9211 (empty: it did not), `stored` whether its answer is kept now, and
    `detail` what else is worth telling.
    """

    hit: Hit
    age_s: float = 0.0
    ttl_s: float | None = None
    forwarded: Forwarded = ""
    stored: bool = False
    detail: str = ""


def keep_seconds(config: EndpointConfig) -> float:
    """For how long the answers of an endpoint are kept: as long as they may be given, even as a fallback."""
    fallbacks = [step.max_age_s for step in config.fallback if step.kind == "cached"]
    cached = 0 if config.cache is None else config.cache.ttl_s + config.cache.stale_s
    return float(max([cached, *fallbacks]))


def _always(_answer: KeptAnswer) -> bool:
    return True


class KeepAnswers:
    """Gives kept answers, or has them made; a store that fails or is slow fails no request.

    A call of it takes half a second at most, and half of the time that the request has left. Then that request goes on
    without it, and it is left alone for `pause_s`, unless it had less than 100 ms to answer. `within` bounds the calls
    of the shared store; those of the one in memory are made as they are. `now` is in seconds since 1970, `ticks` in
    those of a clock that only goes forward. Safe to use from many threads.
    """

    def __init__(
        self,
        memory: AnswerStore,
        shared: AnswerStore,
        now: Callable[[], float] = time,
        *,
        ticks: Callable[[], float] = monotonic,
        wait: Callable[[float], None] = sleep,
        pause_s: float = 5.0,
        within: Bounded = unbounded,
    ) -> None:
        self._memory = PatientAnswers(memory, ticks, pause_s)
        self._shared = PatientAnswers(shared, ticks, pause_s, within)
        self._now = now
        self._ticks = ticks
        self._wait = wait

    def __call__(
        self,
        settings: CacheSettings,
        key: str,
        run: Callable[[], KeptAnswer],
        *,
        deadline_s: float,
        keep_s: float,
        no_cache: bool = False,
        no_store: bool = False,
        is_worth_keeping: Callable[[KeptAnswer], bool] = _always,
    ) -> tuple[KeptAnswer, CacheStatus]:
        """The answer under `key`, kept or made by `run`, and how it came about.

        `deadline_s` is the time left. `keep_s` is `keep_seconds` of the configuration. With `no_cache` no kept answer
        will do, and with `no_store` nothing is read or kept. `is_worth_keeping` is asked about what `run` gave: an
        answer that stood in for the model's is not. Raises what `run` raises.
        """
        if no_store:
            return run(), CacheStatus("bypass", forwarded="bypass")
        store = self._store(settings, deadline_s)
        making = _Making(store, settings, key, run, keep_s, is_worth_keeping)
        if no_cache:
            return making.make("bypass", "request")
        found = store.get(key)
        if found is not None and (given := self._answer(making, found)) is not None:
            return given
        if store.is_paused:
            return run(), CacheStatus("bypass", forwarded="bypass", detail=STORE_PAUSED)
        if settings.join and settings.store == "dynamodb":
            return self._join(making)
        return making.make("miss", "miss")

    def last(
        self, settings: CacheSettings, key: str, max_age_s: float, *, deadline_s: float = _LAST_S
    ) -> KeptAnswer | None:
        """The kept answer, if it is not older than that and the store can be asked in the time left, `deadline_s`."""
        found = self._store(settings, deadline_s).get(key)
        return found if found is not None and self._age(found) <= max_age_s else None

    def _store(self, settings: CacheSettings, deadline_s: float) -> RequestAnswers:
        store = self._memory if settings.store == "memory" else self._shared
        return store.until(self._ticks() + deadline_s)

    def _age(self, answer: KeptAnswer) -> float:
        return max(0.0, self._now() - answer.made_at)

    def _answer(self, making: "_Making", found: KeptAnswer) -> tuple[KeptAnswer, CacheStatus] | None:
        """What is given by what was found; None if it is too old."""
        age, settings = self._age(found), making.settings
        if age < settings.ttl_s:
            return found, _given("hit", age, settings)
        return self._renew(making, found) if age < settings.ttl_s + settings.stale_s else None

    def _renew(self, making: "_Making", stale: KeptAnswer) -> tuple[KeptAnswer, CacheStatus]:
        """A new answer for the one request that takes the lease, the stale one for all others.

        If nothing comes of it, the lease is kept while the stale answer will do: nobody else tries until it ends.
        """
        settings = making.settings
        until = settings.ttl_s + settings.stale_s
        if making.take_lease():
            outlives = self._age(stale) + making.lease_s >= until
            try:
                return making.make_or_release("miss", "stale") if outlives else making.make("miss", "stale")
            except (BackendError, DeadlineMissed):
                if self._age(stale) >= until:
                    raise
        return stale, _given("stale", self._age(stale), settings)

    def _join(self, making: "_Making") -> tuple[KeptAnswer, CacheStatus]:
        """What the first of equal requests makes; the others wait for it half of their time, then run as well.

        A lease that is given back or ends is another's to take: who gets it runs at once.
        """
        store, settings = making.store, making.settings
        if making.take_lease():
            return making.make_or_release("miss", "miss")
        give_up = self._ticks() + store.left_s / 2
        for look, pause in enumerate(_pauses(), start=1):
            left = give_up - self._ticks()
            if left <= 0 or store.is_paused:
                break
            self._wait(min(pause, left))
            found = store.get(making.key)
            if found is not None and (age := self._age(found)) < settings.ttl_s + settings.stale_s:
                return found, _given("joined", age, settings)
            if look % _LOOKS_PER_LEASE == 0 and making.take_lease():
                return making.make_or_release("miss", "miss")
        return making.make("miss", "miss")


@dataclass(slots=True)
class _Making:
    """What it takes to make the answer of one request."""

    store: RequestAnswers
    settings: CacheSettings
    key: str
    run: Callable[[], KeptAnswer]
    keep_s: float
    is_worth_keeping: Callable[[KeptAnswer], bool]
    lease_s: float = 0.0

    def take_lease(self) -> bool:
        """Whether this request is the one to make the answer, for which it has the time that it has left."""
        seconds = min(max(self.store.left_s, _LEAST_LEASE_S), _MAX_LEASE_S)
        is_taken = self.store.lease(self.key, seconds)
        self.lease_s = seconds if is_taken else 0.0
        return is_taken

    def make(self, hit: Hit, forwarded: Forwarded) -> tuple[KeptAnswer, CacheStatus]:
        """Run, and keep what comes of it if there is time for that."""
        answer = self.run()
        stored = self.is_worth_keeping(answer) and self.store.has_time and self.store.put(self.key, answer, self.keep_s)
        # A lease that outlives what it was for would keep others from making the next answer.
        if stored and self.lease_s > self.settings.ttl_s:
            self.store.release(self.key)
        ttl_s = float(self.settings.ttl_s) if stored else None
        return answer, CacheStatus(hit, ttl_s=ttl_s, forwarded=forwarded, stored=stored)

    def make_or_release(self, hit: Hit, forwarded: Forwarded) -> tuple[KeptAnswer, CacheStatus]:
        """As `make`; those who wait for this answer are told at once if there is none."""
        stored = False
        try:
            answer, status = self.make(hit, forwarded)
            stored = status.stored
        finally:
            if not stored:
                self.store.release(self.key)
        return answer, status


def _given(hit: Hit, age_s: float, settings: CacheSettings) -> CacheStatus:
    return CacheStatus(hit, age_s=age_s, ttl_s=settings.ttl_s - age_s)


def _pauses() -> Iterator[float]:
    """From 20 ms to 100 ms, for as long as anybody asks."""
    pause = _FIRST_PAUSE_S
    while True:
        yield pause
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)
