"""The event source mappings of a stack at work."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from infra.local.event_sources.calls import AwsCallFailed, AwsCalls
from infra.local.event_sources.queues import QueueSource
from infra.local.event_sources.specs import EventSourceSpec, QueueSourceSpec
from infra.local.event_sources.streams import StreamSource
from infra.local.lambda_service.service import LambdaService
from infra.local.tasks import end

# Batches of one queue under way at once: as many as a function has environments here.
CONCURRENCY: Final = 4
_PAUSE_S: Final = 1.0

_log = logging.getLogger(__name__)


class EventSources:
    """Polls the queues and streams of a stack. Make it, use it and close it in the event loop of its `LambdaService`.

    `aws_url` is where queues and tables are, `concurrency` the batches of one queue that may be under way at once.
    """

    def __init__(
        self,
        specs: Sequence[EventSourceSpec],
        service: LambdaService,
        aws_url: str,
        *,
        concurrency: int = CONCURRENCY,
    ) -> None:
        self._calls = AwsCalls(aws_url)
        self._sources: list[QueueSource | StreamSource] = [
            QueueSource(spec, service, self._calls, concurrency=concurrency)
            if isinstance(spec, QueueSourceSpec)
            else StreamSource(spec, service, self._calls)
            for spec in specs
        ]
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to poll: what happens after this returns is not missed.

        What the AWS services refuse, such as streams at an endpoint that has none, is left out with a warning.

        Raises:
            AwsCallFailed: there is no answer.

        """
        for source in self._sources:
            try:
                await source.open()
            except AwsCallFailed as error:
                if error.code is None:
                    raise
                _log.warning("%s brings no events to its function: %s", source.spec.name, error)
            else:
                name = f"event source {source.spec.name}"
                self._tasks.append(asyncio.get_running_loop().create_task(_keep(source), name=name))

    async def close(self) -> None:
        """End at once. Messages that a function works on come back to their queue, as when Lambda itself fails."""
        await end(self._tasks)
        self._tasks = []
        await self._calls.close()


async def _keep(source: QueueSource | StreamSource) -> None:
    """Run a source for as long as the stack lives: a fault in it must not stop what it feeds for good."""
    while True:
        try:
            await source.run()
        except* AwsCallFailed as failures:
            _log.warning("%s: %s", source.spec.name, failures.exceptions[0])
        except* Exception:  # noqa: BLE001 - logged; whatever it was, the next message deserves another try
            _log.exception("The event source %s has failed and begins again", source.spec.name)
        await asyncio.sleep(_PAUSE_S)
