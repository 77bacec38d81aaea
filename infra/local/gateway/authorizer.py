"""Lambda authorizers of payload format 2.0 with simple responses.

Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-lambda-authorizer.html.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from infra.local.gateway.event import Event, authorizer_event
from infra.local.lambda_service.invocation import InvokeResult
from infra.local.stack import AuthorizerSpec, HttpApiSpec

# API Gateway's limit for an authorizer function.
TIMEOUT_S = 10.0
MAX_CACHED = 10_000


class Invoke(Protocol):
    """What the gateway needs of `LambdaService.invoke`."""

    def __call__(self, function: str, payload: bytes, *, trace_id: str | None = None) -> Awaitable[InvokeResult]:
        """Run a function."""


class UnauthorizedError(Exception):
    """An identity source is missing or empty: 401, and the function is not asked."""


class ForbiddenError(Exception):
    """The authorizer said no: 403."""


class AuthorizerFailedError(Exception):
    """The authorizer failed, or its answer has not the form of a simple response: 500."""


class _Answer(msgspec.Struct):
    is_authorized: bool = msgspec.field(name="isAuthorized")
    context: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Cached:
    answer: _Answer
    expires_at: float


class Authorizer:
    """Asks one authorizer function and remembers its answers.

    An answer is remembered by the values of the identity sources alone, so it holds for every route that uses this
    authorizer, unless `$context.routeKey` is one of the sources. Refusals are remembered as well.
    """

    def __init__(self, api: HttpApiSpec, spec: AuthorizerSpec, invoke: Invoke) -> None:
        self._api = api
        self._spec = spec
        self._invoke = invoke
        self._sources = tuple(_compile(expression) for expression in spec.identity_sources)
        self._cache: OrderedDict[tuple[str, ...], _Cached] = OrderedDict()

    async def authorize(self, event: Event) -> dict[str, Any]:
        """The authorizer's context for the request of this integration event.

        Raises:
            UnauthorizedError, ForbiddenError, AuthorizerFailedError: see there.

        """
        values = [source(event) for source in self._sources]
        identity = tuple(value for value in values if value)
        if len(identity) < len(values):
            raise UnauthorizedError
        answer = self._remembered(identity)
        if answer is None:
            answer = await self._ask(event, identity)
            self._remember(identity, answer)
        if not answer.is_authorized:
            raise ForbiddenError
        return answer.context or {}

    async def _ask(self, event: Event, identity: tuple[str, ...]) -> _Answer:
        payload = msgspec.json.encode(authorizer_event(self._api, event, identity))
        trace_id = event["headers"].get("x-amzn-trace-id")
        try:
            async with asyncio.timeout(TIMEOUT_S):
                result = await self._invoke(self._spec.function, payload, trace_id=trace_id)
        except TimeoutError as error:
            raise AuthorizerFailedError(f"{self._spec.function} took longer than {TIMEOUT_S:g} s") from error
        if result.function_error is not None:
            raise AuthorizerFailedError(f"{self._spec.function}: {result.payload[:1000].decode(errors='replace')}")
        try:
            return msgspec.json.decode(result.payload, type=_Answer)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise AuthorizerFailedError(f"{self._spec.function} gave no simple response: {error}") from error

    def _remembered(self, identity: tuple[str, ...]) -> _Answer | None:
        cached = self._cache.get(identity)
        if cached is None:
            return None
        if cached.expires_at <= asyncio.get_running_loop().time():
            del self._cache[identity]
            return None
        self._cache.move_to_end(identity)
        return cached.answer

    def _remember(self, identity: tuple[str, ...], answer: _Answer) -> None:
        if self._spec.ttl_s <= 0 or not identity:
            return
        self._cache[identity] = _Cached(answer, asyncio.get_running_loop().time() + self._spec.ttl_s)
        self._cache.move_to_end(identity)
        if len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)


def _compile(expression: str) -> Callable[[Event], str | None]:
    """A function that takes the value of an identity source from an integration event."""
    kind, _, name = expression.partition(".")
    if kind == "$request":
        part, _, name = name.partition(".")
        if part == "header":
            return lambda event: event["headers"].get(name.lower())
        if part == "querystring":
            return lambda event: event.get("queryStringParameters", {}).get(name)
    elif kind == "$context" and name:
        return lambda event: _lookup(event["requestContext"], name.split("."))
    raise ValueError(f"Identity source {expression!r} is none of $request.header, $request.querystring, $context")


def _lookup(value: Any, names: list[str]) -> str | None:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None
