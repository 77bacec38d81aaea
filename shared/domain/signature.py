"""What a model takes and gives: the outer signature of a package.

"Outer" is what callers see. The graph's own inputs may differ where the package pre-processes (a tokenizer turns one
BYTES tensor into token ids); backends and the wire between front and container carry outer tensors only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from shared.domain.dtypes import DType

Dim = int | None


class Content(StrEnum):
    """What the bytes of a BYTES input hold."""

    TEXT = "text"
    IMAGE = "image"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One outer tensor.

    `shape` includes the batch axis where the signature is batched; `None` is a dimension of any size.
    `features` names the elements of the last axis of an input, `classes` those of an output, so that callers may use
    objects by name. `layouts` are further shapes of one instance that hold the same elements in the same order
    (8×8 for 64). `content` says what BYTES hold; an IMAGE input takes numbers of `dtype` or, in their place, encoded
    images. `minimum` and `maximum` bound every element; NaN and infinity need `allow_non_finite`. An `optional` input
    may be left out: the graph has a value for it.
    """

    name: str
    dtype: DType
    shape: tuple[Dim, ...]
    features: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    layouts: tuple[tuple[int, ...], ...] = ()
    content: Content | None = None
    minimum: float | None = None
    maximum: float | None = None
    allow_non_finite: bool = False
    max_length: int | None = None
    optional: bool = False

    @property
    def takes_images(self) -> bool:
        """Whether an encoded image may stand for the numbers of an instance."""
        return self.content is Content.IMAGE


@dataclass(frozen=True, slots=True)
class Signature:
    """Outer inputs and outputs in the order of the manifest; `max_batch` bounds the rows of one request.

    If `batched`, the first axis of every tensor counts instances, except for optional inputs whose first axis is fixed:
    such a tensor holds for all instances of a request (see `has_rows`).
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batched: bool = True
    max_batch: int = 1024

    def input(self, name: str) -> TensorSpec | None:
        """The input of this name, if there is one."""
        return next((spec for spec in self.inputs if spec.name == name), None)

    @property
    def required(self) -> tuple[TensorSpec, ...]:
        """The inputs that may not be left out."""
        return tuple(spec for spec in self.inputs if not spec.optional)

    def has_rows(self, spec: TensorSpec) -> bool:
        """Whether the first axis of this input or output counts instances."""
        return self.batched and (not spec.optional or spec.shape[:1] == (None,))

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return tuple(spec.name for spec in self.outputs)


def by_name(specs: tuple[TensorSpec, ...]) -> Mapping[str, TensorSpec]:
    """The specs keyed by their names."""
    return {spec.name: spec for spec in specs}
