"""Answers that are JSON documents, and doors that take a moment."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from gpu_service.http.exchange import Exchange, Headers
from gpu_service.http.responses import JSON
from gpu_service.http.router import Handler
from gpu_service.problems import Report
from shared.codecs.json_documents import JsonLimits, loads
from shared.domain.errors import SluiceError, WrongDtype

_log = logging.getLogger(__name__)

# Of control documents: model names, urls, parameters.
_LIMITS = JsonLimits(max_bytes=64 * 1024, max_depth=8, max_values=1000)


def answer_json(exchange: Exchange, status: int, document: Any, headers: Headers = ()) -> None:
    """Answer with a document."""
    exchange.answer(status, orjson.dumps(document), JSON, headers)


def body_object(exchange: Exchange) -> dict[str, Any]:
    """The body of a control request, an empty one as an empty object; NotJson, TooDeep, WrongDtype."""
    if not exchange.body:
        return {}
    document = loads(exchange.body, _LIMITS)
    if not isinstance(document, dict):
        raise WrongDtype.at("", "the body must be an object")
    return document


def text_field(document: dict[str, Any], name: str) -> str:
    """A member that must be a string that is not empty."""
    value = document.get(name)
    if not isinstance(value, str) or not value:
        raise WrongDtype.at(f"/{name}", "must be a string that is not empty")
    return value


def answering(work: Callable[[Exchange], None], report: Report) -> Handler:
    """A handler whose SluiceErrors become answers."""

    def handle(exchange: Exchange) -> None:
        try:
            work(exchange)
        except Exception as error:  # noqa: BLE001 - answered, and logged where it is not the caller's fault
            _fail(exchange, error, report)

    return handle


def answering_later(work: Callable[[Exchange], Awaitable[None]], report: Report) -> Handler:
    """The same for work that waits."""

    async def run(exchange: Exchange) -> None:
        try:
            await work(exchange)
        except Exception as error:  # noqa: BLE001 - answered, and logged where it is not the caller's fault
            _fail(exchange, error, report)

    return lambda exchange: exchange.connection.server.spawn(run(exchange))


def _fail(exchange: Exchange, error: Exception, report: Report) -> None:
    if not isinstance(error, SluiceError):
        _log.error("unexpected error", exc_info=error)
        error = SluiceError("The container failed to answer.")
    problem, media_type = report(error, "")
    exchange.answer(problem.status, problem.body, media_type, problem.headers)
