"""Builds the example packages: `python -m examples.build [--out DIR] [--force] [NAME…]`.

A package goes to `DIR/<name>/<version>/`. What is up to date is left alone; that check imports nothing heavy, since
`make run` and `make test` make it each time.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from examples.catalogue import DEFAULT_OUT, ROOT, STAMP, TOOLS, VERSION, sizes

_COMMON_SOURCES = (
    "examples/catalogue.py",
    "examples/package.py",
    "examples/sklearn_graph.py",
    "requirements/weights.txt",
    "shared/domain/signature.py",
    "shared/schemas/manifest.py",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what is asked for; 0 if all is there, 1 if a build failed, 130 if interrupted; argparse exits with 2."""
    options = _parse(arguments)
    if not _stale(options):
        sys.stdout.write(f"Example models are up to date: {', '.join(options.names)}\n")
        return 0
    from examples.runner import build_all, exclusive  # only a build pays for this import

    with exclusive(options.out):
        # Another `make` may have built them while this one waited.
        return build_all(_stale(options), options.out)


def _stale(options: argparse.Namespace) -> dict[str, str]:
    """The stamps of what has to be built, by name."""
    stamps = {name: stamp_of(name) for name in options.names}
    return {name: stamp for name, stamp in stamps.items() if options.force or not _is_current(options.out, name, stamp)}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.build", description="Build the example model packages.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(TOOLS)}; all if none is named")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder for the packages (default: build/models)")
    parser.add_argument("--force", action="store_true", help="build also what is up to date")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in TOOLS]
    if unknown:
        parser.error(f"no example is called {', '.join(unknown)}; there are {', '.join(TOOLS)}")
    options.names = list(dict.fromkeys(options.names)) or list(TOOLS)
    return options


def stamp_of(name: str) -> str:
    """SHA-256 over everything that goes into a package: sources, and the versions of the tools.

    The installed versions: the lock gives another Python another NumPy.
    """
    digest = sha256()
    sources = [ROOT / source for source in _COMMON_SOURCES]
    for path in (*sources, *sorted((ROOT / "examples" / name).glob("*.py"))):
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    for tool in TOOLS[name]:
        digest.update(f"{tool}=={version(tool)}\n".encode())
    return digest.hexdigest()


def _is_current(out: Path, name: str, stamp: str) -> bool:
    """Whether the package was built from this stamp, and its files still have the sizes that they had then."""
    try:
        built = json.loads((out / name / STAMP).read_text(encoding="utf-8"))
        return bool(built["stamp"] == stamp and built["files"] == sizes(out / name / str(VERSION)))
    except (OSError, ValueError, KeyError, TypeError):
        return False  # whatever is wrong with it, building anew mends it


if __name__ == "__main__":
    sys.exit(main())
