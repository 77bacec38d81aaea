"""What stands before every route that needs a caller: who it is, how often, and exactly once.

principal → scope → quota and rate → body → replay or run → headers
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from time import perf_counter, time

from starlette.requests import Request
from starlette.responses import Response

from shared.domain.errors import PayloadTooLarge, RateLimited
from shared.domain.idempotency import IdempotencyScope, StoredAnswer, check_key
from shared.domain.ports import Allowance, IdempotencyStore
from shared.domain.principal import Principal
from shared.usecases.admit import Admit
from shared.web.callers import Callers
from shared.web.rate_limit_headers import rate_limit_headers, rate_limit_headers_of
from shared.web.requests import header, record_of

# What decides how a body is read and its answer written is part of what was asked.
_MEANING = (b"content-type", b"content-encoding", b"accept", b"accept-encoding", b"inference-header-content-length")
_DEFAULT_REMAINING_MS = 29_000

Work = Callable[[Principal, bytes], StoredAnswer]
"""What a route does with an admitted request and its body."""


@dataclass(frozen=True, slots=True)
class Door:
    """Lets requests in. `idempotency` None is a function without routes that write.

    `pepper` seals stored answers that show a secret; only routes that ask for it need one.
    """

    callers: Callers
    admit: Admit
    idempotency: IdempotencyStore | None = None
    max_body_bytes: int = 10 * 1024 * 1024
    pepper: Callable[[], bytes] | None = None

    async def serve(
        self, request: Request, work: Work, *, scopes: Sequence[str] = (), model: str = "", secret: bool = False
    ) -> Response:
        """The answer of a route: `scopes` of which the caller needs one, `model` that the route's path names.

        `secret` says that the answer must not be stored as it is. Raises what the steps raise.
        """
        scope = request.scope
        record = record_of(scope)
        start = perf_counter()
        principal = self.callers.of(scope)
        if scopes:
            principal.require(*scopes)
        try:
            allowance = self.admit(principal, time())
        except RateLimited as error:
            record.headers.update(rate_limit_headers_of(error))
            raise
        finally:
            record.steps["admit"] = (perf_counter() - start) * 1e3
        self._note(request, allowance)
        body = await self._body(request)
        answer = self._answer(request, principal, body, work, model=model, secret=secret)
        return Response(answer.body, answer.status, headers=dict(answer.headers))

    def _note(self, request: Request, allowance: Allowance) -> None:
        record = record_of(request.scope)
        record.headers.update(rate_limit_headers(allowance))
        if allowance.degraded:
            record.log["limiter"] = "open"

    async def _body(self, request: Request) -> bytes:
        body = b"" if request.method in {"GET", "HEAD"} else await request.body()
        record_of(request.scope).log["bytes_in"] = len(body)
        if len(body) > self.max_body_bytes:
            raise PayloadTooLarge(f"The body has {len(body)} bytes; the limit is {self.max_body_bytes}.")
        return body

    def _answer(
        self, request: Request, principal: Principal, body: bytes, work: Work, *, model: str, secret: bool
    ) -> StoredAnswer:
        text = header(request.scope, b"idempotency-key") if request.method == "POST" else None
        if text is None or self.idempotency is None:
            return work(principal, body)
        key = check_key(text)
        record = record_of(request.scope)
        start = perf_counter()
        ran_ms = 0.0

        def produce() -> StoredAnswer:
            nonlocal ran_ms
            began = perf_counter()
            try:
                return work(principal, body)
            finally:
                ran_ms = (perf_counter() - began) * 1e3

        try:
            answer, replayed = self.idempotency.run(
                IdempotencyScope(principal.tenant, f"{request.method} {request.scope['route'].path}", model),
                key,
                _digest(request, body),
                _remaining_ms(request),
                produce,
                seal_with=self.pepper() if secret and self.pepper is not None else None,
            )
        finally:
            record.steps["idempotency"] = (perf_counter() - start) * 1e3 - ran_ms
        record.log["idempotency"] = "replayed" if replayed else "stored"
        if replayed:
            record.headers["Idempotency-Replayed"] = "true"
            if model:  # the work, which notes it, was not done again
                record.log["model"] = model
        return answer


def _digest(request: Request, body: bytes) -> bytes:
    """SHA-256 over what was asked: path, query, the headers that give the body its meaning, and the body."""
    digest = sha256()
    parts = [request.scope["path"].encode(), request.scope.get("query_string", b"")]
    parts += [(header(request.scope, name) or "").encode() for name in _MEANING]
    for part in (*parts, body):
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()


def _remaining_ms(request: Request) -> int:
    context = request.scope.get("aws.context")
    return _DEFAULT_REMAINING_MS if context is None else int(context.get_remaining_time_in_millis())
