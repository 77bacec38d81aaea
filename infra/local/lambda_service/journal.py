"""What one environment leaves in the log: output of the function between START, END and REPORT lines."""

from datetime import UTC, datetime

from infra.local.lambda_service.invocation import (
    VERSION,
    Failure,
    Invocation,
    InvokeResult,
    report_line,
    response_too_large,
)
from infra.local.lambda_service.logs import TAIL_BYTES, FunctionLog

_UNHANDLED = "Unhandled"
_MIB = 1024 * 1024


class Journal:
    """Writes the log of one environment and makes the results of its invocations.

    Lines of the init phase and those between two invocations belong to the tail of the next invocation.
    """

    def __init__(self, memory_mb: int, log: FunctionLog, stream: str) -> None:
        self._memory_mb = memory_mb
        self._log = log
        self._stream = stream
        self._tail = bytearray()
        self._peak_bytes = 0
        self._init_ms: float | None = None

    def write(self, data: bytes) -> None:
        """Log whole lines."""
        self._log.write(data, self._stream)
        self._tail += data
        if len(self._tail) > 4 * TAIL_BYTES:
            del self._tail[:-TAIL_BYTES]

    def initialized(self, duration_ms: float | None) -> None:
        """The init phase took so long; None when it is not to be reported with an invocation."""
        self._init_ms = duration_ms

    def used(self, rss_bytes: int) -> int:
        """Remember a measurement of the process's memory; returns it."""
        self._peak_bytes = max(self._peak_bytes, rss_bytes)
        return rss_bytes

    def start(self, request_id: str) -> None:
        """An invocation begins."""
        self.write(f"START RequestId: {request_id} Version: {VERSION}\n".encode())

    def succeeded(self, invocation: Invocation, payload: bytes, now: float) -> InvokeResult:
        """The handler returned `payload`."""
        return self._finish(invocation, payload, None, now)

    def raised(self, invocation: Invocation, payload: bytes, now: float) -> InvokeResult:
        """The handler or its module raised what `payload` describes."""
        return self._finish(invocation, payload, _UNHANDLED, now)

    def too_large(self, invocation: Invocation, now: float) -> InvokeResult:
        """The answer is over Lambda's limit."""
        return self._finish(invocation, response_too_large(), _UNHANDLED, now)

    def broken(self, invocation: Invocation, failure: Failure, now: float) -> InvokeResult:
        """The process was killed or ended by itself."""
        request_id = invocation.request_id
        if failure.status == "timeout":
            timestamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
            self.write(f"{timestamp}Z {request_id} {failure.message}\n\n".encode())
            outcome = "\tStatus: timeout"
        else:
            self.write(f"{failure.describe(request_id)}\n{failure.error_type}\n".encode())
            outcome = f"\tStatus: error\tError Type: {failure.error_type}"
        return self._finish(invocation, failure.payload(request_id), _UNHANDLED, now, outcome)

    def _finish(
        self, invocation: Invocation, payload: bytes, error: str | None, now: float, outcome: str = ""
    ) -> InvokeResult:
        duration_ms = (now - invocation.started_at) * 1000
        init_ms, self._init_ms = self._init_ms, None
        report = report_line(
            invocation.request_id,
            duration_ms=duration_ms,
            init_ms=init_ms,
            memory_mb=self._memory_mb,
            used_mb=-(-self._peak_bytes // _MIB),
            outcome=outcome,
        )
        self.write(f"END RequestId: {invocation.request_id}\n{report}".encode())
        log_tail = bytes(self._tail[-TAIL_BYTES:])
        self._tail.clear()
        return InvokeResult(payload, error, log_tail, invocation.request_id, duration_ms, init_ms)
