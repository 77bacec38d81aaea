"""ONNX Runtime sessions: explicit threads, and a provider that did not load is an error.

A package's external data cannot lead out of its folder: ONNX Runtime refuses absolute paths, `..` and symbolic links
that leave the model's own folder, in every graph of a model. That is relied on here, and the tests hold it to that.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.adapters.onnx.runtime import ort
from shared.domain.errors import BackendUnavailable, InvalidPackage

CPU = "CPUExecutionProvider"
# What is smaller stays in the file of the graph: every tensor outside of it begins on a page of its own.
_MIN_EXTERNAL_BYTES = 4096


class ProviderNotLoaded(BackendUnavailable):
    """A requested execution provider is not there or did not start. Falling back to the CPU would hide it."""


def create_session(
    path: Path,
    *,
    threads: int,
    providers: tuple[str, ...] = (CPU,),
    provider_options: Sequence[Mapping[str, str]] = (),
    spinning: bool = False,
    saving: Path | None = None,
    optimized: bool = False,
) -> ort.InferenceSession:
    """Load a graph; `threads` work on one operator, operators run one after another.

    `provider_options` are those of `providers`, one by one. `spinning` lets threads burn CPU while they wait within a
    run, not between runs: faster on a machine that does nothing else, harmful in a function, whose CPU is shared or
    frozen. `saving` is where the optimized graph is written, its weights beside it as this CPU's kernels want them;
    `optimized` says that `path` is such a file. Raises InvalidPackage or ProviderNotLoaded.
    """
    missing = [name for name in providers if name not in ort.get_available_providers()]
    if missing:
        raise ProviderNotLoaded(f"This build of ONNX Runtime has no {', '.join(missing)}.")
    options = _options(threads, spinning)
    if saving is not None:
        _save(options, saving)
    if optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        # Not the path's bytes: ONNX Runtime finds external data beside the file.
        session = ort.InferenceSession(
            str(path),
            sess_options=options,
            providers=list(providers),
            provider_options=[dict(each) for each in provider_options] or None,
            enable_fallback=0,
        )
    except Exception as error:
        raise InvalidPackage(f"{path.name} cannot be loaded: {_reason(error, path)}") from error
    lost = [name for name in providers if name not in session.get_providers()]
    if lost:
        raise ProviderNotLoaded(
            f"{', '.join(lost)} did not start; ONNX Runtime fell back to {session.get_providers()}."
        )
    return session


def _options(threads: int, spinning: bool) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Its errors come as exceptions as well; its own lines on stderr are in no log format.
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    options.add_session_config_entry("session.force_spinning_stop", "1" if spinning else "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _save(options: Any, path: Path) -> None:
    options.optimized_model_filepath = str(path)
    weights = {
        "session.optimized_model_external_initializers_file_name": f"{path.stem}.bin",
        "session.optimized_model_external_initializers_min_size_in_bytes": str(_MIN_EXTERNAL_BYTES),
        "session.save_external_prepacked_constant_initializers": "1",
    }
    for key, text in weights.items():
        options.add_session_config_entry(key, text)


def _reason(error: Exception, path: Path) -> str:
    """The first line of ONNX Runtime's message, without its prefix and without folders of this machine."""
    line = str(error).partition("\n")[0].removeprefix("[ONNXRuntimeError] : ")
    for folder in {str(path.parent.resolve()), str(path.parent)} - {"."}:
        line = line.replace(folder, "…")
    return line[:300]
