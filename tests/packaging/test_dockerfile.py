"""The container image, as far as it can be held to anything without an engine."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra.packaging.code import closure
from infra.packaging.requirements import own_uv, parse, run_uv
from tests.conftest import ROOT
from tests.gpu_service.server import free_port, wait_until
from tests.models import add_model, write_package
from tests.packaging.dockerfile import context, instructions, of

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
def test_every_wheel_exists_for_the_image(target: str) -> None:
    run_uv(
        own_uv(), "pip", "install", "--dry-run", "--require-hashes", "--no-deps", "--only-binary", ":all:",
        "--python", sys.executable, "--python-version", "3.13", "--python-platform", "x86_64-manylinux_2_28",
        "--target", "unused", "--requirement", str(ROOT / "requirements" / f"container-{target}.txt"),
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


def test_what_is_copied_starts_reports_its_health_and_ends_at_sigterm(tmp_path: Path) -> None:
    """The instructions after the packages', with this environment's packages: COPY, RUN, ENTRYPOINT, HEALTHCHECK."""
    image = tmp_path / "opt" / "sluice"
    for path in context():
        (image / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, image / path)
    write_package(tmp_path / "models" / "add" / "1", add_model())
    port = str(free_port())
    environment = {
        "SAGEMAKER_BIND_TO_PORT": port,
        "SLUICE_HOST": "127.0.0.1",
        "SLUICE_MODEL_DIR": str(tmp_path / "models"),
        "PYTHONSAFEPATH": "",
    }

    def python(command: list[str]) -> list[str]:
        assert command[0] == "python"
        return [sys.executable, *command[1:]]

    (compiling,) = of("RUN", "service")
    subprocess.run(python(compiling.command), cwd=image, env=environment, check=True, timeout=60)
    assert (image / "gpu_service" / "__pycache__").is_dir()

    (entry,), (serve,), (health,) = of("ENTRYPOINT"), of("CMD"), of("HEALTHCHECK")
    check = python(json.loads(health.text.partition(" CMD ")[2]))

    def healthy() -> bool:
        done = subprocess.run(check, env=environment, cwd=image, capture_output=True, timeout=60, check=False)
        return done.returncode == 0

    assert not healthy()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            python([*entry.command, *serve.command]), cwd=image, env=environment, stdout=log, stderr=log
        )
    try:
        wait_until(healthy)
        process.terminate()
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
    assert not healthy()
