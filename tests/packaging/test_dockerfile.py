"""The container image, as far as it can be held to anything without an engine."""

import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import msgspec
import pytest

from gpu_service.settings import Settings
from infra.packaging.code import closure
from infra.packaging.requirements import own_uv, parse, run_uv
from shared.domain.settings import load, variable_of
from tests.conftest import ROOT
from tests.packaging.dockerfile import DOCKERFILE, context, environment, instructions, labels, of

TARGETS = ("cpu", "cuda")


def test_bases_are_exact_and_can_be_held_to_a_digest() -> None:
    stages: list[str] = []
    for each in of("FROM"):
        base, _, stage = each.text.partition(" AS ")
        if base not in stages:
            assert re.fullmatch(
                r"docker\.io/library/python:3\.13\.\d+-slim-\w+\$\{BASE_DIGEST:\+@\$\{BASE_DIGEST\}\}", base
            )
        stages.append(stage)
    assert set(TARGETS) <= set(stages)
    assert stages[-1] == "cpu"  # what a build without --target makes
    assert instructions()[0].name == "ARG"
    assert instructions()[0].text == "BASE_DIGEST="


def test_no_shell_is_between_the_engine_and_python() -> None:
    """So Python is process 1 and hears SIGTERM; and nothing is added from the network but hashed wheels."""
    assert of("ADD") == of("SHELL") == of("VOLUME") == []
    for each in [*of("RUN"), *of("ENTRYPOINT"), *of("CMD")]:
        assert each.command[0] in {"python", "serve"}
    (entry,), (command,) = of("ENTRYPOINT"), of("CMD")
    assert [*entry.command, *command.command] == ["python", "-m", "gpu_service", "serve"]
    (user,) = of("USER")
    assert user.text == "1000:1000"
    assert user.stage == entry.stage == "service"  # both targets are made from it


def test_wheels_are_hashed_and_never_built() -> None:
    installs = of("RUN", "packages-cpu") + of("RUN", "packages-cuda")
    assert len(installs) == 2
    for each in installs:
        assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(each.command)


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_has_the_packages_of_the_lock(target: str) -> None:
    locked = parse((ROOT / "requirements" / "lock.txt").read_text())
    image = parse((ROOT / "requirements" / f"container-{target}.txt").read_text())
    versions = {name: {entry.split()[0].partition("==")[2] for entry in entries} for name, entries in locked.items()}
    build = {"cpu": "onnxruntime", "cuda": "onnxruntime-gpu"}[target]
    assert [name for name in image if name.startswith("onnxruntime")] == [build]
    for name, entries in image.items():
        assert all("--hash=sha256:" in entry for entry in entries)
        if name.startswith("nvidia-"):
            assert target == "cuda"
            continue
        wanted = versions[name.removesuffix("-gpu")]
        assert {entry.split()[0].partition("==")[2] for entry in entries} <= wanted, f"{name}: run `make lock`"


@pytest.mark.parametrize("target", TARGETS)
def test_every_wheel_exists_for_the_image(target: str, tmp_path: Path) -> None:
    run_uv(
        own_uv(), "pip", "install", "--dry-run", "--require-hashes", "--no-deps", "--only-binary", ":all:",
        "--python", sys.executable, "--python-version", "3.13", "--python-platform", "x86_64-manylinux_2_28",
        "--target", str(tmp_path), "--requirement", str(ROOT / "requirements" / f"container-{target}.txt"),
    )  # fmt: skip


def test_the_context_is_what_is_copied_and_no_more() -> None:
    sent = context()
    sources = [source for each in of("COPY") if "--from" not in each.text for source in each.text.split()[:-1]]
    for source in sources:
        assert any(path == source or path.startswith(f"{source}/") for path in sent), source
    assert [path for path in sent if not path.startswith(tuple(sources))] == []
    assert {Path(path).suffix for path in sent} == {".py", ".txt"}
    assert sum((ROOT / path).stat().st_size for path in sent) < 2_000_000


def test_the_context_has_every_module_that_the_service_imports() -> None:
    needed = {name for name in closure(ROOT, "gpu_service.__main__.main") if name.endswith(".py")}
    assert "gpu_service/models/sources/s3.py" in needed  # imported where it is used
    assert needed <= set(context())


@pytest.mark.parametrize("target", TARGETS)
def test_every_variable_of_ours_is_a_setting_with_a_valid_value(target: str) -> None:
    variables = environment(target)
    known = {variable_of(field) for field in msgspec.structs.fields(Settings)}
    assert {name for name in variables if name.startswith(("SLUICE_", "SAGEMAKER_"))} <= known
    settings = load(Settings, variables)
    assert settings.providers == {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[target]
    # Where SageMaker puts the packages of a multi-model endpoint.
    assert str(settings.multi_model_dir) == "/opt/ml/models"
    (exposed,) = of("EXPOSE")
    assert exposed.text.split() == [str(settings.port), str(settings.grpc_port)]


def test_sagemaker_is_told_what_each_target_can_do() -> None:
    capabilities = "com.amazonaws.sagemaker.capabilities."
    can = {target: {name for name in labels(target) if name.startswith(capabilities)} for target in TARGETS}
    assert can["cuda"] == {f"{capabilities}accept-bind-to-port"}
    # GPU multi-model endpoints are for Triton's container only.
    assert can["cpu"] == {f"{capabilities}accept-bind-to-port", f"{capabilities}multi-models"}
    assert all(labels(target)[name] == "true" for target in TARGETS for name in can[target])


def test_no_library_reports_to_its_maker() -> None:
    """ONNX Runtime's Privacy.md: set before it is initialized, nothing is collected, written or sent."""
    assert all(environment(target)["ORT_DISABLE_TELEMETRY"] == "1" for target in TARGETS)


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    arguments = dict(each.text.split("=") for each in of("ARG", "service"))
    assert arguments["VERSION"] == project["version"]
    assert labels("cpu")["org.opencontainers.image.version"] == "${VERSION}"


def test_the_drain_is_over_before_sagemaker_kills() -> None:
    """Which it does 30 s after SIGTERM."""
    (signal,) = of("STOPSIGNAL")
    assert signal.text == "SIGTERM"
    assert load(Settings, environment("cpu")).drain_seconds < 30


def test_the_linter_finds_nothing() -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run(
        [hadolint, "--failure-threshold", "style", "--trusted-registry", "docker.io", DOCKERFILE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
