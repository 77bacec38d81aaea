"""The backends that the stack itself has: this process, and the container behind its SageMaker endpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.session import Session

from shared.adapters.aws import client
from shared.adapters.backends.pool import EndpointBackends
from shared.adapters.backends.registry import Registry
from shared.adapters.backends.resources import Resources
from shared.adapters.function_backend import FunctionBackend
from shared.adapters.onnx.package import OnnxPackage
from shared.adapters.package_cache import PackageCache
from shared.adapters.pipeline_runner import PipelinePackages
from shared.adapters.s3_packages import S3Packages
from shared.bootstrap.data_plane_settings import DataPlaneSettings
from shared.domain.endpoint.config import CONTAINER, FUNCTION
from shared.domain.errors import BackendUnavailable
from shared.domain.model import ModelVersion
from shared.domain.ports import Backend, InferenceContext, ModelRegistry
from shared.domain.tensors import Tensors

if TYPE_CHECKING:
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient


class NoContainer:
    """Stands for the container in a stack that has none."""

    def infer(self, version: ModelVersion, inputs: Tensors, context: InferenceContext) -> Tensors:
        """Raise BackendUnavailable."""
        del inputs, context
        raise BackendUnavailable(
            f"{version.model} runs in the container, and this stack has none: deploy it with ContainerImage set.",
            retryable=False,
        )


def backends_on_aws(
    settings: DataPlaneSettings, session: Session, registry: ModelRegistry
) -> tuple[EndpointBackends, Callable[[ModelVersion], bool]]:
    """All backends of an environment, and whether a version is loaded in it.

    Each is made when the first prediction needs it: a client of a service takes some 50 ms to make.
    """
    function: list[FunctionBackend] = []

    def in_function() -> Backend:
        function.append(function_backend(settings, session, registry.get))
        return function[0]

    def ready(version: ModelVersion) -> bool:
        return bool(function) and function[0].ready(version)

    resources = Resources(session, settings.connect_timeout_s, settings.data_bucket)
    own: dict[str, Callable[[], Backend | None]] = {
        FUNCTION: in_function,
        CONTAINER: lambda: _container(settings, session) if settings.endpoint_name else NoContainer(),
    }
    return EndpointBackends(Registry(resources), own), ready


def function_backend(
    settings: DataPlaneSettings, session: Session, resolve: Callable[[str, int], ModelVersion]
) -> FunctionBackend:
    """What runs models in this process; `resolve` finds the steps of pipelines."""
    s3 = client("s3", session=session, connect_timeout=settings.connect_timeout_s, read_timeout=settings.read_timeout_s)

    def load_package(folder: Path, version: ModelVersion) -> OnnxPackage:
        return OnnxPackage.load(folder, threads=settings.threads, name=version.model, version=version.version)

    packages = PackageCache[OnnxPackage](
        S3Packages(s3, settings.model_bucket), settings.cache_dir, settings.cache_bytes, load_package
    )
    return FunctionBackend(PipelinePackages(packages, resolve, max_bytes=settings.cache_bytes))


def _container(settings: DataPlaneSettings, session: Session) -> Backend:
    from shared.adapters.backends.sagemaker_realtime import SageMakerBackend

    def client_for(seconds: float) -> "SageMakerRuntimeClient":
        return client(
            "sagemaker-runtime",
            session=session,
            connect_timeout=settings.connect_timeout_s,
            read_timeout=seconds,
            retries=0,
        )

    return SageMakerBackend(client_for, settings.endpoint_name)
