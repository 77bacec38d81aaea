"""What the routes of webhooks have in common."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import Path
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from functions.api.services import answer, serve, services_of
from shared.domain import errors
from shared.domain.idempotency import StoredAnswer
from shared.domain.principal import Principal
from shared.domain.webhooks import WEBHOOK_ID
from shared.usecases.manage_webhooks import ManageWebhooks
from shared.web.contract import ADMISSION, IDEMPOTENCY_KEY, ONCE, SECURED, answers, reference
from shared.web.documents import query_parameters
from shared.web.requests import record_of

SCOPE: Final = "webhooks"
PATH: Final = "/v1/webhooks"
ONE: Final = f"{PATH}/{{webhook_id}}"
_QUERY: Final = (errors.UnknownField, errors.WrongDtype, errors.OutOfRange)
_BODY: Final = (errors.NotJson, errors.UnsupportedMediaType, errors.MissingField, errors.TextTooLong, *_QUERY)

WebhookPath = Annotated[str, Path(description="Id of a webhook")]
Work = Callable[[ManageWebhooks, Principal, bytes], StoredAnswer]


async def serve_webhooks(request: Request, work: Work, webhook_id: str = "", *, secret: bool = False) -> Response:
    """The answer of a route to a caller with the scope."""
    webhooks = services_of(request).webhooks

    def admitted(principal: Principal, body: bytes) -> StoredAnswer:
        if webhook_id:
            note(request, webhook_id)
        return work(webhooks, principal, body)

    return await serve(request, admitted, scopes=(SCOPE,), secret=secret)


def note(request: Request, webhook_id: str) -> None:
    """Say in the request's log line which webhook it is about."""
    # Where an id belongs, somebody may have put a secret: that must not reach the log.
    known = webhook_id if re.fullmatch(WEBHOOK_ID, webhook_id) else "malformed"
    record_of(request.scope).log["target"] = f"webhook:{known}"


def document(content: BaseModel, *headers: tuple[str, str], status: int = 200) -> StoredAnswer:
    """An answer with a document."""
    return answer(content.model_dump_json().encode(), *headers, status=status)


def described(
    operation_id: str,
    summary: str,
    schema: str,
    *possible: type[errors.SluiceError],
    query: type[BaseModel] | None = None,
    body: str | None = None,
    body_required: bool = True,
    post: bool = False,
    status: int = 200,
) -> dict[str, Any]:
    """Arguments of `add_api_route`; `post`: the route takes an `Idempotency-Key`."""
    told = (*(_BODY if body else ()), *(_QUERY if query else ()), *(ONCE if post else ()))
    responses = answers(f"{summary}.", reference(schema), *ADMISSION, *told, *possible)
    parameters = (query_parameters(query) if query else []) + ([IDEMPOTENCY_KEY] if post else [])
    extra: dict[str, Any] = {**SECURED, **({"parameters": parameters} if parameters else {})}
    if body:
        content = {"application/json": {"schema": reference(body)}}
        extra["requestBody"] = {"required": body_required, "content": content}
    done = responses.pop(200)
    return {
        "operation_id": operation_id,
        "summary": summary,
        "tags": ["webhooks"],
        "status_code": status,
        "responses": {status: done, **responses},
        "openapi_extra": extra,
    }
