"""Nothing of ours lets ONNX Runtime report to its maker."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("module", ["shared.adapters.onnx.package", "gpu_service.bootstrap"])
def test_the_variable_is_set_before_the_import(module: str, tmp_path: Path) -> None:
    environment = {name: text for name, text in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    check = f"import {module}, os, sys; assert 'onnxruntime' in sys.modules; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    command = [sys.executable, "-c", check]
    found = subprocess.run(
        command, cwd=ROOT, env={**environment, "HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert found.stdout == "1\n"
    assert not list(tmp_path.rglob("*onnxruntime*"))
