"""Functions behind Mangum, and the lines that they log."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from shared.web.lambda_handler import lambda_handler
from shared.web.logs import JsonFormatter
from tests.conftest import LocalAws
from tests.functions.job_stage import Stage, job_stage
from tests.functions.support import Function

Serve = Callable[[FastAPI], Function]


@pytest.fixture(autouse=True)
def event_loops(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes the event loops of the handlers that a test makes; in Lambda they live as long as the process."""
    made: list[asyncio.AbstractEventLoop] = []
    new_event_loop = asyncio.new_event_loop

    def remember() -> asyncio.AbstractEventLoop:
        made.append(new_event_loop())
        return made[-1]

    monkeypatch.setattr(asyncio, "new_event_loop", remember)
    yield
    asyncio.set_event_loop(None)
    for loop in made:
        loop.close()


@pytest.fixture
def serve() -> Serve:
    """Turns an application into a function."""
    return lambda app: Function(lambda_handler(app))


class LogLines(logging.Handler):
    """Keeps what is logged, as the lines that would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter("test"))
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += self.format(record) + "\n"

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    def requests(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["message"] == "request"]


@pytest.fixture
def log_lines() -> LogLines:
    return LogLines()


@pytest.fixture
def log(log_lines: LogLines) -> logging.Logger:
    logger = logging.Logger("functions.test", logging.DEBUG)
    logger.addHandler(log_lines)
    return logger


@pytest.fixture
def stage(local_aws: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Where jobs are worked off."""
    with job_stage(local_aws, tmp_path, monkeypatch) as made:
        yield made
