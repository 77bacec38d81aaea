"""The environments of one function and the requests that wait for them."""

import contextlib
from collections import deque
from dataclasses import asdict, dataclass

from infra.local.lambda_service.environment import Environment, State
from infra.local.lambda_service.errors import TooManyRequestsError
from infra.local.lambda_service.invocation import Invocation
from infra.local.lambda_service.logs import FunctionLog
from infra.local.lambda_service.process import Launch
from infra.local.stack import FunctionSpec


@dataclass(frozen=True, slots=True)
class EnvironmentStatus:
    """One execution environment as `sluice status` shows it."""

    id: str
    pid: int | None
    state: str
    invocations: int


@dataclass(frozen=True, slots=True)
class FunctionStatus:
    """One function: its environments and how many requests wait for them."""

    logical_id: str
    name: str
    handler: str
    queued: int
    environments: tuple[EnvironmentStatus, ...]

    def as_document(self) -> dict[str, object]:
        """The status as JSON-ready values."""
        return asdict(self)


class Pool:
    """Gives an invocation to the warm environment used last, else to a new one, else to a first-in, first-out queue."""

    def __init__(
        self, spec: FunctionSpec, launch: Launch, log: FunctionLog, *, max_environments: int, queue_limit: int
    ) -> None:
        self.spec = spec
        self.log = log
        self._launch = launch
        self._max_environments = max_environments
        self._queue_limit = queue_limit
        self._queue: deque[Invocation] = deque()
        self._frozen: list[Environment] = []
        self._environments: dict[Environment, None] = {}
        # Environments that take no more work, until their process and port are gone.
        self._ending: set[Environment] = set()

    def submit(self, invocation: Invocation) -> None:
        """Begin or queue an invocation.

        Raises:
            TooManyRequestsError: every environment is busy and the queue is full.

        """
        if self._frozen:
            self._frozen.pop().begin(invocation)
        elif len(self._queue) < sum(environment.returning for environment in self._environments):
            # An environment has just answered and will ask for work in a moment: no cold start for a caller that
            # sends one request after the other.
            self._queue.append(invocation)
        elif len(self._environments) < self._max_environments:
            self._start(invocation)
        elif len(self._queue) < self._queue_limit:
            self._queue.append(invocation)
        else:
            raise TooManyRequestsError("Rate Exceeded.")

    def forget(self, invocation: Invocation) -> None:
        """The caller has gone away: drop its invocation if it still waits."""
        with contextlib.suppress(ValueError):
            self._queue.remove(invocation)

    def ready(self, environment: Environment) -> None:
        """An environment has nothing to do: give it the oldest request, or freeze it."""
        if self._queue:
            environment.begin(self._queue.popleft())
        else:
            environment.freeze()
            self._frozen.append(environment)

    def retired(self, environment: Environment) -> None:
        """An environment has ended; requests that wait get a new one."""
        self._environments.pop(environment, None)
        with contextlib.suppress(ValueError):
            self._frozen.remove(environment)
        self._ending.add(environment)
        environment.task.add_done_callback(lambda _: self._ending.discard(environment))
        if self._queue and len(self._environments) < self._max_environments:
            self._start(self._queue.popleft())

    def check_memory(self) -> None:
        """Kill what has outgrown its memory."""
        for environment in tuple(self._environments):
            environment.check_memory()

    def reap(self, before: float) -> None:
        """End environments that have been idle since before this time of the loop's clock."""
        for environment in tuple(self._frozen):
            if environment.idle_since < before:
                environment.end()

    def close(self) -> list[Environment]:
        """Refuse what waits and end everything; returns the environments whose tasks are to be awaited."""
        for invocation in self._queue:
            invocation.result.cancel()
        self._queue.clear()
        for environment in tuple(self._environments):
            environment.end()
        return list(self._ending)

    def status(self) -> FunctionStatus:
        """A snapshot."""
        environments = tuple(
            EnvironmentStatus(each.id, each.pid, each.state.value, each.invocations)
            for each in self._environments
            if each.state is not State.ENDED
        )
        return FunctionStatus(self.spec.logical_id, self.spec.name, self.spec.handler, len(self._queue), environments)

    def _start(self, invocation: Invocation) -> None:
        self._environments[Environment(self.spec, self._launch, self.log, self, invocation)] = None
