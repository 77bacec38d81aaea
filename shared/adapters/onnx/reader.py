"""Reads a package folder before it is published."""

from pathlib import Path

from shared.adapters.onnx.package import MANIFEST_FILE, OnnxPackage
from shared.adapters.package_features import features_of
from shared.domain.errors import InvalidPackage
from shared.domain.model import PackageDescription


class OnnxPackageReader:
    """Implements `shared.domain.ports.PackageReader`."""

    def __init__(self, *, threads: int = 2) -> None:
        self._threads = threads

    def describe(self, folder: Path) -> PackageDescription:
        """Load the package and run it once, on its example if it has one; InvalidPackage says what is wrong.

        A package needs its manifest here, unlike where it is served: the manifest says what it is published as.
        """
        if not (folder / MANIFEST_FILE).is_file():
            raise InvalidPackage(f"{folder.name} has no {MANIFEST_FILE}.")
        package = OnnxPackage.load(folder, threads=self._threads)
        package.warm_up()
        manifest = package.manifest
        return PackageDescription(
            model=manifest.name,
            version=manifest.version,
            signature=package.signature,
            placement=manifest.placement,
            metadata=manifest.metadata(),
            features=features_of(manifest, package.signature),
        )
