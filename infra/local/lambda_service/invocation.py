"""One invocation on its way through the service, what comes of it, and the reports Lambda makes of failures."""

import asyncio
import math
import signal
from dataclasses import dataclass, field

import msgspec

# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html; the answer may have 100 bytes more.
MAX_REQUEST_BYTES = 6 * 1024 * 1024
MAX_RESPONSE_BYTES = MAX_REQUEST_BYTES + 100
MAX_EVENT_BYTES = 1024 * 1024
VERSION = "$LATEST"


@dataclass(frozen=True, slots=True)
class InvokeResult:
    """What `LambdaService.invoke` returns.

    `payload` is the function's answer or, where `function_error` is set ("Unhandled"), the JSON object that describes
    the failure. `log_tail` holds the last 4 KB of this invocation's log, START and REPORT lines included.
    `init_duration_ms` is set on a cold start.
    """

    payload: bytes
    function_error: str | None
    log_tail: bytes
    request_id: str
    duration_ms: float
    init_duration_ms: float | None
    executed_version: str = VERSION


@dataclass(slots=True, eq=False)
class Invocation:
    """A request to a function that waits, runs or is done; times are those of the event loop's clock, in seconds."""

    request_id: str
    payload: bytes
    result: asyncio.Future[InvokeResult]
    client_context: str | None = None
    trace_id: str | None = None
    started_at: float = 0.0
    deadline_at: float = 0.0
    deadline_epoch_ms: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure that the service reports in the runtime's place, in the form that Lambda gives it.

    `status` is what the REPORT line says (`timeout` or `error`).
    """

    error_type: str
    message: str
    status: str = field(default="error")

    def payload(self, request_id: str) -> bytes:
        """The JSON object that the caller gets."""
        return msgspec.json.encode({"errorType": self.error_type, "errorMessage": self.describe(request_id)})

    def describe(self, request_id: str) -> str:
        """The message, naming the request as Lambda does."""
        return f"RequestId: {request_id} Error: {self.message}"


def timed_out(timeout_s: float) -> Failure:
    """The function ran longer than its timeout."""
    return Failure("Sandbox.Timedout", f"Task timed out after {timeout_s:.2f} seconds", "timeout")


def exited(returncode: int) -> Failure:
    """The runtime's process ended in the middle; `returncode` is negative for a signal."""
    if returncode == 0:
        return Failure("Runtime.ExitError", "Runtime exited without providing a reason")
    if returncode < 0:
        name = signal.strsignal(-returncode) or str(-returncode)
        return Failure("Runtime.ExitError", f"Runtime exited with error: signal: {name.lower()}")
    return Failure("Runtime.ExitError", f"Runtime exited with error: exit status {returncode}")


def out_of_memory() -> Failure:
    """The process outgrew the function's memory."""
    return Failure("Runtime.OutOfMemory", "Runtime exited with error: signal: killed")


def response_too_large() -> bytes:
    """The error that replaces an answer over the limit."""
    message = f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes)."
    return msgspec.json.encode({"errorType": "Function.ResponseSizeTooLarge", "errorMessage": message})


def report_line(
    request_id: str, *, duration_ms: float, init_ms: float | None, memory_mb: int, used_mb: int, outcome: str = ""
) -> str:
    """Lambda's REPORT line; since August 2025 the init phase is billed too."""
    billed = math.ceil(duration_ms + (init_ms or 0.0))
    init = "" if init_ms is None else f"\tInit Duration: {init_ms:.2f} ms"
    return (
        f"REPORT RequestId: {request_id}\tDuration: {duration_ms:.2f} ms\tBilled Duration: {billed} ms"
        f"\tMemory Size: {memory_mb} MB\tMax Memory Used: {min(used_mb, memory_mb)} MB{init}{outcome}\n"
    )
