"""A package folder around a bare ONNX file."""

import mmap
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

from shared.adapters.onnx.graph import signature_of
from shared.adapters.onnx.package import MANIFEST_FILE, MODEL_FILE, bare_manifest
from shared.adapters.package_files import has_bytes
from shared.domain.errors import InvalidPackage
from shared.domain.model import ModelVersion, Placement

# What a function can load into its /tmp and memory before its caller gives up.
MAX_FUNCTION_BYTES: Final = 50_000_000


def model_name(model: Path) -> str:
    """A model's name made from its file's: lower case, what a name cannot hold replaced by `-`."""
    return re.sub(r"[^a-z0-9._-]+", "-", model.stem.lower()).strip("-._")[:64]


def scaffold(model: Path, folder: Path, name: str, version: int) -> Path:
    """Make the package `folder` from an ONNX file and the external data files that it names; returns the folder.

    The signature is the graph's; the model runs in the function up to `MAX_FUNCTION_BYTES`, else in the container.
    The same file gives the same package. Raises InvalidPackage for a file that cannot be served as it is.
    """
    model = model.resolve()
    manifest = bare_manifest(name, version, signature_of(model))
    data = external_files(model)
    files = {MODEL_FILE: model, **{path: model.parent / path for path in data}}
    if MANIFEST_FILE in files or len(files) != 1 + len(data):
        raise InvalidPackage(f"{model.name} keeps data in {MANIFEST_FILE} or {MODEL_FILE}: these names are reserved.")
    size = sum(source.stat().st_size for source in files.values())
    placement = Placement.FUNCTION if size <= MAX_FUNCTION_BYTES else Placement.CONTAINER
    folder.mkdir(parents=True)
    for path, source in files.items():
        _take(source, folder / path)
    document = manifest.model_copy(update={"placement": placement}).model_dump_json(indent=2, exclude_defaults=True)
    (folder / MANIFEST_FILE).write_text(document + "\n", encoding="utf-8")
    return folder


def same_model(folder: Path, version: ModelVersion) -> bool:
    """Whether `version` has the files of the package `folder`, byte for byte, whatever the manifests say."""
    published = [file for file in version.files if file.path != MANIFEST_FILE]
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {MANIFEST_FILE}
    return present == {file.path for file in published} and all(has_bytes(file, folder) for file in published)


def external_files(model: Path) -> tuple[str, ...]:
    """Relative paths of the files that hold tensors of this ONNX file, each once, sorted.

    InvalidPackage for a path that leads out of the model's folder or that is not there.
    Source: onnx.proto, TensorProto.external_data.
    """
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(b"location") < 0:  # the key of every external tensor; without it the parser is not needed
            return ()
    import onnx  # takes a second to load, and most models hold their own data

    proto = onnx.load(str(model), load_external_data=False)
    paths = sorted({path for tensor in _tensors(proto) if (path := _location(tensor))})
    for path in paths:
        plain = PurePosixPath(path)
        if plain.is_absolute() or ".." in plain.parts or "\\" in path:
            raise InvalidPackage(f"{model.name} keeps data in {path!r}, outside of its own folder.")
        if not (model.parent / path).is_file():
            raise InvalidPackage(f"{model.name} keeps data in {path!r}, which is not beside it.")
    return tuple(paths)


def _tensors(message: Any) -> Iterator[Any]:
    """All tensors of an ONNX message: initializers and attributes, in the graph, its subgraphs and functions."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in value if isinstance(value, Sequence) else (value,):
            if field.message_type.name == "TensorProto":
                yield part
            yield from _tensors(part)


def _location(tensor: Any) -> str:
    return next((str(entry.value) for entry in tensor.external_data if entry.key == "location"), "")


def _take(source: Path, target: Path) -> None:
    """Put a file in place: by a second name where the file system allows it, since models are large."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
