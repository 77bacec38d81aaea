"""The process that stands for the SageMaker endpoint's container: `python -m gpu_service serve`."""

import asyncio
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from infra.local.lambda_service.logs import MAX_FILE_BYTES
from infra.local.ports import HOST, Ports
from infra.local.processes import spawn, stop
from infra.local.stack import StackSpec

HEALTHY_LIMIT_S = 120
STOP_GRACE_S = 10
MAX_RESTARTS = 5
_LOOK_AT_LOG_S = 1.0


@dataclass(slots=True)
class Container:
    """Restarts its process when it ends, as SageMaker does, up to `MAX_RESTARTS` times; then sets `failed`.

    A log of more than `max_log_bytes` becomes `<log>.1`, and begins anew.
    """

    url: str
    root: Path
    environment: Mapping[str, str]
    log: Path
    failed: "asyncio.Future[str]"
    max_log_bytes: int = MAX_FILE_BYTES
    _process: asyncio.subprocess.Process | None = field(default=None, init=False)
    _watches: "list[asyncio.Task[None]]" = field(default_factory=list, init=False)

    @classmethod
    def of(
        cls,
        stack: StackSpec,
        root: Path,
        ports: Ports,
        environment: Mapping[str, str],
        log: Path,
        failed: "asyncio.Future[str]",
    ) -> Self | None:
        """The container of the stack's SageMaker model, or None if the template leaves it out."""
        models = stack.of_type("AWS::SageMaker::Model")
        if not models:
            return None
        declared = models[0].properties.get("PrimaryContainer", {}).get("Environment", {})
        variables = {
            **environment,
            **declared,
            "ORT_DISABLE_TELEMETRY": "1",  # as the image has it
            "SLUICE_HOST": HOST,
            "SAGEMAKER_BIND_TO_PORT": str(ports.container),
            "SLUICE_GRPC_PORT": str(ports.grpc),
            "SLUICE_POLL_SECONDS": "1",
            # It must be done before `stop` loses patience.
            "SLUICE_DRAIN_SECONDS": str(STOP_GRACE_S - 2),
            # Who develops wants to see the requests in `sluice logs container`.
            "SLUICE_ACCESS_LOG": "true",
        }
        return cls(ports.url("container"), root, variables, log, failed)

    async def __aenter__(self) -> Self:
        self.log.write_bytes(b"")
        self._process = await self._spawn()
        self._watches = [asyncio.create_task(self._keep_alive()), asyncio.create_task(self._bound_log())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for watch in self._watches:
            watch.cancel()
        if self._watches:
            await asyncio.wait(self._watches)
        if self._process:
            await stop(self._process, STOP_GRACE_S)

    async def until_healthy(self) -> None:
        """Wait until `/ping` is 200, as SageMaker does before an endpoint is InService; TimeoutError after a while."""
        timeout = aiohttp.ClientTimeout(total=2)
        async with asyncio.timeout(HEALTHY_LIMIT_S), aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                try:
                    async with session.get(f"{self.url}/ping") as response:
                        if response.status == 200:
                            return
                except (aiohttp.ClientError, TimeoutError):
                    pass
                await asyncio.sleep(0.05)

    async def _spawn(self) -> asyncio.subprocess.Process:
        with self.log.open("ab") as log:
            argv = [sys.executable, "-m", "gpu_service", "serve"]
            return await spawn(argv, env=self.environment, cwd=self.root, stdout=log, stderr=log)

    async def _keep_alive(self) -> None:
        for attempt in range(MAX_RESTARTS + 1):
            if self._process is None:
                return
            status = await self._process.wait()
            if attempt == MAX_RESTARTS:
                break
            with self.log.open("a") as log:
                log.write(f"The container ended with status {status}; starting it again.\n")
            await asyncio.sleep(2**attempt * 0.1)
            self._process = await self._spawn()
        if not self.failed.done():
            self.failed.set_result(f"The container has ended {MAX_RESTARTS + 1} times. See {self.log}.")

    async def _bound_log(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_AT_LOG_S)
            if self.log.stat().st_size > self.max_log_bytes:
                # The process appends to the file that it has open: that one stays, and its content goes.
                await asyncio.to_thread(shutil.copyfile, self.log, self.log.with_name(f"{self.log.name}.1"))
                os.truncate(self.log, 0)
