"""Several requests as one: their tensors merged for a run, its outputs split again.

A merged tensor is written once, by joining the bytes of its parts: a third of the time of `numpy.concatenate` for small
ones, and no slower for large ones. Reused buffers were measured too, and are not quicker than fresh memory.
"""

from collections.abc import Hashable, Sequence
from typing import Any, Protocol, cast

import numpy as np

from shared.codecs.batch_rows import BatchRows, RowOutputs
from shared.domain.dtypes import DType
from shared.domain.errors import BackendError
from shared.domain.serving import Padding, ServingPolicy
from shared.domain.signature import Signature, TensorSpec
from shared.domain.tensors import Array, Tensors, fp32_to_bf16


class Batchable(Protocol):
    """What a batch reads of a request and gives it; see `gpu_service.inference.request.InferenceRequest`."""

    inputs: dict[str, Array]
    outputs: tuple[str, ...]
    rows: int
    result: Tensors | None


class _Fill:
    """A padding rule with what its input needs."""

    __slots__ = ("axis", "padded", "value")

    def __init__(self, rule: Padding, spec: TensorSpec) -> None:
        self.axis = rule.axis
        self.padded = rule.padded
        self.value: Any = rule.value
        if spec.dtype is DType.BYTES:
            self.value = str(rule.value).encode()
        elif spec.dtype is DType.BF16:
            self.value = fp32_to_bf16(np.array([rule.value], dtype=np.float32))[0]


class BatchPlan:
    """How requests of one model may be merged; made once for each model, and may be used by several threads.

    Requests merge if they give the same inputs with the same shapes of one row, once padded where the manifest allows
    it. They never merge if the signature is not batched, if batching is off, if an input holds for all rows of its
    request, if the model keeps state, or if the neighbours could change an answer's shape: where text or images go in,
    the model decides the size of what it works on, so an output with an axis of any size would follow the largest.
    """

    __slots__ = ("_fills", "_images", "_merges", "_optional", "_shared", "_unpads", "_varying", "padded_inputs")

    def __init__(self, signature: Signature, policy: ServingPolicy) -> None:
        specs = {spec.name: spec for spec in signature.inputs}
        fills: dict[str, list[_Fill]] = {}
        for rule in policy.padding:
            fills.setdefault(rule.input, []).append(_Fill(rule, specs[rule.input]))
        self._fills = {name: tuple(rules) for name, rules in fills.items()}
        self._unpads = policy.unpad
        self.padded_inputs = frozenset(self._fills)
        varying_output = any(None in spec.shape[1:] for spec in signature.outputs)
        sized_by_content = any(spec.dtype is DType.BYTES or spec.takes_images for spec in signature.inputs)
        self._merges = (
            signature.batched and policy.batching and not policy.state and not (varying_output and sized_by_content)
        )
        self._optional = any(spec.optional for spec in signature.inputs)
        self._shared = frozenset(spec.name for spec in signature.inputs if not signature.has_rows(spec))
        self._images = tuple(spec.name for spec in signature.inputs if spec.takes_images)
        self._varying = tuple(spec.name for spec in signature.inputs if None in spec.shape[1:])

    def shape_key(self, inputs: Tensors) -> Hashable:
        """The key of a request with these checked inputs: only requests with equal keys may share a batch."""
        if not self._merges:
            return object()
        if not (self._optional or self._varying or self._images):
            return None
        if not self._shared.isdisjoint(inputs):
            return object()
        shapes = tuple(self._shape(name, inputs[name])[1:] for name in self._varying if name in inputs)
        # An image may come encoded, as bytes, in place of its numbers.
        encoded = tuple(inputs[name].dtype.kind for name in self._images if name in inputs)
        return (frozenset(inputs) if self._optional else None, shapes, encoded)

    def _shape(self, name: str, array: Array) -> tuple[int, ...]:
        """The shape of `array` once it is padded."""
        fills = self._fills.get(name)
        if fills is None:
            return array.shape
        shape = list(array.shape)
        for fill in fills:
            shape[fill.axis] = fill.padded(shape[fill.axis])
        return tuple(shape)

    def merge(self, name: str, parts: list[Array], rows: int) -> Array:
        """The parts of one input, padded, as one tensor of `rows`; a single part that needs no padding as it is."""
        first = parts[0]
        if name in self._fills:
            return self._merge_padded(name, parts, rows)
        if len(parts) == 1:
            return first
        if first.dtype.kind == "O":
            return np.concatenate(parts)
        try:
            joined: Array = np.frombuffer(b"".join(cast(list[memoryview], parts)), dtype=first.dtype)
        except TypeError:  # a part is a view whose rows do not lie one after the other
            return np.concatenate(parts)
        return joined.reshape(rows, *first.shape[1:])

    def _merge_padded(self, name: str, parts: list[Array], rows: int) -> Array:
        first = parts[0]
        shape = self._shape(name, first)
        if len(parts) == 1 and shape == first.shape:
            return first
        if len(parts) > 1:
            shape = (rows, *shape[1:])
        merged = np.empty(shape, dtype=first.dtype)
        merged.fill(self._fills[name][0].value)  # one value for an input, whatever the axis
        row = 0
        for part in parts:
            if len(parts) == 1:
                place = tuple(slice(size) for size in part.shape)
            else:
                place = (slice(row, row + part.shape[0]), *(slice(size) for size in part.shape[1:]))
                row += part.shape[0]
            merged[place] = part
        return merged

    def unpad(self, inputs: Tensors, outputs: dict[str, Array]) -> None:
        """Cut one request's outputs back to the sizes of its inputs, in place of the padded ones."""
        for rule in self._unpads:
            array = outputs.get(rule.output)
            if array is None or rule.input not in inputs:
                continue
            size = inputs[rule.input].shape[rule.input_axis]
            if size < array.shape[rule.axis]:
                outputs[rule.output] = array[(slice(None),) * rule.axis + (slice(size),)]


class Batch:
    """Requests with equal shape keys, at least one.

    `tensors` are the merged inputs, in the order of the first request; `outputs` are those that any of them asks for,
    empty for all. Both stay valid as long as nobody writes to the requests' own arrays.
    """

    __slots__ = ("_plain", "_plan", "outputs", "requests", "rows", "tensors")

    def __init__(self, requests: Sequence[Batchable], plan: BatchPlan) -> None:
        self._plan = plan
        self.requests = requests
        first = requests[0]
        self.rows = 0
        wanted: dict[str, None] = {}
        all_wanted = False
        for request in requests:
            self.rows += request.rows
            if request.outputs:
                wanted.update(dict.fromkeys(request.outputs))
            else:
                all_wanted = True
        self.outputs: tuple[str, ...] = () if all_wanted else tuple(wanted)
        self._plain = not wanted and self.rows == len(requests) > 1 and not plan.padded_inputs
        if len(requests) == 1 and not plan.padded_inputs:
            self.tensors = first.inputs
        else:
            self.tensors = {
                name: plan.merge(name, [request.inputs[name] for request in requests], self.rows)
                for name in first.inputs
            }

    def split(self, outputs: Tensors) -> None:
        """Give every request its rows of the outputs that it asked for, in the order of its wish; views, not copies.

        BackendError if the outputs of a merged batch have not its rows: nobody gets another's.
        """
        requests = self.requests
        if len(requests) > 1:
            for name, array in outputs.items():
                if array.shape[:1] != (self.rows,):
                    shape = list(array.shape)
                    raise BackendError(f"The model answered {self.rows} rows with an output {name!r} of shape {shape}.")
        if self._plain:
            self._split_single_rows(outputs)
            return
        alone = len(requests) == 1
        plan = self._plan if self._plan.padded_inputs else None
        row = 0
        for request in requests:
            end = row + request.rows
            if alone:
                result = {name: outputs[name] for name in request.outputs or outputs}
            elif request.outputs:
                result = {name: outputs[name][row:end] for name in request.outputs}
            else:
                result = {name: array[row:end] for name, array in outputs.items()}
            if plan is not None:
                plan.unpad(request.inputs, result)
            request.result = result
            row = end

    def _split_single_rows(self, outputs: Tensors) -> None:
        """The common case: the rows share what can be worked out for all of them at once."""
        batch = BatchRows(outputs)
        for row, request in enumerate(self.requests):
            request.result = RowOutputs(batch, row)
