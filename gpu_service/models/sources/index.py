"""`package.json`: the files of a package with their SHA-256, as `shared.adapters.s3_packages` writes it.

In a bucket it says that a version is whole; beside a model in a folder, what the folder must hold.
"""

from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from shared.adapters.package_files import check_paths, has_bytes
from shared.domain.errors import DigestMismatch, InvalidPackage
from shared.domain.model import PackageFile, digest_of

# Not imported from the adapter, which needs AWS's client libraries.
INDEX: Final = "package.json"
MAX_INDEX_BYTES: Final = 1024 * 1024

_Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class IndexedFile(msgspec.Struct, frozen=True):
    """One file; `path` is relative to the package."""

    path: Annotated[str, Meta(min_length=1, max_length=512)]
    size: Annotated[int, Meta(ge=0)]
    sha256: _Sha256


class PackageIndex(msgspec.Struct, frozen=True):
    """The document."""

    model: str
    version: int
    digest: _Sha256
    placement: str
    files: Annotated[list[IndexedFile], Meta(min_length=1, max_length=1000)]


def parse_index(content: bytes) -> PackageIndex:
    """Read the document; InvalidPackage says what is wrong with it."""
    if len(content) > MAX_INDEX_BYTES:
        raise InvalidPackage(f"{INDEX} is larger than {MAX_INDEX_BYTES} bytes.")
    try:
        return msgspec.json.decode(content, type=PackageIndex)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidPackage(f"{INDEX}: {error}") from None


def files_of(index: PackageIndex) -> tuple[PackageFile, ...]:
    """The files, their paths safe to join to a folder; InvalidPackage, or DigestMismatch if the digest is another's."""
    files = tuple(PackageFile(file.path, file.size, file.sha256) for file in index.files)
    check_paths(files, frozenset({INDEX}))
    if digest_of(files) != index.digest:
        raise DigestMismatch(f"The file list of {INDEX} does not have the digest that it names.")
    return files


def verify(folder: Path) -> PackageIndex | None:
    """Hold a folder against the `package.json` in it; None if it has none.

    Raises DigestMismatch for a file that is missing, has other bytes or is not named, InvalidPackage for a document
    that is none, OSError.
    """
    path = folder / INDEX
    if not path.is_file():
        return None
    with path.open("rb") as opened:
        index = parse_index(opened.read(MAX_INDEX_BYTES + 1))
    files = files_of(index)
    for file in files:
        if not has_bytes(file, folder):
            raise DigestMismatch(f"{file.path} does not have the bytes that {INDEX} promises.")
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    strange = sorted(present - {file.path for file in files} - {INDEX})
    if strange:
        raise DigestMismatch(f"The package has a file {strange[0]!r} that {INDEX} does not name.")
    return index
