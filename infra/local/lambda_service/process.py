"""One process of AWS's runtime client, with its output and its memory."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from infra.local.lambda_service.logs import LogPipe
from infra.local.lambda_service.variables import function_environment
from infra.local.processes import signal_group, spawn
from infra.local.stack import FunctionSpec

INIT_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Launch:
    """How the processes of every environment are started."""

    python: Path
    base_environment: Mapping[str, str]
    init_limit_s: float = INIT_LIMIT_S


class RuntimeProcess:
    """`python -m awslambdaric <handler>` in the function's folder. Await `wait` to the end, whatever happens."""

    def __init__(self, process: asyncio.subprocess.Process, pipe: LogPipe) -> None:
        self.pid = process.pid
        self._process = process
        self._pipe = pipe
        self._memory: psutil.Process | None = None
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended already
            self._memory = psutil.Process(process.pid)

    @classmethod
    async def start(
        cls, spec: FunctionSpec, launch: Launch, *, runtime_api: str, log_stream: str, sink: Callable[[bytes], None]
    ) -> Self:
        """Start it; whole lines of its output go to `sink`.

        Raises:
            OSError: it cannot be started.

        """
        variables = function_environment(
            spec, python=launch.python, base=launch.base_environment, runtime_api=runtime_api, log_stream=log_stream
        )
        argv = [str(launch.python), "-m", "awslambdaric", spec.handler]
        pipe = LogPipe(sink)
        try:
            process = await spawn(argv, env=variables, cwd=spec.code_dir, stdout=pipe.write_fd, stderr=pipe.write_fd)
        except BaseException:
            pipe.close()
            raise
        finally:
            pipe.close_write_end()
        return cls(process, pipe)

    async def wait(self) -> int:
        """Wait for its end; what the handler left behind ends with it. Returns the exit status as `subprocess` does."""
        try:
            return await self._process.wait()
        finally:
            self.signal(signal.SIGKILL)
            self._pipe.close()

    def signal(self, signum: signal.Signals) -> None:
        """Signal the process and its children."""
        signal_group(self.pid, signum)

    def drain(self, *, flush: bool) -> None:
        """Hand over all output so far, with `flush` also a last line that has no end yet."""
        self._pipe.drain()
        if flush:
            self._pipe.flush()

    def rss(self) -> int:
        """Resident memory in bytes, 0 when the process has ended."""
        try:
            return 0 if self._memory is None else int(self._memory.memory_info().rss)
        except psutil.NoSuchProcess:
            return 0
