"""How an event source calls its function: throttled calls are made again, and what has failed is told apart."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from infra.local.event_sources.failures import failed_items
from infra.local.event_sources.records import Record
from infra.local.lambda_service.errors import TooManyRequestsError
from infra.local.lambda_service.invocation import InvokeResult
from infra.local.lambda_service.service import LambdaService

_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a batch: the identifiers of records that failed."""

    failed: frozenset[str]
    result: InvokeResult


class Function:
    """A function of the service by its logical id; with `reports_failures` its answer names what has failed."""

    def __init__(self, service: LambdaService, logical_id: str, *, reports_failures: bool) -> None:
        self.spec = service.find(logical_id)
        self._service = service
        self._reports_failures = reports_failures

    async def __call__(self, records: Sequence[Record], payload: bytes, *, limit_s: float | None = None) -> Outcome:
        """Run it on a batch, after `limit_s` seconds of throttling at the latest.

        Raises:
            LambdaApiError: it could not be run, or was throttled for all that time.

        """
        result = await self._admitted(payload, limit_s)
        identifiers = frozenset(record.identifier for record in records)
        if result.function_error is not None:
            return Outcome(identifiers, result)
        return Outcome(failed_items(result.payload, identifiers) if self._reports_failures else frozenset(), result)

    async def _admitted(self, payload: bytes, limit_s: float | None) -> InvokeResult:
        loop = asyncio.get_running_loop()
        deadline = None if limit_s is None else loop.time() + limit_s
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                return await self._service.invoke(self.spec.logical_id, payload)
            except TooManyRequestsError:
                if deadline is not None and loop.time() + wait_s > deadline:
                    raise
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
