"""The GPU benchmark walks all of its way on the CPU provider, and says clearly that it has no GPU."""

import json
from pathlib import Path

import onnxruntime as ort
import pytest

from benchmarks import gpu


def test_the_whole_run_on_the_cpu(tmp_path: Path) -> None:
    small = ["--models", "mlp", "--rows", "1", "3", "--callers", "1", "2", "--seconds", "0.01", "--rounds", "2"]
    assert gpu.main(["--cpu", *small, "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert {(each["rows"], each["callers"], each["way"]) for each in report["figures"]} == {
        (rows, callers, way) for rows in (1, 3) for callers in (1, 2) for way in ("raw", "ours", "ours, graphs")
    }
    assert all(each["rows_per_s"] > 0 for each in report["figures"])
    assert "| mlp | 3 | 2 | ours |" in (tmp_path / "gpu.md").read_text()


def test_without_cuda_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert gpu.main([]) == 2
    assert "CUDAExecutionProvider" in capsys.readouterr().err
