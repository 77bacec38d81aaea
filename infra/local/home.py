"""The folder `.sluice`: what a running stack leaves for scripts, and where its logs and caches are.

`local.json` tells scripts where the stack listens and which keys open it; it is there only while the stack is up.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

MARK = "template.yaml"


@dataclass(frozen=True, slots=True)
class LocalStack:
    """`.sluice/local.json`; `functions` maps logical ids to function names, `outputs` are the template's."""

    api_url: str
    api_key: str
    admin_key: str
    container_url: str
    grpc_target: str
    aws_endpoint_url: str
    sagemaker_runtime_url: str
    websocket_url: str
    lambda_url: str
    pid: int
    functions: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)


class Home:
    """One project's `.sluice` folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.cache = folder / "cache"
        # What stands for /tmp of the functions and the container: it lives as long as the stack.
        self.tmp = folder / "tmp"
        self._local = folder / "local.json"
        self._pid = folder / "stack.pid"

    @classmethod
    def find(cls, start: Path | None = None) -> Self:
        """The `.sluice` of the nearest folder upwards that holds a template; `SLUICE_HOME` names another folder."""
        if named := os.environ.get("SLUICE_HOME"):
            return cls(Path(named).resolve())
        here = (start or Path.cwd()).resolve()
        root = next((folder for folder in (here, *here.parents) if (folder / MARK).is_file()), here)
        return cls(root / ".sluice")

    def claim(self) -> None:
        """Note that this process runs the stack of this folder; RuntimeError if another one does."""
        if (pid := self.running()) is not None:
            raise RuntimeError(f"The stack runs already, as process {pid}. `sluice down` ends it.")
        shutil.rmtree(self.tmp, ignore_errors=True)
        for folder in (self.folder, self.logs, self.cache, self.tmp):
            folder.mkdir(parents=True, exist_ok=True)
        self._write(self._pid, {"pid": os.getpid(), "started": psutil.Process().create_time()})

    def release(self) -> None:
        """Take back what `claim` and `publish` wrote."""
        shutil.rmtree(self.tmp, ignore_errors=True)
        self._local.unlink(missing_ok=True)
        self._pid.unlink(missing_ok=True)

    def running(self) -> int | None:
        """The process that runs the stack, or None. A process id that another program got since does not count."""
        try:
            note = json.loads(self._pid.read_text())
            if psutil.Process(note["pid"]).create_time() == note["started"]:
                return int(note["pid"])
        except (OSError, ValueError, KeyError, psutil.Error):
            return None
        return None

    def publish(self, stack: LocalStack) -> None:
        """Write `local.json`, readable by its owner only since it holds keys."""
        self._write(self._local, asdict(stack))

    def read(self) -> LocalStack | None:
        """What `local.json` says, or None if no stack is up."""
        if self.running() is None:
            return None
        try:
            return LocalStack(**json.loads(self._local.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    @staticmethod
    def _write(path: Path, document: dict[str, Any]) -> None:
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(document, file, indent=2)
        fresh.replace(path)
