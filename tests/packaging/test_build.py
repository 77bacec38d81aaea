"""What a build leaves: the same bytes for the same inputs, the right machine code, nothing that is not used."""

import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from infra.packaging.archive import sha256
from infra.packaging.build import Build, Stage
from infra.packaging.code import closure, third_party
from infra.packaging.platforms import PLATFORMS
from infra.packaging.requirements import IN_LAMBDA, LEFT_OUT
from infra.packaging.sizes import LARGE_LIMIT, LARGEST_LIMIT, LIMIT, check_limits
from infra.packaging.template import Template
from tests.conftest import ROOT
from tests.packaging.conftest import HERE, INTERPRETER

LAMBDA_MODULES = {"boto3", "botocore", "snapshot_restore_py", "urllib3"}
# The modules of distributions that are left out, where they have another name.
LEFT_OUT_MODULES = LEFT_OUT.keys() | {"simdjson"}
# Mentioned by what a function is made of, on a way that none of its routes takes: only answers that show a secret are
# sealed, which those of predictions do not; where nothing is predicted there are no tensors, and the admin API looks at
# the options of backends without calling one. `test_functions.py` runs these functions without them.
OUT_OF_REACH = {
    "PredictFunction": {"cryptography"},
    "ApiFunction": {"numpy"},
    "AdminFunction": {"google", "grpc", "numpy"},
}


# What a function and its layers may have unzipped. Source: AWS Lambda Developer Guide, "Lambda quotas".
OF_LAMBDA = 250 * 1024 * 1024


def archives(stage: Stage) -> list[Path]:
    return sorted(stage.folder.rglob("*.zip"))


def digests(stage: Stage) -> dict[str, str]:
    return {
        path.relative_to(stage.folder).as_posix(): sha256(path) for path in stage.folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("architecture", PLATFORMS)
def test_every_shared_object_is_for_its_architecture(architecture: str, stages: dict[str, Stage]) -> None:
    found = 0
    for path in archives(stages[architecture]):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                header = archive.open(name).read(20)
                if header.startswith(b"\x7fELF"):
                    found += 1
                    assert struct.unpack_from("<H", header, 18) == (PLATFORMS[architecture].elf_machine,), name
                else:
                    assert ".so" not in Path(name).suffixes, name
    assert found > 20


@pytest.mark.parametrize("architecture", PLATFORMS)
def test_no_file_tells_when_where_or_by_whom_it_was_installed(architecture: str, stages: dict[str, Stage]) -> None:
    for path in archives(stages[architecture]):
        with zipfile.ZipFile(path) as archive:
            assert archive.namelist() == sorted(archive.namelist())
            for entry in archive.infolist():
                assert entry.date_time == (1980, 1, 1, 0, 0, 0)
                assert entry.external_attr == 0o100644 << 16
                assert Path(entry.filename).name not in {"RECORD", "INSTALLER", "direct_url.json", "REQUESTED"}
                assert not entry.filename.startswith("/")


@pytest.mark.parametrize("architecture", PLATFORMS)
def test_what_functions_import_is_staged_or_part_of_lambda(architecture: str, stages: dict[str, Stage]) -> None:
    handlers = {function.name: function.handler for function in Template(ROOT, ROOT / "template.yaml").functions()}
    for function in stages[architecture].functions:
        staged = {name.removesuffix(".py") for part in function.parts for name in part.packages}
        imported, _ = third_party(iter(closure(ROOT, handlers[function.name]).values()))
        missing = imported - staged - LAMBDA_MODULES - LEFT_OUT_MODULES - sys.stdlib_module_names
        assert missing == OUT_OF_REACH.get(function.name, set()), function.name


def test_cryptography_is_staged_where_tokens_and_secrets_are_and_nowhere_else(stages: dict[str, Stage]) -> None:
    for stage in stages.values():
        having = {function.name for function in stage.functions for part in function.parts if part.name == "auth"}
        assert having == {"AuthorizerFunction", "AdminFunction", "ApiFunction", "WebhookSenderFunction"}
        packages = {artefact.name: set(artefact.packages) for artefact in stage.artefacts}
        assert {name for name, found in packages.items() if {"cryptography", "jwt"} & found} == {"auth"}
        assert {"cryptography", "jwt"} <= packages["auth"]
        assert {"python_multipart", "aws_lambda_powertools"} <= packages["web"]
        assert {"google", "numpy"} <= packages["onnx"]
        assert {name for name, found in packages.items() if "grpc" in found} == {"grpc"}
        assert {name for name, found in packages.items() if "pyarrow" in found} == {"parquet"}


@pytest.mark.parametrize("architecture", PLATFORMS)
def test_what_lambda_has_stays_out_and_sizes_are_within_their_limits(
    architecture: str, stages: dict[str, Stage]
) -> None:
    stage = stages[architecture]
    packages = {name for artefact in stage.artefacts for name in artefact.packages}
    assert packages.isdisjoint({"tests", "infra", "gpu_service", "examples", "bin"})
    assert {name.replace("-", "_") for name in IN_LAMBDA | LEFT_OUT.keys()}.isdisjoint(packages)
    check_limits(stage.functions)
    limits = {function.name: function.limit for function in stage.functions}
    for name in ("PredictFunction", "JobWorkerFunction", "AsyncResultFunction"):
        assert limits.pop(name) == LARGE_LIMIT
    assert limits.pop("BatchRunnerFunction") == LARGEST_LIMIT < OF_LAMBDA
    assert set(limits.values()) == {LIMIT}


def test_bytecode_is_unchecked_and_names_the_files_that_lambda_has(stages: dict[str, Stage]) -> None:
    for path in archives(stages[HERE]):
        base = b"/opt/python/" if path.parent.name == "layers" else b"/var/task/"
        with zipfile.ZipFile(path) as archive:
            compiled = [name for name in archive.namelist() if name.endswith(".pyc")]
            sources = [name for name in archive.namelist() if name.endswith(".py")]
            assert len(compiled) == (len(sources) if INTERPRETER else 0)
            for name in compiled:
                content = archive.read(name)
                assert struct.unpack_from("<I", content, 4) == (0b01,), name  # a hash, never looked at
                assert base in content, name
                assert os.fsencode(ROOT) not in content


def test_a_second_build_from_nothing_has_the_same_bytes(stages: dict[str, Stage], tmp_path: Path) -> None:
    build = Build(ROOT, tmp_path / "elsewhere", tmp_path / "layers", INTERPRETER)
    (stage,) = build.run([HERE], lambda _step: None)
    assert digests(stage) == digests(stages[HERE])


def test_the_command_prints_sizes_and_replaces_an_old_stage(stages: dict[str, Stage], tmp_path: Path) -> None:
    old = tmp_path / "stage" / "arm64" / "code" / "Removed.zip"
    old.parent.mkdir(parents=True)
    old.touch()
    done = subprocess.run(
        [sys.executable, "-m", "infra.packaging", "--arch", "arm64", "--out", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for artefact in stages["arm64"].artefacts:
        assert artefact.name in done.stdout
        assert artefact.digest[:12] in done.stdout
    assert not old.exists()
    assert digests(Stage("arm64", tmp_path / "stage" / "arm64", (), ())) == digests(stages["arm64"])


def test_the_command_names_what_is_no_python_of_the_runtime(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "infra.packaging", "--out", str(tmp_path), "--python313", "/nowhere/python3.13"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "/nowhere/python3.13 is no Python 3.13" in done.stdout
