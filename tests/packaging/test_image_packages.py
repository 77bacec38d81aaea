"""The command that fills the CPU image, run here with the image's version of Python."""

import subprocess
from pathlib import Path

from infra.packaging.interpreter import Interpreter
from tests.conftest import ROOT
from tests.packaging.dockerfile import of

_IMPORTS = """
import sys
sys.path[:0] = sys.argv[1:]
import gpu_service.__main__, gpu_service.models.sources.s3, httptools, onnxruntime, PIL.Image, tokenizers, uvloop
assert "CPUExecutionProvider" in onnxruntime.get_available_providers()
print(onnxruntime.__file__)
"""


def test_the_packages_of_the_image_are_what_the_service_needs(interpreter: Interpreter, tmp_path: Path) -> None:
    (install,) = of("RUN", "packages-cpu")
    packages = str(tmp_path / "packages")
    here = {"/opt/packages": packages, "/tmp/requirements.txt": str(ROOT / "requirements" / "container-cpu.txt")}  # noqa: S108
    assert here.keys() <= set(install.command)
    command = [interpreter.path, *(here.get(word, word) for word in install.command[1:])]
    # Bytecode is not what is looked at here, and takes most of the time.
    subprocess.run([*command, "--no-compile"], check=True, capture_output=True, timeout=110)
    found = subprocess.run(
        [interpreter.path, "-I", "-S", "-c", _IMPORTS, str(ROOT), packages],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.stdout.startswith(packages)
