"""The block `serving` of a manifest; see `shared.domain.serving` for what the fields mean.

Whatever cannot work with the signature beside it is refused here, with the field that is wrong.
"""

from collections.abc import Sequence
from math import isfinite
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from shared.domain.dtypes import DType
from shared.domain.serving import CachePolicy, Padding, ServingPolicy, StateTensor, Unpadding
from shared.domain.signature import Dim, Signature, TensorSpec

_Name = Annotated[str, Field(min_length=1, max_length=256)]
_Axis = Annotated[int, Field(ge=0, le=7)]
_Size = Annotated[int, Field(ge=1, le=1 << 30)]
_Bytes = Annotated[int, Field(ge=1, le=1 << 40)]
_Value = StrictBool | StrictInt | StrictFloat | StrictStr


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BatchingDocument(_Document):
    """How large one batch may be; None leaves it to the container."""

    enabled: bool = True
    max_rows: Annotated[int, Field(ge=1, le=65_536)] | None = None
    max_bytes: _Bytes | None = None


class PaddingDocument(_Document):
    """One axis of one input; `value` None is the dtype's zero: 0, false or the empty string."""

    input: _Name
    axis: _Axis
    value: _Value | None = None
    buckets: Annotated[tuple[_Size, ...], Field(max_length=64)] = ()
    multiple_of: _Size | None = None

    @model_validator(mode="after")
    def _sizes_are_given_once(self) -> Self:
        if bool(self.buckets) == (self.multiple_of is not None):
            raise ValueError("padding needs either buckets or multiple_of")
        if list(self.buckets) != sorted(set(self.buckets)):
            raise ValueError("buckets must ascend")
        return self


class UnpaddingDocument(_Document):
    """One axis of one output."""

    output: _Name
    axis: _Axis
    input: _Name
    input_axis: _Axis


class CacheDocument(_Document):
    """Bounds of the response cache."""

    max_bytes: _Bytes
    ttl_s: Annotated[float, Field(gt=0, le=31_536_000)] | None = None


class StateDocument(_Document):
    """One recurrent state; -1 in `shape`, at most once, stands for the request's rows."""

    input: _Name
    output: _Name
    dtype: DType
    shape: Annotated[tuple[Annotated[int, Field(ge=-1)], ...], Field(max_length=8)]

    @model_validator(mode="after")
    def _has_one_axis_of_rows_at_most(self) -> Self:
        if self.shape.count(-1) > 1:
            raise ValueError(f"the state {self.input!r} has more than one axis of any size")
        return self


class ServingDocument(_Document):
    """The whole block."""

    batching: BatchingDocument = BatchingDocument()
    padding: Annotated[tuple[PaddingDocument, ...], Field(max_length=64)] = ()
    unpad: Annotated[tuple[UnpaddingDocument, ...], Field(max_length=64)] = ()
    cache: CacheDocument | None = None
    join: bool = False
    instances: Annotated[int, Field(ge=1, le=64)] | None = None
    state: Annotated[tuple[StateDocument, ...], Field(max_length=32)] = ()
    warm_up: Annotated[
        tuple[dict[_Name, Annotated[tuple[_Size, ...], Field(max_length=8)]], ...], Field(max_length=64)
    ] = ()

    def to_policy(self, signature: Signature) -> ServingPolicy:
        """The domain's value, for a signature that `check` has accepted."""
        dtypes = {spec.name: spec.dtype for spec in signature.inputs}
        return ServingPolicy(
            batching=self.batching.enabled,
            max_rows=self.batching.max_rows,
            max_bytes=self.batching.max_bytes,
            padding=tuple(
                Padding(
                    rule.input,
                    rule.axis,
                    _zero(dtypes[rule.input]) if rule.value is None else rule.value,
                    rule.buckets,
                    rule.multiple_of,
                )
                for rule in self.padding
            ),
            unpad=tuple(Unpadding(**rule.model_dump()) for rule in self.unpad),
            cache=None if self.cache is None else CachePolicy(self.cache.max_bytes, self.cache.ttl_s),
            join=self.join,
            instances=self.instances,
            state=tuple(
                StateTensor(state.input, state.output, state.dtype, _dims(state.shape)) for state in self.state
            ),
            warm_up=self.warm_up,
        )

    def check(self, signature: Signature) -> None:
        """Raise ValueError unless everything named here is in the signature and may be so."""
        inputs = {spec.name: spec for spec in signature.inputs}
        outputs = {spec.name: spec for spec in signature.outputs}
        self._check_padding(inputs, signature)
        padded = {(rule.input, rule.axis) for rule in self.padding}
        for rule in self.unpad:
            if (rule.input, rule.input_axis) not in padded:
                raise ValueError(f"unpad names axis {rule.input_axis} of {rule.input!r}, which is not padded")
            _check_axis("unpad", outputs, rule.output, rule.axis, signature)
        _check_once("unpad", [(rule.output, rule.axis) for rule in self.unpad])
        _check_once("state", [state.input for state in self.state])
        _check_once("state", [state.output for state in self.state])
        for state in self.state:
            if state.input in inputs or state.output in outputs:
                raise ValueError(
                    f"the state {state.input!r} is part of the signature, where callers would have to give it"
                )
        if self.state and (self.cache or self.join):
            raise ValueError("the answers of a model with state cannot be cached or joined")
        for shapes in self.warm_up:
            _check_shapes(shapes, inputs, signature)

    def _check_padding(self, inputs: dict[str, TensorSpec], signature: Signature) -> None:
        _check_once("padding", [(rule.input, rule.axis) for rule in self.padding])
        values: dict[str, str] = {}
        for rule in self.padding:
            spec = _check_axis("padding", inputs, rule.input, rule.axis, signature)
            if spec.takes_images:
                raise ValueError(f"{spec.name!r} takes images, which are not padded")
            value = _zero(spec.dtype) if rule.value is None else rule.value
            _check_value(value, spec)
            if values.setdefault(spec.name, repr(value)) != repr(value):
                raise ValueError(f"the axes of {spec.name!r} must be padded with one value")


def _dims(shape: Sequence[int]) -> tuple[Dim, ...]:
    return tuple(None if dim < 0 else dim for dim in shape)


def _zero(dtype: DType) -> _Value:
    if dtype is DType.BYTES:
        return ""
    return False if dtype is DType.BOOL else 0


def _check_once(kind: str, places: Sequence[object]) -> None:
    if len(set(places)) != len(places):
        raise ValueError(f"{kind} names a place twice")


def _check_axis(kind: str, specs: dict[str, TensorSpec], name: str, axis: int, signature: Signature) -> TensorSpec:
    if name not in specs:
        raise ValueError(f"{kind} names the tensor {name!r}, which the signature does not have")
    spec = specs[name]
    if signature.has_rows(spec) and axis == 0:
        raise ValueError(f"{kind} names axis 0 of {name!r}, which counts its instances")
    if axis >= len(spec.shape) or spec.shape[axis] is not None:
        raise ValueError(f"{kind} names axis {axis} of {name!r}, which is not one of any size")
    return spec


def _check_value(value: object, spec: TensorSpec) -> None:
    """The model's own rules hold for what is filled in, since values are checked in the merged batch."""
    wrong = ValueError(f"{value!r} is no value of {spec.name!r}")
    if spec.dtype is DType.BYTES or spec.dtype is DType.BOOL:
        if not isinstance(value, str if spec.dtype is DType.BYTES else bool):
            raise wrong
        if isinstance(value, str) and spec.max_length is not None and len(value) > spec.max_length:
            raise wrong
        return
    if isinstance(value, bool) or not isinstance(value, int if spec.dtype.is_integer else int | float):
        raise wrong
    if spec.dtype.is_integer:
        bits = int(spec.dtype.value.lstrip("UINT"))
        low, high = (0, 2**bits - 1) if spec.dtype.value.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    elif isinstance(value, float) and not isfinite(value) and spec.allow_non_finite:
        return
    else:
        high = {DType.FP16: 65504, DType.FP64: 1e308}.get(spec.dtype, 3.38e38)
        low = -high
    if spec.minimum is not None:
        low = max(low, spec.minimum)
    if spec.maximum is not None:
        high = min(high, spec.maximum)
    if not low <= value <= high:
        raise wrong


def _check_shapes(shapes: dict[str, tuple[int, ...]], inputs: dict[str, TensorSpec], signature: Signature) -> None:
    unknown = [name for name in shapes if name not in inputs]
    missing = [spec.name for spec in signature.required if spec.name not in shapes]
    if unknown or missing:
        raise ValueError(f"a shape to warm up needs the inputs of the signature; see {', '.join(unknown or missing)}")
    rows = {
        shapes[name][0] for name, spec in inputs.items() if name in shapes and shapes[name] and signature.has_rows(spec)
    }
    for name, shape in shapes.items():
        spec = inputs[name].shape
        if len(shape) != len(spec) or any(want not in (None, have) for have, want in zip(shape, spec, strict=True)):
            raise ValueError(f"the shape {list(shape)} to warm up is none of {name!r}")
    if len(rows) > 1 or any(count > signature.max_batch for count in rows):
        raise ValueError("a shape to warm up has more rows than the model takes, or different ones")
