"""Objects that requests name: what callers upload, and what jobs and batches may read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from shared.domain.jobs import ObjectRef

# What S3 takes in one PUT. Source: Amazon S3 User Guide, "Uploading objects".
MAX_UPLOAD: Final = 5 * 1024**3
# An upload can be used for so long after it arrived; the life cycle of its object is longer by more than a day, so that
# what a job was given in the last second is there when the job begins.
KEPT_S: Final = 7 * 86_400
# How long the address of an upload works, at most.
MAX_URL_S: Final = 3600

SHA256: Final = r"[0-9a-f]{64}"
# A name that can be part of a key, of a header and of a file system's path as it is.
NAME: Final = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_WORD: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,127}"
# Type, subtype and parameters; visible ASCII only, so it is one header's value. Source: RFC 9110, 8.3.1.
MEDIA_TYPE: Final = rf'{_WORD}/{_WORD}(?: ?; ?{_WORD}=(?:{_WORD}|"[ !#-\[\]-~]{{0,127}}"))*'
MAX_MEDIA_TYPE: Final = 255

_BUCKET: Final = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_PLACE: Final = rf"{_BUCKET}/(?:[^/,\s]+/)*"
INPUT_PREFIXES: Final = rf"^{_PLACE}(?:,{_PLACE})*$"


@dataclass(frozen=True, slots=True)
class NewUpload:
    """What a caller is about to upload: `size` in bytes, `sha256` in hexadecimal, `name` as a file would have it."""

    size: int
    media_type: str
    sha256: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class UploadAddress:
    """Where an upload goes to: a PUT of `url` with these headers, until `expires_at` (seconds since 1970)."""

    upload_id: str
    url: str
    headers: Mapping[str, str]
    expires_at: float


@dataclass(frozen=True, slots=True)
class ObjectHead:
    """What is known of an object without reading it; `sha256` (hexadecimal) and `name` where it was stored with them.

    `modified_at` is in seconds since 1970; `version_id` is None in a bucket without versions.
    """

    size: int
    media_type: str
    modified_at: float
    etag: str
    version_id: str | None = None
    sha256: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload whose content is there; it can be used until `expires_at` (seconds since 1970)."""

    upload_id: str
    head: ObjectHead
    expires_at: float


@dataclass(frozen=True, slots=True)
class Source:
    """An object that a job or a batch reads: of a bucket with versions, the one that was there when it was named.

    `name` is the last part of its key, or what an upload was called (its id where it has no name).
    """

    ref: ObjectRef
    size: int
    media_type: str
    name: str


@dataclass(frozen=True, slots=True)
class InputPrefix:
    """A place in a bucket where every tenant may read below its own name; `prefix` ends with a slash or is empty."""

    bucket: str
    prefix: str

    @classmethod
    def of(cls, text: str) -> Self:
        """Read `bucket/` or `bucket/prefix/`; ValueError for anything else."""
        if not re.fullmatch(_PLACE, text):
            raise ValueError("a place is a bucket and a prefix that ends with a slash, such as my-bucket/inputs/")
        bucket, _, prefix = text.partition("/")
        if {".", ".."} & set(prefix.split("/")):
            raise ValueError("a prefix has no parts . or ..")
        return cls(bucket, prefix)


def input_prefixes(text: str, *ours: str) -> tuple[InputPrefix, ...]:
    """The places in a list with commas, none for an empty text.

    ValueError for a malformed one, and for one in a bucket of `ours`: what is whose there is not told by such prefixes.
    """
    found = tuple(InputPrefix.of(part.strip()) for part in text.split(",") if part.strip())
    for place in found:
        if place.bucket in ours:
            raise ValueError(f"SLUICE_INPUT_PREFIXES names {place.bucket}, a bucket of the stack's own")
    return found


def upload_key(tenant: str, upload_id: str) -> str:
    """Where in the data bucket an upload is."""
    return f"uploads/{tenant}/{upload_id}"
