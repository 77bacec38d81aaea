"""Refusals of the scheduler."""

from shared.domain.errors import BackendTimeout, BackendUnavailable


class Overloaded(BackendUnavailable):
    """The queue is full, or the answer would come after the deadline; `retry_after_s` says when to ask again."""

    code = "overloaded"
    title = "Overloaded"
    retry_after_s: float

    def __init__(self, detail: str, *, retry_after_s: float) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class TenantOverloaded(Overloaded):
    """The tenant already has its share of the queue; others still get in."""

    code = "tenant_overloaded"
    title = "Too many requests of this tenant"


class DeadlinePassed(BackendTimeout):
    """The caller's deadline passed before there was an answer; what had not begun was not run."""

    title = "Deadline passed"


class CallerGone(BackendTimeout):
    """Nobody waits for the answer any more. Only the log and the counters see this."""

    code = "caller_gone"
    title = "Caller gone"
