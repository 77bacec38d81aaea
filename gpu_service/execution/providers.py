"""Options of the GPU's execution providers.

Sources: ONNX Runtime, "CUDA Execution Provider" and "TensorRT Execution Provider".
"""

from collections.abc import Mapping, Sequence

from gpu_service.execution.options import CUDA, TENSORRT, ExecutionOptions
from shared.domain.serving import ServingPolicy
from shared.domain.signature import Signature

# Input name → shape; a profile is one for the smallest, the usual and the largest batch.
Shapes = Mapping[str, tuple[int, ...]]
Profile = tuple[Shapes, Shapes, Shapes]
_USUAL_ROWS = 16


def provider_options(
    options: ExecutionOptions, *, graphs: bool, steady: bool, profile: Profile | None
) -> list[dict[str, str]]:
    """The options of each of `options.providers`, in their order.

    `graphs` captures CUDA graphs; `steady` says that shapes hardly change, so that a long search for the quickest
    convolution pays; `profile` are the shapes that TensorRT builds its engine for (None: those that it meets).
    """
    known = {
        CUDA: lambda: _cuda(options, graphs=graphs, steady=steady),
        TENSORRT: lambda: _tensorrt(options, graphs=graphs, profile=profile),
    }
    return [known[name]() if name in known else {} for name in options.providers]


def _cuda(options: ExecutionOptions, *, graphs: bool, steady: bool) -> dict[str, str]:
    chosen = {
        "device_id": str(options.device_id),
        # Its default doubles the arena: a model would hold twice what it needs, and the next one finds no room.
        "arena_extend_strategy": "kSameAsRequested",
        # An exhaustive search stalls the first request of every new shape for seconds.
        "cudnn_conv_algo_search": "EXHAUSTIVE" if steady else "HEURISTIC",
        "cudnn_conv_use_max_workspace": "1",
        "do_copy_in_default_stream": "1",
        "use_tf32": _flag(options.tf32),
        "enable_cuda_graph": _flag(graphs),
    }
    if options.gpu_mem_limit:
        chosen["gpu_mem_limit"] = str(options.gpu_mem_limit)
    return chosen


def _tensorrt(options: ExecutionOptions, *, graphs: bool, profile: Profile | None) -> dict[str, str]:
    chosen = {
        "device_id": str(options.device_id),
        "trt_fp16_enable": _flag(options.tensorrt.fp16),
        "trt_cuda_graph_enable": _flag(graphs),
    }
    if options.tensorrt.workspace_bytes:
        chosen["trt_max_workspace_size"] = str(options.tensorrt.workspace_bytes)
    if options.cache_dir is not None:
        folder = str(options.cache_dir)
        chosen |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": folder,
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": folder,
        }
    if profile is not None:
        for name, shapes in zip(("min", "opt", "max"), profile, strict=True):
            chosen[f"trt_profile_{name}_shapes"] = _shapes(shapes)
    return chosen


def _shapes(shapes: Shapes) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())


def _flag(value: bool) -> str:
    return "1" if value else "0"


def profile_of(declared: Sequence[Shapes]) -> Profile | None:
    """The profile that covers the shapes a model declares, the middle one as the usual; None if it declares none."""
    if not declared:
        return None
    names = set(declared[0]).intersection(*declared[1:])
    if any(set(shapes) != names for shapes in declared):
        return None
    ordered = sorted(declared, key=_elements)
    bounds = [
        {
            name: tuple(pick(sizes) for sizes in zip(*(shapes[name] for shapes in declared), strict=True))
            for name in ordered[0]
        }
        for pick in (min, max)
    ]
    return bounds[0], ordered[len(ordered) // 2], bounds[1]


def profile_for(signature: Signature, policy: ServingPolicy) -> Profile | None:
    """The profile of a graph with this signature, so that TensorRT builds one engine and not one for each new shape.

    What the manifest declares counts; without that, rows from one to the largest batch where nothing else varies.
    """
    if policy.warm_up:
        profile = profile_of(policy.warm_up)
        complete = profile is not None and profile[0].keys() == {spec.name for spec in signature.required}
        return profile if complete else None
    if not signature.batched or any(None in spec.shape[1:] for spec in signature.required):
        return None
    most = policy.max_rows or signature.max_batch
    small, usual, large = (
        {spec.name: (rows, *(dim for dim in spec.shape[1:] if dim is not None)) for spec in signature.required}
        for rows in (1, min(_USUAL_ROWS, most), most)
    )
    return small, usual, large


def _elements(shapes: Shapes) -> int:
    total = 0
    for shape in shapes.values():
        size = 1
        for dim in shape:
            size *= dim
        total += size
    return total
