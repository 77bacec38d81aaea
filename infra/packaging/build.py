"""`build/stage/<architecture>/`: the tree that `sam build` and `sam deploy` take, made without Docker.

Code and layers lie in it as archives. SAM uploads those as they are, so what was hashed here is what is deployed, and a
function whose inputs did not change is not deployed again.
"""

import fcntl
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.packaging.archive import Entries, sha256, write_zip
from infra.packaging.code import closure, third_party
from infra.packaging.errors import PackagingError
from infra.packaging.interpreter import Interpreter
from infra.packaging.layers import BASE, LayerBuilder
from infra.packaging.platforms import PLATFORMS
from infra.packaging.sizes import Artefact, Deployed
from infra.packaging.template import Function, Template
from shared.adapters.onnx.cpus import available_cpus

_CODE_AT = "/var/task"
TEMPLATE = "template.yaml"

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Stage:
    """What was built for one architecture."""

    architecture: str
    folder: Path
    artefacts: tuple[Artefact, ...]
    functions: tuple[Deployed, ...]


@dataclass(frozen=True, slots=True)
class Build:
    """Builds the project at `root` into `out`; layers are kept in `cache`."""

    root: Path
    out: Path
    cache: Path
    interpreter: Interpreter | None

    def steps(self, architectures: Sequence[str]) -> int:
        """How often `run` reports progress."""
        return 1 + len(architectures) * (1 + len(self._layer_names(self._templates())))

    def run(self, architectures: Sequence[str], progress: Progress) -> list[Stage]:
        """Stage every architecture; PackagingError says what is in the way. Builds of one cache wait for each other."""
        templates = self._templates()
        functions = [function for template in templates for function in template.functions()]
        _check_layers(functions)
        code = {function.name: closure(self.root, function.handler) for function in functions}
        modules, texts = third_party(path for files in code.values() for path in files.values())
        builder = LayerBuilder(self.root, self.cache, self.interpreter, modules, texts)
        with _alone(self.cache), tempfile.TemporaryDirectory() as folder:
            archives = self._code(code, Path(folder))
            progress("code of the functions")
            layers = self._build_layers(builder, architectures, self._layer_names(templates), progress)
            stages = []
            for architecture in architectures:
                stages.append(self._stage(architecture, templates, functions, archives, layers[architecture]))
                progress(f"stage for {architecture}")
        return stages

    def _build_layers(
        self, builder: LayerBuilder, architectures: Sequence[str], names: Sequence[str], progress: Progress
    ) -> dict[str, dict[str, Path]]:
        """Archives by architecture and name; as many at once as there are processors."""
        built: dict[str, dict[str, Path]] = {architecture: {} for architecture in architectures}
        with ThreadPoolExecutor(available_cpus()) as pool:
            waiting = {
                pool.submit(builder.build, name, PLATFORMS[architecture]): (architecture, name)
                for name in names
                for architecture in architectures
            }
            for done in as_completed(waiting):
                architecture, name = waiting[done]
                built[architecture][name] = done.result()
                progress(f"layer {name} for {architecture}")
        return built

    def _templates(self) -> list[Template]:
        main = Template(self.root, self.root / TEMPLATE)
        return [main, *main.nested()]

    def _layer_names(self, templates: Sequence[Template]) -> list[str]:
        return sorted({name for template in templates for name in template.layers().values()})

    def _code(self, code: dict[str, dict[str, Path]], folder: Path) -> dict[str, Path]:
        """An archive for each function; all of them compiled at once, since they share most modules."""
        tree = folder / "tree"
        for files in code.values():
            for name, path in files.items():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, tree / name)
        if self.interpreter:
            self.interpreter.compile(tree, _CODE_AT)
        archives = {}
        for function, files in code.items():
            archives[function] = folder / f"{function}.zip"
            write_zip(_with_bytecode(tree, files), archives[function])
        return archives

    def _stage(
        self,
        architecture: str,
        templates: Sequence[Template],
        functions: Sequence[Function],
        archives: dict[str, Path],
        layers: dict[str, Path],
    ) -> Stage:
        """Put the parts together beside the stage, then in its place: nobody finds half of one."""
        target = self.out / "stage" / architecture
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            new = Path(folder, "stage")
            made = {f"code/{name}.zip": path for name, path in archives.items()}
            made |= {f"layers/{name}.zip": path for name, path in layers.items()}
            measured = {}
            for name, path in made.items():
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, new / name)
                measured[name] = Artefact.of(Path(name).stem, path, sha256(path))
            for template in templates:
                (new / template.relative).parent.mkdir(parents=True, exist_ok=True)
                (new / template.relative).write_text(template.staged(architecture), encoding="utf-8")
            shutil.rmtree(target, ignore_errors=True)
            new.rename(target)
        deployed = (
            Deployed(
                function.name,
                (measured[f"code/{function.name}.zip"], *(measured[f"layers/{name}.zip"] for name in function.layers)),
            )
            for function in functions
        )
        return Stage(architecture, target, tuple(measured.values()), tuple(deployed))


def _with_bytecode(tree: Path, files: Entries) -> dict[str, Path]:
    entries = {}
    for name in files:
        path = tree / name
        entries[name] = path
        if path.suffix == ".py":
            for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.cpython-*.pyc"):
                entries[compiled.relative_to(tree).as_posix()] = compiled
    return entries


def _check_layers(functions: Sequence[Function]) -> None:
    for function in functions:
        if function.layers and BASE not in function.layers:
            raise PackagingError(f"{function.name} has a layer that stands on {BASE}, and not {BASE} itself.")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
