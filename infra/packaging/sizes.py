"""Sizes of artefacts, and the limits that they are held to."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.packaging.archive import unzipped_sizes
from infra.packaging.errors import PackagingError

MB = 1_000_000
LIMIT = 40 * MB
# What a function may have that brings these layers with it. ONNX Runtime and NumPy, and gRPC's core (18 MB) where
# others are called by it; Apache Arrow on top of that. Lambda's own limit is 250 MiB.
LARGE_LIMIT = 130 * MB
LARGEST_LIMIT = 240 * MB
LIMITS = {"onnx": LARGE_LIMIT, "parquet": LARGEST_LIMIT}
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Artefact:
    """One archive: its bytes as uploaded, unzipped, and unzipped by package."""

    name: str
    digest: str
    zipped: int
    packages: Counter[str]

    @property
    def unzipped(self) -> int:
        """Bytes on Lambda's disk."""
        return self.packages.total()

    @classmethod
    def of(cls, name: str, archive: Path, digest: str) -> "Artefact":
        """Measure an archive."""
        packages: Counter[str] = Counter()
        for entry, size in unzipped_sizes(archive).items():
            parts = entry.removeprefix("python/").split("/")
            packages[parts[0].removesuffix(".libs")] += size
        return cls(name, digest, archive.stat().st_size, packages)


@dataclass(frozen=True, slots=True)
class Deployed:
    """A function as Lambda unpacks it: its code and its layers."""

    name: str
    parts: tuple[Artefact, ...]

    @property
    def limit(self) -> int:
        """How many bytes it may have."""
        return max((LIMITS.get(part.name, LIMIT) for part in self.parts), default=LIMIT)

    @property
    def unzipped(self) -> int:
        """Bytes of all parts."""
        return sum(part.unzipped for part in self.parts)

    @property
    def zipped(self) -> int:
        """Bytes of all parts as uploaded."""
        return sum(part.zipped for part in self.parts)

    def largest(self) -> list[tuple[str, int]]:
        """The five packages that take most."""
        return sum((part.packages for part in self.parts), Counter[str]()).most_common(_SHOWN)


def check_limits(functions: Iterable[Deployed]) -> None:
    """PackagingError names every function that is over its limit, and what to look at."""
    if over := [_explain(function) for function in functions if function.unzipped > function.limit]:
        raise PackagingError("\n".join(over))


def _explain(function: Deployed) -> str:
    largest = ", ".join(f"{name} {megabytes(size)}" for name, size in function.largest())
    return (
        f"{function.name} is {megabytes(function.unzipped)} with its layers, and may be "
        f"{megabytes(function.limit)}. Largest: {largest}."
    )


def megabytes(size: int) -> str:
    """A size as it is shown."""
    return f"{size / MB:.1f} MB"


def rows(artefacts: Sequence[Artefact]) -> list[tuple[str, str, str, str]]:
    """Name, size as uploaded, size unzipped and digest of each."""
    return [(each.name, megabytes(each.zipped), megabytes(each.unzipped), each.digest[:12]) for each in artefacts]
