"""Fixtures for all tests: the AWS services of the local stack in a process of their own, made from `template.yaml`."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session

from infra.local import sam_transform
from infra.local.aws_client import ACCESS_KEY, SECRET_KEY
from infra.local.resources import provision
from infra.local.stack import REGION, StackSpec
from infra.local.template import load_stack

ROOT = Path(__file__).parent.parent

Translate = Callable[[Path, str, Mapping[str, str]], dict[str, Any]]

# Port 0 and a line that says which one it became: no other process can take it in between.
_SERVE = """
from infra.local.aws_services import build_app, serve
serve(build_app("http://127.0.0.1:1"), 0, lambda port: print(port, flush=True))
"""


@dataclass(frozen=True, slots=True)
class LocalAws:
    """The AWS services at `url`, with the stores of the template created."""

    url: str
    stack: StackSpec

    @property
    def models_table(self) -> str:
        return self.stack.resources["ModelsTable"].name

    @property
    def keys_table(self) -> str:
        return self.stack.resources["KeysTable"].name

    @property
    def bucket(self) -> str:
        return self.stack.resources["ModelBucket"].name


@pytest.fixture(scope="session", autouse=True)
def kept_translations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Translate]:
    """Keep what the SAM translator gives, for all workers: it takes a second or more for each of hundreds of stacks.

    The value is the translation itself, for tests of it.
    """
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "translations"
    folder.mkdir(exist_ok=True)
    translate = sam_transform._translate

    def kept(path: Path, text: str, parameters: Mapping[str, str]) -> dict[str, Any]:
        key = json.dumps([text, sorted(parameters.items())]).encode()
        file = folder / sha256(key).hexdigest()
        if not file.exists():
            partial = file.with_suffix(f".{os.getpid()}")
            partial.write_text(json.dumps(translate(path, text, parameters)))
            partial.replace(file)
        found: dict[str, Any] = json.loads(file.read_bytes())
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sam_transform, "_translate", kept)
        yield translate


@pytest.fixture(scope="session")
def stack() -> StackSpec:
    """What `template.yaml` describes."""
    return load_stack(ROOT / "template.yaml", stack_name="tests")


@pytest.fixture(scope="session")
def local_aws(stack: StackSpec, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """The AWS services, started once; tests use names of their own in it."""
    log = tmp_path_factory.mktemp("aws") / "log"
    command = [sys.executable, "-c", _SERVE]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            assert port, f"the AWS services ended with status {server.wait()}:\n{log.read_text()}"
            url = f"http://127.0.0.1:{port}"
            provision(stack, url, on_progress=lambda _line: None)
            yield LocalAws(url, stack)
        finally:
            server.kill()


@pytest.fixture(scope="session")
def aws_session() -> Session:
    """A session with credentials that no other AWS accepts, whatever this machine's configuration holds."""
    session = Session(session_vars={"profile": (None, [], None, None), "config_file": (None, None, os.devnull, None)})
    session.set_credentials(ACCESS_KEY, SECRET_KEY)
    session.set_config_variable("region", REGION)
    return session


@pytest.fixture
def keep_loggers() -> Iterator[None]:
    """Puts the loggers of `functions` and `shared` back as they were: a composition root sets them up anew."""
    loggers = [logging.getLogger(name) for name in ("functions", "shared")]
    before = [(logger, logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
