"""Zip files whose bytes depend on nothing but what is in them."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

# The earliest time that the format knows. The .pyc files are hash-based, so they do not look at it.
_TIME = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_MODE = 0o100644 << 16  # what Lambda's user can read; shared libraries need no execute bit
_LEVEL = 6

Entries = Mapping[str, Path]


def entries_of(folder: Path) -> dict[str, Path]:
    """Every file below `folder` by its path inside of it, with forward slashes."""
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def write_zip(entries: Entries, target: Path) -> str:
    """Write `entries` to `target`; the SHA-256 of the archive in hexadecimal."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, _TIME)
            info.create_system = _UNIX
            info.external_attr = _MODE
            archive.writestr(info, entries[name].read_bytes(), zipfile.ZIP_DEFLATED, _LEVEL)
    return sha256(target)


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unzipped_sizes(archive: Path) -> dict[str, int]:
    """Bytes of every entry by its name."""
    with zipfile.ZipFile(archive) as opened:
        return {info.filename: info.file_size for info in opened.infolist()}
