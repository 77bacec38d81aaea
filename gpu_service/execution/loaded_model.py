"""A model in memory, ready to run: its sessions on the CPU or the GPU."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_service.execution import cpu, warm_up
from gpu_service.execution.bound import BoundExecution
from gpu_service.execution.buffers import Device
from gpu_service.execution.cancel import Cancel
from gpu_service.execution.gpu import open_gpu
from gpu_service.execution.memory import give_back, memory_in_use
from gpu_service.execution.options import ExecutionOptions
from shared.adapters.onnx.execution import Execution, Runner
from shared.adapters.onnx.package import OnnxPackage, model_file
from shared.adapters.onnx.session import CPU, create_session
from shared.domain.errors import BackendError, BackendUnavailable, InvalidRequest
from shared.domain.tensors import Array, Tensors

if TYPE_CHECKING:
    from gpu_service.models.served_model import ModelKey

_log = logging.getLogger(__name__)

# A shorter run gains nothing from more threads: handing the work out takes as long.
_WIDE_PAYS_S = 0.001
# A wide session that takes this much longer than the narrow one is given up: it is not the noise of a busy machine.
_WIDE_LOSES = 1.25


class LoadedModel:
    """`run` may be called from several threads at once; everything else belongs to the thread that loads.

    `instances` is how many runs at once make sense; `memory_bytes` what the process grew by, at least the files' size.
    """

    def __init__(
        self,
        package: OnnxPackage,
        path: Path,
        options: ExecutionOptions,
        *,
        wide: Execution | None = None,
        bound: BoundExecution | None = None,
        instances: int,
        memory_before: int,
        file_bytes: int,
    ) -> None:
        self.package = package
        self.signature = package.signature
        self.manifest = package.manifest
        self.device = "cpu" if bound is None else "gpu"
        self.instances = instances
        self.memory_bytes = file_bytes
        self._path = path
        self._options = options
        self._wide: Runner | None = wide
        self._runner: Runner | None = bound
        self._closed = False
        self._before = memory_before

    @property
    def has_wide(self) -> bool:
        """Whether `run(wide=True)` has a session of its own, which uses every core."""
        return self._wide is not None

    def run(
        self, inputs: Tensors, outputs: Sequence[str] = (), *, wide: bool = False, cancel: Cancel | None = None
    ) -> dict[str, Array]:
        """The outer outputs (`outputs` empty: all) of outer inputs that conform to the signature; blocks.

        `wide` uses every core, for a request that is alone. Raises as `OnnxPackage.run`: RunTerminated if `cancel` was
        terminated; BackendUnavailable once the model is closed.
        """
        if self._closed:
            raise BackendUnavailable("The model has been unloaded.")
        runner = self._wide if wide and self._wide is not None else self._runner
        return self.package.run(inputs, outputs, runner=runner, options=None if cancel is None else cancel.options)

    def warm_up(self) -> dict[int, float]:
        """Run what is declared, one row and a batch; the seconds of a run by its rows, for a first estimate.

        Empty if the graph takes no zeros, which proves nothing. Raises InvalidPackage if the model cannot predict the
        example of its manifest.
        """
        self.package.warm_up()
        seconds: dict[int, float] = {}
        try:
            self._measure(seconds)
        except (InvalidRequest, BackendError):  # zeros need not make sense to a graph
            _log.info("the model does not run on zeros: how long it takes is learned from requests")
        self._note_memory()
        return seconds

    def close(self) -> None:
        """Give the memory back; call it once nothing runs. Further runs raise BackendUnavailable."""
        self._closed = True
        self._wide = self._runner = None
        del self.package
        give_back()

    def _measure(self, seconds: dict[int, float]) -> None:
        signature = self.signature
        declared = self.manifest.serving_policy().warm_up
        for shapes in declared:
            inputs = warm_up.of_shapes(signature, shapes)
            rows = len(inputs[signature.required[0].name]) if signature.batched else 1
            seconds[rows] = max(seconds.get(rows, 0.0), warm_up.measure(self.run, inputs))
        single = self._single()
        seconds.setdefault(1, warm_up.measure(self.run, single))
        self._settle_wide(single, seconds[1])
        if not signature.batched:
            return
        middle = warm_up.middle_rows(seconds[1], signature.max_batch)
        buckets = self._runner.buckets if isinstance(self._runner, BoundExecution) else ()
        for rows in sorted({middle, *buckets} - seconds.keys()):
            if rows <= signature.max_batch:
                seconds[rows] = warm_up.measure(self.run, warm_up.repeated(single, rows))

    def _single(self) -> Tensors:
        """One instance that the model takes, of usual sizes if it can be."""
        usual = warm_up.usual(self.signature)
        if usual is not None:
            try:
                self.run(usual)
            except (InvalidRequest, BackendError):
                return warm_up.of_shapes(self.signature, {})
            return usual
        return warm_up.of_shapes(self.signature, {})

    def _settle_wide(self, single: Tensors, narrow_s: float) -> None:
        """Keep or make the wide session where it pays, else give it up."""
        if self._options.providers != (CPU,) or self.device == "gpu" or self._options.cpus == 1:
            return
        if narrow_s < _WIDE_PAYS_S:
            self._wide = None
            return
        if self._wide is None:
            self._wide = Execution(cpu.open_wide(self._path, self._options.cpus))
        if warm_up.measure(lambda inputs: self.run(inputs, wide=True), single) > narrow_s * _WIDE_LOSES:
            self._wide = None

    def _note_memory(self) -> None:
        give_back()
        self.memory_bytes = max(self.memory_bytes, memory_in_use() - self._before)


def load_model(
    folder: Path, key: "ModelKey", options: ExecutionOptions, *, device: Device | None = None
) -> LoadedModel:
    """Load the package in `folder`; `key` names it where it has no manifest. InvalidPackage or ProviderNotLoaded.

    `device` makes the model go the GPU's way, through buffers on that device, whatever the providers are.
    """
    path = model_file(folder)
    file_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    give_back()
    before = memory_in_use()
    if options.on_gpu or device is not None:
        gpu = open_gpu(folder, key, options, device)
        package, wide, bound, instances = gpu.package, None, gpu.bound, gpu.instances
    elif options.providers != (CPU,):
        # What another provider does with threads and weights is its own affair: one session, one batch at a time.
        session = create_session(path, threads=options.cpus, providers=options.providers)
        package = OnnxPackage.of(session, folder, name=key.name, version=key.version)
        wide, bound, instances = None, None, options.instances or 1
    else:
        narrow, shared = cpu.open_sessions(path, file_bytes, options.cpus)
        package = OnnxPackage.of(narrow, folder, name=key.name, version=key.version)
        wide, bound = None if shared is None else Execution(shared), None
        instances = options.instances or package.manifest.serving_policy().instances or options.cpus
    return LoadedModel(
        package,
        path,
        options,
        wide=wide,
        bound=bound,
        instances=instances,
        memory_before=before,
        file_bytes=file_bytes,
    )
