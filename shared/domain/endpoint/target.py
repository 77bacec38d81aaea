"""Where a request runs, and what came of it there."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.domain.model import ModelVersion

if TYPE_CHECKING:
    from shared.domain.tensors import Tensors


@dataclass(slots=True)  # not frozen: made for every request, and that takes three times as long
class Target:
    """A variant of an endpoint, the version that it stands for now, and the name of the backend that runs it.

    `pinned`: the request named the version itself, so no other one may answer in its place.
    """

    variant: str
    version: ModelVersion
    backend: str
    pinned: bool = False


@dataclass(slots=True)  # not frozen: made for every request
class Ran:
    """The outer outputs of a target, or of what stood in for it.

    `fallback` is how `X-Sluice-Fallback` names the stand-in (`variant=<name>`, `cached`, `static`), None without one,
    and `reason` the code of the error that made it necessary. `attempts` counts calls of backends, hedges among them;
    `ms` is the time of the call that gave the outputs.
    """

    target: Target
    outputs: "Tensors"
    attempts: int = 1
    hedged: bool = False
    ms: float = 0.0
    fallback: str | None = None
    reason: str | None = None


@dataclass(slots=True)  # not frozen: made for every request
class KeptAnswer:
    """Outputs that were kept for equal requests: raw ones, before thresholds, labels and the response filter.

    `made_at` is in seconds since 1970; `variant` and `backend` are those that made them.
    """

    outputs: "Tensors"
    variant: str
    backend: str
    made_at: float
