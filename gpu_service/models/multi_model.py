"""The multi-model contract: SageMaker says which folder is loaded under which name, and what is unloaded for it.

Source: Amazon SageMaker Developer Guide, "Custom Containers Contract for Multi-Model Endpoints".
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_service.models.errors import AlreadyLoaded
from gpu_service.models.lifecycle import Lifecycle, Room
from gpu_service.models.sources.folder import found_in, is_package, versions_in
from shared.adapters.onnx.package import MODEL_FILE
from shared.domain.errors import InvalidPackage, InvalidRequest, ModelNotFound, VersionNotFound

if TYPE_CHECKING:
    from gpu_service.models.policy import VersionPolicies
    from gpu_service.models.repository import Entry, ModelRepository
    from gpu_service.models.sources.source import Found

_LONGEST_NAME = 256


def fetch_folder(found: "Found") -> Path:
    """The `fetch` of a `PackageLoader` for packages that lie in local folders already."""
    return Path(found.place)


class MultiModel:
    """Belongs to the event loop; the lifecycle's loader fetches with `fetch_folder` and does not ask for names.

    Models may lie below `root` only. Nothing is evicted: OutOfMemory (507) makes SageMaker unload another model.
    """

    def __init__(
        self, repository: "ModelRepository", lifecycle: Lifecycle, policies: "VersionPolicies", root: Path
    ) -> None:
        self._repository = repository
        self._lifecycle = lifecycle
        self._policies = policies
        self._root = root
        # Names from the moment that their loading begins; the URL once they are served.
        self._urls: dict[str, str | None] = {}

    async def load_url(self, name: str, url: str) -> None:
        """Serve the folder `url`, which holds `model.onnx` or version folders, as `name`.

        Raises AlreadyLoaded (409), ModelNotFound (404) if there is no such folder, OutOfMemory (507), InvalidRequest,
        InvalidPackage, BackendError. Of several versions all are served or none.
        """
        if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
            raise InvalidRequest(f"model_name must have 1 to {_LONGEST_NAME} printable characters.")
        if name in self._urls:
            raise AlreadyLoaded(f"A model named {name!r} is loaded already.")
        self._urls[name] = None
        await asyncio.shield(self._lifecycle.spawn(self._load(name, url)))

    def models(self) -> list[dict[str, str]]:
        """The members of `GET /models`."""
        return [{"modelName": name, "modelUrl": url} for name, url in self._urls.items() if url is not None]

    def describe(self, name: str) -> dict[str, str]:
        """One member; ModelNotFound if it is not loaded."""
        url = self._urls.get(name)
        if url is None:
            raise ModelNotFound(f"No model named {name[:_LONGEST_NAME]!r} is loaded.")
        return {"modelName": name, "modelUrl": url}

    async def unload(self, name: str) -> None:
        """Give the model's memory back; ModelNotFound, BackendTimeout if requests still run on it."""
        self.describe(name)
        self._urls[name] = None
        await asyncio.shield(self._lifecycle.spawn(self._unload(name, self._repository.entries(name))))

    async def _load(self, name: str, url: str) -> None:
        begun: list[Entry] = []
        try:
            found = await self._lifecycle.in_thread(self._find, name, url)
            begun.extend(self._repository.begin(package) for package in found)
            for entry in begun:
                await self._lifecycle.load(entry.found, Room.REFUSE)
        except BaseException:
            await self._unload(name, begun)
            raise
        self._urls[name] = url

    async def _unload(self, name: str, entries: "list[Entry]") -> None:
        try:
            unloads = (self._lifecycle.unload(entry, "unloaded") for entry in entries)
            outcomes = await asyncio.gather(*unloads, return_exceptions=True)
        finally:
            for entry in entries:
                self._repository.forget(entry)
            self._urls.pop(name, None)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    def _find(self, name: str, url: str) -> "list[Found]":
        """The packages in the folder; blocks."""
        root = self._root.resolve()
        try:
            folder = Path(url).resolve()
            if not Path(url).is_absolute() or not folder.is_relative_to(root) or folder == root:
                raise InvalidRequest(f"url must be a folder below {self._root}.")
            if not folder.is_dir():
                raise ModelNotFound("url is not a folder that is there.")
            found = [found_in(folder, name)] if is_package(folder) else list(versions_in(folder, name))
        except (OSError, RuntimeError, ValueError) as error:  # a NUL byte, a loop of links, a folder that is locked
            raise InvalidRequest(f"url cannot be read: {type(error).__name__}.") from error
        if not found:
            raise InvalidPackage(f"The folder holds neither {MODEL_FILE} nor <version>/{MODEL_FILE}.")
        for package in found:
            model = Path(package.place, MODEL_FILE)
            if not model.resolve().is_relative_to(folder):
                raise InvalidPackage(f"{MODEL_FILE} is a link that leads out of its folder.")
        return self._wanted(name, found)

    def _wanted(self, name: str, found: "list[Found]") -> "list[Found]":
        policy = self._policies.of(name)
        selected = policy.select(package.key.version for package in found)
        if not selected:
            raise VersionNotFound(f"The policy {policy} leaves no version of {name!r} to serve.")
        return [package for package in found if package.key.version in selected]
