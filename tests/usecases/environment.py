"""An environment of the function for tests of the resilient run."""

from collections.abc import Mapping
from typing import Any

from shared.domain.endpoint.config import BreakerSettings, EndpointConfig, Retries
from shared.domain.endpoint.latency import Latencies
from shared.domain.endpoint.target import Ran, Target
from shared.domain.errors import BackendUnavailable, SluiceError
from shared.domain.ports import Backend, InferenceContext
from shared.usecases.attempt import Tally
from shared.usecases.deadline import DeadlineRunner
from shared.usecases.run_target import RunTarget
from tests.fakes import InMemoryGuards
from tests.usecases.targets import INPUTS, Clock, Named, target, within

CONFIG = EndpointConfig("m", retries=Retries(attempts=0), breaker=BreakerSettings(min_calls=3, open_s=5))
DOWN = BackendUnavailable("Refused.")


class Env:
    """An environment: a `RunTarget` with what it is made of. `pauses` are those before retries."""

    def __init__(self, guards: InMemoryGuards | None = None, ready: bool = True, **backends: Backend) -> None:
        self.guards = guards or InMemoryGuards()
        self.latencies = Latencies()
        self.clock = Clock()
        self.pauses: list[float] = []
        self.runner = DeadlineRunner()
        self.run = RunTarget(
            Named(**backends),
            self.guards,
            self.latencies,
            runner=self.runner,
            ready=lambda _: ready,
            now=self.clock,
            pause=self.pauses.append,
            uniform=lambda _, high: high,
        )

    def __call__(
        self,
        config: EndpointConfig = CONFIG,
        to: Target | None = None,
        context: InferenceContext | None = None,
        *,
        shared: bool = False,
        open_until: Mapping[str, float] | None = None,
        shortened: bool = False,
        rows: int = 2,
        stand_in: bool = False,
        tally: Tally | None = None,
    ) -> Ran:
        """`shared`: with what the guards hold, as the endpoint's configuration would bring it."""
        if shared:
            open_until = dict(self.guards.open_until.get("m", {}))
        return self.run(
            to or target(),
            INPUTS,
            context or within(),
            config,
            open_until or {},
            rows=rows,
            shortened=shortened,
            stand_in=stand_in,
            tally=tally,
        )

    def outcome(self, *args: Any, **more: Any) -> str:
        try:
            self(*args, **more)
        except SluiceError as error:
            return error.code
        return "ok"
