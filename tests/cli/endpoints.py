"""What the tests of endpoints share: a published model, and the command at a terminal."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.adapters.dynamodb_models import DynamoDBModels
from tests.adapters.samples import unique, version_of
from tests.cli.conftest import Cli
from tests.cli.deployment import client
from tests.conftest import LocalAws


def publish(local_aws: LocalAws, *versions: int, name: str = "") -> str:
    """A model with these versions (outputs `y` with classes, and `label`), and its name."""
    name = name or unique("e")
    models = DynamoDBModels(client(local_aws, "dynamodb"), local_aws.models_table)
    for version in versions:
        models.add(version_of(name, version))
    return name


def set_(cli: Cli, folder: Path, name: str, text: str = "", *options: str) -> Any:
    """Apply a document, and return its outcome."""
    file = folder / f"{name}.yaml"
    file.write_text(f"endpoint: {name}\n{text}\n")
    (outcome,) = cli.json("apply", "-f", str(file), "--yes", *options)["endpoints"]
    return outcome


@dataclass
class Terminal:
    """A command at a terminal."""

    process: "subprocess.Popen[bytes]"
    descriptor: int
    shown: str = ""

    def until(self, text: str) -> str:
        while text not in self.shown:
            try:
                read = os.read(self.descriptor, 65_536)
            except OSError:  # the other end is closed
                read = b""
            assert read, f"{text!r} was never shown:\n{self.shown}"
            self.shown += read.decode()
        return self.shown

    def answer(self, text: str) -> int:
        """Type a line, and wait for the end."""
        os.write(self.descriptor, f"{text}\n".encode())
        while True:
            try:
                read = os.read(self.descriptor, 65_536)
            except OSError:
                read = b""
            if not read:
                return self.process.wait(timeout=60)
            self.shown += read.decode()


@contextmanager
def terminal(cli: Cli, *arguments: str) -> Iterator[Terminal]:
    """The installed command with a terminal for all three streams."""
    ours, theirs = pty.openpty()
    command = [str(Path(sys.executable).with_name("sluice")), *arguments]
    environment = {**os.environ, "SLUICE_HOME": str(cli.home.folder), "TERM": "xterm", "COLUMNS": "120"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
