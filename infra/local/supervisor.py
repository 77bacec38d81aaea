"""One process that starts, watches and ends the whole local stack.

In its event loop run the parts that are ours (API gateway, Lambda service, SageMaker Runtime front); the AWS services,
the container and every function environment are child processes that cannot outlive it.
"""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from infra.local import resources
from infra.local.aws_client import ACCESS_KEY, SECRET_KEY
from infra.local.container import Container
from infra.local.event_sources import api as queues_api
from infra.local.event_sources.calls import AwsCallFailed
from infra.local.event_sources.sources import EventSources
from infra.local.events import api as events_api
from infra.local.events.local_events import LocalEvents
from infra.local.failed_events import FailedEventQueues
from infra.local.gateway import app as gateway
from infra.local.home import Home, LocalStack
from infra.local.lambda_service import invoke_api
from infra.local.lambda_service.service import LambdaService
from infra.local.log_delivery.delivery import LogDelivery
from infra.local.ports import HOST, Ports
from infra.local.processes import spawn, stop
from infra.local.sagemaker_front import app as sagemaker_front
from infra.local.sagemaker_front.endpoints import Endpoints
from infra.local.seed import Keys, seed_keys, seed_models
from infra.local.stack import REGION, StackSpec
from infra.local.template import load_stack

_log = logging.getLogger(__name__)
_server_log = logging.getLogger("infra.local.http")

# What the container may take, and some more.
READY_LIMIT_S = 150
POLL_S = 0.1
STOP_GRACE_S = 5
# What the template leaves to the deployer and a laptop must fill in: the image's place is taken by a process.
# No e-mail is sent from here, so alarms need no topic. The asynchronous endpoint stands before the same process.
PARAMETERS = {
    "ContainerImage": "local",
    "ContainerAsyncMaxInstances": "1",
    "AlarmTopicArn": "arn:aws:sns:us-east-1:000000000000:none",
}

# What the functions, the container and SageMaker's stand-in call.
NEEDED_SERVICES = frozenset({"dynamodb", "s3", "sagemaker", "secretsmanager", "sns", "sqs"})

Step = Callable[[str], AbstractContextManager[None]]
"""Shows that a named step runs, for as long as the context lasts."""


class _WithoutRequests(logging.Filter):
    """Drops what aiohttp says of malformed HTTP: it quotes the request, credential and body included."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_server_log.addFilter(_WithoutRequests())


class StackFailed(Exception):
    """The stack could not start, or a part that it cannot do without has ended."""


@dataclass(frozen=True, slots=True)
class Supervisor:
    """`aws_endpoint` is what to run on in place of the built-in AWS services; `models` are the packages to publish.

    `function_environment` are further variables of all functions, such as other addresses of AWS services. Without
    `delivers_logs` no function is given log lines, and so no usage is counted. Without `fires_schedules` rules and
    schedules fire on demand only.
    """

    root: Path
    home: Home
    ports: Ports
    models: tuple[Path, ...]
    aws_endpoint: str | None = None
    function_environment: Mapping[str, str] = field(default_factory=dict)
    delivers_logs: bool = True
    fires_schedules: bool = True

    async def run(self, step: Step, on_ready: Callable[[LocalStack], None], stopped: asyncio.Event) -> None:
        """Start, call `on_ready` once `/ready` is 200, and end everything once `stopped` is set.

        Raises PortTaken, TemplateError, StackFailed; whatever was started is ended in any case.
        """
        self.ports.check()
        failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        async with AsyncExitStack() as parts:
            start = asyncio.create_task(self._start(parts, step, failed))
            stop_asked = asyncio.create_task(stopped.wait())
            await _first(start, stop_asked, failed)
            if not start.done():
                start.cancel()
                await asyncio.wait([start])
            elif not stopped.is_set():
                local = start.result()
                self.home.publish(local)
                on_ready(local)
                await _first(stop_asked, failed)
            stop_asked.cancel()
        if failed.done():
            raise StackFailed(failed.result())

    async def _start(self, parts: AsyncExitStack, step: Step, failed: asyncio.Future[str]) -> LocalStack:
        aws_url = self.ports.url("aws")
        with step("template and AWS services"):
            elsewhere = await self._services_elsewhere()
            if elsewhere >= NEEDED_SERVICES and self.aws_endpoint:
                aws_url = self.aws_endpoint
            else:
                await parts.enter_async_context(self._aws_services(elsewhere, failed))
            stack = await asyncio.to_thread(
                load_stack, self.root / "template.yaml", parameters=PARAMETERS, cache_dir=self.home.cache
            )
            if silent := sorted(elsewhere & stack.events.services):
                _log.warning("%s: its %s sends no events to the functions", self.aws_endpoint, " and ".join(silent))
            if aws_url != self.aws_endpoint:
                await _until_answers(f"{aws_url}/moto-api/data.json", "the AWS services", self.home.logs / "aws.log")
        with step("tables and buckets"):
            await asyncio.to_thread(resources.provision, stack, aws_url, on_progress=_log.info)
            keys = await asyncio.to_thread(seed_keys, stack, aws_url)
        environment = self._aws_environment(aws_url)
        await self._open_doors(parts, stack, environment)
        # The predict function's cold start takes as long as the models: it need not come after them.
        warm_up = asyncio.create_task(_until_answers(f"{self.ports.url('api')}/ready", "the API", self.home.logs))
        parts.callback(warm_up.cancel)
        container = Container.of(stack, self.root, self.ports, environment, self.home.logs / "container.log", failed)
        with step(f"models ({len(self.models)})"):
            await asyncio.to_thread(seed_models, stack, aws_url, self.models)
        if container:
            # After the models: what its first look at the bucket finds is loaded before it is healthy.
            with step("container"):
                await parts.enter_async_context(container)
                await container.until_healthy()
                await asyncio.to_thread(resources.create_endpoint, stack, aws_url, on_progress=_log.info)
        with step("functions"):
            await warm_up
        return self._local_stack(stack, keys, aws_url)

    async def _services_elsewhere(self) -> frozenset[str]:
        """What `aws_endpoint` implements; the built-in services do the rest (DynamoDB Local has no S3)."""
        if self.aws_endpoint is None:
            return frozenset()
        return await asyncio.to_thread(resources.implemented_services, self.aws_endpoint, NEEDED_SERVICES)

    @asynccontextmanager
    async def _aws_services(self, elsewhere: frozenset[str], failed: asyncio.Future[str]) -> AsyncIterator[None]:
        argv = [sys.executable, "-m", "infra.local.aws_services", "--port", str(self.ports.aws)]
        argv += ["--lambda-url", self.ports.url("lambda_"), "--events"]
        for service in elsewhere:
            argv += ["--service", f"{service}={self.aws_endpoint}"]
        with (self.home.logs / "aws.log").open("wb") as log:
            process = await spawn(
                argv,
                env=self._aws_environment(self.ports.url("aws")),
                cwd=self.root,
                stdout=log,
                stderr=log,
            )
        try:
            async with _watch(process.wait(), failed, "The AWS services have ended, and the stores with them"):
                yield
        finally:
            await stop(process, STOP_GRACE_S)

    async def _open_doors(self, parts: AsyncExitStack, stack: StackSpec, environment: Mapping[str, str]) -> None:
        if len(stack.http_apis) != 1:
            raise StackFailed(f"The local gateway serves one HTTP API; the template has {len(stack.http_apis)}.")
        (api,) = stack.http_apis.values()
        functions = LambdaService(
            stack.functions,
            # Receivers of webhooks on this machine: an exception that only the local runtime makes.
            base_environment={**environment, "SLUICE_WEBHOOK_ALLOW_LOOPBACK": "true", **self.function_environment},
            log_dir=self.home.logs,
            failed_events=FailedEventQueues(environment["AWS_ENDPOINT_URL"]),
        )
        parts.push_async_callback(functions.close)
        subscriptions = LogDelivery(stack.log_subscriptions if self.delivers_logs else (), functions)
        parts.push_async_callback(subscriptions.close)
        aws_url, own_url = environment["AWS_ENDPOINT_URL"], self.ports.url("aws")
        outbox_url = own_url if aws_url == own_url else None
        events = LocalEvents(stack.events, functions, aws_url, outbox_url, fires_schedules=self.fires_schedules)
        parts.push_async_callback(events.close)
        await self._poll(parts, stack, functions, aws_url)
        endpoints = Endpoints.of(stack, self.ports.url("container"))
        lambda_app = invoke_api.create_app(functions)
        events_api.add_routes(lambda_app, events)
        queues_api.add_routes(lambda_app, stack, aws_url)
        await _listen(parts, lambda_app, self.ports.lambda_)
        await _listen(
            parts, sagemaker_front.create_app(endpoints, environment["AWS_ENDPOINT_URL"]), self.ports.sagemaker
        )
        await _listen(parts, gateway.create_app(api, functions.invoke), self.ports.api)

    async def _poll(self, parts: AsyncExitStack, stack: StackSpec, functions: LambdaService, aws_url: str) -> None:
        sources = EventSources(stack.event_sources, functions, aws_url)
        parts.push_async_callback(sources.close)
        try:
            await sources.start()
        except AwsCallFailed as error:
            raise StackFailed(f"The queues of the template cannot be polled: {error}") from error

    def _aws_environment(self, aws_url: str) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": aws_url,
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": self.ports.url("sagemaker"),
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_EC2_METADATA_DISABLED": "true",
            "TMPDIR": str(self.home.tmp),
        }

    def _local_stack(self, stack: StackSpec, keys: Keys, aws_url: str) -> LocalStack:
        return LocalStack(
            api_url=self.ports.url("api"),
            api_key=keys.api_key,
            admin_key=keys.admin_key,
            container_url=self.ports.url("container"),
            grpc_target=f"{HOST}:{self.ports.grpc}",
            aws_endpoint_url=aws_url,
            sagemaker_runtime_url=self.ports.url("sagemaker"),
            websocket_url="",
            lambda_url=self.ports.url("lambda_"),
            pid=os.getpid(),
            functions={name: spec.name for name, spec in stack.functions.items()},
            outputs=dict(stack.outputs),
        )


async def _first(*awaited: "asyncio.Future[Any]") -> None:
    await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)


async def _listen(parts: AsyncExitStack, app: web.Application, port: int) -> None:
    # A caller that has gone away takes its work along where that has not begun.
    runner = web.AppRunner(
        app, access_log=None, handle_signals=False, shutdown_timeout=1, handler_cancellation=True, logger=_server_log
    )
    await runner.setup()
    parts.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, HOST, port).start()


@asynccontextmanager
async def _watch(ended: Awaitable[object], failed: asyncio.Future[str], message: str) -> AsyncIterator[None]:
    """Set `failed` if `ended` comes true while the context lasts."""

    async def watch() -> None:
        await ended
        if not failed.done():
            failed.set_result(message)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()


async def _until_answers(url: str, what: str, log: Path) -> None:
    """Wait until `url` answers 200; StackFailed with its last answer after READY_LIMIT_S."""
    last = "no answer"
    timeout = aiohttp.ClientTimeout(total=30)
    try:
        async with asyncio.timeout(READY_LIMIT_S), aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                try:
                    async with session.get(url) as response:
                        last = f"{response.status} {(await response.text())[:500]}"
                        if response.status == 200:
                            return
                except aiohttp.ClientError as error:
                    last = str(error)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise StackFailed(f"After {READY_LIMIT_S} s {what} is not ready: {last}. See {log}.") from None
