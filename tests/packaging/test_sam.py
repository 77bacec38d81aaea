"""The staged tree and the real SAM CLI, without a network, an account or a container engine."""

import os
import subprocess
from pathlib import Path

import pytest
from samtranslator.yaml_helper import yaml_parse

from infra.packaging.build import Stage
from tests.packaging.conftest import HERE
from tests.packaging.tools import TOOLS

pytestmark = pytest.mark.tools


def sam(*arguments: str, home: Path) -> str:
    assert TOOLS is not None
    done = subprocess.run(
        [TOOLS.sam, *arguments],
        # Without credentials and without Docker's socket, SAM can use neither.
        env={
            "PATH": os.defpath,
            "HOME": str(home),
            "SAM_CLI_TELEMETRY": "0",
            "AWS_DEFAULT_REGION": "us-east-1",
            "DOCKER_HOST": "unix:///nowhere",
        },
        cwd=home,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_sam_build_takes_the_stage_as_it_is(stages: dict[str, Stage], tmp_path: Path) -> None:
    stage = stages[HERE]
    out = tmp_path / "built"
    told = sam("build", "--template", str(stage.folder / "template.yaml"), "--build-dir", str(out), home=tmp_path)
    assert "Build Succeeded" in told
    built = yaml_parse((out / "template.yaml").read_text())["Resources"]
    staged = yaml_parse((stage.folder / "template.yaml").read_text())["Resources"]
    assert built.keys() == staged.keys()
    for name, resource in staged.items():
        for key in ("CodeUri", "ContentUri"):
            if (path := resource["Properties"].get(key)) is not None:
                artefact = stage.folder / path
                assert artefact.is_file()
                assert (out / built[name]["Properties"][key]).resolve() == artefact.resolve()
