"""Sessions on the CPU: one of a single thread, which several callers run at once, and one that uses every core.

While requests wait, callers side by side give the most rows a second; a request that is alone is answered sooner by all
cores together. Both sessions map the same weights: the graph is written once, optimized and with its weights as this
CPU's kernels want them, and loaded twice from there. The files are gone when the sessions stand, so they never meet
another version of ONNX Runtime or another CPU.
"""

import logging
import shutil
import tempfile
from pathlib import Path

from shared.adapters.onnx.execution import Execution, GraphTensor
from shared.adapters.onnx.runtime import InferenceSession
from shared.adapters.onnx.session import create_session
from shared.domain.errors import SluiceError

_log = logging.getLogger(__name__)

# Below this, sharing saves less than it costs to write.
_SHARING_PAYS = 8 * 1024 * 1024
# Weights are written as they are in the graph and as the kernels want them.
_ROOM_FACTOR = 3


def open_sessions(path: Path, nbytes: int, cpus: int) -> tuple[InferenceSession, InferenceSession | None]:
    """The narrow session, and the wide one if it shares its weights; InvalidPackage.

    `nbytes` is the size of the graph and its weights. For a small model `open_wide` makes the wide session once it is
    known to pay.
    """
    if cpus > 1 and nbytes >= _SHARING_PAYS:
        pair = _open_shared(path, nbytes, cpus)
        if pair is not None:
            return pair
    return create_session(path, threads=1), None


def open_wide(path: Path, cpus: int) -> InferenceSession:
    """A session that uses every core; InvalidPackage."""
    return create_session(path, threads=cpus, spinning=True)


def _open_shared(path: Path, nbytes: int, cpus: int) -> tuple[InferenceSession, InferenceSession] | None:
    """Both sessions on one copy of the weights; None if that cannot be had here."""
    if shutil.disk_usage(tempfile.gettempdir()).free < _ROOM_FACTOR * nbytes:
        _log.warning("no room for weights that sessions share: each takes its own memory")
        return None
    try:
        with tempfile.TemporaryDirectory(prefix="sluice-weights-") as folder:
            saved = Path(folder) / "model.onnx"
            written = _tensors(create_session(path, threads=1, saving=saved))
            narrow = create_session(saved, threads=1, optimized=True)
            wide = create_session(saved, threads=cpus, optimized=True, spinning=True)
    except (SluiceError, OSError):
        # What is wrong with the package itself is told when it is loaded as it is.
        _log.warning("weights cannot be shared between sessions", exc_info=True)
        return None
    return (narrow, wide) if _tensors(narrow) == written else None


def _tensors(session: InferenceSession) -> tuple[GraphTensor, ...]:
    execution = Execution(session)
    return (*execution.inputs, *execution.optional, *execution.outputs)
