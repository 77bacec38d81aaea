"""The README's own commands, run as they stand, with the answers that it shows."""

import json
import re
import subprocess
from typing import Any

import pytest

from tests.e2e.conftest import ROOT, Sluice

pytestmark = pytest.mark.e2e

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|json)\n(.*?)```", README, re.DOTALL)
KEY, *SHELL = [text for kind, text in BLOCKS if kind == "bash"]
PREDICTIONS = [json.loads(text) for kind, text in BLOCKS if kind == "json" and "predictions" in text]


def test_every_prediction_of_the_readme_gives_the_answer_it_shows(sluice: Sluice) -> None:
    commands = [command for command in SHELL if "/predict" in command]
    assert len(commands) == len(PREDICTIONS) == 3
    for command, shown in zip(commands, PREDICTIONS, strict=True):
        answer = json.loads(run(command, sluice))
        assert answer["model"] == shown["model"]
        assert len(answer["predictions"]) == len(shown["predictions"])
        for real, documented in zip(answer["predictions"], shown["predictions"], strict=True):
            assert agrees(real, documented)


def test_the_job_of_the_readme_is_taken_on_and_listed(sluice: Sluice) -> None:
    (command,) = (command for command in SHELL if "/predict" not in command)
    decoder = json.JSONDecoder()
    said = run(command, sluice)
    taken, end = decoder.raw_decode(said)
    listed, _ = decoder.raw_decode(said[end:].lstrip())
    assert taken["state"] == "queued"
    assert len(listed["jobs"]) == 1


def run(command: str, sluice: Sluice) -> str:
    script = (KEY + command).replace(".sluice/local.json", str(sluice.home / "local.json"))
    return subprocess.run(
        ["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    ).stdout


def agrees(real: Any, shown: Any) -> bool:
    """Whether the README's figures are the real ones, to the digits it gives; it leaves out the end of vectors."""
    if isinstance(shown, dict):
        return real.keys() == shown.keys() and all(agrees(real[key], shown[key]) for key in shown)
    if isinstance(shown, list):
        numbers = [value for value in shown if not isinstance(value, str)]
        return len(real) == 384 and all(agrees(*pair) for pair in zip(real, numbers, strict=False))
    if isinstance(shown, str):
        return bool(real == shown)
    return bool(real == pytest.approx(shown, rel=0.05, abs=1e-6))
