"""Which outputs and classes leave the house: an endpoint's `response`.

What the filter names and the model does not have is left out: whatever else goes wrong, an answer never holds more than
the filter lets through.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from shared.domain.dtypes import DType
from shared.domain.endpoint.config import ResponseFilter
from shared.domain.errors import FieldError, pointer
from shared.domain.signature import TensorSpec, by_name

if TYPE_CHECKING:  # NumPy is heavy, and who only checks a configuration does not have it
    from shared.domain.tensors import Array

Columns = Sequence[int]


def visible(settings: ResponseFilter, specs: Sequence[TensorSpec]) -> Sequence[TensorSpec]:
    """Those of `specs` that are answered, in the filter's order if it names outputs."""
    if not settings.outputs:
        return specs
    known = by_name(tuple(specs))
    return [known[name] for name in dict.fromkeys(settings.outputs) if name in known]


def columns_of(settings: ResponseFilter, spec: TensorSpec) -> Columns | None:
    """Positions of the classes of an output that are answered, in the filter's order; None for all of them.

    `spec` has the model's own names of classes. Of an output without any that are answered, nothing is.
    """
    wanted = settings.classes.get(spec.name)
    if wanted is None:
        return None
    if spec.dtype is DType.BYTES:
        return ()
    positions = {name: position for position, name in enumerate(spec.classes)}
    return [positions[name] for name in dict.fromkeys(wanted) if name in positions]


def narrowed(spec: TensorSpec, columns: Columns) -> TensorSpec:
    """The output with these of its classes."""
    return replace(
        spec, shape=(*spec.shape[:-1], len(columns)), classes=tuple(spec.classes[column] for column in columns)
    )


def take(array: "Array", columns: Columns) -> "Array":
    """The tensor with these positions of its last axis; a copy, as what is left out must not be in it."""
    import numpy as np

    taken: Array = np.take(array, columns, axis=-1)
    return taken


def problems_of_filter(
    settings: ResponseFilter, outputs: Mapping[str, TensorSpec], known: Sequence[str]
) -> list[FieldError]:
    """What does not fit: `outputs` are the model's own, `known` the names of all that could be answered."""
    problems = [
        FieldError(f"/response/outputs/{at}", f"{name!r} is not an output; there are {', '.join(known)}")
        for at, name in enumerate(settings.outputs)
        if name not in known
    ]
    for name, classes in settings.classes.items():
        place = pointer("/response/classes", name)
        spec = outputs.get(name)
        if spec is None:
            problems.append(FieldError(place, f"{name!r} is not an output of the model; it has {', '.join(outputs)}"))
        elif not spec.classes or spec.dtype is DType.BYTES:
            problems.append(FieldError(place, f"the output {name!r} has no values by class"))
        else:
            detail = f"is not a class of {name!r}; it has {', '.join(spec.classes)}"
            problems += [
                FieldError(f"{place}/{at}", f"{wanted!r} {detail}")
                for at, wanted in enumerate(classes)
                if wanted not in spec.classes
            ]
    return problems
