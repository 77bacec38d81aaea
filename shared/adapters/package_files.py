"""Paths and bytes of a package's files on disk."""

from collections.abc import Iterable
from hashlib import file_digest
from pathlib import Path, PurePosixPath
from typing import Final

from shared.domain.errors import InvalidPackage
from shared.domain.model import PackageFile

# A folder of this prefix is a download that is not whole yet.
PARTIAL_PREFIX: Final = ".partial-"


def check_paths(files: Iterable[PackageFile], reserved: frozenset[str] = frozenset()) -> None:
    """Raise InvalidPackage unless every path stays below the folder that it is joined to.

    Absolute paths, `.` and `..`, empty segments, backslashes, drive letters and control characters are refused, and so
    are a path given twice, a file that is also another's folder, and `reserved` names.
    """
    paths = [file.path for file in files]
    folders = {parent.as_posix() for path in paths for parent in PurePosixPath(path).parents}
    for path in paths:
        segments = path.split("/")
        if any(segment in ("", ".", "..") for segment in segments) or any(c in "\\:" or c < " " for c in path):
            raise InvalidPackage(f"The package has a file with the path {path!r}, which is not a plain relative path.")
        if path in folders:
            raise InvalidPackage(f"The package has {path!r} both as a file and as a folder.")
        if path in reserved:
            raise InvalidPackage(f"The package has a file {path!r}: this name is reserved.")
    if len(set(paths)) != len(paths):
        raise InvalidPackage("The package names a file twice.")


def has_bytes(file: PackageFile, folder: Path) -> bool:
    """Whether `folder` holds this file with this size and SHA-256; links do not count."""
    path = folder / file.path
    if path.is_symlink() or not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as opened:
        return file_digest(opened, "sha256").hexdigest() == file.sha256


def holds(files: Iterable[PackageFile], folder: Path) -> bool:
    """Whether `folder` holds exactly these files."""
    files = tuple(files)
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    return present == {file.path for file in files} and all(has_bytes(file, folder) for file in files)


def size_of(folder: Path) -> int:
    """Bytes of all files below `folder`."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
