"""A model on the GPU: one session whose runs go through bound buffers."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_service.execution.bound import BoundExecution
from gpu_service.execution.buffers import Device
from gpu_service.execution.options import TENSORRT, ExecutionOptions
from gpu_service.execution.providers import Profile, profile_for, provider_options
from gpu_service.execution.warm_up import of_shapes, repeated
from shared.adapters.onnx.graph import signature_of
from shared.adapters.onnx.package import OnnxPackage, model_file, read_manifest
from shared.adapters.onnx.session import create_session
from shared.domain.errors import SluiceError
from shared.domain.serving import ServingPolicy
from shared.schemas.manifest import Manifest

if TYPE_CHECKING:
    from gpu_service.models.served_model import ModelKey

_log = logging.getLogger(__name__)
_RUNS_AT_ONCE = 2
_RUNS_TO_REPLAY = 3  # ONNX Runtime allocates in the first, captures in the second


@dataclass(frozen=True, slots=True)
class GpuModel:
    """What `open_gpu` gives: the package, its way through bound buffers, how many runs at once make sense."""

    package: OnnxPackage
    bound: BoundExecution
    instances: int


def open_gpu(folder: Path, key: "ModelKey", options: ExecutionOptions, device: Device | None = None) -> GpuModel:
    """Load a package for the GPU; InvalidPackage, ProviderNotLoaded. `device` is where its buffers lie.

    CUDA graphs are left out, and the log says so, where the graph cannot be captured.
    """
    device = device or Device("cuda", options.device_id)
    if options.cuda_graphs:
        model = _open(folder, key, options, device, graphs=True)
        try:
            _capture(model)
        except SluiceError:
            _log.warning("the model cannot be captured as CUDA graphs: it runs without", exc_info=True)
        else:
            if model.bound.buckets:
                return model
        del model
    return _open(folder, key, options, device, graphs=False)


def _open(folder: Path, key: "ModelKey", options: ExecutionOptions, device: Device, *, graphs: bool) -> GpuModel:
    manifest = read_manifest(folder)
    declared = manifest.serving_policy().warm_up if manifest else ()
    path = model_file(folder)
    session = create_session(
        path,
        threads=1,
        providers=options.providers,
        provider_options=provider_options(
            options, graphs=graphs, steady=graphs or bool(declared), profile=_profile(path, manifest, options)
        ),
    )
    package = OnnxPackage.of(session, folder, name=key.name, version=key.version)
    policy = package.manifest.serving_policy()
    most = policy.max_rows or package.signature.max_batch
    buckets = tuple(rows for rows in options.row_buckets if rows <= most) if graphs else ()
    bound = BoundExecution(package.execution, device, buckets=buckets, graphs=graphs)
    instances = 1 if graphs else options.instances or policy.instances or _RUNS_AT_ONCE
    return GpuModel(package, bound, instances)


def _profile(path: Path, manifest: Manifest | None, options: ExecutionOptions) -> Profile | None:
    if TENSORRT not in options.providers or (manifest is not None and manifest.preprocessing):
        return None
    if manifest is None:
        return profile_for(signature_of(path), ServingPolicy())
    return profile_for(manifest.signature.to_signature(), manifest.serving_policy())


def _capture(model: GpuModel) -> None:
    """Run every bucket until its graph is captured and has been replayed."""
    package = model.package
    single = of_shapes(package.signature, {})
    for rows in model.bound.buckets:
        for _ in range(_RUNS_TO_REPLAY):
            package.run(repeated(single, rows), runner=model.bound)
