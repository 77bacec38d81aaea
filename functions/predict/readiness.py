"""Whether predictions can be served, and what is missing if not."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Final

from shared.domain.errors import BackendError

Check = Callable[[], str | None]
"""What is missing, in words for the caller, or None; may raise BackendError."""

ENDPOINT_CHECK: Final = "endpoint"
"""Name of the check that the container answers."""


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of each check: `ok` or what is missing."""

    checks: Mapping[str, str]

    @property
    def missing(self) -> tuple[str, ...]:
        """What is missing, check by check."""
        return tuple(f"{name}: {outcome}" for name, outcome in self.checks.items() if outcome != "ok")


class Readiness:
    """Runs the checks one after the other; `ttl_s` is how long a report is good for, since anyone may ask.

    `within` runs a check in bounded time, and raises BackendTimeout where that is over.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        log: logging.Logger,
        *,
        within: Callable[[Check], str | None],
        ttl_s: float = 1.0,
    ) -> None:
        self._checks = checks
        self._log = log
        self._within = within
        self._ttl_s = ttl_s
        self._report = Report({})
        self._expires = 0.0

    def __call__(self) -> Report:
        """A report that is at most `ttl_s` old."""
        if monotonic() >= self._expires:
            self._report = Report({name: self._outcome(name, check) for name, check in self._checks.items()})
            self._expires = monotonic() + self._ttl_s
        return self._report

    def _outcome(self, name: str, check: Check) -> str:
        try:
            return self._within(check) or "ok"
        except BackendError as error:
            fields = {"check": name, "reason": error.detail, "cause": repr(error.__cause__)}
            self._log.warning("not ready", extra={"fields": fields})
            return error.detail
