"""Where SAM CLI is, with the Runtime Interface Emulator in its wheel: an environment apart, made by `make tools`."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

TOOLS_VARIABLE = "SLUICE_TOOLS"


@dataclass(frozen=True, slots=True)
class Tools:
    """SAM's command and the emulator for this machine."""

    sam: Path
    emulator: Path


def find_tools() -> Tools | None:
    """The tools in `.venv-tools/sam`, or in the environment that `SLUICE_TOOLS` names; None without both of them."""
    root = Path(os.environ.get(TOOLS_VARIABLE) or ROOT / ".venv-tools" / "sam")
    machine = "arm64" if platform.machine() == "aarch64" else "x86_64"
    emulators = sorted(root.glob(f"lib/python*/site-packages/samcli/local/rapid/aws-lambda-rie-{machine}"))
    sam = root / "bin" / "sam"
    return Tools(sam, emulators[-1]) if emulators and sam.is_file() else None


TOOLS = find_tools()
