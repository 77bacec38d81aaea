"""Decisions by scores: an endpoint's thresholds, each an output of text beside the model's own.

NumPy is imported where scores are compared: who only checks a configuration does not have it.
"""

from dataclasses import dataclass
from functools import cached_property
from math import ceil, isfinite, prod
from typing import TYPE_CHECKING, Any, Final

from shared.domain.dtypes import DType
from shared.domain.endpoint.config import Threshold
from shared.domain.errors import FieldError, pointer
from shared.domain.signature import Signature, TensorSpec, by_name

if TYPE_CHECKING:
    from shared.domain.tensors import Array

# What a score that is not a number gets: it is neither below nor above, and no decision is made up for it.
NO_DECISION: Final = b""
_NEITHER: Final = 2  # after below and above


@dataclass(frozen=True)
class Decision:
    """A threshold as it applies to one signature: `column` is the position of its class, None without classes."""

    spec: TensorSpec
    source: TensorSpec
    column: int | None
    threshold: Threshold
    batched: bool

    @classmethod
    def of(cls, name: str, threshold: Threshold, signature: Signature) -> "Decision | FieldError":
        """The decision, or why it does not fit the signature (with a pointer into the configuration)."""
        place = pointer("/thresholds", name)
        source = by_name(signature.outputs).get(threshold.output)
        if source is None:
            known = ", ".join(signature.output_names)
            return FieldError(f"{place}/output", f"{threshold.output!r} is not an output of the model; it has {known}")
        if name in signature.output_names:
            return FieldError(place, "is the name of an output that the model itself has")
        if source.dtype in {DType.BYTES, DType.BOOL}:
            return FieldError(f"{place}/output", f"{threshold.output!r} holds {source.dtype}, which is no score")
        if not isfinite(threshold.at):
            return FieldError(f"{place}/at", "must be a finite number")
        column = _column(threshold, source, place, batched=signature.batched)
        if isinstance(column, FieldError):
            return column
        spec = TensorSpec(
            name,
            DType.BYTES,
            (None,) if signature.batched else (1,),
            classes=tuple(dict.fromkeys((threshold.below, threshold.above))),
        )
        return cls(spec, source, column, threshold, signature.batched)

    @cached_property
    def _ready(self) -> "tuple[Any, Array]":
        """The limit in the scores' own type, and the texts of below, above and neither."""
        from shared.domain.tensors import bytes_tensor

        texts = [self.threshold.below.encode(), self.threshold.above.encode(), NO_DECISION]
        return _limit(self.threshold.at, self.source.dtype), bytes_tensor(texts)

    def apply(self, scores: "Array") -> "Array":
        """BYTES of shape [rows] ([1] for a model without rows) of the output with the scores; NaN has no decision.

        The limit is compared in the scores' own precision: 0.1 as FP16 has it reaches a threshold at 0.1.
        """
        import numpy as np

        from shared.domain.tensors import bf16_to_fp32

        limit, texts = self._ready
        values = bf16_to_fp32(scores) if self.source.dtype is DType.BF16 else scores
        if self.column is not None:
            values = values[..., self.column]
        values = values.reshape(len(scores) if self.batched else 1)
        places = (values >= limit).astype(np.intp)
        if self.source.dtype.is_float:
            places[np.isnan(values)] = _NEITHER
        decided: Array = texts[places]
        return decided


def _column(threshold: Threshold, source: TensorSpec, place: str, *, batched: bool) -> int | FieldError | None:
    """The position of the class, None where an instance has one score; or why there is no such one."""
    dims = source.shape[1:] if batched else source.shape
    if threshold.class_name is not None:
        if threshold.class_name not in source.classes:
            known = ", ".join(source.classes) or "none"
            detail = f"{threshold.class_name!r} is not a class of {source.name!r}; it has {known}"
            return FieldError(f"{place}/class_name", detail)
        if len(dims) != 1:
            return FieldError(f"{place}/output", f"{source.name!r} has more than one score for each class")
        return source.classes.index(threshold.class_name)
    if None in dims or prod(dim for dim in dims if dim is not None) != 1:
        hint = "; name one of its classes in class_name" if source.classes and len(dims) == 1 else ""
        return FieldError(f"{place}/output", f"{source.name!r} has more than one score for an instance{hint}")
    return None


def _limit(at: float, dtype: DType) -> Any:
    """The limit as the scores' type has it: scores from there on are above."""
    if dtype.is_integer:
        return ceil(at)  # Python's integers have no bounds, and NumPy compares with those outside of its own
    import numpy as np

    from shared.domain.tensors import NUMPY_DTYPES, bf16_to_fp32, fp32_to_bf16

    with np.errstate(over="ignore"):  # beyond the type's numbers only its infinity is above
        if dtype is DType.BF16:
            return bf16_to_fp32(fp32_to_bf16(np.array([at], dtype=np.float32)))[0]
        return NUMPY_DTYPES[dtype].type(at)
