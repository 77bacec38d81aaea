"""Runs packages in this process."""

from threading import Event, Lock
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from shared.adapters.run_deadlines import RunDeadlines
from shared.domain.errors import BackendError, BackendTimeout
from shared.domain.model import ModelVersion
from shared.domain.ports import InferenceContext
from shared.domain.stop_signal import stop_signal
from shared.domain.tensors import Tensors

if TYPE_CHECKING:
    from shared.adapters.onnx.runtime import RunOptions


class Runnable(Protocol):
    """A loaded package: pre-processing, graph and post-processing together."""

    def run(self, inputs: Tensors, *, options: "RunOptions | None" = None) -> Tensors:
        """Outer inputs to outer outputs; raises InvalidRequest for faulty content and BackendError.

        BackendTimeout once `options.terminate` is set.
        """


class Packages(Protocol):
    """Where loaded packages come from: `shared.adapters.package_cache.PackageCache`, or a folder."""

    def get(self, version: ModelVersion) -> Runnable:
        """The loaded package of a version."""

    def ready(self, version: ModelVersion) -> bool:
        """Whether `get` would return at once."""


class FunctionBackend:
    """Implements `shared.domain.ports.Backend` with packages that are fetched and loaded on first use.

    A run is stopped at its deadline, between two operators of its graph. What cannot be stopped (fetching and loading,
    pre- and post-processing, a single long operator) goes on: who may not wait for it calls on a thread of its own,
    and the next request finds the package loaded. One call loads a version; the others wait for it, each until its own
    deadline.
    """

    def __init__(self, packages: Packages) -> None:
        self._packages = packages
        self._deadlines = RunDeadlines()
        self._lock = Lock()
        self._loads: dict[tuple[str, int, str], Event] = {}

    def ready(self, version: ModelVersion) -> bool:
        """Whether a version is loaded, so that a call takes no longer than its run."""
        return self._packages.ready(version)

    def infer(self, version: ModelVersion, inputs: Tensors, context: InferenceContext) -> Tensors:
        """Run the model here; raises BackendTimeout at the deadline, and what packages raise.

        Work with a stop signal (`shared.domain.stop_signal`) ends with it in the same way, and raises BackendError.

        A run that fails blames no backend: ONNX Runtime tells values that a graph cannot take from a failure of its own
        in some operators only, and this process is as well as before.
        """
        ends = monotonic() + context.deadline_ms / 1e3
        if context.deadline_ms <= 0:
            raise BackendTimeout("The deadline passed before the model could run.")
        package = self._package(version, ends)
        if monotonic() >= ends:
            raise BackendTimeout("The deadline passed while the model was loaded.")
        signal = stop_signal()
        with self._deadlines.until(ends) as options:
            if signal is None:
                return _run(package, inputs, options, context)
            with signal.calling(lambda: setattr(options, "terminate", True)):
                try:
                    return _run(package, inputs, options, context)
                except BackendTimeout as error:
                    if not signal.is_set:
                        raise
                    given_up = BackendError("The run was given up.")
                    given_up.blames_backend = False
                    raise given_up from error

    def _package(self, version: ModelVersion, ends: float) -> Runnable:
        """The loaded package; BackendTimeout if another call is still loading it at that moment."""
        key = (version.model, version.version, version.digest)
        while not self._packages.ready(version):
            with self._lock:
                load = self._loads.get(key)
                if load is None:
                    mine = self._loads[key] = Event()
            if load is None:
                try:
                    return self._packages.get(version)
                finally:
                    with self._lock:
                        del self._loads[key]
                    mine.set()
            if not load.wait(max(0.0, ends - monotonic())):
                raise BackendTimeout("The deadline passed while the model was loaded.")
        return self._packages.get(version)


def _run(package: Runnable, inputs: Tensors, options: "RunOptions", context: InferenceContext) -> Tensors:
    try:
        return package.run(inputs, options=options)
    except BackendTimeout as error:
        raise BackendTimeout(f"The model did not finish within {context.deadline_ms} ms.") from error
    except BackendError as error:
        error.blames_backend = False
        raise
