"""Files of many rows: which formats there are, and what a file is cut into; free of NumPy.

A row's number counts the rows that hold data, from 0: neither a header nor blank lines have one. It is the same in the
output.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, Self, get_args

from shared.domain.errors import UnsupportedMediaType

Format = Literal["csv", "jsonl", "npy", "parquet"]

FORMATS: tuple[Format, ...] = get_args(Format)
_SUFFIXES: Mapping[str, Format] = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".npy": "npy",
    ".parquet": "parquet",
}
_MEDIA_TYPES: Mapping[str, Format] = {
    "text/csv": "csv",
    "application/csv": "csv",
    "application/jsonl": "jsonl",
    "application/x-ndjson": "jsonl",
    "application/x-jsonlines": "jsonl",
    "application/jsonlines": "jsonl",
    "application/x-npy": "npy",
    "application/vnd.apache.parquet": "parquet",
    "application/parquet": "parquet",
    "application/x-parquet": "parquet",
}
_OWN_MEDIA_TYPES: Mapping[Format, str] = {
    "csv": "text/csv",
    "jsonl": "application/jsonl",
    "npy": "application/x-npy",
    "parquet": "application/vnd.apache.parquet",
}
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class FileType:
    """A format, and whether its file is packed by gzip (RFC 1952)."""

    format: Format
    packed: bool = False

    @property
    def suffix(self) -> str:
        """The end of a file's name: `.csv`, `.csv.gz`."""
        return f".{self.format}.gz" if self.packed else f".{self.format}"

    @property
    def media_type(self) -> str:
        """The content type of such a file."""
        return "application/gzip" if self.packed else _OWN_MEDIA_TYPES[self.format]


def file_type(name: str, media_type: str = "") -> FileType:
    """The type by a file's name, else by its content type; UnsupportedMediaType if neither tells.

    A name that ends in `.gz` says that the file is packed; Parquet, which packs by itself, may not be.
    """
    lowered = name.rsplit("/", 1)[-1].lower()
    packed = lowered.endswith(".gz")
    stem = lowered.removesuffix(".gz")
    found = next((form for suffix, form in _SUFFIXES.items() if stem.endswith(suffix)), None)
    if found is None:
        found = _MEDIA_TYPES.get(media_type.partition(";")[0].strip().lower())
    if found is None or (packed and found == "parquet"):
        raise UnsupportedMediaType(
            f"The file {name[-100:]!r} is of no type that batches read: .csv, .jsonl, .ndjson and .npy, "
            "each also with .gz, and .parquet."
        )
    return FileType(found, packed)


@dataclass(frozen=True, slots=True)
class Layout:
    """What holds for all parts of a file; `details` is JSON, made and read by the format's codec."""

    type: FileType
    details: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As a document."""
        return {"format": self.type.format, "packed": self.type.packed, "details": dict(self.details)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """From what `to_json` gave."""
        return cls(FileType(document["format"], document["packed"]), document["details"])


@dataclass(frozen=True, slots=True)
class PartSpec:
    """Whole rows of a file: `length` bytes from `offset`, which hold `rows` rows, the first of them `first_row`.

    Of a packed file they are places in the unpacked part, which the plan stored under the part's `number` (from 0).
    `extra` is the codec's own.
    """

    number: int
    first_row: int
    rows: int
    offset: int
    length: int
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As a document."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """From what `to_json` gave."""
        return cls(**document)


@dataclass(frozen=True, slots=True)
class RowError:
    """Why a row has no prediction: `pointer` (RFC 6901) leads to the place in the row, `code` is that of the error."""

    row: int
    pointer: str
    detail: str
    code: str

    def to_json(self) -> dict[str, Any]:
        """As a document."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """From what `to_json` gave."""
        return cls(**document)

    def text(self) -> str:
        """In one line."""
        return ": ".join(filter(None, (self.code, self.pointer, self.detail)))


@dataclass(frozen=True, slots=True)
class Bounds:
    """How a file is cut and what it may hold; sizes in bytes.

    A part ends with the first row at which it has `target_bytes` or `target_rows`. Both grow with the file, so that
    there are never more than `max_parts`. `max_line` bounds a row of text. A packed file may unpack to `max_unpacked`
    and to `max_ratio` times its own size.
    """

    target_bytes: int = 16 * _MIB
    target_rows: int = 250_000
    max_parts: int = 1000
    max_rows: int = 1_000_000_000
    max_line: int = 8 * _MIB
    max_unpacked: int = 16 * 1024 * _MIB
    max_ratio: int = 1000

    def part_bytes(self, size: int) -> int:
        """About how many bytes a part of a file of `size` bytes has."""
        return max(self.target_bytes, -(-size * 4 // self.max_parts))

    def growth(self, number: int) -> int:
        """By what the targets are multiplied for a part: doubled with every sixteenth of the parts."""
        return 1 << (number // max(self.max_parts // 16, 1))


class Ranges(Protocol):
    """A file of known size whose bytes can be read from any offset."""

    @property
    def size(self) -> int:
        """In bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`."""

    def stream(self, offset: int, length: int, chunk: int) -> Iterator[bytes]:
        """The same bytes in order, in pieces of at most `chunk` bytes."""
