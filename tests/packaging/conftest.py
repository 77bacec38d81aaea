"""The staged artefacts, unpacked as Lambda unpacks them, and what is needed to run them."""

import os
import platform
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from infra.local.stack import REGION, FunctionSpec, StackSpec
from infra.local.supervisor import PARAMETERS as WHOLE
from infra.local.template import load_stack
from infra.packaging.build import Build, Stage
from infra.packaging.interpreter import VARIABLE, VERSION, Interpreter, find_interpreter
from infra.packaging.layers import install
from infra.packaging.platforms import PLATFORMS
from infra.packaging.requirements import own_uv, select
from tests.conftest import ROOT, LocalAws
from tests.packaging.tools import TOOLS, TOOLS_VARIABLE

HERE = "arm64" if platform.machine() == "aarch64" else "x86_64"
INTERPRETER = find_interpreter(None, os.environ)

# Modules that cannot run on this machine are not collected, and the end of the run says so.
_NEEDS_INTERPRETER = ["test_functions.py", "test_emulator.py", "test_image_packages.py"]
_NEEDS_TOOLS = ["test_emulator.py", "test_sam.py"]
collect_ignore = [*([] if INTERPRETER else _NEEDS_INTERPRETER), *([] if TOOLS else _NEEDS_TOOLS)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not INTERPRETER:
        terminalreporter.write_line(
            f"tests/packaging: no Python {VERSION} here ({VARIABLE}=… names one): staged functions were not run.",
            yellow=True,
        )
    if not TOOLS:
        terminalreporter.write_line(
            f"tests/packaging: no SAM CLI in .venv-tools/sam ({TOOLS_VARIABLE}=… names another environment): "
            "its checks and its runtime emulator were not run.",
            yellow=True,
        )


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stage]:
    """Both architectures, staged; layers are taken from those that a build keeps."""
    build = Build(ROOT, tmp_path_factory.mktemp("build"), ROOT / "build" / "layers", INTERPRETER)
    return {stage.architecture: stage for stage in build.run(list(PLATFORMS), lambda _step: None)}


@pytest.fixture(scope="session")
def interpreter() -> Interpreter:
    """A Python of the runtime's version."""
    assert INTERPRETER is not None
    return INTERPRETER


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A staged function on disk, and the variables that the template gives it."""

    spec: FunctionSpec
    task: Path
    search_path: tuple[Path, ...]
    environment: dict[str, str]


Unpack = Callable[[str], Unpacked]


@pytest.fixture(scope="session")
def in_lambda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Lambda's own image has beside the function: its runtime client and the SDK, in the lock's versions."""
    uv, platform_here = own_uv(), PLATFORMS[HERE]
    chosen = select(uv, ROOT / "requirements" / "lock.txt", ["awslambdaric", "boto3"], platform_here, without=())
    site = tmp_path_factory.mktemp("lambda") / "var" / "runtime"
    install(uv, chosen, site, platform_here)
    return site


@pytest.fixture(scope="session")
def unpack(
    stages: dict[str, Stage],
    stack: StackSpec,
    local_aws: LocalAws,
    in_lambda: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Unpack:
    """A staged function for this machine, by logical id, with the local AWS services as its AWS."""
    folder = tmp_path_factory.mktemp("unpacked")
    stage = stages[HERE]
    # Some functions are only in stacks that have more than `stack`.
    whole = load_stack(ROOT / "template.yaml", stack_name="tests", parameters=WHOLE)
    specs = {**whole.functions, **stack.functions}
    layers_of = {
        function.name: [part.name for part in function.parts if part.name != function.name]
        for function in stage.functions
    }

    @cache
    def unzipped(name: str) -> Path:
        with zipfile.ZipFile(stage.folder / name) as archive:
            archive.extractall(folder / name)
        return folder / name

    def unpacked(name: str) -> Unpacked:
        task = unzipped(f"code/{name}.zip")
        layers = [unzipped(f"layers/{layer}.zip") / "python" for layer in layers_of[name]]
        variables = dict(specs[name].environment) | {
            "AWS_ENDPOINT_URL": local_aws.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "TMPDIR": str(tmp_path_factory.mktemp("tmp")),
        }
        return Unpacked(specs[name], task, (task, *layers, in_lambda), variables)

    return unpacked


@pytest.fixture(scope="session")
def published(stack: StackSpec, local_aws: LocalAws) -> Sequence[str]:
    """The examples that run in a function, published to the local services."""
    from examples.build import main
    from examples.catalogue import DEFAULT_OUT, VERSION
    from infra.local.seed import seed_models

    names = ["tumor", "digits", "embed"]
    assert main([]) == 0
    seed_models(stack, local_aws.url, [DEFAULT_OUT / name / str(VERSION) for name in names])
    return names


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "tools: runs SAM CLI or its runtime emulator (`make tools`)")
