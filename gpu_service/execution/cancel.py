"""Stops a run from outside."""

from shared.adapters.onnx.runtime import ort

# The entry by which a run says which CUDA graph it belongs to, and its value for none.
GRAPH_ID = "gpu_graph_id"
EAGER = -1


def eager_options() -> ort.RunOptions:
    """Options of a run that is neither captured nor replayed.

    `run_with_iobinding` asks every options for that entry, and an exception within ONNX Runtime, where it is missing,
    takes longer than a small model.
    """
    options = ort.RunOptions()
    options.add_run_config_entry(GRAPH_ID, str(EAGER))
    return options


class Cancel:
    """Belongs to one batch; `terminate` may be called from any thread, before, during or after its runs.

    ONNX Runtime looks at it between two operators. What was stopped raises `RunTerminated`.
    """

    __slots__ = ("options",)

    def __init__(self) -> None:
        self.options = eager_options()
        self.options.log_severity_level = 4  # a run that is stopped writes to stderr otherwise

    def terminate(self) -> None:
        """Stop the run, and let none begin."""
        self.options.terminate = True
