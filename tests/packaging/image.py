"""What the Dockerfile makes, laid out in a folder and run here as an engine would run it."""

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from tests.conftest import ROOT
from tests.gpu_service.server import LIMIT_S, free_port, wait_until
from tests.packaging.dockerfile import context, environment, of

_USER = "1000"


@cache
def engine(python: str) -> tuple[str, ...]:
    """What makes a command process 1 of its own, as the image's user, or as much of that as this machine allows."""
    (user,) = of("USER")
    assert user.text == f"{_USER}:{_USER}"
    # A Python below root's own home must be readable; what is read-only stays so.
    caps = "-all,+dac_read_search"
    drop = (
        *("setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups", "--no-new-privs"),
        *(f"--inh-caps={caps}", f"--ambient-caps={caps}", f"--bounding-set={caps}", "--"),
    )
    apart = ("unshare", "--pid", "--fork", "--kill-child")
    of_root = [(*apart, *drop), drop, apart]
    of_others = [("unshare", "--user", "--map-current-user", *apart[1:])]
    for prefix in of_root if os.getuid() == 0 else of_others:
        if (
            shutil.which(prefix[0])
            and not subprocess.run(
                [*prefix, python, "-c", "pass"], capture_output=True, timeout=LIMIT_S, check=False
            ).returncode
        ):
            return prefix
    return ()


@dataclass(frozen=True, slots=True)
class Run:
    """A container that runs: `process` is the first one in it, `engine` the one that has started that."""

    process: psutil.Process
    engine: "subprocess.Popen[bytes]"
    port: int
    grpc_port: int
    log: Path

    def end(self) -> int:
        """SIGTERM to the container's first process; its exit status."""
        self.process.terminate()
        return self.engine.wait(timeout=LIMIT_S)

    def lines(self) -> list[dict[str, object]]:
        """Its log; fails on a line that is not JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@dataclass(frozen=True, slots=True)
class Image:
    """`folder` stands for the image's root; `python` for its Python, with the packages of `/opt/packages`."""

    folder: Path
    python: str
    target: str = "cpu"

    @classmethod
    def build(cls, folder: Path, python: str, packages: Path) -> "Image":
        """COPY and RUN of the stage `service`, then everything is made read-only but `/tmp`."""
        image = cls(folder, python)
        work = image.folder / image.workdir
        for each in of("COPY", "service"):
            source, destination = each.text.split()
            for path in context():
                if path == source or path.startswith(f"{source}/"):
                    place = work / destination / Path(path).relative_to(source)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(ROOT / path, place)
        image.path("/opt/packages").symlink_to(packages)
        image.path("/opt/ml/model").mkdir(parents=True, exist_ok=True)
        for each in of("RUN", "service"):
            subprocess.run(image.words(each.command), cwd=work, env=image.variables(), check=True, timeout=LIMIT_S)
        temporary = image.path("/tmp")  # noqa: S108 - below the image's root
        temporary.mkdir()
        image.lock()
        temporary.chmod(0o1777)
        return image

    @property
    def workdir(self) -> str:
        (workdir,) = of("WORKDIR")
        return workdir.text.lstrip("/")

    def path(self, path: str) -> Path:
        """Where a path of the image lies here."""
        return self.folder / path.lstrip("/")

    def lock(self) -> None:
        """Let nobody write, and everybody read."""
        for path in [self.folder, *self.folder.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o555 if path.is_dir() else 0o444)

    def unlock(self) -> None:
        """Let the owner write, so that it can be removed."""
        for path in [self.folder, *self.folder.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(stat.S_IRWXU)

    def files(self) -> dict[str, int]:
        """Every file of the image outside `/tmp`, with the time of its last change."""
        temporary = self.path("/tmp")  # noqa: S108
        return {
            str(path.relative_to(self.folder)): path.lstat().st_mtime_ns
            for path in self.folder.rglob("*")
            if not path.is_relative_to(temporary)
        }

    def variables(self, **more: str) -> dict[str, str]:
        """The image's ENV, its paths those of this machine; no home, since the user has none."""
        found = {name: self._here(text) for name, text in environment(self.target).items()}
        return found | {"PATH": os.defpath, "TMPDIR": str(self.path("/tmp")), "HOME": "/nonexistent", **more}  # noqa: S108

    def words(self, command: list[str]) -> list[str]:
        """A command of the Dockerfile for this machine; all of them are Python's."""
        assert command[0] == "python"
        return [self.python, *command[1:]]

    def healthy(self, port: int) -> bool:
        """What HEALTHCHECK says."""
        (health,) = of("HEALTHCHECK")
        check = self.words(json.loads(health.text.partition(" CMD ")[2]))
        variables = self.variables(SAGEMAKER_BIND_TO_PORT=str(port))
        done = subprocess.run(check, env=variables, cwd="/", capture_output=True, timeout=LIMIT_S, check=False)
        return done.returncode == 0

    @contextmanager
    def run(self, log: Path, **more: str) -> Iterator[Run]:
        """ENTRYPOINT and CMD, as the image's user and as process 1 where this machine allows it."""
        (entry,), (serve,) = of("ENTRYPOINT"), of("CMD")
        prefix = engine(self.python)
        port, grpc_port = free_port(), free_port()
        variables = self.variables(
            SAGEMAKER_BIND_TO_PORT=str(port),
            SLUICE_GRPC_PORT=str(grpc_port),
            SLUICE_HOST="127.0.0.1",
            SLUICE_MODEL_DIR=str(self.path("/opt/ml/model")),
            **more,
        )
        command = [*prefix, *self.words([*entry.command, *serve.command])]
        with log.open("wb") as out:
            started = subprocess.Popen(command, cwd=self.folder / self.workdir, env=variables, stdout=out, stderr=out)
        try:
            process = psutil.Process(started.pid)
            if "--fork" in prefix:
                (process,) = wait_until(lambda: process.children() or started.poll() is not None)
            yield Run(process, started, port, grpc_port, log)
        finally:
            started.kill()
            started.wait()

    def _here(self, text: str) -> str:
        """Paths of the image that exist in it get their place here."""
        return ":".join(str(self.path(part)) if part.startswith("/") else part for part in text.split(":"))
