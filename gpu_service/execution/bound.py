"""Runs with I/O binding: tensors lie in buffers of the device that are kept and used again.

A set of buffers belongs to one combination of shapes and to one run at a time. Where CUDA graphs are on, batches are
filled up to the next bucket of rows, whose run was captured once and is replayed. The same code runs on the CPU.
Sources: ONNX Runtime, "I/O Binding" and "Using CUDA Graphs".
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Lock

from gpu_service.execution.buffers import Buffers, Device, Layout
from gpu_service.execution.cancel import EAGER, eager_options
from shared.adapters.onnx.execution import Execution, RunTerminated, run_error
from shared.adapters.onnx.runtime import ort
from shared.domain.dtypes import DType
from shared.domain.errors import SluiceError
from shared.domain.signature import Dim
from shared.domain.tensors import Array, Tensors

# Combinations of shapes whose buffers are kept, the least recently used going first.
_MAX_LAYOUTS = 32


class BoundExecution:
    """Implements `shared.adapters.onnx.execution.Runner`; may be used from several threads at once.

    `buckets` (ascending, empty: none) are the rows that batches are filled up to; `graphs` says that the session
    captures one CUDA graph for each of them, which allows one run at a time.
    """

    def __init__(
        self, execution: Execution, device: Device, *, buckets: Sequence[int] = (), graphs: bool = False
    ) -> None:
        self._execution = execution
        self._device = device
        tensors = (*execution.inputs, *execution.optional, *execution.outputs)
        self._bindable = all(tensor.dtype is not DType.BYTES for tensor in tensors)
        self._buckets = tuple(buckets) if _goes_by_rows(execution) else ()
        self._graphs = graphs
        self._options = eager_options()
        self._alone: AbstractContextManager[object] = Lock() if graphs else nullcontext()
        self._lock = Lock()
        self._free: OrderedDict[Hashable, list[Buffers]] = OrderedDict()
        self._symbols_hold = True  # exporters give different dimensions one name; then outputs are not allocated ahead

    @property
    def buckets(self) -> tuple[int, ...]:
        """The rows that batches are filled up to."""
        return self._buckets

    def run(self, outputs: Sequence[str], feeds: Tensors, options: ort.RunOptions | None = None) -> dict[str, Array]:
        """The named outputs, in memory of their own; raises as `Execution.run`."""
        if not self._bindable:
            return self._execution.run(outputs, feeds, options)
        feeds = self._execution.to_native(feeds)
        shapes = {name: array.shape for name, array in feeds.items()}
        for shape in shapes.values():
            if 0 in shape:
                return self._execution.run(outputs, feeds, options)
        rows, bucket = self._rows(shapes) if self._buckets else (0, 0)
        try:
            return self._run(outputs, feeds, shapes, options, rows, bucket)
        except SluiceError:
            raise
        except Exception as error:
            if not self._symbols_hold or (options is not None and options.terminate):
                raise run_error(error, options) from error
        try:
            self._symbols_hold = False
            return self._run(outputs, feeds, shapes, options, rows, bucket)
        except Exception as error:
            self._symbols_hold = True  # the values were at fault, not the names of the dimensions
            raise run_error(error, options) from error

    def _rows(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
        """Rows of the batch, and the rows that it is filled up to (0: no bucket)."""
        counts = {shape[0] for shape in shapes.values()}
        rows = counts.pop()
        at = bisect_left(self._buckets, rows)
        return rows, self._buckets[at] if not counts and at < len(self._buckets) else 0

    def _run(
        self,
        outputs: Sequence[str],
        feeds: Tensors,
        shapes: dict[str, tuple[int, ...]],
        options: ort.RunOptions | None,
        rows: int,
        bucket: int,
    ) -> dict[str, Array]:
        if bucket:
            shapes = {name: (bucket, *shape[1:]) for name, shape in shapes.items()}
        key = (tuple(shapes.items()), tuple(outputs), self._symbols_hold)
        buffers = self._take(key) or self._allocate(shapes, outputs, bucket)
        buffers.fill(feeds)
        if self._graphs:
            if options is not None and options.terminate:
                # A replay cannot be stopped, only not be begun.
                raise RunTerminated("The run was stopped before it began.")
            options = buffers.options
        with self._alone:
            buffers.run(options or self._options)
        results = buffers.results(rows)
        self._give(key, buffers)
        return results

    def _allocate(self, shapes: dict[str, tuple[int, ...]], outputs: Sequence[str], bucket: int) -> Buffers:
        layout = Layout(shapes, tuple(outputs), bucket, ahead=self._symbols_hold)
        graph = (self._buckets.index(bucket) if bucket else EAGER) if self._graphs else None
        return Buffers(self._execution, self._device, layout, graph)

    def _take(self, key: Hashable) -> Buffers | None:
        """Buffers that nobody uses, if there are any; those of a run that fails are not given back."""
        with self._lock:
            free = self._free.get(key)
            if free:
                self._free.move_to_end(key)
                return free.pop()
        return None

    def _give(self, key: Hashable, buffers: Buffers) -> None:
        with self._lock:
            self._free.setdefault(key, []).append(buffers)
            self._free.move_to_end(key)
            while len(self._free) > _MAX_LAYOUTS:
                self._free.popitem(last=False)


def _goes_by_rows(execution: Execution) -> bool:
    """Whether the rows are all that varies in the shapes of this graph."""
    tensors = (*execution.inputs, *execution.outputs)
    rows = {tensor.symbols[0] for tensor in tensors if tensor.symbols}
    return (
        len(rows) == 1
        and not execution.optional
        and all(tensor.shape and _only_rows_vary(tensor.shape) for tensor in tensors)
    )


def _only_rows_vary(shape: tuple[Dim, ...]) -> bool:
    return shape[0] is None and None not in shape[1:]
