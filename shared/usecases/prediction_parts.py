"""A request with more instances than run at once: its parts, and the one answer that they make."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from shared.domain.call_prices import CallPrices
from shared.domain.errors import BackendError, BatchTooLarge
from shared.domain.signature import Signature
from shared.usecases.prediction import Checked, Prediction


def parts_of(checked: Checked, answer: Signature) -> list[tuple[int, int]]:
    """The parts of a request, from one instance to before another; `answer` has the outputs as callers see them.

    Outputs whose instances differ in size from one run to the next cannot be put together: then all run at once.
    Raises BatchTooLarge where they are too many for that.
    """
    rows, version = checked.rows, checked.target.version
    size = checked.part_rows
    if not version.signature.batched or rows <= size:
        return [(0, rows)]
    if all(answer.has_rows(spec) and None not in spec.shape[1:] for spec in answer.outputs):
        return [(first, min(first + size, rows)) for first in range(0, rows, size)]
    most = checked.config.limits.max_rows or version.signature.max_batch
    if rows > min(most, version.signature.max_batch):
        raise BatchTooLarge.at(
            "/instances", f"{rows} instances; outputs of this model cannot be put together of parts of {size}"
        )
    return [(0, rows)]


def joined(parts: Sequence[Prediction]) -> Prediction:
    """One prediction of its parts, in their order; the first stand-in marks it. BackendError if they do not fit."""
    first = parts[0]
    if len(parts) == 1:
        return first
    for part in parts[1:]:
        if part.signature.outputs != first.signature.outputs:
            raise BackendError(
                f"Version {part.version.version} answered for some of the instances and has other outputs than "
                f"version {first.version.version}, which answered for the others."
            )
    marked = next((part.ran for part in parts if part.ran is not None and part.ran.fallback is not None), first.ran)
    steps = {name for part in parts for name in part.timings_ms}
    return replace(
        first,
        outputs={name: np.concatenate([part.outputs[name] for part in parts]) for name in first.outputs},
        rows=sum(part.rows for part in parts),
        timings_ms={name: sum(part.timings_ms.get(name, 0.0) for part in parts) for name in steps},
        ran=marked,
        cache=None,
        shadow=None,
        features=None,
    )


def instances_nusd(made: Prediction, prices: CallPrices) -> float:
    """The share of instances that a prediction and its copy took, in 10⁻⁹ US dollars."""
    cost = 0.0
    if made.ran is not None and made.backend == made.ran.target.backend:
        cost += prices.instances_nusd(made.backend, made.config, made.ran.ms)
    if made.shadow is not None:
        cost += prices.instances_nusd(made.shadow.target.backend, made.config, made.shadow.ms)
    return cost
