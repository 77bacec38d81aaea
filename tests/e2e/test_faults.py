"""`make faults` in its short form: each fault has the outcome that it must have, on a stack of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(300)
def test_every_fault_ends_as_it_must(tmp_path: Path) -> None:
    """Circuits open and close by themselves, stand-ins are marked, and every answer is that of its own request."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", "--quick", "--out", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert (tmp_path / "report.json").exists(), done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    page = (tmp_path / "report.md").read_text()
    assert {fault["fault"]: fault["wrong"] for fault in report["faults"] if fault["wrong"]} == {}, page
    assert sum(fault["wrong_answers"] for fault in report["faults"]) == 0
    names = ", ".join(fault["fault"] for fault in report["faults"])
    for name in ("slow", "hanging", "5xx", "4xx", "reset", "garbage", "another's answer", "not ready"):
        assert name in names
    for name in ("configuration fails", "configuration hangs", "stale half"):
        assert name in names
    assert done.returncode == 0, done.stderr
