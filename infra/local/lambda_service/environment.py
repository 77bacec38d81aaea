"""One execution environment: a process of AWS's runtime client, frozen whenever it has nothing to do."""

import asyncio
import enum
import signal
import time
import uuid
from typing import Protocol

from infra.local.lambda_service.errors import ServiceError
from infra.local.lambda_service.invocation import Failure, Invocation, InvokeResult, exited, out_of_memory, timed_out
from infra.local.lambda_service.journal import Journal
from infra.local.lambda_service.logs import FunctionLog
from infra.local.lambda_service.process import Launch, RuntimeProcess
from infra.local.lambda_service.runtime_api import RuntimeApi
from infra.local.lambda_service.variables import log_stream_name
from infra.local.stack import FunctionSpec

_MEASURE_EVERY_S = 0.1


class State(enum.StrEnum):
    """Where an environment is in its life."""

    STARTING = "starting"
    BUSY = "busy"
    FROZEN = "frozen"
    ENDED = "ended"


class Owner(Protocol):
    """Who hands out the work of one function."""

    def ready(self, environment: "Environment") -> None:
        """The environment waits for work: begin an invocation on it, or freeze it."""

    def retired(self, environment: "Environment") -> None:
        """The environment takes no more work. Called once."""


class Environment:
    """Serves one invocation at a time, the one it is made for first.

    All methods belong to the event loop's thread.
    """

    def __init__(self, spec: FunctionSpec, launch: Launch, log: FunctionLog, owner: Owner, first: Invocation) -> None:
        self.spec = spec
        self.function_arn = spec.arn
        self.id = uuid.uuid4().hex
        self.state = State.STARTING
        self.invocations = 0
        self.idle_since = 0.0
        self._launch = launch
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._log_stream = log_stream_name(spec, self.id)
        self._journal = Journal(spec.memory_mb, log, self._log_stream)
        self._api = RuntimeApi(self)
        self._current: Invocation | None = first
        self._next: asyncio.Future[Invocation | None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._process: RuntimeProcess | None = None
        self._started_at = 0.0
        self._measured_at = 0.0
        self._init_again = False
        self.task = self._loop.create_task(self._live(), name=f"{spec.logical_id} {self.id}")

    @property
    def pid(self) -> int | None:
        """The process, once it has started."""
        return None if self._process is None else self._process.pid

    @property
    def returning(self) -> bool:
        """It has answered its invocation, but not yet come back for the next one."""
        return self.state is State.BUSY and self._current is None and self._next is None

    # ------------------------------------------------------------- what the owner calls

    def begin(self, invocation: Invocation) -> None:
        """Hand an invocation to the waiting runtime, thawing it first."""
        if invocation.deadline_at == 0.0:
            self._arm(invocation)
            self._journal.start(invocation.request_id)
        self._current = invocation
        if self.state is State.FROZEN:
            self._signal(signal.SIGCONT)
        self.state = State.BUSY
        self.invocations += 1
        if self._next is not None:
            self._next.set_result(invocation)
            self._next = None

    def freeze(self) -> None:
        """Stop the process until the next `begin`: nothing runs in it meanwhile, as in Lambda."""
        self._signal(signal.SIGSTOP)
        self.state = State.FROZEN
        self.idle_since = self._loop.time()

    def end(self, failure: Failure | None = None) -> None:
        """Kill the process; an invocation under way fails with `failure`, or as a service error without one."""
        if self.state is State.ENDED:
            return
        self.state = State.ENDED
        self._signal(signal.SIGKILL)
        self._cancel_timer()
        if self._next is not None:
            self._next.set_result(None)
            self._next = None
        if self._process is not None:
            self._process.drain(flush=failure is not None)
        if failure is not None:
            self._fail(failure)
        elif self._current is not None and not self._current.result.done():
            self._current.result.set_exception(ServiceError("The environment was ended."))
        self._current = None
        self._owner.retired(self)

    def check_memory(self) -> None:
        """Measure, and kill a process that has outgrown the function's memory."""
        if self.state in {State.STARTING, State.BUSY} and self._measure() > self.spec.memory_mb * 1024 * 1024:
            self.end(out_of_memory())

    # ----------------------------------------------------- what the runtime calls (Runtime)

    async def next_invocation(self) -> Invocation | None:
        """The process is ready, after its init or after an answer."""
        if self.state is State.ENDED or self._init_again:  # the request of a process that has been killed since
            return None
        self._cancel_timer()
        waiting: asyncio.Future[Invocation | None] = self._loop.create_future()
        self._next = waiting
        if self.state is State.STARTING:
            self._initialized()
        else:
            self._owner.ready(self)
        return await waiting

    def answered(self, request_id: str, payload: bytes | None) -> bool:
        """The handler returned."""
        if self._current is None or self._current.request_id != request_id:
            return False
        self._before_answer()
        if payload is None:
            self._complete(self._journal.too_large(self._current, self._loop.time()))
        else:
            self._complete(self._journal.succeeded(self._current, payload, self._loop.time()))
        return True

    def failed(self, request_id: str, payload: bytes) -> bool:
        """The handler raised; `payload` describes what."""
        if self._current is None or self._current.request_id != request_id:
            return False
        self._before_answer()
        self._complete(self._journal.raised(self._current, payload, self._loop.time()))
        return True

    def init_failed(self, payload: bytes) -> None:
        """The module could not be loaded; the process exits by itself, and is not waited for."""
        if self._current is not None:
            self._before_answer()
            if self._current.deadline_at == 0.0:
                self._begin_at(self._current)
            self._complete(self._journal.raised(self._current, payload, self._loop.time()))
        self.end()

    # ----------------------------------------------------------------------- its life

    async def _live(self) -> None:
        try:
            address = await self._api.open()
            again, returncode = True, 0
            while again and self.state is not State.ENDED:
                returncode = await self._run(address)
                again, self._init_again = self._init_again, False
            if self.state is not State.ENDED:
                self.end(exited(returncode))
        except OSError as error:
            if self._current is not None and not self._current.result.done():
                self._current.result.set_exception(ServiceError(f"{self.spec.logical_id} does not start: {error}"))
            self.end()
        finally:
            self.end()
            await self._api.close()

    async def _run(self, address: str) -> int:
        """Run one process to its end; returns its exit status."""
        self._process = process = await RuntimeProcess.start(
            self.spec,
            self._launch,
            runtime_api=address,
            log_stream=self._log_stream,
            sink=self._journal.write,
        )
        try:
            self._process_started()
            return await process.wait()
        finally:
            self._process = None

    def _process_started(self) -> None:
        self._started_at = self._loop.time()
        if self.state is State.ENDED:  # ended while the process was being forked
            self._signal(signal.SIGKILL)
        elif self._current is not None and self._current.deadline_at:
            pass  # a second init: the invocation's own timeout runs already
        else:
            self._timer = self._loop.call_later(self._launch.init_limit_s, self._init_too_slow)

    def _init_too_slow(self) -> None:
        """Lambda's rule: init again, from the beginning, inside the invocation's own timeout."""
        duration_ms = (self._loop.time() - self._started_at) * 1000
        self._journal.write(f"INIT_REPORT Init Duration: {duration_ms:.2f} ms\tPhase: init\tStatus: timeout\n".encode())
        if self._current is not None:
            self._begin_at(self._current)
        self._init_again = True
        self._signal(signal.SIGKILL)

    def _initialized(self) -> None:
        first, self._current = self._current, None
        if first is None or first.result.cancelled():
            self._journal.initialized(None)
            self._owner.ready(self)
            return
        if first.deadline_at == 0.0:
            self._journal.initialized((self._loop.time() - self._started_at) * 1000)
        else:
            self._rearm(first)
        self.begin(first)

    def _begin_at(self, invocation: Invocation) -> None:
        self._arm(invocation)
        self._journal.start(invocation.request_id)

    def _arm(self, invocation: Invocation) -> None:
        invocation.started_at = self._loop.time()
        invocation.deadline_at = invocation.started_at + self.spec.timeout_s
        invocation.deadline_epoch_ms = int((time.time() + self.spec.timeout_s) * 1000)
        self._rearm(invocation)

    def _rearm(self, invocation: Invocation) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_at(invocation.deadline_at, self._too_slow)

    def _too_slow(self) -> None:
        # Without an invocation: it has answered, but never came back for the next event.
        self.end(timed_out(self.spec.timeout_s))

    def _fail(self, failure: Failure) -> None:
        if self._current is None:
            return
        if self._current.deadline_at == 0.0:
            self._begin_at(self._current)
            self._cancel_timer()
        self._complete(self._journal.broken(self._current, failure, self._loop.time()))

    def _complete(self, result: InvokeResult) -> None:
        invocation, self._current = self._current, None
        if invocation is not None and not invocation.result.done():  # its caller may have gone away
            invocation.result.set_result(result)

    def _before_answer(self) -> None:
        # The housekeeper measures too rarely for the REPORT line of a short invocation.
        if self._loop.time() - self._measured_at > _MEASURE_EVERY_S:
            self._measure()
        if self._process is not None:
            self._process.drain(flush=True)

    def _measure(self) -> int:
        if self._process is None:
            return 0
        if self.state is not State.STARTING:  # what a process has before its imports says nothing of an invocation
            self._measured_at = self._loop.time()
        return self._journal.used(self._process.rss())

    def _signal(self, signum: signal.Signals) -> None:
        if self._process is not None:
            self._process.signal(signum)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
