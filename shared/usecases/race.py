"""One attempt: a call of a backend, and perhaps a second one beside it if the first takes long."""

from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from shared.domain.errors import BackendTimeout, Overloaded, SluiceError
from shared.usecases.deadline import Call, DeadlineRunner

if TYPE_CHECKING:
    from shared.domain.tensors import Tensors


class Entrant(Protocol):
    """A call that takes part: what it does, and what it is told of it."""

    def __call__(self) -> "Tensors":
        """Call the backend; raises nothing but SluiceError."""

    def ended(self, error: SluiceError | None, ms: float) -> None:
        """The call ended after so many milliseconds, well or with an error."""

    def given_up(self, error: SluiceError | None) -> None:
        """The call is still under way: its time is over (BackendTimeout), or another was faster (None)."""

    def not_made(self) -> None:
        """There was no thread for the call."""

    def late(self, call: "Call[Tensors]") -> None:
        """After `given_up`, on another thread: what became of the call."""


class Race:
    """Calls of one backend of which the first good answer counts; `ends` is a moment of `time.monotonic`.

    `brief`: see `DeadlineRunner`.
    """

    def __init__(self, runner: DeadlineRunner, key: str, ends: float, *, brief: bool = False) -> None:
        self._runner = runner
        self._key = key
        self._ends = ends
        self._brief = brief
        self._done: SimpleQueue[Call[Tensors]] = SimpleQueue()
        self._under_way: dict[Call[Tensors], Entrant] = {}

    def run(
        self,
        first: Entrant,
        *,
        hedge_at: float = float("inf"),
        second: Callable[[], Entrant | None] = lambda: None,
    ) -> "tuple[Tensors, float]":
        """The outputs of whoever is first to give some, and the milliseconds that it took.

        At `hedge_at`, `second` is asked for the call to make beside the first one. If both fail, raises what was raised
        first; BackendTimeout at the end, Overloaded where the first call cannot be made.
        """
        self._start(first)
        failed: SluiceError | None = None
        try:
            while self._under_way:
                call = self._next(min(self._ends, hedge_at))
                if call is None:
                    now = monotonic()
                    if now >= self._ends:
                        break
                    if now >= hedge_at:
                        hedge_at = float("inf")
                        self._hedge(second)
                    continue
                entrant = self._under_way.pop(call)
                try:
                    outputs = call.result()
                except SluiceError as error:
                    entrant.ended(error, call.ms)
                    failed = failed or error
                    hedge_at = float("inf")  # what comes after a failure is a retry
                else:
                    entrant.ended(None, call.ms)
                    return outputs, call.ms
            raise failed or self._timed_out()
        finally:
            self._give_up()
            # An error holds this frame, which must not hold it.
            del failed

    def _start(self, entrant: Entrant) -> None:
        try:
            call = self._runner.start(self._key, entrant, self._done, late=entrant.late, brief=self._brief)
        except Overloaded:
            entrant.not_made()
            raise
        self._under_way[call] = entrant

    def _hedge(self, second: Callable[[], Entrant | None]) -> None:
        entrant = second()
        if entrant is None:
            return
        try:
            self._start(entrant)
        except Overloaded:
            # The first call goes on alone.
            return

    def _next(self, until: float) -> "Call[Tensors] | None":
        """The next call that ends; None at that moment."""
        try:
            return self._done.get(timeout=max(0.0, until - monotonic()))
        except Empty:
            return None

    def _timed_out(self) -> SluiceError:
        error = BackendTimeout("The backend did not answer in time.")
        for call in [call for call in self._under_way if self._runner.abandon(call)]:
            self._under_way.pop(call).given_up(error)
        return error

    def _give_up(self) -> None:
        for call, entrant in self._under_way.items():
            if self._runner.abandon(call):
                entrant.given_up(None)
            else:  # a moment too late, and `late` is told of abandoned calls only
                error, call.error = call.error, None
                entrant.ended(error if isinstance(error, SluiceError) else None, call.ms)
