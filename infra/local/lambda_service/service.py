"""The local Lambda service: functions of the stack in processes of their own, under AWS's runtime client.

It behaves as Lambda does where a function can tell: cold and warm starts, one request at a time for each environment,
frozen between requests, limits of time, memory and payload, a clean set of environment variables. What differs: above
`max_environments` requests wait in a bounded queue before they are throttled, and the two retries of an asynchronous
invocation follow after seconds (Lambda's after one minute and two: "Error handling and retry" of its developer guide).
"""

import asyncio
import re
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from infra.local.lambda_service.errors import (
    RequestTooLargeError,
    ResourceNotFoundError,
    ServiceError,
)
from infra.local.lambda_service.events import RETRY_DELAYS_S, Events, FailedEvents
from infra.local.lambda_service.invocation import (
    MAX_EVENT_BYTES,
    MAX_REQUEST_BYTES,
    VERSION,
    Invocation,
    InvokeResult,
)
from infra.local.lambda_service.logs import FunctionLog, LogTap
from infra.local.lambda_service.pool import FunctionStatus, Pool
from infra.local.lambda_service.process import INIT_LIMIT_S, Launch
from infra.local.stack import ACCOUNT_ID, REGION, FunctionSpec

InvocationType = Literal["RequestResponse", "Event", "DryRun"]
INVOCATION_TYPES: tuple[str, ...] = get_args(InvocationType)

_QUALIFIED = re.compile(r"(arn:[^:]*:lambda:[^:]*:[^:]*:function:[^:]+):[\w-]+", re.ASCII)
_MEMORY_CHECK_S = 0.1
_CLOSE_S = 10.0


class LambdaService:
    """Runs functions. Make it, use it and close it in one event loop.

    Args:
        functions: by logical id.
        base_environment: variables that every function gets beside Lambda's and its own.
        log_dir: existing folder for `<LogicalId>.log`.
        max_environments: processes of one function at most.
        queue_limit: requests that may wait for one function before Lambda's throttling error.
        python: the interpreter that has `awslambdaric` and the functions' packages.
        idle_s: an environment unused for this long is ended.
        init_limit_s: Lambda's limit for the init phase.
        event_limit: asynchronous invocations under way or waiting, for all functions together.
        event_retry_delays_s: how long an asynchronous invocation that failed waits for each of its further attempts.
        failed_events: gets those that have failed for good.

    """

    def __init__(
        self,
        functions: Mapping[str, FunctionSpec],
        *,
        base_environment: Mapping[str, str],
        log_dir: Path,
        max_environments: int = 4,
        queue_limit: int = 256,
        python: Path | None = None,
        idle_s: float = 600.0,
        init_limit_s: float = INIT_LIMIT_S,
        event_limit: int = 1000,
        event_retry_delays_s: Sequence[float] = RETRY_DELAYS_S,
        failed_events: FailedEvents | None = None,
    ) -> None:
        launch = Launch(python or Path(sys.executable), dict(base_environment), init_limit_s)
        self._idle_s = idle_s
        self._events = Events(self._run, limit=event_limit, retry_delays_s=event_retry_delays_s, failed=failed_events)
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._pools: dict[str, Pool] = {}
        self._by_name: dict[str, Pool] = {}
        for logical_id, spec in functions.items():
            log = FunctionLog(log_dir / f"{logical_id}.log")
            pool = Pool(spec, launch, log, max_environments=max_environments, queue_limit=queue_limit)
            self._pools[logical_id] = pool
            self._by_name |= {spec.name: pool, spec.arn: pool, f"{ACCOUNT_ID}:function:{spec.name}": pool}
            self._by_name[f"{ACCOUNT_ID}:{spec.name}"] = pool
        self._housekeeper = self._loop.create_task(self._keep_house(), name="lambda housekeeping")

    async def invoke(
        self,
        function: str,
        payload: bytes,
        *,
        client_context: str | None = None,
        trace_id: str | None = None,
        invocation_type: InvocationType = "RequestResponse",
    ) -> InvokeResult:
        """Run a function, given by logical id, name or ARN, on a JSON payload.

        `client_context` is JSON text in ASCII, `trace_id` an X-Ray header. `Event` returns at once, with an empty
        payload, and runs later; `DryRun` only checks. A caller that is cancelled leaves the queue; what has begun goes
        on to its end, as in Lambda.

        Raises:
            ResourceNotFoundError, RequestTooLargeError, TooManyRequestsError, ServiceError: as the Lambda API.

        """
        pool = self._find(function)
        limit = MAX_EVENT_BYTES if invocation_type == "Event" else MAX_REQUEST_BYTES
        if len(payload) > limit:
            size = f"{len(payload)} byte payload is too large for the {invocation_type} invocation type"
            raise RequestTooLargeError(f"{size} (limit {limit} bytes)")
        invocation = Invocation(
            str(uuid.uuid4()), payload or b"{}", self._loop.create_future(), client_context, trace_id
        )
        if invocation_type == "RequestResponse":
            return await self._run(pool, invocation)
        if invocation_type == "Event":
            self._events.submit(pool, invocation)
        return InvokeResult(b"", None, b"", invocation.request_id, 0.0, None)

    def find(self, function: str) -> FunctionSpec:
        """The function of this logical id, name or ARN.

        Raises:
            ResourceNotFoundError: there is none.

        """
        return self._find(function).spec

    def status(self) -> list[FunctionStatus]:
        """Every function with its environments."""
        return [pool.status() for pool in self._pools.values()]

    def tap_log(self, function: str, tap: LogTap) -> None:
        """Give `tap` what the function of this logical id, name or ARN logs from now on.

        Raises:
            ResourceNotFoundError: there is none.

        """
        self._find(function).log.tap(tap)

    async def settle_events(self, limit_s: float) -> None:
        """Wait until no asynchronous invocation is under way or waiting, but no longer than `limit_s`."""
        await self._events.settle(limit_s)

    async def close(self) -> None:
        """End every environment; returns when their processes are gone. What is under way fails."""
        if self._closed:
            return
        self._closed = True
        self._housekeeper.cancel()
        events = self._events.cancel()
        environments = [environment for pool in self._pools.values() for environment in pool.close()]
        tasks = [self._housekeeper, *events, *(environment.task for environment in environments)]
        await asyncio.wait(tasks, timeout=_CLOSE_S)
        for pool in self._pools.values():
            pool.log.close()

    def _find(self, function: str) -> Pool:
        name = function.removesuffix(f":{VERSION}")
        pool = self._pools.get(name) or self._by_name.get(name)
        if pool is None and (qualified := _QUALIFIED.fullmatch(name)):
            # A published version or an alias: there is one copy of the code here, so all of them mean it.
            pool = self._by_name.get(qualified[1])
        if pool is None:
            arn = name if name.startswith("arn:") else f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:{function}"
            raise ResourceNotFoundError(f"Function not found: {arn}")
        return pool

    async def _run(self, pool: Pool, invocation: Invocation) -> InvokeResult:
        if self._closed:
            raise ServiceError("The Lambda service is closing.")
        pool.submit(invocation)
        try:
            return await invocation.result
        except asyncio.CancelledError:
            pool.forget(invocation)
            raise

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_MEMORY_CHECK_S)
            oldest = self._loop.time() - self._idle_s
            for pool in self._pools.values():
                pool.check_memory()
                pool.reap(oldest)
