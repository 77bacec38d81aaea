"""Each rival's own virtual environment below `build/bench/venvs`, from its pinned requirements."""

import subprocess
import sys
from pathlib import Path

from benchmarks.generator import OUT
from benchmarks.servers import NotMeasurable

HERE = Path(__file__).parent
VENVS = OUT / "venvs"
_LIMIT_S = 600


def binary(rival: str, name: str) -> str:
    """A program of the rival's environment."""
    return str(VENVS / rival / "bin" / name)


def install(rival: str) -> None:
    """Make the environment if its requirements changed; NotMeasurable with the reason if it cannot be made."""
    requirements = HERE / rival / "requirements.txt"
    mark = VENVS / rival / "installed.txt"
    if mark.exists() and mark.read_bytes() == requirements.read_bytes():
        return
    uv = str(Path(sys.executable).parent / "uv")
    try:
        _run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(VENVS / rival)])
        python = binary(rival, "python")
        _run([uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", str(requirements)])
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise NotMeasurable(f"{rival} cannot be installed: {str(error.stderr or error)[-600:]}") from error
    mark.write_bytes(requirements.read_bytes())


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_LIMIT_S)
