"""Layers of third-party packages, built once for each set of inputs and kept in a cache."""

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.packaging.archive import entries_of, sha256, write_zip
from infra.packaging.errors import PackagingError
from infra.packaging.interpreter import VERSION, Interpreter
from infra.packaging.platforms import Platform
from infra.packaging.prune import prune
from infra.packaging.requirements import direct_requirements, imported, own_uv, run_uv, select

# Every layer stands on this one, and holds nothing that is in it already.
BASE = "web"
_SITE = "python"  # below /opt in Lambda, and on its path
_WHERE = "/opt"
_RULES = ("archive.py", "interpreter.py", "layers.py", "platforms.py", "prune.py", "requirements.py")


@dataclass(frozen=True, slots=True)
class LayerBuilder:
    """Builds layers from the project at `root` into `cache`, with what `sources` import."""

    root: Path
    cache: Path
    interpreter: Interpreter | None
    modules: frozenset[str]
    texts: frozenset[str]

    @property
    def lock(self) -> Path:
        """The lock file that everything is installed from."""
        return self.root / "requirements" / "lock.txt"

    def build(self, name: str, platform: Platform) -> Path:
        """The archive of the layer for an extra of pyproject.toml; made anew only if its inputs have changed."""
        target = self.cache / platform.architecture / f"{name}.zip"
        note = target.with_suffix(".json")
        base = self._wanted(BASE)
        wanted = self._wanted(name)
        key = self._key(platform, name, [*base, *wanted])
        if target.is_file() and note.is_file():
            made = json.loads(note.read_text(encoding="utf-8"))
            if made["key"] == key and made["sha256"] == sha256(target):
                return target
        digest = self._make(name, wanted, base, platform, target)
        note.write_text(json.dumps({"key": key, "sha256": digest}), encoding="utf-8")
        return target

    def _wanted(self, extra: str) -> list[str]:
        return imported(direct_requirements(self.root / "pyproject.toml", extra), self.modules, self.texts)

    def _key(self, platform: Platform, name: str, wanted: Sequence[str]) -> str:
        interpreter = self.interpreter.release if self.interpreter else "none"
        digest = hashlib.sha256("\n".join([platform.uv, name, interpreter, *wanted]).encode())
        for path in (self.lock, *(Path(__file__).with_name(rule) for rule in _RULES)):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def _make(self, name: str, wanted: Iterable[str], base: Iterable[str], platform: Platform, target: Path) -> str:
        uv = own_uv()
        chosen = select(uv, self.lock, wanted, platform)
        if name != BASE:
            below = select(uv, self.lock, base, platform)
            chosen = {package: line for package, line in chosen.items() if package not in below}
        if not chosen:
            raise PackagingError(f"Nothing that functions import is in the layer {name}: remove it from the template.")
        with tempfile.TemporaryDirectory() as folder:
            site = Path(folder, "layer", _SITE)
            install(uv, chosen, site, platform)
            prune(site, frozenset(chosen))
            if self.interpreter:
                self.interpreter.compile(site.parent, _WHERE)
            made = Path(folder, "layer.zip")
            digest = write_zip(entries_of(site.parent), made)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(made, target)
        return digest


def install(uv: str, chosen: dict[str, str], site: Path, platform: Platform) -> None:
    """Install pinned and hashed wheels of another platform into `site`; nothing is built or run."""
    site.mkdir(parents=True)
    file = site.parent.parent / "requirements.txt"
    file.write_text("\n".join(chosen.values()) + "\n", encoding="utf-8")
    flags = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--link-mode", "copy", "--no-compile-bytecode"]
    flags += ["--python", sys.executable, "--python-version", VERSION, "--python-platform", platform.uv]
    run_uv(uv, "pip", "install", "--quiet", "--target", str(site), "--requirement", str(file), *flags)
