"""Works off notices of asynchronous endpoints, as SNS delivers them.

Source: AWS Lambda Developer Guide, "Using Lambda with Amazon SNS".
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from shared.usecases.async_results import AsyncNotice, AsyncResults

Handler = Callable[[Mapping[str, Any], Any], None]


def notices(results: AsyncResults, begin: Callable[[], None], log: logging.Logger) -> Handler:
    """The handler of the endpoints' topics.

    It raises what an answer cannot be fetched or written for, and TooEarly: Lambda delivers the event again, twice at
    the most, and after that the sweep finds the job. ValueError for an event that is not SNS's.
    """

    def handler(event: Mapping[str, Any], _context: Any) -> None:
        for text in _messages(event):
            try:
                notice = AsyncNotice.of(text)
            except (ValueError, RecursionError):
                # Delivered again it would be no better.
                log.exception("a notice cannot be read", extra={"fields": {"bytes": len(text)}})
                continue
            begin()
            looked = results(notice)
            if looked is None:
                fields = {"reference": notice.reference[:64], "failed": notice.failure is not None}
                log.info("a notice changes nothing", extra={"fields": fields})

    return handler


def _messages(event: Mapping[str, Any]) -> list[str]:
    match event:
        case {"Records": [*records]} if all(record.get("EventSource") == "aws:sns" for record in records):
            return [str(record["Sns"]["Message"]) for record in records]
    raise ValueError("The event is not one of a topic: only SNS may invoke this function.")
