"""Which variant a request gets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from math import log
from os import urandom
from typing import Final

from shared.domain.endpoint.config import EndpointConfig, Variant
from shared.domain.errors import BackendUnavailable

NONE: Final = "none"
_HEADER: Final = "header:"


@dataclass(frozen=True, slots=True)
class Exposure:
    """That a unit was shown an arm of an experiment; of the unit only a digest of 16 hexadecimal digits is told."""

    experiment: str
    arm: str
    unit: str


@dataclass(frozen=True, slots=True)
class Caller:
    """What of a request may keep it with a variant; `header` gives a header's value by its name in lower case."""

    tenant: str
    key_id: str
    header: Callable[[str], str | None]

    def unit(self, source: str) -> str | None:
        """The unit that a source (`tenant`, `key`, `header:<name>`, `none`) finds; None if there is none.

        A header's value is the tenant's own: the same user id of two tenants is two units.
        """
        if source == "tenant":
            return self.tenant
        if source == "key":
            return f"{self.tenant}\0{self.key_id}"
        if source.startswith(_HEADER):
            value = self.header(source.removeprefix(_HEADER))
            return f"{self.tenant}\0{value}" if value else None
        return None


def choose_variant(config: EndpointConfig, caller: Caller) -> tuple[Variant, Exposure | None]:
    """The variant for a request that names no version, and the exposure if an experiment chose it.

    Raises BackendUnavailable if no variant takes traffic.
    """
    experiment = config.experiment
    if experiment is not None and (unit := caller.unit(experiment.unit)) is not None:
        salt = f"{config.endpoint}\0experiment\0{experiment.name}"
        arm = weighted_choice(experiment.arms, unit, salt)
        variant = config.variant(arm) if arm is not None else None
        if variant is not None:
            return variant, Exposure(experiment.name, variant.name, _digest(unit, salt))
    weights = {variant.name: variant.weight for variant in config.variants if variant.weight > 0}
    if len(weights) == 1:
        (name,) = weights
    else:
        key = caller.unit(config.sticky) or urandom(16).hex()
        name = weighted_choice(weights, key, config.endpoint) or ""
    variant = config.variant(name)
    if variant is None:
        raise BackendUnavailable(f"No variant of {config.endpoint} takes traffic: all weights are 0.")
    return variant, None


def weighted_choice(weights: Mapping[str, float], key: str, salt: str) -> str | None:
    """The name that `key` belongs to, each name with a share by its weight; None if no weight is above 0.

    Weighted rendezvous hashing: every name draws an exponential variable of rate `weight` from the hash of itself and
    the key, and the smallest wins. A changed weight moves only the keys that this name wins or loses.
    Source: Schindelhauer and Schomaker, "Weighted Distributed Hash Tables" (SPAA 2005), the logarithmic method.
    """
    best: str | None = None
    smallest = 0.0
    for name, weight in weights.items():
        if weight <= 0:
            continue
        score = -log(_uniform(name, key, salt)) / weight
        if best is None or score < smallest:
            best, smallest = name, score
    return best


def _uniform(name: str, key: str, salt: str) -> float:
    """A number above 0 and below 1, the same for the same texts."""
    text = f"{len(salt)}:{salt}{len(name)}:{name}{key}".encode("utf-8", "surrogatepass")
    number = int.from_bytes(blake2b(text, digest_size=8).digest())
    return ((number >> 12) + 0.5) / 2.0**52  # exact: 53 bits


def _digest(unit: str, salt: str) -> str:
    return blake2b(f"{salt}\0{unit}".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
