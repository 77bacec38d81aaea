"""What calls of backends cost, for the choice between them and for the cost of a request."""

from dataclasses import dataclass

from shared.domain.cost import instance_share_nusd
from shared.domain.endpoint.config import CONTAINER, EndpointConfig


@dataclass(frozen=True, slots=True)
class CallPrices:
    """Prices by the stack's settings: the container's instances, and the function's own time while it waits."""

    container_usd_per_hour: float
    container_concurrency: int
    function_nusd_per_ms: float

    def instances_nusd(self, backend: str, config: EndpointConfig, ms: float) -> float:
        """A call's share of the backend's instances, in 10⁻⁹ US dollars; 0 for what has none."""
        if backend == CONTAINER:
            return instance_share_nusd(ms, self.container_usd_per_hour, self.container_concurrency)
        choice = config.backends.get(backend)
        return 0.0 if choice is None else instance_share_nusd(ms, choice.usd_per_hour, choice.concurrency)

    def call_nusd(self, backend: str, config: EndpointConfig, ms: float) -> float:
        """All that a call costs: the function waits for other backends, and that is paid for as well."""
        return ms * self.function_nusd_per_ms + self.instances_nusd(backend, config, ms)
